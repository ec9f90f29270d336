"""Do probabilities mean what they say? Temperature from validation scans, calibration error on test scans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit

from text2ct.evaluation.alignment import Cases

N_BINS = 10
_EDGE = 1e-6  # probabilities of 0 and 1 have no logit
_TEMPERATURES = (0.05, 20.0)


def calibration(validation: Sequence[Cases], test: Sequence[Cases]) -> dict[str, Any]:
    """How well an arm's probabilities are calibrated before and after temperature scaling.

    One temperature a training for all findings (Guo et al. 2017, "On Calibration of Modern Neural
    Networks", ICML, section 4.2), fitted on validation scans; the error is measured on test scans over
    all pairs of scan and finding with a known label, in bins of equally many pairs, since most
    probabilities of rare findings are small (Nixon et al. 2019, "Measuring Calibration in Deep Learning").

    Args:
        validation: For each training its predictions on the validation scans.
        test: For each training its predictions on the test scans.

    Returns:
        ``temperature``, ``ece_before`` and ``ece`` (expected calibration error, in [0, 1]), means over the
        trainings; ``bins`` of all trainings' scaled probabilities: mean ``predicted``, share ``observed``, ``count``.
    """
    temperatures = [temperature(*_pairs(one)) for one in validation]
    pairs = [_pairs(one) for one in test]
    scaled = [(expit(logits / t), labels) for t, (logits, labels) in zip(temperatures, pairs, strict=True)]
    before = [_error(bins(expit(logits), labels)) for logits, labels in pairs]
    probabilities, labels = (np.concatenate(parts) for parts in zip(*scaled, strict=True))
    return {
        "temperature": float(np.mean(temperatures)),
        "ece_before": float(np.mean(before)),
        "ece": float(np.mean([_error(bins(*one)) for one in scaled])),
        "bins": bins(probabilities, labels),
    }


def temperature(logits: NDArray[np.float64], labels: NDArray[np.float64]) -> float:
    """The divisor of the logits ``(n,)`` that makes labels ``(n,)`` of 0 and 1 most likely; above 1 softens."""

    def loss(log_t: float) -> float:
        scaled = logits / np.exp(log_t)
        return float((np.logaddexp(0.0, scaled) - labels * scaled).mean())

    found = minimize_scalar(loss, bounds=np.log(_TEMPERATURES), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


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
    """Logits and labels of all pairs of scan and finding with a known label."""
    known = ~np.isnan(cases.labels)
    return logit(np.clip(cases.scores[known], _EDGE, 1.0 - _EDGE)), cases.labels[known]
