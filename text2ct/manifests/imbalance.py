"""How unbalanced a multi-label table is, and what a study of its size can detect.

Measures of Charte, Rivera, del Jesus & Herrera 2015, "Addressing imbalance in multilabel
classification: measures and random resampling algorithms" (Neurocomputing 163), and SCUMBLE of the
same authors, "Concurrence among imbalanced labels and its influence on multilabel resampling
algorithms" (HAIS 2014). All take a table with one row per sample (a scan, not a reconstruction) and
one column per label, holding 0, 1 or NaN for unknown; unknown is left out, never counted as negative.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd


def prevalence(labels: pd.DataFrame) -> pd.Series:
    """Share of positives among the known samples of each label, in [0, 1]; NaN where none is known."""
    return labels.mean()


def irlbl(labels: pd.DataFrame) -> pd.Series:
    """Imbalance ratio per label, IRLbl (Charte et al. 2015, equation 1).

    The positives of the commonest label over the positives of this one: 1 for the commonest, larger is
    rarer. Positives are taken per known sample, which is the same where all labels are known.

    Returns:
        (L,) ratios >= 1; inf for a label without a positive, NaN for one that is never known.
    """
    share = prevalence(labels)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = share.max() / share
    return ratio if share.max() > 0 else pd.Series(np.nan, index=share.index)


def _finite(ratios: pd.Series) -> np.ndarray:
    values = ratios.to_numpy(dtype=float)
    return values[np.isfinite(values)]


def mean_ir(labels: pd.DataFrame) -> float:
    """Mean imbalance ratio, MeanIR (equation 2), over the labels that have a positive; NaN if none has."""
    ratios = _finite(irlbl(labels))
    return float(ratios.mean()) if len(ratios) else math.nan


def cvir(labels: pd.DataFrame) -> float:
    """Coefficient of variation of IRLbl, CVIR (equation 3): its standard deviation (L - 1) over MeanIR."""
    ratios = _finite(irlbl(labels))
    return float(ratios.std(ddof=1) / ratios.mean()) if len(ratios) > 1 else math.nan


def scumble(labels: pd.DataFrame) -> float:
    """How much rare and common labels share samples, SCUMBLE, in [0, 1] (Charte et al. 2014).

    Mean over samples of 1 - (geometric mean / arithmetic mean) of the IRLbl of the labels that are
    positive in it, 0 for a sample without any (as in the authors' package mldr). Above about 0.1,
    duplicating the rows of a rare label duplicates the common ones as well.
    """
    if labels.empty:
        return math.nan
    ratios = irlbl(labels).to_numpy(dtype=float)
    ratios = np.where(np.isfinite(ratios), ratios, 1.0)  # no positive: the column is never active
    active = (labels == 1).to_numpy(dtype=float)
    count = active.sum(axis=1)
    some = count > 0
    geometric = np.exp(active[some] @ np.log(ratios) / count[some])
    arithmetic = active[some] @ ratios / count[some]
    return float((1 - geometric / arithmetic).sum() / len(labels))


def cooccurrence(labels: pd.DataFrame) -> pd.DataFrame:
    """(L, L) numbers of samples positive for both labels; the diagonal holds each label's positives."""
    active = (labels == 1).to_numpy(dtype=np.int64)
    return pd.DataFrame(active.T @ active, index=labels.columns, columns=labels.columns)


def auc_variance(auc: float, n_pos: int, n_neg: int) -> float:
    """Variance of an area under the ROC curve (Hanley & McNeil 1982, equation 2, Q1 and Q2 exponential).

    Args:
        auc: The true area, in [0, 1].
        n_pos: Positives, at least 1.
        n_neg: Negatives, at least 1.
    """
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    spread = auc * (1 - auc) + (n_pos - 1) * (q1 - auc**2) + (n_neg - 1) * (q2 - auc**2)
    return spread / (n_pos * n_neg)


PAIRED_CORRELATION = 0.5
"""Between the AUCs of two trainings on the same cases: by DeLong's covariances, the median over 18 findings is 0.53 for
two trainings of one arm and 0.57 with and without synthetic volumes (1,513 patients of a simulated cohort)."""


def detectable_auc_difference(
    n_pos: int,
    n_neg: int,
    auc: float = 0.75,
    alpha: float = 0.05,
    power: float = 0.8,
    correlation: float = PAIRED_CORRELATION,
) -> float:
    """Smallest gain in AUC that a comparison of two models on the same cases finds with the given power.

    Solves delta = z(1 - alpha/2) sqrt(2 (1 - r) V) + z(power) sqrt(V + V' - 2 r sqrt(V V')) with V = V(auc) and
    V' = V(auc + delta), the sample-size relation of Hanley & McNeil 1982 ("The meaning and use of the area under a ROC
    curve", Radiology 143) read backwards, with the correlation r of their 1983 paper on areas "derived from the same
    cases" (Radiology 148). The luck of trainings, which ``benchmark`` counts in, comes on top.

    Args:
        n_pos: Positive cases of the test.
        n_neg: Negative cases of the test.
        auc: AUC without the gain, in (0, 1); 0.75 is a usual CT-Net on CT-RATE.
        alpha: Two-sided significance level.
        power: Chance to find a gain of the returned size.
        correlation: Between the two areas, in [0, 1); 0 for two samples.

    Returns:
        The difference in (0, 1 - auc]; NaN where no gain, not even to an AUC of 1, is detectable.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    if n_pos < 1 or n_neg < 1:
        return math.nan
    base = auc_variance(auc, n_pos, n_neg)
    z_alpha, z_power = float(norm.ppf(1 - alpha / 2)), float(norm.ppf(power))

    def excess(delta: float) -> float:
        better = max(auc_variance(auc + delta, n_pos, n_neg), 0.0)
        apart = base + better - 2 * correlation * math.sqrt(base * better)
        return delta - z_alpha * math.sqrt(2 * (1 - correlation) * base) - z_power * math.sqrt(apart)

    if excess(1 - auc) < 0:
        return math.nan
    return float(brentq(excess, 0.0, 1 - auc, xtol=1e-9))
