"""Training of the autoencoder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from text2ct.diffusion.training.cases import Cases
from text2ct.diffusion.training.config import VaeTraining
from text2ct.diffusion.training.loop import Batch, StepModule, epoch_indices, fit, load_result, step_generator
from text2ct.diffusion.vae import MaisiVae, SpaceToDepthVae, TrainedVae
from text2ct.errors import UserError

HU_MIN, HU_MAX = -1000.0, 1000.0


def hu_to_unit(volume_hu: np.ndarray) -> Tensor:
    """HU to float32 in [0, 1]."""
    return (torch.from_numpy(volume_hu.astype(np.float32)) - HU_MIN) / (HU_MAX - HU_MIN)


class VaeModule(StepModule):
    """Reconstruction of patches: weighted L1, L1 of the gradient, and a small KL.

    Dense voxels are few and small, so a plain L1 blurs them away: they weigh more. The L1 of first
    differences keeps edges (Mathieu et al. 2016, arXiv 1511.05440, with exponent 1).
    """

    def __init__(self, network: TrainedVae, config: VaeTraining) -> None:
        super().__init__(network, config)
        self.settings = config

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Losses of ``unit``, (B, 1, X, Y, Z) in [0, 1], with ``noise`` drawn for its latent."""
        settings, target = self.settings, batch["unit"]
        network: TrainedVae = self.network  # type: ignore[assignment]
        mean, deviation = network.encode(target)
        decoded = network.decode(mean + batch["noise"] * deviation)
        threshold = (settings.dense_hu - HU_MIN) / (HU_MAX - HU_MIN)
        weight = 1 + settings.dense_weight * (target > threshold)
        error = (weight * (decoded - target).abs()).mean()
        edges = torch.stack(
            [(decoded.diff(dim=axis) - target.diff(dim=axis)).abs().mean() for axis in (2, 3, 4)]
        ).mean()
        # Kingma & Welling 2014, appendix B, averaged over latent elements.
        divergence = 0.5 * (mean**2 + deviation**2 - 2 * torch.log(deviation) - 1).mean()
        loss = error + settings.gradient_weight * edges + settings.kl_weight * divergence
        return {"loss": loss, "l1": error, "gradient": edges, "kl": divergence}


def vae_batches(cases: Cases, vae: TrainedVae, config: VaeTraining) -> Callable[[int], Batch]:
    """Random patches by step; every ``whole_every``-th step takes whole volumes.

    Group-norm statistics of a patch are not those of a volume, so both are shown.
    """
    factor = vae.downsampling
    channels = vae.config.latent_channels
    size = cases.size
    if config.patch % factor or any(n % factor for n in size) or config.patch > min(size):
        raise UserError(
            f"patch {config.patch} and grid {size} must be multiples of {factor}, and the patch within the grid"
        )
    # As many volumes as have the voxels of a batch of patches.
    whole = max(1, config.batch_size * config.patch**3 // int(np.prod(size)))

    def make(step: int) -> Batch:
        draw = step_generator(config.seed, step)
        is_whole = config.whole_every > 0 and step % config.whole_every == config.whole_every - 1
        shape = size if is_whole else (config.patch,) * 3
        indices = epoch_indices(len(cases), config.batch_size, config.seed, step)[: whole if is_whole else None]
        patches = []
        for index in indices:
            x, y, z = (int(draw.integers(0, n - part + 1)) for n, part in zip(size, shape, strict=True))
            volume = cases.volume_hu(int(index))
            patches.append(volume[x : x + shape[0], y : y + shape[1], z : z + shape[2]])
        latent = (len(patches), channels, *(n // factor for n in shape))
        noise = torch.from_numpy(draw.standard_normal(latent, dtype=np.float32))
        return {"unit": hu_to_unit(np.stack(patches))[:, None], "noise": noise}

    return make


def train_vae(
    cases: Cases,
    vae: TrainedVae,
    config: VaeTraining,
    out: Path,
    *,
    device: str = "auto",
    stop_at: int | None = None,
) -> nn.Module:
    """Train ``vae`` on ``cases``; the same call resumes.

    Returns:
        The trained autoencoder (averaged weights if the configuration asks), in evaluation mode.

    Raises:
        UserError: The autoencoder is one that is fitted, not trained, or a patch does not fit it.
    """
    if not isinstance(vae, MaisiVae | SpaceToDepthVae):
        raise UserError(
            f"a {type(vae).__name__} is fitted in closed form, not trained; start from a pack whose VAE is a network"
        )
    module = VaeModule(vae, config)
    fit(module, vae_batches(cases, vae, config), out, device=device, stop_at=stop_at)
    return load_result(module, out)
