"""Where a synthetic set lies beside a real one, volume by volume: kernel distance, precision, recall, coverage.

A Fréchet distance sees means and covariances. These see neighbourhoods, and tell apart what it cannot: volumes
that look real but all alike (low recall), and varied ones that no scanner makes (low precision). Features are one row
a volume, so rows are independent where volumes are of different patients.
"""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True)
class KernelDistance:
    """Kernel inception distance.

    Attributes:
        value: Unbiased squared maximum mean discrepancy; below 0 by chance where the sets agree.
        ci: 95% interval, of the jackknife's deviation; None with fewer than 3 volumes on a side.
        n_real: Real volumes.
        n_synthetic: Synthetic volumes.
        dimension: Number of features.
    """

    value: float
    ci: tuple[float, float] | None
    n_real: int
    n_synthetic: int
    dimension: int


def kernel_distance(real: ArrayLike, synthetic: ArrayLike) -> KernelDistance:
    """Squared MMD with the kernel ``(x·y/d + 1)^3`` (Binkowski et al. 2018, arXiv 1801.01401, section 3.3).

    Unbiased for any number of volumes, where a Fréchet distance falls as volumes are added. The interval is that of
    the jackknife: each volume of either set is left out once.

    Args:
        real: (n, d) features, one row a volume.
        synthetic: (m, d).

    Raises:
        UserError: As :func:`feature_pair`.
    """
    x, y = feature_pair(real, synthetic)
    n, m, d = len(x), len(y), x.shape[1]

    def kernel(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        values: NDArray[np.float64] = (a @ b.T / d + 1) ** 3
        return values

    within_x, within_y, between = kernel(x, x), kernel(y, y), kernel(x, y)
    np.fill_diagonal(within_x, 0)
    np.fill_diagonal(within_y, 0)
    sums = within_x.sum(), within_y.sum(), between.sum()
    value = sums[0] / (n * (n - 1)) + sums[1] / (m * (m - 1)) - 2 * sums[2] / (n * m)
    ci = None
    if min(n, m) > 2:
        # What is left when row i is taken away: twice its sum within its own set, once that with the other.
        without_x = (sums[0] - 2 * within_x.sum(axis=1)) / ((n - 1) * (n - 2)) + sums[1] / (m * (m - 1))
        without_x -= 2 * (sums[2] - between.sum(axis=1)) / ((n - 1) * m)
        without_y = (sums[1] - 2 * within_y.sum(axis=1)) / ((m - 1) * (m - 2)) + sums[0] / (n * (n - 1))
        without_y -= 2 * (sums[2] - between.sum(axis=0)) / (n * (m - 1))
        variance = sum((len(one) - 1) * one.var() for one in (without_x, without_y))
        half = norm.ppf((1 + LEVEL) / 2) * np.sqrt(variance)
        ci = (float(value - half), float(value + half))
    return KernelDistance(float(value), ci, n, m, d)


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


def neighbourhoods(real: ArrayLike, synthetic: ArrayLike, *, n_bootstrap: int = 1000, seed: int = 0) -> Neighbourhoods:
    """Precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020).

    The reach of a volume is its distance to its k-th nearest neighbour of its own set: k is 3 for precision and
    recall (arXiv 1904.06991, eq. 1 and section 2), 5 for density and coverage (arXiv 2002.09797, eq. 3 and 4).

    Args:
        real: (n, d) features, one row a volume.
        synthetic: (m, d).
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
    between = cdist(x, y)
    inside = {"real": np.sort(cdist(x, x), axis=1), "synthetic": np.sort(cdist(y, y), axis=1)}
    # Column 0 is the volume itself.
    reach = inside["real"][:, NEAREST_OF_MANIFOLD, None], inside["synthetic"][None, :, NEAREST_OF_MANIFOLD]
    wide = inside["real"][:, NEAREST_OF_DENSITY, None]
    rng = np.random.default_rng(seed)

    def share(values: NDArray[np.float64]) -> Share:
        if not n_bootstrap:
            return Share(float(values.mean()), None)
        weights = cluster_weights(np.arange(len(values)), n_bootstrap, rng)
        low, high = interval(values @ weights / len(values)) or (np.nan, np.nan)
        return Share(float(values.mean()), (low, high))

    return Neighbourhoods(
        precision=share((between <= reach[0]).any(axis=0).astype(np.float64)),
        recall=share((between <= reach[1]).any(axis=1).astype(np.float64)),
        density=share((between <= wide).sum(axis=0) / NEAREST_OF_DENSITY),
        coverage=share((between.min(axis=1) <= wide[:, 0]).astype(np.float64)),
        n_real=len(x),
        n_synthetic=len(y),
        dimension=x.shape[1],
    )


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
