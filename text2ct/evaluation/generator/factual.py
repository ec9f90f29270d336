"""Factual correctness: what a classifier of real volumes reads in synthetic ones, beside the volumes of the reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from text2ct.augment.gate import refuse_judge
from text2ct.augment.leaks import HeldOut
from text2ct.classifiers import predict
from text2ct.classifiers.leaks import leaks
from text2ct.classifiers.runs import known_to_makers, prompt_volumes
from text2ct.errors import UserError, first_of
from text2ct.evaluation.bootstrap import auc_samples, cluster_weights, interval, row_mean
from text2ct.evaluation.classification import choose_thresholds, score
from text2ct.evaluation.generator.sets import MeasuredSet
from text2ct.files import sha256_file
from text2ct.findings import FINDINGS
from text2ct.manifests import Workspace

MEASURES = ("macro_auc", "weighted_auc", "macro_precision", "weighted_precision")


def factual_section(
    real: MeasuredSet,
    synthetic: MeasuredSet,
    pairs: NDArray[np.intp],
    validation: pd.DataFrame,
    run: Path,
    workspace: Workspace,
    *,
    n_bootstrap: int,
    seed: int,
    device: str,
) -> dict[str, Any]:
    """AUC and precision of one classifier on synthetic volumes, and on the real volumes of the same reports.

    Args:
        real: Real volumes that the classifier has not seen.
        synthetic: Synthetic volumes.
        pairs: (k, 2) rows of both that belong to one report; other synthetic volumes are not asked about.
        validation: Real rows that the thresholds of precision are chosen on, none of them of ``real``; without any
            they are 0.5.
        run: The classifier's run, which passed :func:`check_reader`.
        workspace: Resolves roots.
        n_bootstrap: Bootstrap samples.
        seed: Of the bootstrap.
        device: As for :func:`text2ct.compute.pick_device`.

    Returns:
        Each of ``MEASURES`` with ``_real`` and ``_synthetic``, intervals, both AUCs by finding, and ``ratio``: of the
        mean AUCs over the ``findings_compared``, which have an AUC on both sides, with ``ratio_ci``.
    """
    thresholds = None
    if len(validation):
        thresholds = choose_thresholds(
            predict(run, validation, workspace, device=device)[list(FINDINGS)],
            _labels(validation),
            groups=_of(validation, "patient"),
            scans=_of(validation, "scan"),
        )
    results, scored = {}, {}
    asked = asked_rows(real, synthetic, pairs)
    for name, rows, keys in (
        ("real", real.rows.iloc[np.unique(pairs[:, 1])], "scan"),
        ("synthetic", asked, "volume"),
    ):
        said = predict(run, rows, workspace, device=device)[list(FINDINGS)]
        scored[name] = said.to_numpy(dtype=np.float64), _labels(rows).to_numpy(dtype=np.float64)
        results[name] = score(
            said,
            _labels(rows),
            # Volumes of one report stand or fall together.
            groups=_of(rows, "patient") if name == "real" else _prompt_of(rows),
            scans=_of(rows, keys),
            n_bootstrap=n_bootstrap,
            seed=seed,
            thresholds=thresholds,
        )
    found: dict[str, Any] = {f"{m}_{name}": results[name][m] for m in MEASURES for name in results}
    found |= {f"{m}_{name}_ci": results[name][f"{m}_ci"] for m in MEASURES for name in results}
    found["findings"] = {
        finding: {name: results[name]["findings"][finding]["auc"] for name in results} for finding in FINDINGS
    }
    reports, patients = np.unique(pairs[:, 1]), _of(real.rows, "patient")
    codes = np.unique([patients[i] for i in reports], return_inverse=True)[1]
    of_report = dict(zip(reports.tolist(), codes.tolist(), strict=True))
    groups = codes, np.array([of_report[i] for i in pairs[:, 1].tolist()])
    found |= auc_ratio(scored["real"], scored["synthetic"], groups, n_bootstrap=n_bootstrap, seed=seed)
    return found | {"pairs": len(pairs), "reports": len(np.unique(pairs[:, 1])), "classifier": str(run)}


def asked_rows(real: MeasuredSet, synthetic: MeasuredSet, pairs: NDArray[np.intp]) -> pd.DataFrame:
    """The synthetic rows of pairs, with the real scans' labels: what both sides are asked for."""
    labels = real.rows[list(FINDINGS)]
    return synthetic.rows.iloc[pairs[:, 0]].assign(
        **{finding: labels[finding].to_numpy()[pairs[:, 1]] for finding in FINDINGS}
    )


Scored = tuple[NDArray[np.float64], NDArray[np.float64]]


def auc_ratio(
    real: Scored,
    synthetic: Scored,
    groups: tuple[NDArray[np.integer], NDArray[np.integer]],
    *,
    n_bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    """``ratio`` of mean AUCs, over the findings that have one on both sides, and its interval.

    Args:
        real: (n, 18) probabilities and labels of real volumes.
        synthetic: (m, 18), likewise.
        groups: (n,) and (m,) codes of the patients behind both, who are drawn once for both sides.
        n_bootstrap: Bootstrap samples.
        seed: Of the bootstrap.
    """
    aucs = [auc_samples(*side, np.ones((len(side[0]), 1)))[0] for side in (real, synthetic)]
    both = ~np.isnan(aucs[0]) & ~np.isnan(aucs[1])
    found: dict[str, Any] = {"ratio": None, "ratio_ci": None, "findings_compared": int(both.sum())}
    if not both.any() or not aucs[0][both].any():
        return found
    found["ratio"] = float(aucs[1][both].mean() / aucs[0][both].mean())
    if n_bootstrap:
        whole = np.arange(int(max(groups[0].max(), groups[1].max())) + 1)
        drawn = cluster_weights(whole, n_bootstrap, np.random.default_rng(seed))
        means = [
            row_mean(auc_samples(scores[:, both], labels[:, both], drawn[codes]))
            for (scores, labels), codes in zip((real, synthetic), groups, strict=True)
        ]
        ratios = np.divide(means[1], means[0], out=np.full(len(means[0]), np.nan), where=means[0] > 0)
        found["ratio_ci"] = interval(ratios)
    return found


def check_reader(run: Path, held_out: pd.DataFrame, workspace: Workspace) -> None:
    """Refuse a classifier that is no stranger to what it would judge.

    Raises:
        UserError: It knows the held-out patients, has learnt from synthetic volumes, or is a gate.
    """
    if prompt_volumes(run) or known_to_makers(run):
        raise UserError(
            f"{run} has learnt from synthetic volumes, and would read their generator's habits; name a run of real "
            "volumes with --classifier"
        )
    model = run / "model.safetensors"
    if model.is_file():
        refuse_judge(sha256_file(model), workspace)
    problems = leaks(run, HeldOut(held_out.assign(split="test")))
    if problems:
        raise UserError(f"{run} knows patients that judge the generator; give another run", first_of(problems))


def _labels(rows: pd.DataFrame) -> pd.DataFrame:
    """In the rows' order: names may be the same in two data sets."""
    return rows[list(FINDINGS)].reset_index(drop=True)


def _of(rows: pd.DataFrame, column: str) -> list[str]:
    return (rows["dataset"].astype(str) + "/" + rows[column].astype(str)).tolist()


def _prompt_of(rows: pd.DataFrame) -> list[str]:
    return (rows["prompt_dataset"].astype(str) + "/" + rows["prompt_volume"].astype(str)).tolist()
