"""Whether a volume can be generated in the memory that is free, and what could instead."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import torch

from text2ct.compute import free_memory, has_fast_bf16
from text2ct.diffusion import slabs
from text2ct.diffusion.decode import WINDOW
from text2ct.diffusion.info import Sampling
from text2ct.diffusion.pack import Pack
from text2ct.diffusion.vae import MaisiConfig
from text2ct.errors import UserError

# Activations that the velocity network holds at once, in multiples of its first level's; measured at full size
# by `benchmarks/core.py`, where it is 19.
LEVELS_HELD = 24
LARGE = 2**31


def check_memory(pack: Pack, device: torch.device, batch_size: int, sampling: Sampling) -> None:
    """Compare what generation needs with what is free; no weights are read.

    Raises:
        UserError: It would not fit; the message says what would.
    """
    free = free_memory(device)
    if free is None:
        return
    needed = estimate(pack, device, batch_size, sampling)
    if needed <= free:
        return
    changes: dict[str, dict[str, Any]] = {
        "--batch-size 1": {},
        "--guidance 1": {"guidance_scale": 1.0},
        "--decode window": {"decode": "window"},
    }
    options = [names for count in (1, 2, 3) for names in combinations(changes, count)]
    sizes: dict[tuple[str, ...], int] = {}
    for names in options:
        settings = sampling.updated(**{key: value for name in names for key, value in changes[name].items()})
        size = estimate(pack, device, 1 if "--batch-size 1" in names else batch_size, settings)
        if size <= free and not any(set(smaller) <= set(names) for smaller in sizes):
            sizes[names] = size
    fitting = [f"{' '.join(names)} needs {size / 1e9:.1f} GB" for names, size in sizes.items()]
    many = f"{batch_size} volumes" if batch_size > 1 else "a volume"
    raise UserError(
        f"{many} of {'x'.join(map(str, pack.info.grid))} at once would need about {needed / 1e9:.1f} GB of memory on "
        f"{device.type}, and {free / 1e9:.1f} GB are free",
        fitting or ["nothing smaller fits: free some memory, or use another --device or a pack of a smaller grid"],
    )


def estimate(pack: Pack, device: torch.device, batch_size: int, sampling: Sampling) -> int:
    """Bytes that generation takes beside what is held already: weights, and sampling or decoding."""
    itemsize = 2 if has_fast_bf16(device) or device.type == "cuda" else 4
    _, *latent = pack.latent_shape
    contexts = batch_size * (1 if sampling.guidance_scale == 1 else 2)
    unet: Any = pack.config("unet")
    first_level = getattr(unet, "unet", unet).num_channels[0]
    activations = contexts * math.prod(latent) * first_level * itemsize * LEVELS_HELD
    text, network, vae = (pack.bytes_to_load(name) for name in ("text_tower", "unet", "vae"))
    sampled = text + network + activations
    kept = 0 if is_large(pack) and device.type == "cpu" else text + network
    return max(sampled, kept + vae + decoding_bytes(pack, itemsize, batch_size, sampling.decode))


def decoding_bytes(pack: Pack, itemsize: int, batch_size: int = 1, how: str = "exact") -> int:
    """Bytes that decoding a batch takes at most beside the weights; volumes are decoded one after another."""
    vae, grid = pack.config("vae"), pack.info.grid
    # Each volume in float32, once by itself and once in the batch.
    results = 8 * math.prod(grid) * batch_size
    if not isinstance(vae, MaisiConfig):
        return results + 8 * math.prod(grid) * itemsize * batch_size
    if how == "window":
        edge = WINDOW * vae.downsampling
        window = (min(edge, grid[0]), min(edge, grid[1]), min(edge, grid[2]))
        return slabs.peak_bytes(vae.num_channels, window, itemsize) + 12 * math.prod(grid) + results
    return slabs.peak_bytes(vae.num_channels, grid, itemsize) + results


def is_large(pack: Pack) -> bool:
    """Whether decoding a volume takes so much memory that other networks had better be gone."""
    return decoding_bytes(pack, 2) > LARGE
