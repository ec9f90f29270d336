"""What a training set shows: how often each finding, and how much being synthetic says of it."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from text2ct.augment._scans import NAMES, label_matrix
from text2ct.manifests import by_scan


def prevalence(train: pd.DataFrame) -> dict[str, float | None]:
    """Prevalence by scan among known labels; a synthetic volume is a scan of its own."""
    labels = label_matrix(by_scan(train)[0])
    known = (~np.isnan(labels)).sum(axis=0)
    return {n: float(np.nansum(labels[:, i]) / known[i]) if known[i] else None for i, n in enumerate(NAMES)}


def source_label_association(train: pd.DataFrame) -> dict[str, float | None]:
    """Phi coefficient (correlation of two binary variables) of source and each label, in [-1, 1]."""
    labels = label_matrix(train)
    synthetic = (train["source"] == "synthetic").to_numpy(dtype=float)
    result: dict[str, float | None] = {}
    for index, name in enumerate(NAMES):
        known = ~np.isnan(labels[:, index])
        x, y = synthetic[known], labels[known, index]
        constant = not len(x) or x.std() == 0 or y.std() == 0
        phi = math.nan if constant else float(np.corrcoef(x, y)[0, 1])
        result[name] = None if math.isnan(phi) else round(phi, 6)
    return result
