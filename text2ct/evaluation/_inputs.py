"""What the measures of a generator accept: volumes in HU, unit vectors, label tables; checked once, here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from text2ct.errors import UserError
from text2ct.volumes.volume import HU_MAX, HU_MIN

# Rounding of float32 arithmetic, in HU and in the length of a vector.
_HU_TOLERANCE = 0.5
_LENGTH_TOLERANCE = 1e-3


def checked_volume(volume_hu: NDArray[Any], name: str) -> NDArray[Any]:
    """Give the volume back if it is one.

    Args:
        volume_hu: (X, Y, Z) HU.
        name: What errors call it.

    Raises:
        UserError: It has not three axes, is empty, is not finite, or leaves [-1000, 1000] HU.
    """
    hu = np.asarray(volume_hu)
    if hu.ndim != 3 or hu.size == 0:
        raise UserError(f"{name} has shape {hu.shape}; expected three axes, (X, Y, Z)")
    low, high = float(hu.min()), float(hu.max())
    if not np.isfinite([low, high]).all():
        raise UserError(f"{name} holds NaN or infinite voxels; leave it out or make it again")
    if low < HU_MIN - _HU_TOLERANCE or high > HU_MAX + _HU_TOLERANCE:
        raise UserError(f"{name} lies in [{low:g}, {high:g}] HU; clip volumes to [{HU_MIN:g}, {HU_MAX:g}] HU first")
    if low >= -1 - _HU_TOLERANCE and high <= 1 + _HU_TOLERANCE:
        raise UserError(f"{name} lies in [{low:g}, {high:g}], as after normalisation; give it in HU")
    return hu


def check_same_grid(shape: tuple[int, ...], expected: tuple[int, ...], name: str) -> None:
    """Refuse a volume of another grid.

    Raises:
        UserError: The shapes differ.
    """
    if shape != expected:
        raise UserError(f"{name} has shape {shape}, the others {expected}; bring all volumes to one grid first")


def unit_vectors(vectors: ArrayLike, name: str) -> NDArray[np.float64]:
    """(n, d) float64 of rows of length 1.

    Raises:
        UserError: There is no row, a value is not finite, or a row's length is not 1.
    """
    array = np.asarray(vectors, dtype=np.float64)
    if array.ndim != 2 or array.size == 0:
        raise UserError(f"{name} has shape {array.shape}; expected one or more rows, (n, d)")
    if not np.isfinite(array).all():
        raise UserError(f"{name} holds NaN or infinite values; make the embeddings again")
    lengths = np.linalg.norm(array, axis=1)
    if (np.abs(lengths - 1) > _LENGTH_TOLERANCE).any():
        raise UserError(
            f"{name} has rows of length {lengths.min():.3g} to {lengths.max():.3g}; divide each row by its L2 norm"
        )
    return array


def label_table(labels: ArrayLike, rows: int, names: Sequence[str], name: str = "labels") -> NDArray[np.float64]:
    """(rows, F) float64 of 1, 0 and NaN for unknown.

    Args:
        labels: The table.
        rows: How many rows it must have.
        names: Of its F columns.
        name: What errors call it.

    Raises:
        UserError: The shape is another, or a value is none of 1, 0 and NaN.
    """
    array = np.asarray(labels, dtype=np.float64)
    if array.shape != (rows, len(names)):
        raise UserError(f"{name} has shape {array.shape}; expected ({rows}, {len(names)}), one column per finding")
    wrong = array[~np.isnan(array) & (array != 0) & (array != 1)]
    if wrong.size:
        raise UserError(f"{name} holds {wrong[0]:g}; expected 0, 1 or NaN where it is unknown")
    return array


def ranks_asked(ks: Sequence[int]) -> tuple[int, ...]:
    """The distinct ``ks`` in rising order.

    Raises:
        UserError: There is none, or one is below 1.
    """
    if not ks or min(ks) < 1:
        raise UserError(f"ks is {tuple(ks)}; expected one or more whole numbers from 1")
    return tuple(sorted({int(k) for k in ks}))
