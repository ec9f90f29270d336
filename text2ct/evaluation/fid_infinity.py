"""Fréchet distance of infinitely many volumes, extrapolated: what is left when the bias of few volumes is gone.

Chong and Forsyth 2020, "Effectively unbiased FID and Inception score", arXiv 1911.07023, section 3: the bias is about
linear in 1/N, so distances of smaller and smaller parts of the sets lie on a line whose intercept is the distance
without it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from text2ct.errors import UserError
from text2ct.evaluation.bootstrap import LEVEL, cluster_weights
from text2ct.evaluation.fidelity import fid_between
from text2ct.evaluation.slices import SliceStatistics

FEWEST = 8  # volumes: half of them make the smallest part
MOST_SAMPLES = 40


@dataclass(frozen=True)
class FidInfinity:
    """The extrapolation.

    Attributes:
        value: Intercept of the line, mean of the three planes. May fall below 0, by chance.
        ci: Its 95% interval; None without a bootstrap.
        slope: Of the distance against 1 / volumes.
        r2: Share of the distances' variance that the line explains; low where bias is small beside chance.
        volumes: Volumes of either set at each point.
        distances: Mean over planes at each point.
        seed: Of the parts.
    """

    value: float
    ci: tuple[float, float] | None
    slope: float
    r2: float
    volumes: tuple[int, ...]
    distances: tuple[float, ...]
    seed: int


def fid_infinity(
    real: SliceStatistics,
    synthetic: SliceStatistics,
    *,
    points: int = 15,
    groups: tuple[NDArray[np.integer], NDArray[np.integer]] | None = None,
    n_bootstrap: int = 0,
    seed: int = 0,
) -> FidInfinity:
    """Extrapolate the distance between two sets to infinitely many volumes.

    Parts are random volumes of both sets, from half of the smaller set to all of it, at even steps; the slices of a
    volume stay together.

    Args:
        real: Statistics of real volumes.
        synthetic: Of synthetic ones, under the same view.
        points: Sizes of parts.
        groups: As for :func:`text2ct.evaluation.fidelity.fid_between`.
        n_bootstrap: Bootstrap samples, each a whole extrapolation; 0 for no interval. Beyond 40 they are left out.
        seed: Of parts and bootstrap.

    Raises:
        UserError: A set has fewer than 8 volumes, or ``points`` is below 3.
    """
    smaller = min(real.n, synthetic.n)
    if smaller < FEWEST:
        raise UserError(f"{real.n} real and {synthetic.n} synthetic volumes are too few to extrapolate; give {FEWEST}")
    if points < 3:
        raise UserError(f"points is {points}; expected 3 or more")
    rng = np.random.default_rng(seed)
    slope, value, sizes, distances = _line(real, synthetic, points, rng)
    inverse = 1 / np.array(sizes)
    spread = np.var(distances)
    left = np.var(np.array(distances) - (value + slope * inverse))
    r2 = float(1 - left / spread) if spread > 0 else 1.0
    ci = None
    if n_bootstrap:
        together = groups or (np.arange(real.n), np.arange(synthetic.n))
        draws = [cluster_weights(codes, min(n_bootstrap, MOST_SAMPLES), rng).T.astype(int) for codes in together]
        values = []
        for drawn in zip(*draws, strict=True):
            sets = [
                one.subset(np.repeat(np.arange(one.n), counts))
                for one, counts in zip((real, synthetic), drawn, strict=True)
            ]
            if min(one.n for one in sets) >= FEWEST:
                values.append(_line(sets[0], sets[1], points, rng)[1])
        # Sets that repeat volumes are farther apart: the samples tell the spread, not the place.
        apart = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) - np.median(values)
        ci = (float(value + apart[0]), float(value + apart[1]))
    return FidInfinity(value, ci, slope, r2, sizes, distances, seed)


def _line(
    real: SliceStatistics, synthetic: SliceStatistics, points: int, rng: np.random.Generator
) -> tuple[float, float, tuple[int, ...], tuple[float, ...]]:
    """Slope, intercept, volumes of the parts and their distances."""
    smaller = min(real.n, synthetic.n)
    sizes = [int(size) for size in np.linspace(smaller // 2, smaller, points).round()]
    distances = []
    for size in sizes:
        parts = (one.subset(rng.permutation(one.n)[:size]) for one in (real, synthetic))
        distances.append(fid_between(*parts, n_bootstrap=0).mean)
    slope, intercept = np.polyfit(1 / np.array(sizes), distances, 1)
    return float(slope), float(intercept), tuple(sizes), tuple(distances)
