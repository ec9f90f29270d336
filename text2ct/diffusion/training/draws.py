"""Randomness of a training: a function of (seed, step) alone.

A batch and every draw made from it come from generators seeded by the run's seed and the step's number, so a
run resumed at any checkpoint sees the data and the noise that an uninterrupted run would have seen; noise that is
drawn on a GPU, on a GPU of the same model.
"""

from __future__ import annotations

import numpy as np
import torch


def step_generator(seed: int, step: int, stream: int = 0) -> np.random.Generator:
    """Numpy's generator of one step."""
    return np.random.default_rng(np.random.SeedSequence([seed, step, stream]))


def torch_generator(seed: int, step: int, stream: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """Torch's generator of one step; numbers drawn on a GPU depend on its model."""
    return torch.Generator(device).manual_seed(torch_seed(seed, step, stream))


def torch_seed(seed: int, step: int, stream: int) -> int:
    """Seed of torch's generators of one step."""
    state = np.random.SeedSequence([seed, step, 100 + stream]).generate_state(2, dtype=np.uint32)
    return int(state[0]) << 31 | int(state[1]) >> 1


def epoch_indices(count: int, batch_size: int, seed: int, step: int) -> np.ndarray:
    """The cases of one step: each epoch is one permutation, and a batch may span two of them."""
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    out = np.empty(batch_size, dtype=np.int64)
    for epoch in np.unique(positions // count):
        order = step_generator(seed, int(epoch), stream=1).permutation(count)
        here = positions // count == epoch
        out[here] = order[positions[here] % count]
    return out
