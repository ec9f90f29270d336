"""One CT volume in memory: voxels in HU, and where they lie in the patient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from text2ct.volumes.intensity import lattice

# The range that every network and window of the package sees: air to dense bone (Text2CT, section 4.1).
HU_MIN, HU_MAX = -1000.0, 1000.0


@dataclass(frozen=True, eq=False)
class Volume:
    """A CT volume in RAS+ order.

    Args:
        hu: (X, Y, Z) float32 in HU; x grows to the patient's right, y to anterior, z to superior.
        affine: (4, 4) float64, from voxel index to RAS+ world coordinates in mm. Its axes are the
            nearest to R, A, S; what is oblique stays in it as rotation (or shear, with a tilted gantry).
        intensity: How the voxels were found to be HU, in words, with the evidence.
        notes: What else a person should know about this volume's geometry, one sentence each.

    Raises:
        ValueError: A wrong shape, or an affine that is singular or not finite.
    """

    hu: npt.NDArray[np.float32]
    affine: npt.NDArray[np.float64]
    intensity: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        hu = np.ascontiguousarray(self.hu, dtype=np.float32)
        affine = np.array(self.affine, dtype=np.float64)
        if hu.ndim != 3 or hu.size == 0:
            raise ValueError(f"hu has shape {hu.shape}; expected three axes, (X, Y, Z)")
        if affine.shape != (4, 4) or affine_problem(affine):
            raise ValueError(f"affine of shape {affine.shape} {affine_problem(affine)}; expected (4, 4)")
        object.__setattr__(self, "hu", hu)
        object.__setattr__(self, "affine", affine)

    @property
    def size(self) -> tuple[int, int, int]:
        """Voxels along x, y, z."""
        x, y, z = self.hu.shape
        return x, y, z

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along x, y, z, in mm."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def slab_voxels(self) -> int:
        """All of them: what is in memory is best worked on at once."""
        return self.hu.size

    def planes(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """(X, Y, stop - start) in HU: a view of ``hu``."""
        return self.hu[:, :, start:stop]

    def sample(self) -> npt.NDArray[np.float32]:
        """The HU of a regular lattice over the whole volume: a view of ``hu``."""
        return self.hu[lattice(self.size)]

    @property
    def centre_mm(self) -> npt.NDArray[np.float64]:
        """(3,) RAS+ world coordinates of the middle of the volume, in mm."""
        middle = (np.array(self.size) - 1) / 2
        return self.affine[:3, :3] @ middle + self.affine[:3, 3]

    @property
    def obliquity_deg(self) -> float:
        """The largest angle between a voxel axis and its world axis, in degrees; 0 if all are parallel."""
        return obliquity_deg(self.affine)


def affine_problem(affine: npt.NDArray[np.float64]) -> str:
    """What makes an affine unusable, in words; empty if it is usable."""
    if affine.shape != (4, 4):
        return "is not (4, 4)"
    if not np.isfinite(affine).all():
        return "has NaN or infinite entries"
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if (spacing == 0).any():
        return f"has a zero voxel spacing: {' x '.join(f'{s:g}' for s in spacing)} mm"
    if abs(np.linalg.det(affine[:3, :3] / spacing)) < 1e-3:
        return "is singular: two voxel axes point the same way"
    return ""


def obliquity_deg(affine: npt.NDArray[np.float64]) -> float:
    """The largest angle in degrees between a column of a closest-to-RAS+ affine and its world axis."""
    columns = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    off_axis = np.linalg.norm(columns - np.diag(np.diag(columns)), axis=0)
    return float(np.degrees(np.arctan2(off_axis, np.diag(columns))).max())


def hu_to_unit(hu: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Map HU of any shape to float32 in [0, 1]; values beyond [-1000, 1000] HU are clipped."""
    clipped = np.clip(np.asarray(hu, dtype=np.float32), HU_MIN, HU_MAX)
    return (clipped - np.float32(HU_MIN)) / np.float32(HU_MAX - HU_MIN)


def unit_to_hu(unit: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Map [0, 1] of any shape to float32 in [-1000, 1000] HU; values beyond [0, 1] are clipped."""
    clipped = np.clip(np.asarray(unit, dtype=np.float32), 0.0, 1.0)
    return clipped * np.float32(HU_MAX - HU_MIN) + np.float32(HU_MIN)
