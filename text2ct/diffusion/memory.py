"""Whether a volume can be generated in the memory that is free, and what could instead."""

from __future__ import annotations

import math
from typing import Any

import torch

from text2ct.compute import free_memory, has_fast_bf16
from text2ct.diffusion import slabs
from text2ct.diffusion.decode import WINDOW
from text2ct.diffusion.info import Sampling
from text2ct.diffusion.pack import Pack
from text2ct.diffusion.vae import MaisiVae
from text2ct.errors import UserError

# Activations that the velocity network holds at once, in multiples of its first level's; measured at full size
# by `benchmarks/core.py`, where it is 19.
LEVELS_HELD = 24
LARGE = 2**31


def check_memory(pack: Pack, device: torch.device, batch_size: int, sampling: Sampling) -> None:
    """Compare what generation needs with what is free.

    Raises:
        UserError: It would not fit; the message says what would.
    """
    free = free_memory(device)
    if free is None:
        return
    needed = estimate(pack, device, batch_size, sampling)
    if needed <= free:
        return
    options = [
        ("--batch-size 1", estimate(pack, device, 1, sampling)),
        ("--decode window", estimate(pack, device, batch_size, sampling.updated(decode="window"))),
        ("--guidance 1", estimate(pack, device, batch_size, sampling.updated(guidance_scale=1.0))),
    ]
    fitting = [f"{option} needs {size / 1e9:.1f} GB" for option, size in options if size <= free]
    size = "x".join(map(str, pack.info.grid))
    raise UserError(
        f"{batch_size} volumes of {size} need about {needed / 1e9:.1f} GB of memory at once on {device.type}, "
        f"and {free / 1e9:.1f} GB are free",
        fitting or ["nothing smaller fits: free some memory, or use another --device or a pack of a smaller grid"],
    )


def estimate(pack: Pack, device: torch.device, batch_size: int, sampling: Sampling) -> int:
    """Bytes that generation holds at most beside the weights: sampling or decoding, whichever needs more."""
    itemsize = 2 if has_fast_bf16(device) or device.type == "cuda" else 4
    _, *latent = pack.latent_shape
    contexts = batch_size * (1 if sampling.guidance_scale == 1 else 2)
    unet: Any = pack.unet.config
    first_level = getattr(unet, "unet", unet).num_channels[0]
    return max(
        contexts * math.prod(latent) * first_level * itemsize * LEVELS_HELD,
        decoding_bytes(pack, itemsize, sampling.decode),
    )


def decoding_bytes(pack: Pack, itemsize: int, how: str = "exact") -> int:
    """Bytes that decoding one volume holds at most."""
    vae, grid = pack.vae, pack.info.grid
    if not isinstance(vae, MaisiVae):
        return 8 * math.prod(grid) * itemsize
    if how == "window":
        edge = WINDOW * vae.downsampling
        window = (min(edge, grid[0]), min(edge, grid[1]), min(edge, grid[2]))
        return slabs.peak_bytes(vae.config.num_channels, window, itemsize) + 12 * math.prod(grid)
    return slabs.peak_bytes(vae.config.num_channels, grid, itemsize) + 4 * math.prod(grid)


def is_large(pack: Pack) -> bool:
    """Whether decoding a volume takes so much memory that other networks had better be gone."""
    return decoding_bytes(pack, 2) > LARGE
