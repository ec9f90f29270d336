"""Validation AUC over scans, by which a checkpoint is chosen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from text2ct.findings import FINDINGS


@dataclass(frozen=True)
class ScanAuc:
    """AUC of each finding that has both classes, and their mean."""

    by_finding: dict[str, float]
    undefined: tuple[str, ...]

    @property
    def macro(self) -> float:
        """Mean over the defined findings; NaN if there is none."""
        return float(np.mean(list(self.by_finding.values()))) if self.by_finding else float("nan")


def scan_auc(probabilities: np.ndarray, labels: np.ndarray, scans: np.ndarray) -> ScanAuc:
    """AUC per finding over scans: a scan's score is the mean over its reconstructions.

    Args:
        probabilities: (n, 18) in [0, 1], one row a volume.
        labels: (n, 18), 0, 1 or NaN. A scan is positive if a reconstruction is, unknown if all are.
        scans: (n,) identity of each volume's scan.
    """
    scores = pd.DataFrame(probabilities).groupby(scans, sort=True).mean().to_numpy()
    truth = pd.DataFrame(labels).groupby(scans, sort=True).max().to_numpy()
    by_finding: dict[str, float] = {}
    for column, finding in enumerate(FINDINGS):
        known = ~np.isnan(truth[:, column])
        if np.unique(truth[known, column]).size == 2:
            by_finding[finding] = float(roc_auc_score(truth[known, column], scores[known, column]))
    return ScanAuc(by_finding, tuple(f for f in FINDINGS if f not in by_finding))
