"""The leading principal components of two sets of slices, for networks with so many features that all are too many."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from text2ct.evaluation.frechet import RunningMoments
from text2ct.evaluation.generator.kept_features import Arrays, Described

LEADING = 256
Moments = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Leading:
    """A basis for each plane, and the whole sets' moments.

    Attributes:
        bases: (d, LEADING) for each plane.
        moments: Of the first and of the second set, for each plane mean (d,) and unbiased covariance (d, d).
        variance_kept: Share of the pooled variance in the components, the least of the planes.
    """

    bases: tuple[NDArray[np.float64], ...]
    moments: tuple[list[Moments], list[Moments]]
    variance_kept: float

    @property
    def dimension(self) -> int:
        """Number of features."""
        return len(self.bases[0])

    def of(self, planes: Arrays) -> Arrays:
        """A volume's features in the components: (slices, LEADING) for each plane."""
        return tuple((rows @ basis).astype(np.float32) for rows, basis in zip(planes, self.bases, strict=True))


def leading_components(pair: tuple[Described, Described]) -> Leading:
    """Read both sets once, a volume at a time.

    Args:
        pair: Features of slices by volume, three planes each.
    """
    moments: tuple[list[Moments], list[Moments]] = ([], [])
    origin = [plane.mean(axis=0, dtype=np.float64) for plane in pair[0][0]]
    for described, found in zip(pair, moments, strict=True):
        running = [RunningMoments(one) for one in origin]
        for index in range(len(described)):
            for plane, rows in zip(running, described[index], strict=True):
                plane.add(rows)
        found += [plane.gaussian() for plane in running]
    bases, kept = [], []
    for (mean_a, a), (mean_b, b) in zip(*moments, strict=True):
        # What the means differ in belongs to the distance, too.
        values, vectors = np.linalg.eigh((a + b) / 2 + np.outer(mean_a - mean_b, mean_a - mean_b))
        bases.append(np.ascontiguousarray(vectors[:, -LEADING:]))
        kept.append(float(values[-LEADING:].sum() / values.sum()) if values.sum() > 0 else 1.0)
    return Leading(tuple(bases), moments, min(kept))
