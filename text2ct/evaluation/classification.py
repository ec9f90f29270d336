"""Scores of a multi-label classifier: AUC, precision, average precision, F1, CRG, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import average_precision_score

from text2ct.errors import UserError
from text2ct.evaluation.alignment import Cases, align
from text2ct.evaluation.bootstrap import auc_samples, cluster_weights, interval, precision_samples, row_mean
from text2ct.findings import FINDINGS

DEFAULT_THRESHOLD = 0.5


def crg(positive: ArrayLike, predicted: ArrayLike) -> float | None:
    """CRG score: finding-level correctness that no trivial prediction can win.

    I. E. Hamamci et al. 2025, "CRG Score: A Distribution-Aware Clinical Metric for Radiology
    Report Generation", MIDL short paper, arXiv:2505.17167. With ``T`` labels of which ``A`` are
    positive, true and missed positives weigh ``w = (T - A) / (2 A)`` and false alarms 1:
    ``s = w TP - w FN - FP``, ``s_max = w A``, ``CRG = s_max / (2 s_max - s)``. Predicting
    everything and predicting nothing both score 1/3, a perfect prediction 1.

    Args:
        positive: ``(n, F)`` labels 1, 0 or NaN; unknown ones are left out.
        predicted: ``(n, F)`` decisions, 1 or 0.

    Returns:
        A value in (0, 1], or None when the labels are all positive or all negative.
    """
    truth, decision = np.asarray(positive, dtype=float), np.asarray(predicted, dtype=float) > 0.5
    known = ~np.isnan(truth)
    total, present = int(known.sum()), float((truth == 1).sum())
    if present in (0, total):
        return None
    weight = (total - present) / (2.0 * present)
    true_positive = float((decision & (truth == 1)).sum())
    false_positive = float((decision & (truth == 0)).sum())
    score = weight * true_positive - weight * (present - true_positive) - false_positive
    best = weight * present
    return best / (2.0 * best - score)


def choose_thresholds(
    predictions: pd.DataFrame,
    labels: pd.DataFrame,
    *,
    groups: Sequence[str] | None = None,
    scans: Sequence[str] | None = None,
) -> dict[str, float]:
    """Choose for each finding the threshold with the best F1; give it validation patients only.

    A threshold tuned on the scored set flatters it, so ``score`` never tunes one itself. Among
    equally good thresholds the middle of the best gap between scores is taken. A finding without
    a positive or a negative keeps 0.5.

    Args:
        predictions: As for ``score``.
        labels: As for ``score``.
        groups: As for ``score``.
        scans: As for ``score``.

    Returns:
        Threshold in [0, 1] for each finding: at or above it counts as present.
    """
    cases = align(predictions, labels, groups=groups, scans=scans)
    chosen = {}
    for column, finding in enumerate(FINDINGS):
        known = ~np.isnan(cases.labels[:, column])
        chosen[finding] = _best_f1(cases.scores[known, column], cases.labels[known, column] == 1)
    return chosen


def _best_f1(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    if not positive.any() or positive.all():
        return DEFAULT_THRESHOLD
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(positive[order])
    f1 = 2.0 * hits / (np.arange(1, len(ranked) + 1) + hits[-1])
    f1[:-1][ranked[:-1] == ranked[1:]] = -1.0  # tied scores cannot be told apart
    best = int(np.argmax(f1))
    below = ranked[best + 1] if best + 1 < len(ranked) else 0.0
    return float((ranked[best] + below) / 2.0)


def score(
    predictions: pd.DataFrame,
    labels: pd.DataFrame,
    *,
    groups: Sequence[str] | None = None,
    scans: Sequence[str] | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
    thresholds: Mapping[str, float] | float | None = None,
) -> dict[str, Any]:
    """Score a classifier per scan, with 95% intervals from a bootstrap over patients.

    Args:
        predictions: An id column (optional) and the 18 findings, probabilities in [0, 1].
        labels: The same with 1, 0 or NaN; unknown labels are left out of their finding only.
        groups: ``(rows of labels,)`` patient of each row; from columns or CT-RATE names otherwise.
        scans: ``(rows of labels,)`` scan of each row, likewise.
        n_bootstrap: Bootstrap samples; 0 for no intervals.
        seed: Seed of the bootstrap.
        thresholds: Of precision, F1 and CRG: one for all or one per finding (``choose_thresholds``
            on validation patients), 0.5 by default.

    Returns:
        What ``score --json`` prints: ``macro_auc``, ``macro_auc_ci``, ``findings`` and so on. A
        number that does not exist is None and its ``reason`` stands beside it. Macro averages run
        over the findings that have both classes; a finding never predicted counts there with
        precision 0.

    Raises:
        UserError: The tables do not belong together.
    """
    cases = align(predictions, labels, groups=groups, scans=scans)
    cutoffs = _cutoffs(thresholds)
    decided = cases.scores >= cutoffs
    weights = cluster_weights(cases.patients, max(n_bootstrap, 0), np.random.default_rng(seed))
    samples = auc_samples(cases.scores, cases.labels, weights)
    point = auc_samples(cases.scores, cases.labels, np.ones((cases.n_scans, 1)))[0]

    findings = {
        name: _finding(cases, decided, column, point[column], samples[:, column], float(cutoffs[column]))
        for column, name in enumerate(FINDINGS)
    }
    scored = [entry for entry in findings.values() if entry["auc"] is not None]
    positives = np.nansum(cases.labels, axis=0)
    usable = ~np.isnan(point)
    precision = [entry["precision"] or 0.0 for entry in scored]
    weight = [entry["positive"] for entry in scored]
    # A finding never predicted counts with precision 0, in every sample.
    precise = np.where(np.isnan(point), np.nan, np.nan_to_num(precision_samples(decided, cases.labels, weights)))
    result: dict[str, Any] = {
        "volumes": cases.n_volumes,
        "scans": cases.n_scans,
        "macro_auc": _mean(point[usable]),
        "macro_auc_ci": interval(row_mean(samples)) if n_bootstrap > 0 else None,
        "weighted_auc": _mean(point[usable], positives[usable]),
        "macro_precision": _mean(precision),
        "weighted_precision": _mean(precision, weight),
        "macro_average_precision": _mean([entry["average_precision"] for entry in scored]),
        "macro_f1": _mean([entry["f1"] for entry in scored]),
        "crg": crg(cases.labels, decided),
        "findings": findings,
        "macro_recall": _mean([entry["recall"] for entry in scored]),
        "macro_accuracy": _mean([entry["accuracy"] for entry in scored]),
        "weighted_auc_ci": interval(row_mean(samples, positives)) if n_bootstrap > 0 else None,
        "macro_precision_ci": interval(row_mean(precise)) if n_bootstrap > 0 else None,
        "weighted_precision_ci": interval(row_mean(precise, positives)) if n_bootstrap > 0 else None,
        "patients": cases.n_patients,
        "findings_scored": len(scored),
        "n_bootstrap": max(n_bootstrap, 0),
        "seed": seed,
        "notes": list(cases.notes),
    }
    if not scored:
        result["reason"] = "no finding has both a positive and a negative scan"
    return result


def _cutoffs(thresholds: Mapping[str, float] | float | None) -> NDArray[np.float64]:
    if isinstance(thresholds, Mapping):
        unknown = sorted(set(thresholds) - set(FINDINGS))
        if unknown:
            raise UserError(f"thresholds for unknown findings: {', '.join(unknown)}")
        return np.array([float(thresholds.get(name, DEFAULT_THRESHOLD)) for name in FINDINGS])
    return np.full(len(FINDINGS), DEFAULT_THRESHOLD if thresholds is None else float(thresholds))


def _mean(values: ArrayLike, weights: ArrayLike | None = None) -> float | None:
    array = np.asarray(values, dtype=float)
    share = None if weights is None else np.asarray(weights, dtype=float)
    return float(np.average(array, weights=share)) if array.size else None


def _finding(
    cases: Cases,
    decided: NDArray[np.bool_],
    column: int,
    auc: float,
    samples: NDArray[np.float64],
    threshold: float,
) -> dict[str, Any]:
    known = ~np.isnan(cases.labels[:, column])
    positive = cases.labels[known, column] == 1
    hit = decided[known, column]
    true_positive, predicted, present = int((hit & positive).sum()), int(hit.sum()), int(positive.sum())
    defined = 0 < present < len(positive)
    entry: dict[str, Any] = {
        "auc": float(auc) if defined else None,
        "auc_ci": interval(samples) if defined and len(samples) else None,
        "positive": present,
        "negative": len(positive) - present,
        "unknown": int((~known).sum()),
        "threshold": threshold,
        "precision": true_positive / predicted if predicted else None,
        "recall": true_positive / present if present else None,
        "accuracy": float((hit == positive).mean()) if len(positive) else None,
        "f1": 2.0 * true_positive / (predicted + present) if present else None,
        "average_precision": (
            float(average_precision_score(positive, cases.scores[known, column])) if defined else None
        ),
    }
    reasons = []
    if not known.any():
        reasons.append("the label is unknown for every scan")
    elif not defined:
        reasons.append("no positive scan" if present == 0 else "no negative scan")
    elif entry["auc_ci"] is None and len(samples):
        reasons.append("too few positives for an interval")
    if known.any() and not predicted:
        reasons.append("never predicted at this threshold")
    if reasons:
        entry["reason"] = "; ".join(reasons)
    return entry
