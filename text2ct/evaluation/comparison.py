"""Does one training set beat another? Paired differences over resampled patients and trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

from text2ct.errors import UserError
from text2ct.evaluation.alignment import Cases, align, identify
from text2ct.evaluation.bootstrap import LEVEL, auc_samples, cluster_weights, row_mean
from text2ct.evaluation.delong import delong_test
from text2ct.findings import FINDINGS

Verdict = Literal["gain", "no evidence", "harm"]
ALPHA = 1.0 - LEVEL
_N_MEANS = 2  # macro and under-represented stand before the findings
ONE_TRAINING = "one training per arm: luck of training cannot be told from the arm; use two seeds or more"


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


@dataclass(frozen=True)
class _Arm:
    """AUCs of one arm with S trainings and B bootstrap samples.

    ``point (S, K)`` and ``samples (S, B, K)``, K = macro, under-represented, then the 18 findings;
    ``scores (S, n, 18)``.
    """

    point: NDArray[np.float64]
    samples: NDArray[np.float64]
    scores: NDArray[np.float64]
    cases: Cases


@dataclass(frozen=True)
class _Estimate:
    value: float
    low: float
    high: float
    p: float
    defined: bool


def _measure(cases: Sequence[Cases], weights: NDArray[np.float64], rare: NDArray[np.bool_]) -> _Arm:
    def with_means(aucs: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack([row_mean(aucs), row_mean(aucs, rare.astype(float)), aucs])

    ones = np.ones((cases[0].n_scans, 1))
    point = [with_means(auc_samples(run.scores, run.labels, ones))[0] for run in cases]
    samples = [with_means(auc_samples(run.scores, run.labels, weights)) for run in cases]
    return _Arm(np.array(point), np.array(samples), np.array([run.scores for run in cases]), cases[0])


@dataclass(frozen=True)
class _Training:
    """Luck of training in the mean over S trainings, each ``(K,)``.

    ``observed``: variance between the trainings' AUCs on this test set, over S. ``excess``: the part
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


def _training(arm: _Arm) -> _Training:
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
    findings = excess[_N_MEANS:]
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
) -> list[_Estimate]:
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
        lowest: Where intervals end below, 0 for an AUC and -1 for a difference; above they end at 1.
    """
    patients = _variance(samples)
    total = patients + sum(one.excess for one in trainings)
    spread = patients**2 / max(n_patients - 1, 1)
    spread = spread + sum(one.observed**2 / one.dof for one in trainings if one.dof > 0)
    estimates = []
    for value, variance, below in zip(values, total, spread, strict=True):
        if np.isnan(value) or np.isnan(variance):
            estimates.append(_Estimate(value, np.nan, np.nan, np.nan, False))
        elif variance < 1e-24:  # rounding of one and the same prediction
            estimates.append(_Estimate(value, value, value, 1.0 if abs(value) < 1e-12 else 0.0, True))
        else:
            dof = variance**2 / below if below > 0 else np.inf
            error = variance**0.5
            half = float(student.ppf(1 - ALPHA / 2, dof)) * error
            p = float(2.0 * student.sf(abs(value) / error, dof))
            estimates.append(_Estimate(value, max(value - half, lowest), min(value + half, 1.0), p, True))
    return estimates


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _ci(estimate: _Estimate) -> list[float] | None:
    return [float(estimate.low), float(estimate.high)] if estimate.defined else None


def verdict(delta: float, p_adjusted: float, alpha: float = ALPHA) -> Verdict:
    """``gain`` or ``harm`` if the corrected p is below ``alpha``, ``no evidence`` otherwise."""
    if np.isnan(p_adjusted) or p_adjusted >= alpha or delta == 0:
        return "no evidence"
    return "gain" if delta > 0 else "harm"


def compare(
    arms: Mapping[str, Sequence[pd.DataFrame]],
    labels: pd.DataFrame,
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    groups: Sequence[str] | None = None,
    scans: Sequence[str] | None = None,
    underrepresented: Sequence[str] = (),
    n_bootstrap: int = 1000,
    seed: int = 0,
    alpha: float = ALPHA,
) -> dict[str, Any]:
    """Compare benchmark arms on one real test set.

    All arms see the same resampled patients (paired), and the luck of each arm's trainings widens
    the intervals, since another seed would have given another classifier. Findings of one comparison are
    corrected together by Holm's method, macro differences across the comparisons. The verdict
    rests on the bootstrap, which knows of patients and trainings; DeLong's p, which knows of
    neither, stands beside it. With a single training in an arm every verdict is ``no evidence``.

    Args:
        arms: For each arm its predictions on the test set, one table per training seed.
        labels: Labels of the test set, as for ``score``.
        pairs: ``(arm, against)`` to compare; by default every arm against the first.
        groups: Patient of each row of the labels, as for ``score``.
        scans: Scan of each row of the labels, as for ``score``.
        underrepresented: Findings whose mean AUC is compared as well.
        n_bootstrap: Bootstrap samples.
        seed: Seed of the bootstrap.
        alpha: Level of the verdicts.

    Returns:
        ``arms``, ``comparisons`` as in ``benchmark --json``, plus ``test`` (sizes) and ``notes``.

    Raises:
        UserError: An arm is unknown or empty, or its tables do not fit the labels.
    """
    names = list(arms)
    if not names or any(len(arms[name]) == 0 for name in names):
        raise UserError("every benchmark arm needs the predictions of at least one training")
    chosen = [(name, names[0]) for name in names[1:]] if pairs is None else list(pairs)
    unknown = sorted({name for pair in chosen for name in pair} - set(names))
    unknown += sorted(set(underrepresented) - set(FINDINGS))
    if unknown:
        raise UserError(f"cannot compare, unknown: {', '.join(unknown)}; there are {', '.join(names)}")

    rng = np.random.default_rng(seed)
    named = identify(labels) if groups is None or scans is None else ([], [], [])
    groups, scans = groups or named[0], scans or named[1]
    aligned = {name: [align(run, labels, groups=groups, scans=scans) for run in arms[name]] for name in names}
    cases = aligned[names[0]][0]
    weights = cluster_weights(cases.patients, n_bootstrap, rng)
    rare = np.isin(FINDINGS, list(underrepresented))
    measured = {name: _measure(runs, weights, rare) for name, runs in aligned.items()}

    comparisons = [_comparison(a, b, measured, alpha) for a, b in chosen]
    macro = holm([np.nan if entry["p"] is None else entry["p"] for entry in comparisons])
    for entry, p_adjusted in zip(comparisons, macro, strict=True):
        entry["p_adjusted"] = _number(p_adjusted)
        single = min(len(arms[entry["arm"]]), len(arms[entry["against"]])) == 1
        delta = entry["delta_macro_auc"] or 0.0
        entry["verdict"] = "no evidence" if single else verdict(delta, p_adjusted, alpha)
    return {
        "arms": {name: _arm(measured[name]) for name in names},
        "comparisons": comparisons,
        "underrepresented": list(underrepresented),
        "test": {
            "volumes": cases.n_volumes,
            "scans": cases.n_scans,
            "patients": cases.n_patients,
            "positive": {name: int(n) for name, n in zip(FINDINGS, np.nansum(cases.labels, axis=0), strict=True)},
        },
        "statistics": {"n_bootstrap": n_bootstrap, "seed": seed, "alpha": alpha, "level": LEVEL},
        "notes": [
            *named[2],
            *cases.notes,
            *([ONE_TRAINING] if any(len(arms[name]) == 1 for name in names) else []),
        ],
    }


def _arm(arm: _Arm) -> dict[str, Any]:
    means = arm.point.mean(axis=0)
    estimates = _estimate(means, arm.samples.mean(axis=0), [_training(arm)], arm.cases.n_patients, lowest=0.0)
    return {
        "macro_auc": _number(means[0]),
        "ci": _ci(estimates[0]),
        "per_seed": [_number(value) for value in arm.point[:, 0]],
        "underrepresented_auc": _number(means[1]),
        "underrepresented_ci": _ci(estimates[1]),
        "findings": {
            name: {"auc": _number(means[k + 2]), "ci": _ci(estimates[k + 2])} for k, name in enumerate(FINDINGS)
        },
    }


def _comparison(name: str, against: str, arms: Mapping[str, _Arm], alpha: float) -> dict[str, Any]:
    arm, base = arms[name], arms[against]
    single = min(len(arm.point), len(base.point)) == 1
    estimates = _estimate(
        arm.point.mean(axis=0) - base.point.mean(axis=0),
        arm.samples.mean(axis=0) - base.samples.mean(axis=0),
        [_training(arm), _training(base)],
        arm.cases.n_patients,
        lowest=-1.0,
    )
    adjusted = holm([estimate.p for estimate in estimates[2:]])
    tests = []
    for column in range(len(FINDINGS)):
        known = ~np.isnan(arm.cases.labels[:, column])
        truth = arm.cases.labels[known, column] == 1
        tests.append(delong_test(truth, base.scores[:, known, column], arm.scores[:, known, column]))
    delong = [np.nan if test is None or test.p is None else test.p for test in tests]
    delong_adjusted = holm(delong)
    findings = {}
    for k, finding in enumerate(FINDINGS):
        estimate = estimates[k + 2]
        entry: dict[str, Any] = {
            "delta_auc": _number(estimate.value),
            "ci": _ci(estimate),
            "p": _number(estimate.p),
            "p_adjusted": _number(adjusted[k]),
            "p_delong": _number(delong[k]),
            "p_delong_adjusted": _number(delong_adjusted[k]),
            "verdict": "no evidence" if single else verdict(estimate.value, adjusted[k], alpha),
        }
        if not estimate.defined:
            entry["reason"] = "too few positive or negative test scans"
        elif single:
            entry["reason"] = ONE_TRAINING
        findings[finding] = entry
    return {
        "arm": name,
        "against": against,
        "delta_macro_auc": _number(estimates[0].value),
        "ci": _ci(estimates[0]),
        "p": _number(estimates[0].p),
        "delta_underrepresented_auc": _number(estimates[1].value),
        "underrepresented_ci": _ci(estimates[1]),
        "underrepresented_p": _number(estimates[1].p),
        "findings": findings,
    }
