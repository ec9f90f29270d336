"""Intervals and p-values of areas that S trainings reach on one test set, and of their differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

from text2ct.evaluation.bootstrap import LEVEL

Verdict = Literal["gain", "no evidence", "harm"]
ALPHA = 1.0 - LEVEL
MEANS = ("macro", "weighted", "underrepresented")
"""The averages that stand before the findings: of all, by number of positives, of the under-represented."""


@dataclass(frozen=True)
class Measured:
    """One measure of an arm, with S trainings and B bootstrap samples of the patients.

    ``point (S, K)`` and ``samples (S, B, K)``, K = :data:`MEANS`, then the 18 findings.
    """

    point: NDArray[np.float64]
    samples: NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A number with its interval and the p-value of its being 0; NaN where they do not exist."""

    value: float
    low: float = np.nan
    high: float = np.nan
    p: float = np.nan

    @property
    def number(self) -> float | None:
        """The value, None for NaN."""
        return number(self.value)

    @property
    def ci(self) -> list[float] | None:
        """The interval, None where there is none."""
        return None if np.isnan(self.low) else [float(self.low), float(self.high)]


def number(value: float) -> float | None:
    """A number as JSON knows it."""
    return None if np.isnan(value) else float(value)


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm's step-down correction (Scandinavian Journal of Statistics 1979, 6:65-70).

    Args:
        p_values: ``(m,)``; NaN stands for a test that does not exist and is not counted.

    Returns:
        ``(m,)`` adjusted values in the given order: rejecting those below alpha keeps the chance
        of any false rejection below alpha, whatever the dependence between the tests.
    """
    p = np.asarray(p_values, dtype=float)
    adjusted = np.full(p.shape, np.nan)
    valid = np.flatnonzero(~np.isnan(p))
    order = valid[np.argsort(p[valid], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * factors)) if len(order) else []
    return adjusted


def verdict(delta: float, p_adjusted: float, alpha: float = ALPHA) -> Verdict:
    """``gain`` or ``harm`` if the corrected p is below ``alpha``, ``no evidence`` otherwise."""
    if np.isnan(p_adjusted) or p_adjusted >= alpha or delta == 0:
        return "no evidence"
    return "gain" if delta > 0 else "harm"


def estimate_mean(arm: Measured, n_patients: int) -> list[Estimate]:
    """The K means over an arm's trainings, in [0, 1]."""
    return _estimate(arm.point.mean(axis=0), arm.samples.mean(axis=0), [_training(arm)], n_patients, lowest=0.0)


def estimate_difference(arm: Measured, base: Measured, n_patients: int) -> list[Estimate]:
    """The K differences ``arm - base`` of means over trainings, in [-1, 1], on the same resampled patients."""
    return _estimate(
        arm.point.mean(axis=0) - base.point.mean(axis=0),
        arm.samples.mean(axis=0) - base.samples.mean(axis=0),
        [_training(arm), _training(base)],
        n_patients,
        lowest=-1.0,
    )


@dataclass(frozen=True)
class _Training:
    """Luck of training in the mean over S trainings, each ``(K,)``.

    ``observed``: variance between the trainings' areas on this test set, over S. ``excess``: the part
    of it that the bootstrap over patients does not hold already. ``dof``: S - 1.
    """

    observed: NDArray[np.float64]
    excess: NDArray[np.float64]
    dof: int


def _variance(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Variance over the bootstrap samples ``(B, K)``, without the undefined ones; NaN if there are few."""
    defined = ~np.isnan(samples)
    n = defined.sum(axis=0)
    mean = np.where(defined, samples, 0.0).sum(axis=0) / np.maximum(n, 1)
    squares = np.where(defined, (samples - mean) ** 2, 0.0).sum(axis=0) / np.maximum(n - 1, 1)
    return np.where(n > len(samples) / 2, squares, np.nan)


def _training(arm: Measured) -> _Training:
    """Spread of an arm's trainings, less what patients cause by being ranked differently.

    With two or three trainings some finding's spread is small by chance, so that none is taken
    for smaller than the mean over the findings.
    """
    n_trainings, _, n_numbers = arm.samples.shape
    if n_trainings == 1:
        return _Training(np.zeros(n_numbers), np.zeros(n_numbers), 0)
    deviations = arm.samples - arm.samples.mean(axis=0)
    shared = sum(_variance(one) for one in deviations) / (n_trainings - 1)
    observed = arm.point.var(axis=0, ddof=1)
    excess = observed - shared
    findings = excess[len(MEANS) :]
    if not np.isnan(findings).all():
        findings[:] = np.maximum(findings, np.nanmean(findings))
    excess = np.maximum(excess, 0.0)
    return _Training(observed / n_trainings, excess / n_trainings, n_trainings - 1)


def _estimate(
    values: NDArray[np.float64],
    samples: NDArray[np.float64],
    trainings: Sequence[_Training],
    n_patients: int,
    lowest: float,
) -> list[Estimate]:
    """Intervals and p-values that cover the choice of patients and the luck of training.

    The design is that of readers who judge the same cases, with trainings as readers. Resampling
    both at once would count their interaction three times (Owen 2007, "The pigeonhole bootstrap",
    Annals of Applied Statistics 1:386-411), so the variance is put together from its parts:
    patients by bootstrap, trainings from their spread, less what both contain. Degrees of freedom
    of Student's t follow Welch and Satterthwaite: three trainings are not taken for thirty.

    Args:
        values: ``(K,)`` estimates.
        samples: ``(B, K)`` the same, averaged over trainings, for resampled patients.
        trainings: Luck of training of each arm involved.
        n_patients: Patients of the test set.
        lowest: Where intervals end below, 0 for an area and -1 for a difference; above they end at 1.
    """
    patients = _variance(samples)
    total = patients + sum(one.excess for one in trainings)
    spread = patients**2 / max(n_patients - 1, 1)
    spread = spread + sum(one.observed**2 / one.dof for one in trainings if one.dof > 0)
    estimates = []
    for value, variance, below in zip(values, total, spread, strict=True):
        if np.isnan(value) or np.isnan(variance):
            estimates.append(Estimate(value))
        elif variance < 1e-24:  # rounding of one and the same prediction
            estimates.append(Estimate(value, value, value, 1.0 if abs(value) < 1e-12 else 0.0))
        else:
            dof = variance**2 / below if below > 0 else np.inf
            error = variance**0.5
            half = float(student.ppf(1 - ALPHA / 2, dof)) * error
            p = float(2.0 * student.sf(abs(value) / error, dof))
            estimates.append(Estimate(value, max(value - half, lowest), min(value + half, 1.0), p))
    return estimates
