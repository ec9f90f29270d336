"""Stand-ins for volumes: smooth random fields in HU, unlike one another."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter


def stand_in(number: int, size: int = 28) -> np.ndarray:
    rng = np.random.default_rng([7, number])
    field = gaussian_filter(rng.normal(size=(size,) * 3), 3.0, mode="wrap")
    return np.clip(np.rint(field / field.std() * 400 - 300), -1000, 1000).astype(np.int16)


def stand_ins(first: int, count: int, size: int = 28) -> list[np.ndarray]:
    return [stand_in(number, size) for number in range(first, first + count)]
