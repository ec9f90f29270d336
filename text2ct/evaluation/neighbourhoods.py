"""Where a synthetic set lies beside a real one, volume by volume: kernel distance, precision, recall, coverage.

A Fréchet distance sees means and covariances. These see neighbourhoods, and tell apart what it cannot: volumes
that look real but all alike (low recall), and varied ones that no scanner makes (low precision). Features are one row
a volume, so rows are independent where volumes are of different patients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist
from scipy.stats import norm

from text2ct.errors import UserError
from text2ct.evaluation.bootstrap import LEVEL, cluster_weights, interval

NEAREST_OF_MANIFOLD = 3
"""k of precision and recall, as Kynkäänniemi et al. 2019 choose it."""
NEAREST_OF_DENSITY = 5
"""k of density and coverage, as Naeem et al. 2020 choose it."""
BLOCK = 1024
"""Rows whose distances to all others are in memory at a time."""


@dataclass(frozen=True)
class KernelDistance:
    """Kernel inception distance.

    Attributes:
        value: Unbiased squared maximum mean discrepancy; below 0 by chance where the sets agree.
        ci: 95% interval, of the jackknife's deviation; None with fewer than 3 groups on a side.
        n_real: Real volumes.
        n_synthetic: Synthetic volumes.
        dimension: Number of features.
    """

    value: float
    ci: tuple[float, float] | None
    n_real: int
    n_synthetic: int
    dimension: int


def kernel_distance(
    real: ArrayLike, synthetic: ArrayLike, *, groups: tuple[NDArray[np.integer], NDArray[np.integer]] | None = None
) -> KernelDistance:
    """Squared MMD with the kernel ``(x·y/d + 1)^3`` (Binkowski et al. 2018, arXiv 1801.01401, section 3.3).

    Unbiased for any number of rows, where a Fréchet distance falls as they are added. The interval is that of the
    jackknife: each group of either set is left out once. Of published figures it differs where rows are means over a
    volume's slices instead of single slices.

    Args:
        real: (n, d) features, one row a volume.
        synthetic: (m, d).
        groups: Codes (n,) and (m,), counted from 0, of what is left out together: a patient's volumes, a prompt's; each
            volume by itself if None.

    Raises:
        UserError: As :func:`feature_pair`.
    """
    x, y = feature_pair(real, synthetic)
    codes = groups or (np.arange(len(x)), np.arange(len(y)))
    (within_x, own_x), (within_y, own_y) = (_within(rows, code) for rows, code in zip((x, y), codes, strict=True))
    between = _between(x, y)
    sums = within_x.sum(), within_y.sum(), between[0].sum()
    n, m = len(x), len(y)
    value = sums[0] / (n * (n - 1)) + sums[1] / (m * (m - 1)) - 2 * sums[2] / (n * m)

    def variance(
        code: NDArray[np.integer], inside: NDArray[np.float64], own: NDArray[np.float64], to_other: NDArray[np.float64],
        total: tuple[float, float], other: int,
    ) -> float | None:  # fmt: skip
        """Jackknife variance of leaving out each group of one set; None where too few are left."""
        size = np.bincount(code)
        left = len(code) - size
        if len(size) < 3 or left.min() < 2:
            return None
        # What is left without a group: its rows' sums go twice, but for the pairs within it, which go once.
        alone = (total[0] - 2 * np.bincount(code, inside) + own) / (left * (left - 1))
        across = (total[1] - np.bincount(code, to_other)) / (left * other)
        return float((len(size) - 1) * (alone - 2 * across).var())

    parts = (
        variance(codes[0], within_x, own_x, between[0], (sums[0], sums[2]), m),
        variance(codes[1], within_y, own_y, between[1], (sums[1], sums[2]), n),
    )
    ci = None
    if parts[0] is not None and parts[1] is not None:
        half = norm.ppf((1 + LEVEL) / 2) * np.sqrt(parts[0] + parts[1])
        ci = (float(value - half), float(value + half))
    return KernelDistance(float(value), ci, n, m, x.shape[1])


def _kernel(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    values: NDArray[np.float64] = (a @ b.T / a.shape[1] + 1) ** 3
    return values


def _within(rows: NDArray[np.float64], codes: NDArray[np.integer]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums of the kernel with all other rows, (n,), and within each group, (groups,); nothing with itself."""
    itself = ((rows**2).sum(axis=1) / rows.shape[1] + 1) ** 3
    sums = _between(rows, rows)[0] - itself
    own = np.zeros(int(codes.max()) + 1)
    for code in np.flatnonzero(np.bincount(codes) > 1):
        members = codes == code
        own[code] = _kernel(rows[members], rows[members]).sum() - itself[members].sum()
    return sums, own


def _between(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums of the kernel of each row of ``a`` with all of ``b``, (n,), and of each of ``b``, (m,); block by block."""
    sums, others = np.zeros(len(a)), np.zeros(len(b))
    for start in range(0, len(a), BLOCK):
        values = _kernel(a[start : start + BLOCK], b)
        sums[start : start + BLOCK] = values.sum(axis=1)
        others += values.sum(axis=0)
    return sums, others


@dataclass(frozen=True)
class Share:
    """A mean over volumes with its interval.

    Attributes:
        value: The mean.
        ci: 95% interval of a bootstrap over the volumes that are averaged, the other set as it is.
    """

    value: float
    ci: tuple[float, float] | None


@dataclass(frozen=True)
class Neighbourhoods:
    """How two sets lie in each other.

    Attributes:
        precision: Share of synthetic volumes within the reach of a real one: do they look real?
        recall: Share of real volumes within the reach of a synthetic one: is all that is real made?
        density: As precision, but counting in how many reaches; 1 where the sets agree, above 1 where synthetic
            volumes crowd in the midst of real ones.
        coverage: Share of real volumes within whose reach a synthetic one lies.
        n_real: Real volumes.
        n_synthetic: Synthetic volumes.
        dimension: Number of features.
    """

    precision: Share
    recall: Share
    density: Share
    coverage: Share
    n_real: int
    n_synthetic: int
    dimension: int


def neighbourhoods(
    real: ArrayLike,
    synthetic: ArrayLike,
    *,
    groups: tuple[NDArray[np.integer], NDArray[np.integer]] | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> Neighbourhoods:
    """Precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020).

    The reach of a volume is its distance to its k-th nearest neighbour of its own set: k is 3 for precision and
    recall (arXiv 1904.06991, eq. 1 and section 2), 5 for density and coverage (arXiv 2002.09797, eq. 3 and 4).

    Args:
        real: (n, d) features, one row a volume.
        synthetic: (m, d).
        groups: As for :func:`kernel_distance`: what the bootstrap draws together.
        n_bootstrap: Bootstrap samples; 0 for no intervals.
        seed: Of the bootstrap.

    Raises:
        UserError: As :func:`feature_pair`, or a set has no more than 5 volumes.
    """
    x, y = feature_pair(real, synthetic)
    if min(len(x), len(y)) <= NEAREST_OF_DENSITY:
        raise UserError(
            f"{len(x)} real and {len(y)} synthetic volumes have no {NEAREST_OF_DENSITY}th neighbours; give "
            f"{NEAREST_OF_DENSITY + 1} or more of each"
        )
    reach, wide = _reaches(x, NEAREST_OF_MANIFOLD), _reaches(x, NEAREST_OF_DENSITY)
    reach_made = _reaches(y, NEAREST_OF_MANIFOLD)
    looks_real, counted = np.zeros(len(y), dtype=bool), np.zeros(len(y))
    made, covered = np.zeros(len(x), dtype=bool), np.zeros(len(x), dtype=bool)
    for start in range(0, len(x), BLOCK):
        rows = slice(start, start + BLOCK)
        between = cdist(x[rows], y)
        looks_real |= (between <= reach[rows, None]).any(axis=0)
        counted += (between <= wide[rows, None]).sum(axis=0)
        made[rows] = (between <= reach_made).any(axis=1)
        covered[rows] = between.min(axis=1) <= wide[rows]
    rng = np.random.default_rng(seed)
    codes = groups or (np.arange(len(x)), np.arange(len(y)))

    def share(values: NDArray[Any], code: NDArray[np.integer]) -> Share:
        if not n_bootstrap:
            return Share(float(values.mean()), None)
        weights = cluster_weights(code, n_bootstrap, rng)
        found = interval(values @ weights / weights.sum(axis=0))
        return Share(float(values.mean()), None if found is None else (found[0], found[1]))

    return Neighbourhoods(
        precision=share(looks_real, codes[1]),
        recall=share(made, codes[0]),
        density=share(counted / NEAREST_OF_DENSITY, codes[1]),
        coverage=share(covered, codes[0]),
        n_real=len(x),
        n_synthetic=len(y),
        dimension=x.shape[1],
    )


def _reaches(rows: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """(n,) distance of each row to its k-th nearest other one."""
    parts = [
        # Column 0 is the row itself.
        np.partition(cdist(rows[start : start + BLOCK], rows), k, axis=1)[:, k]
        for start in range(0, len(rows), BLOCK)
    ]
    return np.concatenate(parts)


def feature_pair(real: ArrayLike, synthetic: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both as (n, d) float64.

    Raises:
        UserError: Fewer than 2 volumes in a set, values that are not finite, or different numbers of features.
    """
    pair = np.asarray(real, dtype=np.float64), np.asarray(synthetic, dtype=np.float64)
    for name, one in zip(("real", "synthetic"), pair, strict=True):
        if one.ndim != 2 or len(one) < 2 or not one.shape[1]:
            raise UserError(f"the {name} features have shape {one.shape}; expected (n, d) of 2 or more volumes")
        if not np.isfinite(one).all():
            raise UserError(f"the {name} features hold NaN or infinite values; make them again")
    if pair[0].shape[1] != pair[1].shape[1]:
        raise UserError(f"{pair[0].shape[1]} real and {pair[1].shape[1]} synthetic features are of two backbones")
    return pair
