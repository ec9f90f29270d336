"""What a file says, before anything is decided about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

# Written into the header of our own files: their voxels are HU whatever they look like.
HU_MARK = "text2ct HU"

# ITK counts world coordinates to the patient's left and back, this package to the right and front.
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Stored:
    """The contents of a file in its own axis order.

    Args:
        voxels: Array as stored, index order (i, j, k, ...): the axes of ``affine``.
        affine: (4, 4) from (i, j, k) to RAS+ world coordinates in mm.
        slope: Scale of the header: ``slope * voxels + intercept``.
        intercept: See ``slope``.
        marked_hu: Whether the header carries `HU_MARK`.
        notes: Remarks on the header, one sentence each.
        problems: What the header says that cannot be, each to follow "the file cannot be used:".
    """

    voxels: npt.NDArray[Any]
    affine: npt.NDArray[np.float64]
    slope: float = 1.0
    intercept: float = 0.0
    marked_hu: bool = False
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


class Reader(Protocol):
    """One file format."""

    name: str
    looks_like: str

    def accepts(self, path: Path) -> bool:
        """Whether the path is of this format, by its name (or, for a folder, its contents)."""
        ...

    def load(self, path: Path) -> Stored:
        """Read it. May raise any error of the library used; `text2ct.volumes.read` words it."""
        ...


def lps_to_ras(matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A (4, 4) affine into RAS+ world coordinates from one into LPS+."""
    return LPS_TO_RAS @ matrix
