"""Training of the velocity or noise network on encoded cases; by default as released."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from text2ct.compute import check_compiler, free_memory
from text2ct.diffusion.components import Scheduler, type_of
from text2ct.diffusion.gaussian import GaussianUnet
from text2ct.diffusion.training.config import DiffusionTraining
from text2ct.diffusion.training.draws import epoch_indices, step_generator, torch_generator
from text2ct.diffusion.training.encode import Encoded
from text2ct.diffusion.training.loop import MakeBatch, fit, load_result
from text2ct.diffusion.training.processes import Share, Strategy
from text2ct.diffusion.training.step import Batch, StepModule
from text2ct.diffusion.unet import CT_CLASS, SPACING_UNITS_PER_MM, Unet

HELD_SHARE = 1 / 4  # of a GPU's free memory, for cases
NOISE = -1  # the stream of a step's draws that is no process's own


class DiffusionModule(StepModule):
    """The velocity or noise network in training.

    Args:
        network: The network.
        config: Settings of the run.
        scheduler: Path, times and target.
        scale_factor: Latents are multiplied by it.
    """

    def __init__(
        self, network: Unet | GaussianUnet, config: DiffusionTraining, scheduler: Scheduler, scale_factor: float
    ) -> None:
        super().__init__(network, config)
        self.settings = config
        self.scheduler = scheduler
        self.scale_factor = scale_factor
        if config.gradient_checkpointing:
            checkpoint_blocks(network.unet if isinstance(network, GaussianUnet) else network)
        if config.compile:
            check_compiler()
            network.compile()  # in place, at its first call; names of parameters stay

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Distance between prediction and target: the velocity or the noise.

        The batch holds ``latent`` (B, C, x, y, z) float16 unscaled, ``context`` (B, tokens, width), ``spacing`` (B, 3)
        in mm·100, and the draws ``noise``, ``time_draw`` (B,) and ``drop_draw`` (B,).
        """
        x_0 = batch["latent"].float() * self.scale_factor
        timesteps = self.scheduler.training_timesteps(batch["time_draw"], tuple(x_0.shape[2:]))
        sample = self.scheduler.path(x_0, batch["noise"], timesteps)
        kept = (batch["drop_draw"] >= self.settings.drop_condition).to(x_0.dtype)
        predicted = self.network(
            x=sample.x_t.contiguous(memory_format=torch.channels_last_3d),
            timesteps=timesteps,
            context=batch["context"].float() * kept[:, None, None],
            class_labels=torch.full((len(x_0),), CT_CLASS, device=x_0.device),
            spacing_tensor=batch["spacing"],
        )
        error = predicted - sample.target
        return {"loss": error.abs().mean() if self.settings.loss == "l1" else error.square().mean()}


def checkpoint_blocks(unet: Unet) -> None:
    """Keep only the inputs of the UNet's blocks for the backward pass, which computes them again.

    Chen et al. 2016 (arXiv 1604.06174). The gradients are the same, in a third more time.
    """
    for block in (*unet.down_blocks, unet.middle_block, *unet.up_blocks):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def diffusion_batches(encoded: Encoded, module: DiffusionModule) -> MakeBatch:
    """Latents, contexts and draws by step.

    On a GPU the noise is drawn there, and the cases are held there where they fill no more than a quarter of what
    is free: otherwise a small network waits for its batches.
    """
    scheduler, config = module.scheduler, module.settings
    latents, contexts = _Rows(encoded.latents), _Rows(encoded.contexts)
    spacing = torch.tensor(encoded.info["spacing_mm"], dtype=torch.float32) * SPACING_UNITS_PER_MM
    variants = encoded.contexts.shape[1]
    # The whole report is what most prompts are.
    weights = np.array([0.6] + [0.4 / (variants - 1)] * (variants - 1)) if variants > 1 else np.ones(1)

    def make(step: int, share: Share) -> Batch:
        indices = epoch_indices(len(encoded.latents), config.batch_size, config.seed, step)
        chosen = step_generator(config.seed, step).choice(variants, size=len(indices), p=weights)
        generator = torch_generator(config.seed, step)
        time_draw = scheduler.draw(len(indices), generator)
        drop_draw = torch.rand(len(indices), generator=generator)
        # Not on MPS, where one thread must not compute beside another.
        where = module.device if module.device.type == "cuda" else torch.device("cpu")
        noise = torch.randn(
            (len(indices), *encoded.latents.shape[1:]),
            generator=torch_generator(config.seed, step, stream=NOISE, device=where),
            device=where,
        )
        mine = share.of(len(indices))
        latent = latents.take(where, indices[mine])
        return {
            "latent": latent,
            "context": contexts.take(where, indices[mine], chosen[mine]),
            "spacing": spacing.expand(len(latent), 3),
            "noise": noise[mine],
            "time_draw": time_draw[mine],
            "drop_draw": drop_draw[mine],
        }

    return make


class _Rows:
    """An array of cases, read from its file, or from a GPU that has room for all of it.

    Args:
        array: (n, ...).
    """

    def __init__(self, array: NDArray[np.float16]) -> None:
        self._array = array
        self._held: Tensor | None = None

    def take(self, device: torch.device, *indices: NDArray[np.int64]) -> Tensor:
        """``array[indices]`` as a tensor, on ``device`` if the array is held there, else in the host's memory."""
        if self._held is None and device.type == "cuda":
            free = free_memory(device)
            if free is not None and self._array.nbytes <= HELD_SHARE * free:
                self._held = torch.from_numpy(np.array(self._array)).to(device)
        if self._held is None:
            return torch.from_numpy(self._array[indices])
        return self._held[tuple(torch.from_numpy(index).to(device) for index in indices)]


def first_batch_scale(encoded: Encoded, config: DiffusionTraining) -> float:
    """1 / standard deviation of the first batch's latents, as released."""
    indices = epoch_indices(len(encoded.latents), config.batch_size, config.seed, 0)
    return 1 / float(torch.from_numpy(encoded.latents[indices].astype(np.float32)).std())


def train_diffusion(
    encoded: Encoded,
    unet: Unet | GaussianUnet,
    scheduler: Scheduler,
    config: DiffusionTraining,
    out: Path,
    *,
    scale_factor: float,
    device: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    strategy: Strategy = "ddp",
    stop_at: int | None = None,
    start: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Train ``unet`` on ``encoded``; the same call resumes, and one with another ``start`` is refused.

    Raises:
        UserError: As :func:`text2ct.diffusion.training.loop.fit`.
    """
    module = DiffusionModule(unet, config, scheduler, scale_factor)
    batches = diffusion_batches(encoded, module)
    identity = {
        "encoded": dict(encoded.info) | {"context": list(encoded.contexts.shape[1:])},
        # To the digits that do not depend on the machine that computed it.
        "scale_factor": f"{scale_factor:.6g}",
        "scheduler": {"type": type_of(scheduler.config), **scheduler.config.model_dump(mode="json")},
        **(start or {}),
    }
    place: dict[str, Any] = {"device": device, "devices": devices, "nodes": nodes, "strategy": strategy}
    fit(module, batches, out, **place, stop_at=stop_at, identity=identity)
    return load_result(module, out)
