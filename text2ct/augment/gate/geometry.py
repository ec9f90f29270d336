"""Geometry: is the field of view that of a chest, and are there two lungs of a possible size in it?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from text2ct.augment.gate.base import Score, Strict, bounded
from text2ct.volumes import Volume
from text2ct.volumes.quality import check_geometry

Positive = Annotated[float, Field(ge=0)]

# Between aerated lung (-700 to -900 HU) and soft tissue (about 50 HU): where half of a voxel is air. Consolidated
# lung counts as tissue, as it does for a radiologist who looks for aerated lung.
TISSUE_ABOVE_HU = -400.0
_ML_OF_MM3 = 1e-3


class GeometrySettings(Strict):
    """Bounds of the geometry; they come from anatomy, not from the data."""

    min_field_mm: tuple[Positive, Positive, Positive] = (200.0, 150.0, 150.0)
    """Least field of view along x, y, z: a small adult's lungs are about 230 x 160 x 180 mm."""
    lung_ml: tuple[Positive, Positive] = (700.0, 10000.0)
    """Aerated lung in ml: both lungs hold 3 to 7 litres at full inspiration, less than one at the residual volume of
    a small adult; emphysema of a tall man reaches 9 to 10."""
    min_side_ml: Positive = 100.0
    """Aerated lung on either side: a lung that is gone is a patient with one lung (rare) or a failed volume (not)."""

    @field_validator("lung_ml")
    @classmethod
    def _low_below_high(cls, lung_ml: tuple[float, float]) -> tuple[float, float]:
        if not lung_ml[0] < lung_ml[1]:
            raise ValueError(f"{lung_ml[0]:g}, {lung_ml[1]:g} does not rise from the least volume to the highest")
        return lung_ml


@dataclass(frozen=True, eq=False)
class Anatomy:
    """What is body and what is lung.

    Attributes:
        body: (X, Y, Z) bool, the largest piece of tissue and what each axial slice of it encloses.
        lungs: (X, Y, Z) bool, air within the body.
    """

    body: NDArray[np.bool_]
    lungs: NDArray[np.bool_]


def anatomy(volume_hu: NDArray[Any]) -> Anatomy:
    """Body and aerated lungs of a chest CT by one threshold: crude, and enough to see whether there are any.

    Air that is open to the outside within its axial slice is no lung: where a generator tears the skin, the lungs
    vanish, which is meant. Gas of the airways and the stomach counts as lung; it is a few percent.

    Args:
        volume_hu: (X, Y, Z) HU, RAS.
    """
    from scipy import ndimage

    tissue = np.asarray(volume_hu) > TISSUE_ABOVE_HU
    pieces, found = ndimage.label(tissue)
    if not found:
        return Anatomy(tissue, np.zeros_like(tissue))
    largest = pieces == 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
    body = np.stack([ndimage.binary_fill_holes(largest[..., z]) for z in range(largest.shape[2])], axis=2)
    return Anatomy(body, body & ~tissue)


def field_of_view(native: Volume, settings: GeometrySettings) -> list[Score]:
    """The scores of a volume as it is on disk, whatever its voxels."""
    scores = [Score("geometry", "quality", float("nan"), reason=problem) for problem in check_geometry(native)]
    for axis, size, spacing, least in zip("xyz", native.size, native.spacing_mm, settings.min_field_mm, strict=True):
        name = f"field of view along {axis} (mm)"
        scores.append(bounded("geometry", name, size * spacing, low=least, what="field of view too small for a chest"))
    return scores


def lungs(found: Anatomy, spacing_mm: tuple[float, float, float], settings: GeometrySettings) -> list[Score]:
    """The scores of the lungs.

    Args:
        found: The :func:`anatomy` of a volume.
        spacing_mm: Its voxel size.
        settings: The bounds.
    """
    voxel_ml = float(np.prod(spacing_mm)) * _ML_OF_MM3
    low, high = settings.lung_ml
    total = float(found.lungs.sum()) * voxel_ml
    scores = [bounded("geometry", "lungs (ml)", total, low=low, high=high, what="impossible volume of aerated lung")]
    # The body's own middle, since a patient need not lie in that of the field of view.
    across = np.flatnonzero(found.body.any(axis=(1, 2)))
    middle = round(float(across.mean())) if len(across) else 0
    # x grows to the patient's right
    for side, lung in (("left", found.lungs[:middle]), ("right", found.lungs[middle:])):
        size_ml = float(lung.sum()) * voxel_ml
        what = f"no aerated lung on the {side}"
        scores.append(bounded("geometry", f"{side} lung (ml)", size_ml, low=settings.min_side_ml, what=what))
    return scores
