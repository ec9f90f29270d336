"""Patient-clustered bootstrap: resampling weights, weighted areas for all of them at once, intervals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
MIN_DEFINED = 0.5
"""An interval is given only if the AUC exists in more than this share of the bootstrap samples."""


def cluster_weights(groups: NDArray[np.integer], n_samples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw how often each row counts when whole groups (patients) are resampled with replacement.

    Rows of one patient always get one weight, since they are not independent of one another
    (Field and Welsh 2007, "Bootstrapping clustered data").

    Args:
        groups: ``(n,)`` codes ``0 .. n_groups - 1``.
        n_samples: Number of bootstrap samples.
        rng: Source of randomness.

    Returns:
        ``(n, n_samples)`` weights: non-negative whole numbers.
    """
    n_groups = int(groups.max()) + 1
    counts = rng.multinomial(n_groups, np.full(n_groups, 1.0 / n_groups), size=n_samples)
    return np.ascontiguousarray(counts.T.astype(np.float64)[groups])


def weighted_auc(
    scores: NDArray[np.floating], positive: NDArray[np.bool_], weights: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Area under the ROC curve for many weightings of the same rows; ties count one half.

    The weighted Mann-Whitney statistic: one sort serves every weighting, and with weights of one
    it equals scikit-learn's ``roc_auc_score``.

    Args:
        scores: ``(n,)``, finite.
        positive: ``(n,)``, whether the row has the finding.
        weights: ``(n, B)``, non-negative.

    Returns:
        ``(B,)`` areas in [0, 1]; NaN where the positives or the negatives weigh nothing.
    """
    negative_scores = scores[~positive]
    order = np.argsort(negative_scores, kind="stable")
    negative_scores = negative_scores[order]
    negative_weights = weights[~positive][order]
    below = np.zeros((len(order) + 1, weights.shape[1]))
    np.cumsum(negative_weights, axis=0, out=below[1:])
    first = np.searchsorted(negative_scores, scores[positive], side="left")
    last = np.searchsorted(negative_scores, scores[positive], side="right")
    positive_weights = weights[positive]
    wins = np.einsum("pb,pb->b", positive_weights, below[first]) + np.einsum("pb,pb->b", positive_weights, below[last])
    pairs = 2.0 * positive_weights.sum(axis=0) * below[-1]
    return np.divide(wins, pairs, out=np.full(weights.shape[1], np.nan), where=pairs > 0)


def weighted_average_precision(
    scores: NDArray[np.floating], positive: NDArray[np.bool_], weights: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Average precision for many weightings of the same rows.

    The step-wise area below the precision-recall curve: the mean, over the weight of the positives, of
    the precision at each one's own score. One sort serves every weighting, and with weights of one it
    equals scikit-learn's ``average_precision_score``.

    Args:
        scores: ``(n,)``, finite.
        positive: ``(n,)``, whether the row has the finding.
        weights: ``(n, B)``, non-negative.

    Returns:
        ``(B,)`` areas in [0, 1]; NaN where the positives weigh nothing.
    """
    at_or_above = _weight_at_or_above(scores[~positive], weights[~positive], scores[positive])
    true = _weight_at_or_above(scores[positive], weights[positive], scores[positive])
    weight = weights[positive]
    precision = np.divide(true, true + at_or_above, out=np.zeros_like(true), where=true > 0)
    area, total = np.einsum("pb,pb->b", weight, precision), weight.sum(axis=0)
    return np.divide(area, total, out=np.full(weights.shape[1], np.nan), where=total > 0)


def _weight_at_or_above(
    scores: NDArray[np.floating], weights: NDArray[np.floating], thresholds: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Weight ``(len(thresholds), B)`` of the rows that score at least each threshold."""
    order = np.argsort(-scores, kind="stable")
    above = np.zeros((len(order) + 1, weights.shape[1]))
    np.cumsum(weights[order], axis=0, out=above[1:])
    return above[np.searchsorted(-scores[order], -thresholds, side="right")]


Area = Callable[[NDArray[np.floating], NDArray[np.bool_], NDArray[np.floating]], NDArray[np.float64]]


def auc_samples(
    scores: NDArray[np.floating],
    labels: NDArray[np.floating],
    weights: NDArray[np.floating],
    area: Area = weighted_auc,
) -> NDArray[np.float64]:
    """Weighted area of every finding; rows whose label is unknown are left out of that finding.

    Args:
        scores: ``(n, F)`` probabilities.
        labels: ``(n, F)`` 1, 0 or NaN.
        weights: ``(n, B)``.
        area: :func:`weighted_auc` or :func:`weighted_average_precision`.

    Returns:
        ``(B, F)``, NaN where undefined: for a finding without positives or negatives, whatever the area.
    """
    result = np.full((weights.shape[1], labels.shape[1]), np.nan)
    for column in range(labels.shape[1]):
        known = ~np.isnan(labels[:, column])
        positive = labels[known, column] == 1
        if positive.any() and not positive.all():
            kept = weights if known.all() else weights[known]
            result[:, column] = area(scores[known, column], positive, kept)
    return result


def precision_samples(
    decided: NDArray[np.bool_], labels: NDArray[np.floating], weights: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Weighted precision of every finding; unknown labels are left out.

    Args:
        decided: ``(n, F)`` what was said to be there.
        labels: ``(n, F)`` 1, 0 or NaN.
        weights: ``(n, B)``.

    Returns:
        ``(B, F)``, NaN where nothing was said to be there.
    """
    said = decided & ~np.isnan(labels)
    return _shares((said & (labels == 1)), said, weights)


def accuracy_samples(
    decided: NDArray[np.bool_], labels: NDArray[np.floating], weights: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Weighted accuracy of every finding, as :func:`precision_samples`; NaN where no label is known."""
    known = ~np.isnan(labels)
    return _shares(known & (decided == (labels == 1)), known, weights)


def _shares(hits: NDArray[np.bool_], of: NDArray[np.bool_], weights: NDArray[np.floating]) -> NDArray[np.float64]:
    total = weights.T @ of
    return np.divide(weights.T @ hits, total, out=np.full(total.shape, np.nan), where=total > 0)


def row_mean(samples: NDArray[np.floating], weights: NDArray[np.floating] | None = None) -> NDArray[np.float64]:
    """Mean of each row over its defined values, weighted on request; NaN for a row without any.

    Args:
        samples: ``(B, F)`` with NaN for undefined.
        weights: ``(F,)``, non-negative.
    """
    defined = ~np.isnan(samples)
    share = defined * (np.ones(samples.shape[1]) if weights is None else weights)
    total = share.sum(axis=1)
    values = (np.where(defined, samples, 0.0) * share).sum(axis=1)
    return np.divide(values, total, out=np.full(len(samples), np.nan), where=total > 0)


def interval(samples: NDArray[np.floating], level: float = LEVEL) -> list[float] | None:
    """Percentile interval of bootstrap samples; None when too few of them are defined.

    Args:
        samples: ``(B,)`` with NaN for undefined.
        level: Coverage, 0.95 by default.
    """
    defined = samples[~np.isnan(samples)]
    if len(defined) == 0 or len(defined) <= MIN_DEFINED * len(samples):
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return [float(low), float(high)]


def spread_around(value: float, samples: NDArray[np.floating], level: float = LEVEL) -> tuple[float, float]:
    """Interval of a distance that resampling makes larger: the samples' deviations from their median around it.

    Sets that repeat volumes are farther apart than sets that do not, so the samples tell the spread, not the place.

    Args:
        value: The estimate, 0 or more.
        samples: ``(B,)``, finite.
        level: Coverage.

    Returns:
        Bounds, cut at 0.
    """
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2]) - np.median(samples) + value
    return max(0.0, float(low)), float(high)
