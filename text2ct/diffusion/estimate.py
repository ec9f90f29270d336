"""How long a volume takes on this device, from a few calls of the networks."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from text2ct.compute import keep_freed_memory, pick_device
from text2ct.diffusion.generate import decode_latents, text_context, velocity_field
from text2ct.diffusion.info import Sampling
from text2ct.diffusion.memory import check_memory, is_large
from text2ct.diffusion.pack import Pack

# A large latent is decoded in part, and its time goes with its size.
SHARE = 8


@torch.inference_mode()
def estimate_seconds(pack: Pack, *, sampling: Sampling | None = None, device: str = "auto", batch_size: int) -> float:
    """Seconds per volume of :func:`text2ct.diffusion.generate`, to about a fifth.

    Args:
        pack: A pack with clip, vae, unet and scheduler.
        sampling: Steps, solver, guidance and decoding; the pack's own if None.
        device: As for :func:`text2ct.compute.pick_device`.
        batch_size: Volumes computed together.

    Raises:
        UserError: The pack lacks a component, or there is too little memory.
    """
    keep_freed_memory()
    sampling = sampling or pack.info.defaults
    where = pick_device(device)
    check_memory(pack, where, batch_size, sampling)
    context = text_context(pack, ["Normal chest."] * batch_size, where)
    noise = torch.randn((batch_size, *pack.latent_shape), device=where)
    horizon = pack.scheduler.horizon
    velocity = velocity_field(pack.unet.to(where), context, pack.info.spacing_mm, sampling, horizon=horizon)
    asked: list[float] = []

    def count(x: torch.Tensor, timestep: float) -> torch.Tensor:
        asked.append(timestep)
        return x

    pack.scheduler.sample(count, torch.zeros(1, *pack.latent_shape), *sampling.path)
    guided = [t for t in asked if sampling.guides_at(t / horizon)]
    alone = [t for t in asked if not sampling.guides_at(t / horizon)]
    large = is_large(pack)
    seconds = 0.0
    for times in (guided, alone):
        if times:
            seconds += len(times) * _seconds(partial(velocity, noise, times[0]), warm=not large)
    whole = noise.shape[2]
    part = max(1, whole // SHARE) if large else whole
    decoding = _seconds(partial(decode_latents, pack, noise[:, :, :part], sampling.decode), warm=not large)
    return (seconds + decoding * whole / part) / batch_size


def _seconds(action: Callable[[], Any], *, warm: bool) -> float:
    if warm:
        action()
    started = time.perf_counter()
    action()
    return time.perf_counter() - started
