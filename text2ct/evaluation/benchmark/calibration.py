"""Do probabilities mean what they say? Calibration error on test scans, before and after a run's temperature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit, logit

from text2ct.evaluation.alignment import Cases
from text2ct.findings import FINDINGS

N_BINS = 10
_EDGE = 1e-12  # probabilities of 0 and 1 have no logit


def uncalibrated(predictions: pd.DataFrame, temperature: float) -> pd.DataFrame:
    """What a network said before its logits were divided by a temperature, from what ``predict`` gives.

    Args:
        predictions: A row a volume, with 18 probabilities.
        temperature: The run's, above 0.
    """
    values = np.clip(predictions[list(FINDINGS)].to_numpy(dtype=float), _EDGE, 1.0 - _EDGE)
    return predictions.assign(**dict(zip(FINDINGS, expit(temperature * logit(values)).T, strict=True)))


def calibration(before: Sequence[Cases], after: Sequence[Cases], temperatures: Sequence[float]) -> dict[str, Any]:
    """How well an arm's probabilities are calibrated before and after the temperature of each training.

    The temperature is the one that ``classifiers.train`` fitted on validation volumes (Guo et al. 2017, "On
    Calibration of Modern Neural Networks", ICML, section 4.2). The error is measured on test scans over all pairs of
    scan and finding with a known label, in bins of equally many pairs, since most probabilities of rare findings are
    small (Nixon et al. 2019, "Measuring Calibration in Deep Learning").

    Args:
        before: For each training the network's own predictions on the test scans.
        after: The same, calibrated.
        temperatures: One a training.

    Returns:
        ``temperature``, ``ece_before`` and ``ece`` (expected calibration error, in [0, 1]), means over the
        trainings; ``bins`` of all trainings' calibrated probabilities: mean ``predicted``, share ``observed`` and
        ``count``.
    """
    pairs = [_pairs(one) for one in after]
    probabilities, labels = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    return {
        "temperature": float(np.mean(temperatures)),
        "ece_before": float(np.mean([_error(bins(*_pairs(one))) for one in before])),
        "ece": float(np.mean([_error(bins(*one)) for one in pairs])),
        "bins": bins(probabilities, labels),
    }


def bins(probabilities: NDArray[np.float64], labels: NDArray[np.float64], n: int = N_BINS) -> list[dict[str, Any]]:
    """At most ``n`` bins of equally many probabilities, from low to high: ``predicted``, ``observed``, ``count``."""
    parts = np.array_split(np.argsort(probabilities, kind="stable"), n)
    return [
        {
            "predicted": float(probabilities[part].mean()),
            "observed": float(labels[part].mean()),
            "count": len(part),
        }
        for part in parts
        if len(part)
    ]


def _error(table: list[dict[str, Any]]) -> float:
    total = sum(row["count"] for row in table)
    return float(sum(row["count"] * abs(row["predicted"] - row["observed"]) for row in table) / total)


def _pairs(cases: Cases) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Probabilities and labels of all pairs of scan and finding with a known label."""
    known = ~np.isnan(cases.labels)
    return cases.scores[known], cases.labels[known]
