"""3D Fréchet distance: one row of features a volume, of a network that reads the whole of it.

There are hardly ever as many volumes as features, so the covariances are singular and the distance is very biased: read
it beside :attr:`Fid3d.floor`, at the same number of volumes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from text2ct.evaluation.bootstrap import cluster_weights, spread_around
from text2ct.evaluation.frechet import frechet_of_rows
from text2ct.evaluation.neighbourhoods import feature_pair

DIVISIONS = 10


@dataclass(frozen=True)
class Fid3d:
    """The distance, and all it depends on.

    Attributes:
        value: Fréchet distance of the two sets.
        ci: 95% interval, of a bootstrap over groups; None without one.
        floor: Mean distance of disjoint random halves of the real set, ``n_each`` volumes on either side; None with
            fewer than 4 real volumes.
        at_n_each: Mean distance of as many real and synthetic volumes.
        ratio: ``at_n_each / floor``.
        n_each: Volumes on either side of the two above.
        n_real: Real volumes.
        n_synthetic: Synthetic volumes.
        dimension: Number of features.
        rank_deficient: A set has no more volumes than features.
        n_bootstrap: Bootstrap samples.
        seed: Of bootstrap and divisions.
    """

    value: float
    ci: tuple[float, float] | None
    floor: float | None
    at_n_each: float | None
    ratio: float | None
    n_each: int
    n_real: int
    n_synthetic: int
    dimension: int
    rank_deficient: bool
    n_bootstrap: int
    seed: int


def fid_3d(
    real: ArrayLike,
    synthetic: ArrayLike,
    *,
    groups: tuple[NDArray[np.integer], NDArray[np.integer]] | None = None,
    n_bootstrap: int = 200,
    seed: int = 0,
) -> Fid3d:
    """Fréchet distance of volumes' features, in float64 (Heusel et al. 2017, eq. 6).

    Args:
        real: (n, d) features, one row a volume.
        synthetic: (m, d).
        groups: As for :func:`text2ct.evaluation.fidelity.fid_between`.
        n_bootstrap: Bootstrap samples; 0 for no interval.
        seed: Of bootstrap and divisions.

    Raises:
        UserError: As :func:`text2ct.evaluation.neighbourhoods.feature_pair`.
    """
    x, y = feature_pair(real, synthetic)
    value = frechet_of_rows(x, y)
    rng = np.random.default_rng(seed)
    ci = None
    if n_bootstrap:
        together = groups or (np.arange(len(x)), np.arange(len(y)))
        draws = [cluster_weights(codes, n_bootstrap, rng).T for codes in together]
        ci = spread_around(value, np.array([frechet_of_rows(x, y, a, b) for a, b in zip(*draws, strict=True)]))
    # One scan a patient: another one is no stranger to it.
    alone = x if groups is None else x[np.unique(groups[0], return_index=True)[1]]
    each = min(len(alone) // 2, len(y))
    floors, beside = [], []
    for _ in range(DIVISIONS if each >= 2 else 0):
        order, other = rng.permutation(len(alone)), rng.permutation(len(y))[:each]
        floors.append(frechet_of_rows(alone[order[:each]], alone[order[each : 2 * each]]))
        beside.append(frechet_of_rows(alone[order[:each]], y[other]))
    floor, at = (float(np.mean(one)) if one else None for one in (floors, beside))
    return Fid3d(
        value=value,
        ci=ci,
        floor=floor,
        at_n_each=at,
        ratio=at / floor if floor and at is not None else None,
        n_each=each,
        n_real=len(x),
        n_synthetic=len(y),
        dimension=x.shape[1],
        rank_deficient=min(len(x), len(y)) <= x.shape[1],
        n_bootstrap=n_bootstrap,
        seed=seed,
    )
