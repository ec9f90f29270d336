"""Training of the autoencoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from text2ct.diffusion.training.adversarial import adversarial_loss, make_discriminator, perceptual_network
from text2ct.diffusion.training.cases import Cases
from text2ct.diffusion.training.config import VaeTraining
from text2ct.diffusion.training.draws import epoch_indices, step_generator
from text2ct.diffusion.training.loop import MakeBatch, fit, load_result
from text2ct.diffusion.training.processes import Share, Strategy
from text2ct.diffusion.training.step import Batch, StepModule
from text2ct.diffusion.vae import MaisiVae, SpaceToDepthVae, TrainedVae
from text2ct.errors import UserError
from text2ct.volumes import HU_MAX, HU_MIN, hu_to_unit


def unit_tensor(volume_hu: np.ndarray) -> Tensor:
    """HU of any shape to a float32 tensor in [0, 1], as :func:`text2ct.volumes.hu_to_unit`."""
    return torch.from_numpy(hu_to_unit(volume_hu))


class VaeModule(StepModule):
    """Reconstruction of patches: weighted L1, L1 of the gradient, a small KL, and what looks at the whole patch.

    That is a discriminator and a perceptual network, both optional. Dense voxels are few and small, so a plain L1 blurs
    them away: they weigh more. The L1 of first differences keeps edges (Mathieu et al. 2016, arXiv 1511.05440, with
    exponent 1).

    Args:
        network: The autoencoder.
        config: Settings of the run.
        perceptual: A loss of (reconstruction, target), as of :func:`perceptual_network`; None for none.
    """

    def __init__(self, network: TrainedVae, config: VaeTraining, perceptual: nn.Module | None = None) -> None:
        super().__init__(network, config)
        self.settings = config
        self.discriminator = make_discriminator(config) if config.adversarial_weight else None
        self._perceptual = (perceptual,)  # in a tuple, since its weights belong into no checkpoint

    @property
    def is_played(self) -> bool:
        """Whether the discriminator takes part in the present step."""
        return self.discriminator is not None and self.trainer.global_step >= self.settings.adversarial_start

    def trained_parameters(self) -> list[nn.Parameter]:
        """The autoencoder's; the discriminator has its own optimiser."""
        return [p for p in self.network.parameters() if p.requires_grad]

    def configure_optimizers(self) -> Any:
        """One optimiser, or one of each player."""
        first = super().configure_optimizers()
        if self.discriminator is None:
            return first
        return [first, self.optimizer_of(list(self.discriminator.parameters()))]

    def update(self) -> None:
        """Let the players step; Lightning counts the autoencoder's steps alone."""
        if self.discriminator is None:
            super().update()
            return
        self.optimizers()[0].step()  # type: ignore[index]
        if self.is_played:
            self.trainer.optimizers[1].step()

    def backward_part(self, part: Batch, weight: float) -> dict[str, Tensor]:
        """Gradients of the autoencoder, then of the discriminator on the same reconstruction."""
        decoded, losses = self._judged(part)
        (losses["loss"] * weight).backward()
        if self.discriminator is not None:
            losses["discriminator"] = losses["loss"].new_zeros(())
            if self.is_played:
                said = self.discriminator(decoded.detach())[-1], self.discriminator(part["unit"])[-1]
                losses["discriminator"] = (adversarial_loss(said[0], False) + adversarial_loss(said[1], True)) / 2
                (losses["discriminator"] * weight).backward()
        return losses

    def _judged(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        decoded, losses = self.reconstruct(batch)
        settings, loss = self.settings, losses["loss"]
        if self._perceptual[0] is not None:
            losses["perceptual"] = self._perceptual[0].to(loss.device)(decoded, batch["unit"])
            loss = loss + settings.perceptual_weight * losses["perceptual"]
        if self.discriminator is not None:
            losses["adversarial"] = loss.new_zeros(())
            if self.is_played:
                self.discriminator.requires_grad_(False)
                losses["adversarial"] = adversarial_loss(self.discriminator(decoded)[-1], True)
                self.discriminator.requires_grad_(True)
                loss = loss + settings.adversarial_weight * losses["adversarial"]
        return decoded, losses | {"loss": loss}

    def reconstruct(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Reconstruction of ``unit``, (B, 1, X, Y, Z) in [0, 1], with ``noise`` for its latent, and its losses."""
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
        return decoded, {"loss": loss, "l1": error, "gradient": edges, "kl": divergence}


def vae_batches(cases: Cases, vae: TrainedVae, config: VaeTraining, processes: int = 1) -> MakeBatch:
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
    if config.whole_every and whole % processes:
        raise UserError(
            f"every {config.whole_every}th step takes {whole} whole volumes, which {processes} processes cannot share "
            "evenly; set whole_every to 0, or choose a larger batch_size"
        )

    def make(step: int, share: Share) -> Batch:
        draw = step_generator(config.seed, step)
        is_whole = config.whole_every > 0 and step % config.whole_every == config.whole_every - 1
        shape = size if is_whole else (config.patch,) * 3
        indices = epoch_indices(len(cases), config.batch_size, config.seed, step)[: whole if is_whole else None]
        room = [n - part + 1 for n, part in zip(size, shape, strict=True)]
        corners = draw.integers(0, room, size=(len(indices), 3))
        latent = (len(indices), channels, *(n // factor for n in shape))
        noise = torch.from_numpy(draw.standard_normal(latent, dtype=np.float32))
        mine = share.of(len(indices))
        patches = []
        for index, (x, y, z) in zip(indices[mine], corners[mine], strict=True):
            volume = cases.volume_hu(int(index))
            patches.append(volume[x : x + shape[0], y : y + shape[1], z : z + shape[2]])
        return {"unit": unit_tensor(np.stack(patches))[:, None], "noise": noise[mine]}

    return make


def train_vae(
    cases: Cases,
    vae: TrainedVae,
    config: VaeTraining,
    out: Path,
    *,
    device: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    strategy: Strategy = "ddp",
    stop_at: int | None = None,
    start: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Train ``vae`` on ``cases``; the same call resumes, and one with another ``start`` is refused.

    Returns:
        The trained autoencoder (averaged weights if the configuration asks), in evaluation mode.

    Raises:
        UserError: The autoencoder is one that is fitted, not trained, a patch does not fit it or the
            discriminator, a perceptual network cannot be had; and as
            :func:`text2ct.diffusion.training.loop.fit`.
    """
    if not isinstance(vae, MaisiVae | SpaceToDepthVae):
        raise UserError(
            f"a {type(vae).__name__} is fitted in closed form, not trained; start from a pack whose VAE is a network"
        )
    batches = vae_batches(cases, vae, config, devices * nodes)
    module = VaeModule(vae, config, perceptual_network(config.perceptual))
    identity = {"cases": cases.digest, **(start or {})}
    place: dict[str, Any] = {"device": device, "devices": devices, "nodes": nodes, "strategy": strategy}
    fit(module, batches, out, **place, stop_at=stop_at, identity=identity)
    return load_result(module, out)
