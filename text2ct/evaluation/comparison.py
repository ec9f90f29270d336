"""Does one training set beat another? Paired differences over resampled patients and trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from text2ct.errors import UserError
from text2ct.evaluation.alignment import Cases, align, identify
from text2ct.evaluation.bootstrap import (
    LEVEL,
    Area,
    auc_samples,
    cluster_weights,
    row_mean,
    weighted_auc,
    weighted_average_precision,
)
from text2ct.evaluation.delong import delong_test
from text2ct.evaluation.estimates import (
    ALPHA,
    MEANS,
    Estimate,
    Measured,
    estimate_difference,
    estimate_mean,
    holm,
    number,
    verdict,
)
from text2ct.findings import FINDINGS

ONE_TRAINING = "one training per arm: luck of training cannot be told from the arm; use two seeds or more"
_MACRO, _WEIGHTED, _RARE = range(len(MEANS))


@dataclass(frozen=True)
class _Arm:
    """An arm's trainings on the test set, by both measures; ``scores (S, n, 18)``."""

    auc: Measured
    average_precision: Measured
    scores: NDArray[np.float64]
    cases: Cases


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
    corrected together by Holm's method, macro differences across the comparisons, and average precision
    apart from AUC: it is a second look, not a second chance. The verdict
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
    measured = {name: _measure_arm(runs, weights, rare) for name, runs in aligned.items()}

    comparisons = [_comparison(a, b, measured, alpha) for a, b in chosen]
    for prefix, delta in (("", "delta_macro_auc"), ("average_precision_", "delta_macro_average_precision")):
        p_values = [np.nan if entry[f"{prefix}p"] is None else entry[f"{prefix}p"] for entry in comparisons]
        for entry, p_adjusted in zip(comparisons, holm(p_values), strict=True):
            single = min(len(arms[entry["arm"]]), len(arms[entry["against"]])) == 1
            entry[f"{prefix}p_adjusted"] = number(p_adjusted)
            entry[f"{prefix}verdict"] = "no evidence" if single else verdict(entry[delta] or 0.0, p_adjusted, alpha)
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


def _measure_arm(cases: Sequence[Cases], weights: NDArray[np.float64], rare: NDArray[np.bool_]) -> _Arm:
    auc, average_precision = (
        _measure(cases, weights, rare, area) for area in (weighted_auc, weighted_average_precision)
    )
    return _Arm(auc, average_precision, np.array([run.scores for run in cases]), cases[0])


def _measure(cases: Sequence[Cases], weights: NDArray[np.float64], rare: NDArray[np.bool_], area: Area) -> Measured:
    positives = np.nansum(cases[0].labels, axis=0)

    def with_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
        means = [row_mean(values), row_mean(values, positives), row_mean(values, rare.astype(float))]
        return np.column_stack([*means, values])

    ones = np.ones((cases[0].n_scans, 1))
    point = [with_means(auc_samples(run.scores, run.labels, ones, area))[0] for run in cases]
    samples = [with_means(auc_samples(run.scores, run.labels, weights, area)) for run in cases]
    return Measured(np.array(point), np.array(samples))


def _arm(arm: _Arm) -> dict[str, Any]:
    auc = estimate_mean(arm.auc, arm.cases.n_patients)
    precision = estimate_mean(arm.average_precision, arm.cases.n_patients)
    findings = zip(FINDINGS, auc[len(MEANS) :], precision[len(MEANS) :], strict=True)
    return {
        "macro_auc": auc[_MACRO].number,
        "ci": auc[_MACRO].ci,
        "per_seed": [number(value) for value in arm.auc.point[:, _MACRO]],
        "weighted_auc": auc[_WEIGHTED].number,
        "weighted_ci": auc[_WEIGHTED].ci,
        "underrepresented_auc": auc[_RARE].number,
        "underrepresented_ci": auc[_RARE].ci,
        "macro_average_precision": precision[_MACRO].number,
        "average_precision_ci": precision[_MACRO].ci,
        "findings": {
            name: {"auc": a.number, "ci": a.ci, "average_precision": p.number, "average_precision_ci": p.ci}
            for name, a, p in findings
        },
    }


def _comparison(name: str, against: str, arms: Mapping[str, _Arm], alpha: float) -> dict[str, Any]:
    arm, base = arms[name], arms[against]
    patients = arm.cases.n_patients
    single = min(len(arm.scores), len(base.scores)) == 1
    auc = estimate_difference(arm.auc, base.auc, patients)
    precision = estimate_difference(arm.average_precision, base.average_precision, patients)
    delong = _delong(arm, base)
    columns = (_findings(auc), _findings(precision), zip(delong, holm(delong), strict=True))
    findings = {}
    for finding, (area, p_auc), (step, p_step), (p_delong, p_delong_adjusted) in zip(FINDINGS, *columns, strict=True):
        entry: dict[str, Any] = {
            "delta_auc": area.number,
            "ci": area.ci,
            "p": number(area.p),
            "p_adjusted": number(p_auc),
            "p_delong": number(p_delong),
            "p_delong_adjusted": number(p_delong_adjusted),
            "verdict": "no evidence" if single else verdict(area.value, p_auc, alpha),
            "delta_average_precision": step.number,
            "average_precision_ci": step.ci,
            "average_precision_p_adjusted": number(p_step),
            "average_precision_verdict": "no evidence" if single else verdict(step.value, p_step, alpha),
        }
        if area.ci is None:
            entry["reason"] = "too few positive or negative test scans"
        elif single:
            entry["reason"] = ONE_TRAINING
        findings[finding] = entry
    return {
        "arm": name,
        "against": against,
        "delta_macro_auc": auc[_MACRO].number,
        "ci": auc[_MACRO].ci,
        "p": number(auc[_MACRO].p),
        "delta_weighted_auc": auc[_WEIGHTED].number,
        "weighted_ci": auc[_WEIGHTED].ci,
        "weighted_p": number(auc[_WEIGHTED].p),
        "delta_underrepresented_auc": auc[_RARE].number,
        "underrepresented_ci": auc[_RARE].ci,
        "underrepresented_p": number(auc[_RARE].p),
        "delta_macro_average_precision": precision[_MACRO].number,
        "average_precision_ci": precision[_MACRO].ci,
        "average_precision_p": number(precision[_MACRO].p),
        "findings": findings,
    }


def _findings(estimates: Sequence[Estimate]) -> list[tuple[Estimate, float]]:
    """The 18 findings' estimates with their p-values, corrected together."""
    findings = list(estimates[len(MEANS) :])
    return list(zip(findings, holm([one.p for one in findings]).tolist(), strict=True))


def _delong(arm: _Arm, base: _Arm) -> list[float]:
    """DeLong's p of every finding; NaN where the test does not exist."""
    p_values = []
    for column in range(len(FINDINGS)):
        known = ~np.isnan(arm.cases.labels[:, column])
        truth = arm.cases.labels[known, column] == 1
        test = delong_test(truth, base.scores[:, known, column], arm.scores[:, known, column])
        p_values.append(np.nan if test is None or test.p is None else test.p)
    return p_values
