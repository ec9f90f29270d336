"""Fréchet distance of infinitely many volumes, extrapolated: what is left when the bias of few volumes is gone.

Chong and Forsyth 2020, "Effectively unbiased FID and Inception score", arXiv 1911.07023, section 3: the bias is about
linear in 1/N, so distances of smaller and smaller parts of the sets lie on a line whose intercept is the distance
without it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from text2ct.errors import UserError
from text2ct.evaluation.fidelity import fid_between
from text2ct.evaluation.slices import SliceStatistics

FEWEST = 8  # volumes: half of them make the smallest part


@dataclass(frozen=True)
class FidInfinity:
    """The extrapolation.

    Attributes:
        value: Intercept of the line, mean of the three planes. May fall below 0, by chance.
        slope: Of the distance against 1 / volumes.
        r2: Share of the distances' variance that the line explains; low where bias is small beside chance.
        volumes: Volumes of either set at each point.
        distances: Mean over planes at each point.
        seed: Of the parts.
    """

    value: float
    slope: float
    r2: float
    volumes: tuple[int, ...]
    distances: tuple[float, ...]
    seed: int


def fid_infinity(real: SliceStatistics, synthetic: SliceStatistics, *, points: int = 15, seed: int = 0) -> FidInfinity:
    """Extrapolate the distance between two sets to infinitely many volumes.

    Parts are random volumes of both sets, from half of the smaller set to all of it, at even steps; the slices of a
    volume stay together.

    Args:
        real: Statistics of real volumes.
        synthetic: Of synthetic ones, under the same view.
        points: Sizes of parts.
        seed: Of the parts.

    Raises:
        UserError: A set has fewer than 8 volumes, or ``points`` is below 3.
    """
    smaller = min(real.n, synthetic.n)
    if smaller < FEWEST:
        raise UserError(f"{real.n} real and {synthetic.n} synthetic volumes are too few to extrapolate; give {FEWEST}")
    if points < 3:
        raise UserError(f"points is {points}; expected 3 or more")
    rng = np.random.default_rng(seed)
    sizes = [int(size) for size in np.linspace(smaller // 2, smaller, points).round()]
    distances = []
    for size in sizes:
        parts = (one.subset(rng.permutation(one.n)[:size]) for one in (real, synthetic))
        distances.append(fid_between(*parts, n_bootstrap=0).mean)
    inverse = 1 / np.array(sizes)
    slope, intercept = np.polyfit(inverse, distances, 1)
    spread = np.var(distances)
    left = np.var(np.array(distances) - (intercept + slope * inverse))
    r2 = float(1 - left / spread) if spread > 0 else 1.0
    return FidInfinity(float(intercept), float(slope), r2, tuple(sizes), tuple(distances), seed)
