"""One compared array."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike

# Rounding of float32 arithmetic in another order, on values of order one.
TOLERANCE = 1e-4
# An integer HU next to a half may fall to either side.
HU_TOLERANCE = 1.0


@dataclass(frozen=True)
class ArrayResult:
    """How far an array of ours is from the released code's.

    Attributes:
        variant: The fixture's folder, below the one that was searched.
        array: Its name in the fixture.
        difference: Largest absolute difference; infinite where shapes differ or a value is no number.
        tolerance: How large it may be.
        note: What a reader should know of this row.
    """

    variant: str
    array: str
    difference: float
    tolerance: float
    note: str = ""

    @property
    def holds(self) -> bool:
        """Whether ours is the released code's array."""
        return self.difference <= self.tolerance

    def as_json(self) -> dict[str, str | float | bool | None]:
        """The row as JSON values; an infinite difference is null."""
        row: dict[str, str | float | bool | None] = {
            "variant": self.variant,
            "array": self.array,
            "difference": self.difference if math.isfinite(self.difference) else None,
            "tolerance": self.tolerance,
            "holds": self.holds,
        }
        return row | {"note": self.note} if self.note else row


def compare(
    variant: str,
    array: str,
    ours: ArrayLike | torch.Tensor,
    theirs: ArrayLike,
    tolerance: float = TOLERANCE,
    note: str = "",
) -> ArrayResult:
    """Compare two arrays of one shape."""
    if isinstance(ours, torch.Tensor):
        ours = ours.detach().cpu().numpy()
    a, b = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    if a.shape != b.shape:
        return ArrayResult(variant, array, math.inf, tolerance, f"shape {a.shape}, expected {b.shape}")
    difference = float(np.abs(a - b).max()) if a.size else 0.0
    return ArrayResult(variant, array, math.inf if math.isnan(difference) else difference, tolerance, note)
