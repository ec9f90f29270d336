"""Intensity: are the voxels those of a CT, and are they distributed as in real volumes?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from text2ct.augment.gate.base import Score, Share, Strict, bounded
from text2ct.errors import UserError
from text2ct.volumes import HU_MAX, HU_MIN, Volume
from text2ct.volumes.quality import check_voxels

# 20 HU a bin: fat (-100) and muscle (50) lie seven bins apart, and a bin of a small volume is well filled.
EDGES_HU = np.linspace(HU_MIN, HU_MAX, 101)
CENTRES_HU = (EDGES_HU[:-1] + EDGES_HU[1:]) / 2


class IntensitySettings(Strict):
    """How far from the real HU histogram a volume may be."""

    quantile: Share = 0.99
    """Of the distances of real validation volumes: one real volume in a hundred would be rejected by it."""
    margin: Annotated[float, Field(ge=1)] = 1.25
    """Factor on it, since a high quantile of few volumes is their maximum, which a new real volume may exceed."""


class IntensityThreshold(Strict):
    """What was measured on real volumes.

    Attributes:
        distance_hu: Largest distance that passes.
        reference: Mean histogram of the real training volumes, of sum 1.
        real_volumes: How many set the threshold.
        real_median_hu: Their median distance.
    """

    distance_hu: float
    reference: tuple[float, ...]
    real_volumes: int
    real_median_hu: float


def histogram(volume_hu: NDArray[Any], body: NDArray[np.bool_]) -> NDArray[np.float64]:
    """HU histogram within the body: what surrounds it depends on the field of view and not on the patient.

    Args:
        volume_hu: (X, Y, Z) HU.
        body: (X, Y, Z).

    Returns:
        (100,) of sum 1; zeros when there is no body.
    """
    inside = np.clip(np.asarray(volume_hu)[body], HU_MIN, HU_MAX)
    counts = np.histogram(inside, EDGES_HU)[0]
    return counts / max(1, counts.sum())


def distance_hu(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Wasserstein distance of two histograms: the HU by which voxels would have to change on average."""
    from scipy.stats import wasserstein_distance

    if not first.any() or not second.any():
        return HU_MAX - HU_MIN
    return float(wasserstein_distance(CENTRES_HU, CENTRES_HU, first, second))


def calibrate(
    training: Iterable[NDArray[np.float64]], validation: Iterable[NDArray[np.float64]], settings: IntensitySettings
) -> IntensityThreshold:
    """The threshold by which nearly all real volumes pass.

    Args:
        training: Histograms of real training volumes, whose mean is the reference.
        validation: Histograms of real validation volumes, whose distances set the threshold.
        settings: Quantile and margin.

    Raises:
        UserError: One of them is empty.
    """
    known, new = list(training), list(validation)
    if not known or not new:
        raise UserError("the HU histogram needs real training and validation volumes; add them to the real manifest")
    reference = np.mean(known, axis=0)
    distances = np.array([distance_hu(one, reference) for one in new])
    return IntensityThreshold(
        distance_hu=float(settings.margin * np.quantile(distances, settings.quantile)),
        reference=tuple(float(share) for share in reference),
        real_volumes=len(new),
        real_median_hu=float(np.median(distances)),
    )


def judge(shares: NDArray[np.float64], threshold: IntensityThreshold) -> list[Score]:
    """The score of a volume's histogram."""
    far = distance_hu(shares, np.array(threshold.reference))
    what = "HU histogram unlike the real one"
    return [bounded("intensity", "distance to the real histogram (HU)", far, high=threshold.distance_hu, what=what)]


def broken(native: Volume) -> list[Score]:
    """What is wrong with the voxels as they are on disk: NaN, flat or repeated slices, no HU."""
    return [Score("intensity", "quality", float("nan"), reason=problem) for problem in check_voxels(native)]
