"""Does a synthetic set give away who its generator learnt from? Distances between sets of volumes say.

Copies are counted by :mod:`text2ct.evaluation.memorisation`, which aligns volumes and calibrates a threshold. Here is
what can be said of a whole set, by features or by any other distance: ratios to the nearest neighbours, authenticity,
and how well an attacker who holds the synthetic set tells training patients from others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from text2ct.errors import UserError
from text2ct.evaluation.bootstrap import cluster_weights, interval, weighted_auc


@dataclass(frozen=True)
class Privacy:
    """What distances say; each value with a 95% interval of a bootstrap over patients.

    Attributes:
        nearest_ratio: Median, over synthetic volumes, of the distance to the nearest training volume over that to the
            second nearest, in [0, 1]: near 0 for copies of one patient.
        nearest_ratio_held_out: The same of patients that the generator never met: what to expect.
        authenticity: Share of synthetic volumes that are farther from their nearest training volume than that is
            from its own nearest training volume (Alaa et al. 2022, arXiv 2102.08921, section 4.3).
        authenticity_held_out: The same of patients that the generator never met.
        membership_auc: AUC with which nearness to the synthetic set tells training patients from others
            (Hilprecht et al. 2019, "Monte Carlo and reconstruction membership inference attacks against generative
            models", section 4): 0.5 tells nothing.
        membership_auc_ci: Its interval, over patients of both kinds.
        n_training: Training volumes.
        n_held_out: Volumes of other patients.
        n_synthetic: Synthetic volumes.
    """

    nearest_ratio: float
    nearest_ratio_held_out: float
    authenticity: float
    authenticity_held_out: float
    membership_auc: float
    membership_auc_ci: tuple[float, float] | None
    n_training: int
    n_held_out: int
    n_synthetic: int


def privacy(
    synthetic_to_training: ArrayLike,
    held_out_to_training: ArrayLike,
    within_training: ArrayLike,
    synthetic_to_held_out: ArrayLike,
    *,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> Privacy:
    """Measure by matrices of distances, all of one kind.

    Args:
        synthetic_to_training: (m, n) from each synthetic volume to each that the generator learnt from.
        held_out_to_training: (h, n) from volumes of other patients.
        within_training: (n, n); the diagonal does not count.
        synthetic_to_held_out: (m, h).
        n_bootstrap: Bootstrap samples; 0 for no interval.
        seed: Of the bootstrap.

    Raises:
        UserError: Shapes that do not belong together, distances that are negative or not finite, fewer than 2
            training volumes or 1 of another kind.
    """
    made, other, inside, beside = (
        np.asarray(one, dtype=np.float64)
        for one in (synthetic_to_training, held_out_to_training, within_training, synthetic_to_held_out)
    )
    _check(made, other, inside, beside)
    inside = inside.copy()
    np.fill_diagonal(inside, np.inf)
    own = inside.min(axis=1)
    training, held_out = made.min(axis=0), beside.min(axis=0)
    scores = -np.concatenate([training, held_out])
    member = np.arange(len(scores)) < len(training)
    weights = np.ones((len(scores), 1))
    auc = float(weighted_auc(scores, member, weights)[0])
    found = None
    if n_bootstrap:
        weights = cluster_weights(np.arange(len(scores)), n_bootstrap, np.random.default_rng(seed))
        found = interval(weighted_auc(scores, member, weights))
    return Privacy(
        nearest_ratio=_ratio(made),
        nearest_ratio_held_out=_ratio(other),
        authenticity=_authentic(made, own),
        authenticity_held_out=_authentic(other, own),
        membership_auc=auc,
        membership_auc_ci=None if found is None else (found[0], found[1]),
        n_training=made.shape[1],
        n_held_out=len(other),
        n_synthetic=len(made),
    )


def _ratio(distances: NDArray[np.float64]) -> float:
    nearest = np.sort(distances, axis=1)[:, :2]
    ratio = np.divide(nearest[:, 0], nearest[:, 1], out=np.ones(len(nearest)), where=nearest[:, 1] > 0)
    return float(np.median(ratio))


def _authentic(distances: NDArray[np.float64], own: NDArray[np.float64]) -> float:
    index = distances.argmin(axis=1)
    return float(np.mean(distances[np.arange(len(index)), index] > own[index]))


def _check(
    made: NDArray[np.float64], other: NDArray[np.float64], inside: NDArray[np.float64], beside: NDArray[np.float64]
) -> None:
    shapes = [one.shape for one in (made, other, inside, beside)]
    if any(len(shape) != 2 or 0 in shape for shape in shapes):
        raise UserError(f"distances have shapes {shapes}; expected four matrices of one row and column or more")
    (m, n), (h, n_other), square, last = shapes
    if n_other != n or square != (n, n) or last != (m, h):
        raise UserError(f"distances have shapes {shapes}; expected (m, n), (h, n), (n, n) and (m, h)")
    if n < 2:
        raise UserError("one training volume has no nearest other one; give 2 or more")
    if any(not np.isfinite(one).all() or (one < 0).any() for one in (made, other, beside)):
        raise UserError("distances are negative or not finite; make them again")
