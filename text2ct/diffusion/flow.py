"""Rectified flow: a straight path from noise to data, its times, and its sampling.

Symbols follow Liu et al. 2023 (arXiv 2209.03003) with MONAI's sign: at time t in [0, 1], 1 being pure noise,
``x_t = (1 - t)·x_0 + t·noise`` and the velocity ``v = x_0 - noise`` points to the data. Networks see t·1000.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from monai.networks.schedulers.rectified_flow import timestep_transform
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from text2ct.diffusion.solvers import SOLVERS, Velocity

TIMESTEPS = 1000
# Latents of this many voxels need no shift of their times (RFlowScheduler's default).
BASE_NUMEL = 32**3


class FlowConfig(BaseModel):
    """Configuration of the scheduler ``rectified_flow``.

    The defaults are the released model's, but for the step sizes: its sampler truncates the next time to an
    integer, so its steps do not sum to one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    training_times: Literal["uniform", "logit-normal"] = "uniform"
    time_location: float = Field(default=0.0, description="mean of the logit of logit-normal times")
    time_scale: float = Field(default=1.0, gt=0, description="standard deviation of the logit of logit-normal times")
    timestep_transform: bool = Field(default=True, description="shift times by the latent's size")
    step_sizes: Literal["exact", "released"] = "exact"


@dataclass(frozen=True)
class PathSample:
    """A point of the path and what the network should say there.

    Attributes:
        x_t: (B, C, x, y, z) noised latents.
        target: (B, C, x, y, z) velocity, ``x_0 - noise``; where noise is predicted, the noise.
        timesteps: (B,) float32 in [0, 1000].
    """

    x_t: Tensor
    target: Tensor
    timesteps: Tensor


class RectifiedFlow:
    """Path, times and sampler of one scheduler configuration.

    Args:
        config: :class:`FlowConfig`.
    """

    horizon = TIMESTEPS  # the time of pure noise

    def __init__(self, config: FlowConfig) -> None:
        self.config = config

    def _shift(self, timesteps: Tensor, latent_size: tuple[int, ...]) -> Tensor:
        if not self.config.timestep_transform:
            return timesteps
        # MONAI computes the ratio in the precision of this tensor; float32 as in its own sampling.
        numel = torch.prod(torch.tensor(latent_size))
        return timestep_transform(timesteps, numel, BASE_NUMEL, 1.0, TIMESTEPS, 3)

    def training_timesteps(self, draws: Tensor, latent_size: tuple[int, ...]) -> Tensor:
        """Times for training from random draws.

        Args:
            draws: (B,) float32; uniform in [0, 1) for ``uniform``, standard normal for ``logit-normal``
                (Esser et al. 2024, arXiv 2403.03206, eq. 19).
            latent_size: (x, y, z) of the latent.

        Returns:
            (B,) float32 in [0, 1000].
        """
        base = draws
        if self.config.training_times == "logit-normal":
            base = torch.sigmoid(self.config.time_location + self.config.time_scale * draws)
        return self._shift(base * TIMESTEPS, latent_size)

    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        """Random draws for :meth:`training_timesteps`, on the CPU."""
        if self.config.training_times == "logit-normal":
            return torch.randn(batch, generator=generator)
        return torch.rand(batch, generator=generator)

    @staticmethod
    def path(x_0: Tensor, noise: Tensor, timesteps: Tensor) -> PathSample:
        """The point of the straight path at ``timesteps``; all latents (B, C, x, y, z)."""
        data_share = (1 - timesteps.float() / TIMESTEPS).reshape(-1, 1, 1, 1, 1)
        x_t = data_share * x_0 + (1 - data_share) * noise
        return PathSample(x_t=x_t, target=x_0 - noise, timesteps=timesteps)

    def sampling_timesteps(
        self, steps: int, latent_size: tuple[int, ...], location: float = 0.0, scale: float = 1.0
    ) -> list[float]:
        """``steps`` times from 1000 downwards, as Euler's steps take them; the last step ends at 0."""
        times = self._times(steps, latent_size, location, scale)
        if self.config.step_sizes == "released":
            times = times.to(torch.float16)
        return [float(t) for t in times]

    def _times(self, steps: int, latent_size: tuple[int, ...], location: float, scale: float) -> Tensor:
        times = torch.tensor([(1 - i / steps) * TIMESTEPS for i in range(steps)], dtype=torch.float64)
        if (location, scale) != (0.0, 1.0):
            times = torch.sigmoid(location + scale * torch.logit(times / TIMESTEPS)) * TIMESTEPS
        if not self.config.timestep_transform:
            return times
        numel = 1
        for size in latent_size:
            numel *= size
        return timestep_transform(times, numel, BASE_NUMEL, 1.0, TIMESTEPS, 3)

    def sample(
        self,
        velocity: Velocity,
        noise: Tensor,
        steps: int,
        solver: str = "euler",
        location: float = 0.0,
        scale: float = 1.0,
    ) -> Tensor:
        """Integrate ``dx/dt = -v`` from noise to data.

        Args:
            velocity: Maps (x_t, timestep) to the velocity, same shape as x_t.
            noise: (B, C, x, y, z) standard normal latents.
            steps: Times, and the most evaluations that any solver takes.
            solver: A key of :data:`text2ct.diffusion.solvers.SOLVERS`.
            location: Even times t become ``sigmoid(location + scale·logit(t))``. The location is the logarithm of
                the shift of Esser et al. 2024 (arXiv 2403.03206, eq. 23). What large structures look like is
                decided at times close to 1, which even steps jump over.
            scale: Above 1, times are denser near both ends.
        """
        size = tuple(noise.shape[2:])
        if solver == "euler" and self.config.step_sizes == "released":
            return self._sample_as_released(velocity, noise, self.sampling_timesteps(steps, size, location, scale))
        times = (self._times(steps, size, location, scale) / TIMESTEPS).tolist()
        return SOLVERS[solver](lambda x, t: velocity(x, t * TIMESTEPS), noise, times)

    @staticmethod
    def _sample_as_released(velocity: Velocity, x: Tensor, timesteps: list[float]) -> Tensor:
        """Euler steps to the next time's whole part: they overlap, and sum to a little more than one."""
        for now, after in zip(timesteps, [*timesteps[1:], 0.0], strict=True):
            x = x + velocity(x, now) * ((now - int(after)) / TIMESTEPS)
        return x


def guided(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598): ``v_u + scale·(v_c - v_u)``."""
    return unconditional + scale * (conditional - unconditional)
