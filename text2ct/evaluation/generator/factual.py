"""Factual correctness: what a classifier of real volumes reads in synthetic ones, beside the volumes of the reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from text2ct.augment.leaks import HeldOut
from text2ct.classifiers import predict
from text2ct.classifiers.leaks import leaks
from text2ct.errors import UserError, first_of
from text2ct.evaluation.classification import choose_thresholds, score
from text2ct.evaluation.generator.sets import MeasuredSet
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
        validation: Real rows that the thresholds of precision are chosen on; without any they are 0.5.
        run: The classifier's run.
        workspace: Resolves roots.
        n_bootstrap: Bootstrap samples.
        seed: Of the bootstrap.
        device: As for :func:`text2ct.compute.pick_device`.

    Returns:
        Each of ``MEASURES`` with ``_real`` and ``_synthetic``, intervals, ``ratio`` of the macro AUCs, and by finding
        both AUCs.

    Raises:
        UserError: The classifier has seen the real volumes' patients.
    """
    problems = leaks(run, HeldOut(real.rows.assign(split="test")))
    if problems:
        raise UserError(f"{run} knows patients that judge the generator; give another run", first_of(problems))
    thresholds = None
    if len(validation):
        chosen_on = predict(run, validation, workspace, device=device)
        thresholds = choose_thresholds(chosen_on, _labels(validation), groups=_of(validation, "patient"))
    results = {}
    for name, rows, keys in (
        ("real", real.rows.iloc[np.unique(pairs[:, 1])], "scan"),
        ("synthetic", synthetic.rows.iloc[pairs[:, 0]], "volume"),
    ):
        results[name] = score(
            predict(run, rows, workspace, device=device),
            _labels(rows),
            # Volumes of one report stand or fall together.
            groups=_of(rows, "patient") if name == "real" else _prompt_of(rows),
            scans=_of(rows, keys),
            n_bootstrap=n_bootstrap,
            seed=seed,
            thresholds=thresholds,
        )
    found: dict[str, Any] = {f"{m}_{name}": results[name][m] for m in MEASURES for name in results}
    found |= {f"macro_auc_{name}_ci": results[name]["macro_auc_ci"] for name in results}
    both = found["macro_auc_synthetic"], found["macro_auc_real"]
    found["ratio"] = None if None in both else both[0] / both[1]
    found["findings"] = {
        finding: {name: results[name]["findings"][finding]["auc"] for name in results} for finding in FINDINGS
    }
    return found | {"pairs": len(pairs), "reports": len(np.unique(pairs[:, 1])), "classifier": str(run)}


def _labels(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[["volume", *FINDINGS]].rename(columns={"volume": "VolumeName"})


def _of(rows: pd.DataFrame, column: str) -> list[str]:
    return (rows["dataset"].astype(str) + "/" + rows[column].astype(str)).tolist()


def _prompt_of(rows: pd.DataFrame) -> list[str]:
    return (rows["prompt_dataset"].astype(str) + "/" + rows["prompt_volume"].astype(str)).tolist()
