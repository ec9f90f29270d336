"""Training of the velocity network on encoded cases, as released: L1 on ``x_0 - noise``, contexts dropped at random."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from text2ct.diffusion.flow import RectifiedFlow
from text2ct.diffusion.gaussian import GaussianUnet
from text2ct.diffusion.training.config import DiffusionTraining
from text2ct.diffusion.training.encode import Encoded
from text2ct.diffusion.training.loop import (
    Batch,
    StepModule,
    epoch_indices,
    fit,
    load_result,
    step_generator,
    torch_generator,
)
from text2ct.diffusion.unet import CT_CLASS, SPACING_UNITS_PER_MM, Unet


class DiffusionModule(StepModule):
    """The velocity network in training.

    Args:
        network: The network.
        config: Settings of the run.
        flow: Path and times.
        scale_factor: Latents are multiplied by it.
    """

    def __init__(
        self, network: Unet | GaussianUnet, config: DiffusionTraining, flow: RectifiedFlow, scale_factor: float
    ) -> None:
        super().__init__(network, config)
        self.settings = config
        self.flow = flow
        self.scale_factor = scale_factor

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Distance between the predicted and the true velocity.

        The batch holds ``latent`` (B, C, x, y, z) unscaled, ``context`` (B, tokens, width), ``spacing`` (B, 3)
        in mm·100, and the draws ``noise``, ``time_draw`` (B,) and ``drop_draw`` (B,).
        """
        x_0 = batch["latent"] * self.scale_factor
        timesteps = self.flow.training_timesteps(batch["time_draw"], tuple(x_0.shape[2:]))
        sample = self.flow.path(x_0, batch["noise"], timesteps)
        kept = (batch["drop_draw"] >= self.settings.drop_condition).to(x_0.dtype)
        v = self.network(
            x=sample.x_t.contiguous(memory_format=torch.channels_last_3d),
            timesteps=timesteps,
            context=batch["context"] * kept[:, None, None],
            class_labels=torch.full((len(x_0),), CT_CLASS, device=x_0.device),
            spacing_tensor=batch["spacing"],
        )
        error = v - sample.v
        return {"loss": error.abs().mean() if self.settings.loss == "l1" else error.square().mean()}


def diffusion_batches(encoded: Encoded, flow: RectifiedFlow, config: DiffusionTraining) -> Callable[[int], Batch]:
    """Latents, contexts and draws by step."""
    spacing = torch.tensor(encoded.info["spacing_mm"], dtype=torch.float32) * SPACING_UNITS_PER_MM
    variants = encoded.contexts.shape[1]
    # The whole report is what most prompts are.
    weights = np.array([0.6] + [0.4 / (variants - 1)] * (variants - 1)) if variants > 1 else np.ones(1)

    def make(step: int) -> Batch:
        indices = epoch_indices(len(encoded.latents), config.batch_size, config.seed, step)
        chosen = step_generator(config.seed, step).choice(variants, size=len(indices), p=weights)
        latent = torch.from_numpy(encoded.latents[indices].astype(np.float32))
        context = torch.from_numpy(encoded.contexts[indices, chosen].astype(np.float32))
        generator = torch_generator(config.seed, step)
        noise = torch.randn(latent.shape, generator=generator)
        return {
            "latent": latent,
            "context": context,
            "spacing": spacing.expand(len(indices), 3),
            "noise": noise,
            "time_draw": flow.draw(len(indices), generator),
            "drop_draw": torch.rand(len(indices), generator=generator),
        }

    return make


def first_batch_scale(encoded: Encoded, config: DiffusionTraining) -> float:
    """1 / standard deviation of the first batch's latents, as released."""
    indices = epoch_indices(len(encoded.latents), config.batch_size, config.seed, 0)
    return 1 / float(torch.from_numpy(encoded.latents[indices].astype(np.float32)).std())


def train_diffusion(
    encoded: Encoded,
    unet: Unet | GaussianUnet,
    flow: RectifiedFlow,
    config: DiffusionTraining,
    out: Path,
    *,
    scale_factor: float,
    device: str = "auto",
    stop_at: int | None = None,
) -> nn.Module:
    """Train ``unet`` on ``encoded``; the same call resumes."""
    module = DiffusionModule(unet, config, flow, scale_factor)
    fit(module, diffusion_batches(encoded, flow, config), out, device=device, stop_at=stop_at)
    return load_result(module, out)
