"""From prompts and seeds to CT volumes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from text2ct import console
from text2ct.compute import autocast, keep_freed_memory, pick_device, return_freed_memory
from text2ct.diffusion.decode import decode_windowed
from text2ct.diffusion.flow import TIMESTEPS, guided
from text2ct.diffusion.gaussian import GaussianUnet
from text2ct.diffusion.info import Sampling
from text2ct.diffusion.memory import check_memory, is_large
from text2ct.diffusion.pack import Pack
from text2ct.diffusion.solvers import Velocity
from text2ct.diffusion.unet import CT_CLASS, SPACING_UNITS_PER_MM, Unet
from text2ct.errors import UserError


def generate(
    pack: Pack,
    prompts: list[str],
    seeds: list[int],
    *,
    sampling: Sampling | None = None,
    device: str | torch.device = "auto",
    batch_size: int | None = None,
) -> np.ndarray:
    """Generate one volume per prompt.

    Every batch is padded to ``batch_size``, so a volume depends only on its prompt, its seed, the settings
    and the batch size: not on its neighbours, nor on how many are asked for.

    Args:
        pack: A pack with clip, vae, unet and scheduler.
        prompts: Radiology reports or parts of them; one that is too long is cut, with a warning.
        seeds: One per prompt, in [0, 2**63).
        sampling: Steps, solver, guidance and decoding; the pack's own if None.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        batch_size: Volumes computed together; the pack's usual number if None.

    Returns:
        (n, X, Y, Z) float32 HU within the pack's range; ``pack.affine`` is their affine.

    Raises:
        UserError: Counts differ, a setting is out of range, the pack lacks a component, or there is too little
            memory.
    """
    sampling = sampling or pack.info.defaults
    batch_size = pack.usual_batch if batch_size is None else batch_size
    _check(prompts, seeds, batch_size)
    keep_freed_memory()
    where = device if isinstance(device, torch.device) else pick_device(device)
    large = is_large(pack)
    if large:
        return_freed_memory()
    check_memory(pack, where, batch_size, sampling)
    _warn_of_long(pack, prompts)
    out = np.empty((len(prompts), *pack.info.grid), dtype=np.float32)
    for start in range(0, len(prompts), batch_size):
        texts, numbers = prompts[start : start + batch_size], seeds[start : start + batch_size]
        missing = batch_size - len(texts)
        texts, numbers = texts + [""] * missing, numbers + [0] * missing
        latents = sample_latents(pack, texts, numbers, sampling=sampling, device=where)
        if large and where.type == "cpu":
            # Read again for the next volume: seconds of minutes, for gigabytes that the decoder needs now.
            pack.release("text_tower", "unet")
            return_freed_memory()
        out[start : start + batch_size] = decode_latents(pack, latents, sampling.decode)[: len(prompts) - start]
    return out


@torch.inference_mode()
def text_context(pack: Pack, prompts: list[str], device: torch.device) -> Tensor:
    """The UNet's context for ``prompts``, (n, tokens, width) float32."""
    ids = torch.from_numpy(pack.tokenizer.encode(prompts, pack.info.text_length)).to(device)
    with autocast(device):
        features = pack.text_tower.to(device).encode_text(ids)
        return features.context(pack.info.conditioning).float()


def velocity_field(
    unet: Unet | GaussianUnet,
    context: Tensor,
    spacing_mm: Sequence[float],
    sampling: Sampling,
    *,
    horizon: int = TIMESTEPS,
    class_label: int = CT_CLASS,
    precision: Callable[[torch.device], AbstractContextManager[object]] = autocast,
) -> Velocity:
    """What the sampler follows: the network's velocity for a context, guided or not.

    The unconditional context is zeros, as in training, and runs in one batch with the conditional one.

    Args:
        unet: The network.
        context: (n, tokens, width) float32, one per latent.
        spacing_mm: Of the volumes, (x, y, z).
        sampling: Strength of guidance, and when it acts.
        horizon: The scheduler's time of pure noise.
        class_label: The modality.
        precision: What the network is computed in, by device.
    """
    device = context.device
    both = torch.cat([context, torch.zeros_like(context)])
    spacing = (torch.tensor(spacing_mm, device=device) * SPACING_UNITS_PER_MM).expand(len(context), 3)
    classes = torch.full((len(context),), class_label, device=device)

    def velocity(x_t: Tensor, timestep: float) -> Tensor:
        # Guidance too early narrows, too late changes nothing (Kynkaanniemi et al. 2024, arXiv 2404.07724).
        guide = sampling.guides_at(timestep / horizon)
        with precision(device):
            v = unet(
                x=x_t.contiguous(memory_format=torch.channels_last_3d),
                timesteps=torch.full((len(x_t),), timestep, device=device),
                context=both if guide else context,
                class_labels=classes,
                spacing_tensor=spacing,
            ).float()
        if not guide:
            return v
        conditional, unconditional = v.chunk(2)
        return guided(conditional, unconditional, sampling.guidance_scale)

    return velocity


@torch.inference_mode()
def sample_latents(
    pack: Pack, prompts: list[str], seeds: list[int], *, sampling: Sampling, device: torch.device
) -> Tensor:
    """Sample unscaled latents, (n, C, x, y, z) float32, of one batch.

    Noise comes from the CPU's generator of each seed, so it is the same on every device.
    """
    noise = torch.stack(
        [torch.randn(pack.latent_shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    ).to(device)
    context = text_context(pack, prompts, device)
    scheduler = pack.scheduler
    velocity = velocity_field(pack.unet.to(device), context, pack.info.spacing_mm, sampling, horizon=scheduler.horizon)
    latents = scheduler.sample(velocity, noise, *sampling.path)
    return latents / pack.info.latent_scale_factor


@torch.inference_mode()
def decode_latents(pack: Pack, latents: Tensor, how: Literal["exact", "window"] = "exact") -> np.ndarray:
    """(n, C, x, y, z) unscaled latents to (n, X, Y, Z) float32 HU, clipped to the pack's range."""
    low, high = pack.info.hu_range
    vae = pack.vae.to(latents.device)
    decode = vae.decode if how == "exact" else partial(decode_windowed, vae)
    with autocast(latents.device):
        unit = decode(latents.contiguous(memory_format=torch.channels_last_3d)).float()
    volumes_hu = unit[:, 0].mul_(high - low).add_(low)
    if not bool(volumes_hu.isfinite().all()):
        raise UserError(f"the pack '{pack.info.name}' generated values that are not finite; verify the pack")
    return volumes_hu.clamp_(low, high).cpu().numpy()


def _check(prompts: list[str], seeds: list[int], batch_size: int) -> None:
    if len(prompts) != len(seeds):
        raise UserError(f"{len(prompts)} prompts but {len(seeds)} seeds; give one seed per prompt")
    problems = [f"seed {seed} is outside [0, 2**63)" for seed in seeds if not 0 <= seed < 2**63]
    problems += [f"prompt {i} is empty" for i, prompt in enumerate(prompts) if not prompt.strip()]
    if batch_size < 1:
        problems.append(f"batch_size is {batch_size}; expected 1 or more")
    if problems:
        raise UserError("these volumes cannot be generated", problems)


def _warn_of_long(pack: Pack, prompts: list[str]) -> None:
    limit = pack.info.text_length
    for prompt, length in zip(prompts, pack.tokenizer.lengths(prompts), strict=True):
        if length > limit:
            console.warn(
                f"the prompt '{' '.join(prompt.split())[:40]}...' has {length} tokens, {length - limit} more than the "
                "pack reads; its end is left out"
            )
