"""What a training set shows: how often each finding, and how much being synthetic says of it."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from text2ct.augment._scans import NAMES, label_matrix
from text2ct.manifests import by_scan


def prevalence(train: pd.DataFrame, synthetic_share: float | None = None) -> dict[str, float | None]:
    """Prevalence by scan among known labels; a synthetic volume is a scan of its own.

    Args:
        train: Training rows.
        synthetic_share: Share of the draws of training that are synthetic, in [0, 1), which synthetic scans then
            weigh together; None counts every scan once.
    """
    scans = by_scan(train)[0]
    labels, weights = label_matrix(scans), _weights(scans, synthetic_share)
    known = weights @ ~np.isnan(labels)
    shown = weights @ (labels == 1)
    return {name: float(shown[i] / known[i]) if known[i] else None for i, name in enumerate(NAMES)}


def source_label_association(train: pd.DataFrame, synthetic_share: float | None = None) -> dict[str, float | None]:
    """Phi coefficient (correlation of two binary variables) of source and each label over volumes, in [-1, 1].

    Args:
        train: Training rows.
        synthetic_share: As for :func:`prevalence`.
    """
    labels, weights = label_matrix(train), _weights(train, synthetic_share)
    synthetic = (train["source"] == "synthetic").to_numpy(dtype=float)
    result: dict[str, float | None] = {}
    for index, name in enumerate(NAMES):
        known = ~np.isnan(labels[:, index]) & (weights > 0)
        x, y = synthetic[known], labels[known, index]
        constant = not len(x) or x.std() == 0 or y.std() == 0
        phi = math.nan if constant else _correlation(x, y, weights[known])
        result[name] = None if math.isnan(phi) else round(phi, 6)
    return result


def _correlation(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> float:
    (xx, xy), (_, yy) = np.cov(x, y, aweights=weights, ddof=0)
    return float(xy / math.sqrt(xx * yy))


def _weights(rows: pd.DataFrame, synthetic_share: float | None) -> np.ndarray:
    """How much each row counts, (n,): rows with a known label of one source together as much as the source is drawn."""
    if synthetic_share is None:
        return np.ones(len(rows))
    drawn = ~np.isnan(label_matrix(rows)).all(axis=1)
    synthetic = drawn & (rows["source"] == "synthetic").to_numpy()
    real = drawn & ~synthetic
    return synthetic_share * synthetic / max(1, synthetic.sum()) + (1 - synthetic_share) * real / max(1, real.sum())
