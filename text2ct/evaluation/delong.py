"""DeLong's test for the difference of two correlated AUCs, in O(n log n).

E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson 1988, "Comparing the areas under two or more
correlated receiver operating characteristic curves", Biometrics 44:837-845; computed through
midranks after X. Sun and W. Xu 2014, "Fast implementation of DeLong's algorithm", IEEE Signal
Processing Letters 21:1389-1393.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm, rankdata


@dataclass(frozen=True)
class DeLong:
    """Two AUCs on the same rows and the test of their difference ``auc_b - auc_a``.

    ``p`` is two-sided; None when the variance is 0 and the areas differ, where no test exists.
    """

    auc_a: float
    auc_b: float
    difference: float
    variance: float
    z: float | None
    p: float | None


def placements(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> tuple[NDArray, NDArray]:
    """Structural components of the AUC (Sun and Xu 2014, eq. 5-6).

    Args:
        scores: ``(n,)``.
        positive: ``(n,)``.

    Returns:
        ``V10 (n_positive,)``: for each positive the share of negatives ranked below it, ties one
        half; ``V01 (n_negative,)``: for each negative the share of positives ranked above it. The
        mean of either is the AUC.
    """
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    ranks = rankdata(scores)
    v10 = (ranks[positive] - rankdata(scores[positive])) / n_negative
    v01 = 1.0 - (ranks[~positive] - rankdata(scores[~positive])) / n_positive
    return v10, v01


def _mean_placements(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> tuple[NDArray, NDArray]:
    parts = [placements(row, positive) for row in np.atleast_2d(scores)]
    return np.mean([v10 for v10, _ in parts], axis=0), np.mean([v01 for _, v01 in parts], axis=0)


def _variance(v10: NDArray[np.floating], v01: NDArray[np.floating]) -> float:
    return float(np.var(v10, ddof=1) / len(v10) + np.var(v01, ddof=1) / len(v01))


def auc_variance(scores: ArrayLike, positive: ArrayLike) -> tuple[float, float]:
    """AUC and DeLong's variance of it; needs two positives and two negatives."""
    values, truth = np.asarray(scores, dtype=float), np.asarray(positive, dtype=bool)
    v10, v01 = _mean_placements(values, truth)
    return float(v10.mean()), _variance(v10, v01)


def delong_test(positive: ArrayLike, scores_a: ArrayLike, scores_b: ArrayLike) -> DeLong | None:
    """Test whether ``b`` ranks the same rows better than ``a``.

    Each model may come as several trainings: the AUC is then the mean of theirs, still a
    U-statistic with the mean kernel, so the same variance formula holds. The test sees neither
    the luck of training nor that scans of one patient depend on each other.

    Args:
        positive: ``(n,)`` truth.
        scores_a: ``(n,)`` or ``(trainings, n)``.
        scores_b: ``(n,)`` or ``(trainings, n)``.

    Returns:
        The test, or None with fewer than two positives or two negatives (no variance exists).
    """
    truth = np.asarray(positive, dtype=bool)
    if truth.sum() < 2 or (~truth).sum() < 2:
        return None
    a10, a01 = _mean_placements(np.asarray(scores_a, dtype=float), truth)
    b10, b01 = _mean_placements(np.asarray(scores_b, dtype=float), truth)
    difference = float(b10.mean() - a10.mean())
    variance = _variance(b10 - a10, b01 - a01)
    auc_a, auc_b = float(a10.mean()), float(b10.mean())
    if variance <= 0.0:
        same = abs(difference) < 1e-12
        return DeLong(auc_a, auc_b, difference, 0.0, 0.0 if same else None, 1.0 if same else None)
    z = difference / float(np.sqrt(variance))
    return DeLong(auc_a, auc_b, difference, variance, z, float(2.0 * norm.sf(abs(z))))
