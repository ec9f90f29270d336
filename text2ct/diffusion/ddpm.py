"""Denoising diffusion with a noise-predicting network, as the paper's text has it: MONAI's DDPM and DDIM schedulers.

Ho et al. 2020 (arXiv 2006.11239, eq. 4): at the integer time t, ``x_t = sqrt(a_t)·x_0 + sqrt(1 - a_t)·noise``
with ``a_t`` the product of all ``1 - beta`` up to t; the network says the noise. Sampling is DDIM's deterministic
chain (Song et al. 2021, arXiv 2010.02502, eq. 12 with sigma 0).
"""

from __future__ import annotations

from typing import Literal

import torch
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from text2ct.diffusion.flow import PathSample, Velocity
from text2ct.errors import UserError


class DdpmConfig(BaseModel):
    """Configuration of the scheduler ``ddpm``; the defaults are MAISI's for noise prediction."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_train_timesteps: int = Field(default=1000, ge=2, le=1_000_000)
    schedule: Literal["linear_beta", "scaled_linear_beta"] = "scaled_linear_beta"
    beta_start: float = Field(default=0.0015, gt=0, lt=1)
    beta_end: float = Field(default=0.0195, gt=0, lt=1)


class Ddpm:
    """Path, times and sampler of one noise schedule; used as :class:`text2ct.diffusion.flow.RectifiedFlow` is.

    Args:
        config: :class:`DdpmConfig`.
    """

    def __init__(self, config: DdpmConfig) -> None:
        self.config = config
        self._noising = DDPMScheduler(clip_sample=False, **config.model_dump())

    @property
    def horizon(self) -> int:
        """The number of times; the last is nearly pure noise."""
        return self.config.num_train_timesteps

    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        """Random draws for :meth:`training_timesteps`, on the CPU."""
        return torch.rand(batch, generator=generator)

    def training_timesteps(self, draws: Tensor, latent_size: tuple[int, ...]) -> Tensor:
        """Whole times for training.

        Args:
            draws: (B,) float32 in [0, 1).
            latent_size: (x, y, z) of the latent; not used.

        Returns:
            (B,) float32, integers in [0, num_train_timesteps - 1].
        """
        del latent_size
        return (draws * self.config.num_train_timesteps).floor()

    def path(self, x_0: Tensor, noise: Tensor, timesteps: Tensor) -> PathSample:
        """The noised latents at ``timesteps``, and the noise as the target; all latents (B, C, x, y, z)."""
        x_t = self._noising.add_noise(x_0, noise, timesteps.long())
        return PathSample(x_t=x_t, target=noise, timesteps=timesteps)

    def sample(
        self,
        network: Velocity,
        noise: Tensor,
        steps: int,
        solver: str = "euler",
        location: float = 0.0,
        scale: float = 1.0,
    ) -> Tensor:
        """Denoise with DDIM, which is this path's Euler solver.

        Args:
            network: Maps (x_t, timestep) to the noise in x_t, same shape.
            noise: (B, C, x, y, z) standard normal latents.
            steps: Number of evaluations.
            solver: Only ``euler``: the others are the flow's.
            location: Only 0: the schedule's times are even.
            scale: Only 1.

        Raises:
            UserError: More steps than the schedule has times, another solver, or uneven times.
        """
        if solver != "euler":
            raise UserError(f"solver '{solver}' integrates a velocity; this pack predicts noise: leave --solver out")
        if (location, scale) != (0.0, 1.0):
            raise UserError(
                "times are uneven on the flow's path only; this pack predicts noise: leave them as they are"
            )
        if steps > self.config.num_train_timesteps:
            raise UserError(f"steps is {steps}; this pack's schedule has {self.config.num_train_timesteps} times")
        chain = DDIMScheduler(clip_sample=False, **self.config.model_dump())
        chain.set_timesteps(steps)
        x = noise
        for timestep in chain.timesteps.tolist():
            x, _ = chain.step(network(x, float(timestep)), timestep, x)
        return x
