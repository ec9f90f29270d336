"""Does a synthetic set give away who its generator learnt from? Distances between sets of volumes say.

Copies are counted by :mod:`text2ct.evaluation.memorisation`, which aligns volumes and calibrates a threshold. Here is
what can be said of a whole set, by features: ratios to the nearest neighbours, authenticity, and how well an attacker
who holds the synthetic set tells training patients from others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.neighbors import NearestNeighbors

from text2ct.errors import UserError
from text2ct.evaluation.bootstrap import cluster_weights, interval, weighted_auc


@dataclass(frozen=True)
class Privacy:
    """What distances say.

    Attributes:
        nearest_ratio: Median, over synthetic volumes, of the distance to the nearest training volume over that to the
            second nearest, in [0, 1]: near 0 for copies of one patient.
        nearest_ratio_held_out: The same of patients that the generator never met: what to expect.
        authenticity: Share of synthetic volumes that are farther from their nearest training volume than that is
            from its own nearest training volume (Alaa et al. 2022, arXiv 2102.08921, section 4.3).
        authenticity_held_out: The same of patients that the generator never met.
        membership_auc: AUC with which nearness to the synthetic set tells training patients from others
            (Chen et al. 2020, "GAN-Leaks", arXiv 1909.03935, the attack that sees generated samples alone): 0.5 tells
            nothing.
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
    synthetic: ArrayLike, training: ArrayLike, held_out: ArrayLike, *, n_bootstrap: int = 1000, seed: int = 0
) -> Privacy:
    """Measure by Euclidean distances of features; memory grows with the volumes, not with their pairs.

    Args:
        synthetic: (m, d) features, one row a volume.
        training: (n, d), of what the generator learnt from.
        held_out: (h, d), of other patients.
        n_bootstrap: Bootstrap samples; 0 for no interval.
        seed: Of the bootstrap.

    Raises:
        UserError: Features that are not finite or of different widths, fewer than 2 training volumes or 1 of
            another kind.
    """
    made, learnt, others = (np.asarray(one, dtype=np.float64) for one in (synthetic, training, held_out))
    _check(made, learnt, others)
    search = NearestNeighbors(n_neighbors=2, algorithm="brute").fit(learnt)
    own = search.kneighbors(n_neighbors=1)[0][:, 0]  # without asking for anything, nobody is a neighbour of itself
    of_made, of_others = search.kneighbors(made), search.kneighbors(others)
    attack = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(made)
    scores = -np.concatenate([attack.kneighbors(one)[0][:, 0] for one in (learnt, others)])
    member = np.arange(len(scores)) < len(learnt)
    auc = float(weighted_auc(scores, member, np.ones((len(scores), 1)))[0])
    found = None
    if n_bootstrap:
        weights = cluster_weights(np.arange(len(scores)), n_bootstrap, np.random.default_rng(seed))
        found = interval(weighted_auc(scores, member, weights))
    return Privacy(
        nearest_ratio=_ratio(of_made[0]),
        nearest_ratio_held_out=_ratio(of_others[0]),
        authenticity=_authentic(of_made[0], of_made[1], own),
        authenticity_held_out=_authentic(of_others[0], of_others[1], own),
        membership_auc=auc,
        membership_auc_ci=None if found is None else (found[0], found[1]),
        n_training=len(learnt),
        n_held_out=len(others),
        n_synthetic=len(made),
    )


def _ratio(nearest: NDArray[np.float64]) -> float:
    ratio = np.divide(nearest[:, 0], nearest[:, 1], out=np.ones(len(nearest)), where=nearest[:, 1] > 0)
    return float(np.median(ratio))


def _authentic(nearest: NDArray[np.float64], index: NDArray[np.intp], own: NDArray[np.float64]) -> float:
    return float(np.mean(nearest[:, 0] > own[index[:, 0]]))


def _check(made: NDArray[np.float64], learnt: NDArray[np.float64], others: NDArray[np.float64]) -> None:
    shapes = [one.shape for one in (made, learnt, others)]
    if any(len(shape) != 2 or 0 in shape for shape in shapes) or len({shape[1] for shape in shapes}) > 1:
        raise UserError(f"features have shapes {shapes}; expected three tables of one width, of one row or more")
    if len(learnt) < 2:
        raise UserError("one training volume has no nearest other one; give 2 or more")
    if any(not np.isfinite(one).all() for one in (made, learnt, others)):
        raise UserError("features hold NaN or infinite values; make them again")
