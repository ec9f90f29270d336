"""A volume that stays in its file's numbers; planes of it become HU as they are asked for.

A chest CT of 512x512x300 voxels is 157 MB as stored and 315 MB in float32. Whoever goes over it plane by plane
(`text2ct.volumes.check`, `text2ct.volumes.to_grid`) needs the second only for a few planes at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from text2ct.volumes.intensity import AIR_HU, PADDING_BELOW_HU, lattice
from text2ct.volumes.volume import Volume

# Voxels converted at a time: few enough to stay in a processor's cache, many enough to hide the loop.
_SLAB_VOXELS = 2**21
# Rows of one layout that are copied together to become a cache line, or two, of the other.
_STRIP = 16


class Planes(Protocol):
    """What can be gone over plane by plane: a `Volume`, or a `LazyVolume`."""

    @property
    def affine(self) -> npt.NDArray[np.float64]:
        """(4, 4), from voxel index to RAS+ world coordinates in mm."""
        ...

    @property
    def size(self) -> tuple[int, int, int]:
        """Voxels along x, y, z."""
        ...

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel sizes along x, y, z in mm."""
        ...

    @property
    def intensity(self) -> str:
        """How the voxels were found to be HU, in words."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks on the geometry."""
        ...

    @property
    def slab_voxels(self) -> int:
        """How many voxels are best worked on at a time."""
        ...

    def planes(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """(X, Y, stop - start) in HU and RAS+ order, in any memory layout; not to be written to."""
        ...

    def sample(self) -> npt.NDArray[np.float32]:
        """The HU of a regular lattice over the whole volume (`text2ct.volumes.intensity.lattice`)."""
        ...


@dataclass(frozen=True, eq=False)
class LazyVolume:
    """A CT volume whose voxels are still as stored.

    Args:
        stored: (X, Y, Z) numbers of the file, turned to RAS+ order; a view, in any memory layout.
        affine: (4, 4) float64, as of `Volume`.
        slope: ``hu = slope * stored + intercept``.
        intercept: See ``slope``.
        fill: Whether what lies below any tissue is padding, and becomes air.
        intensity: As of `Volume`.
        notes: As of `Volume`.
    """

    stored: npt.NDArray[Any]
    affine: npt.NDArray[np.float64]
    slope: float = 1.0
    intercept: float = 0.0
    fill: bool = False
    intensity: str = ""
    notes: tuple[str, ...] = ()

    slab_voxels: ClassVar[int] = _SLAB_VOXELS

    @property
    def size(self) -> tuple[int, int, int]:
        """Voxels along x, y, z."""
        x, y, z = self.stored.shape
        return x, y, z

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along x, y, z, in mm."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    def planes(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """(X, Y, stop - start) in HU, in the memory layout of the file."""
        return self._hu(self.stored[:, :, start:stop])

    def sample(self) -> npt.NDArray[np.float32]:
        """The HU of a regular lattice over the whole volume."""
        return self._hu(self.stored[lattice(self.size)])

    def load(self) -> Volume:
        """The whole volume in HU."""
        if self.stored.flags.c_contiguous:
            return Volume(self._hu(self.stored), self.affine, intensity=self.intensity, notes=self.notes)
        hu = np.empty(self.size, dtype=np.float32)
        for start, stop in slabs(self.size, self.slab_voxels):
            copy_tiled(self.planes(start, stop), hu[:, :, start:stop])
        return Volume(hu, self.affine, intensity=self.intensity, notes=self.notes)

    def _hu(self, stored: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        hu = stored.astype(np.float32)
        if (self.slope, self.intercept) != (1.0, 0.0):
            hu *= np.float32(self.slope)
            hu += np.float32(self.intercept)
        if self.fill:
            hu[hu < PADDING_BELOW_HU] = AIR_HU
        return hu


def slabs(size: tuple[int, int, int], voxels: int) -> list[tuple[int, int]]:
    """First and last plane (exclusive) of pieces of about so many voxels, in order."""
    thickness = max(1, voxels // (size[0] * size[1]))
    return [(start, min(start + thickness, size[2])) for start in range(0, size[2], thickness)]


def copy_tiled(source: npt.NDArray[Any], target: npt.NDArray[Any]) -> None:
    """Copy (X, Y, Z) voxels between memory layouts; strip by strip it is several times as fast as at once."""
    fast, slow = (int(np.argmin(np.abs(array.strides))) for array in (source, target))
    if fast == slow:
        target[...] = source
        return
    middle = 3 - fast - slow
    flat_source, flat_target = (array.transpose(middle, fast, slow) for array in (source, target))
    for index in range(source.shape[middle]):
        for start in range(0, source.shape[slow], _STRIP):
            strip = (index, slice(None), slice(start, start + _STRIP))
            flat_target[strip] = flat_source[strip]
