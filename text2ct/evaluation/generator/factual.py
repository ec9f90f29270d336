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
        mean AUCs over the ``findings_compared``, which have an AUC on both sides.
    """
    thresholds = None
    if len(validation):
        thresholds = choose_thresholds(
            predict(run, validation, workspace, device=device)[list(FINDINGS)],
            _labels(validation),
            groups=_of(validation, "patient"),
            scans=_of(validation, "scan"),
        )
    results = {}
    for name, rows, keys in (
        ("real", real.rows.iloc[np.unique(pairs[:, 1])], "scan"),
        ("synthetic", synthetic.rows.iloc[pairs[:, 0]], "volume"),
    ):
        results[name] = score(
            predict(run, rows, workspace, device=device)[list(FINDINGS)],
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
    found["findings"] = {
        finding: {name: results[name]["findings"][finding]["auc"] for name in results} for finding in FINDINGS
    }
    # The same findings on both sides: labels may be known on one side only.
    both = [one for one in found["findings"].values() if None not in one.values()]
    synthetic_auc, real_auc = (float(np.sum([one[name] for one in both])) for name in ("synthetic", "real"))
    found["ratio"] = synthetic_auc / real_auc if real_auc else None
    found["findings_compared"] = len(both)
    return found | {"pairs": len(pairs), "reports": len(np.unique(pairs[:, 1])), "classifier": str(run)}


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
