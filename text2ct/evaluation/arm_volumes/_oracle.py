"""New simulated patients with the label sets of synthetic volumes: what a perfect generator would bring."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from text2ct.errors import UserError
from text2ct.evaluation.arm_volumes._rendered import RenderJob, Size, Spacing, render_missing
from text2ct.findings import FINDINGS

if TYPE_CHECKING:
    from text2ct.manifests import Workspace

ORACLE_DATASET = "simulated-oracle"
# Patients of whom the best is taken. Age and sex are seen in a chest and go with findings, so they should be those of a
# patient who has the findings by himself, or nearly. The best of 40 differs in 1.7 findings of 18 on average, that of
# 100 in 1.4; more would cost as much as the rendering.
CANDIDATES = 40


def oracle(
    rows: pd.DataFrame,
    workspace: Workspace,
    real: pd.DataFrame,
    folder: Path,
    *,
    seed: int = 0,
    workers: int | None = None,
) -> pd.DataFrame:
    """For each synthetic row a new simulated patient with the same findings, on the real volumes' grid.

    Patients come from ``ORACLE_PATIENTS``, which no cohort and no pack reaches. A row's patient depends on ``seed``,
    the row's data set and volume alone, so that arms with more or fewer rows share theirs. Findings that a row does
    not know are those of a patient drawn given the known ones. The scan is the patient's first, in any of its
    reconstructions, as a cohort has them.

    Args:
        rows: Synthetic rows.
        workspace: Gives ``folder`` its root.
        real: The real manifest, which must be of a simulated cohort.
        folder: Where ``volumes`` and ``records`` go; what is there and whole is kept.
        seed: Another one gives other patients.
        workers: Processes; one a core if None.

    Returns:
        One row for each, in their order, of data set ``simulated-oracle``. They stand in the place of the synthetic
        rows: split ``train``, and source ``synthetic``, so that everything that counts, weighs or checks synthetic
        volumes does the same with them; the prompt and the scan that it came from stay for the same reason. There
        is no pack and no verdict of a gate, and ``seed`` is the patient's number.

    Raises:
        UserError: The real manifest is not simulated or its volumes lie on several grids, there are no rows, or a
            volume is given twice.
    """
    from text2ct.manifests import validate

    size, spacing_mm = _grid(real)
    _check_rows(rows)
    folder = Path(folder)
    jobs = []
    for row in rows.to_dict("records"):
        known = np.array([row[name] for name in FINDINGS], dtype=np.float64)
        number, findings = oracle_patient(known, [seed, row["dataset"], row["volume"]])
        jobs.append(RenderJob(number, tuple(findings.tolist()), size, spacing_mm, folder))
    render_missing(jobs, workers)
    root, prefix = workspace.root_for(folder, "oracle")
    made = []
    for row, job in zip(rows.to_dict("records"), jobs, strict=True):
        stem = f"oracle_{job.number}"
        new: dict[str, Any] = {"dataset": ORACLE_DATASET, "volume": job.stored.name, "patient": stem, "scan": stem}
        new |= {"split": "train", "source": "synthetic", "findings_text": "", "impression_text": ""}
        new |= dict(zip(FINDINGS, map(float, job.findings), strict=True)) | job.stored.columns(root, prefix)
        new |= {"seed": job.number, "pack": "", "pack_sha256": "", "guidance_scale": np.nan, "steps": pd.NA}
        made.append(row | new | {"gate": ""})
    return validate(pd.DataFrame(made), "the oracle's volumes")


def oracle_patient(known: NDArray[np.float64], origin: list[object]) -> tuple[int, NDArray[np.bool_]]:
    """A patient with these findings.

    Of ``CANDIDATES`` patients the first whose own findings agree with all that is known, which is a draw given the
    known findings; where none does, the one who disagrees least (approximate Bayesian computation, Tavare et al.
    1997), with the known findings put in the place of his own.

    Args:
        known: (18,) with 1, 0 or NaN for unknown.
        origin: Numbers and texts that decide the patient.

    Returns:
        The number, one of ``ORACLE_PATIENTS``, and (18,) bool, all findings.
    """
    from text2ct.simulation.labels import scan_labels
    from text2ct.simulation.patients import draw_patient

    is_known = ~np.isnan(known)
    fewest, best, own = len(FINDINGS) + 1, 0, np.zeros(len(FINDINGS), dtype=bool)
    for attempt in range(CANDIDATES):
        number = _number([*origin, attempt])
        drawn = scan_labels(draw_patient(number).scans[0])
        differing = int((drawn != (known == 1))[is_known].sum())
        if differing < fewest:
            fewest, best, own = differing, number, drawn
        if not differing:
            break
    return best, np.where(is_known, known == 1, own)


def _number(origin: list[object]) -> int:
    from text2ct.simulation.patients import ORACLE_PATIENTS

    digest = hashlib.sha256(json.dumps(origin).encode()).digest()
    return ORACLE_PATIENTS[int.from_bytes(digest[:8], "big") % len(ORACLE_PATIENTS)]


def _grid(real: pd.DataFrame) -> tuple[Size, Spacing]:
    """Size and spacing of all volumes of a simulated cohort."""
    others = sorted(set(real["source"]) - {"simulated"})
    if others or real.empty:
        raise UserError(
            f"the real data are not simulated ({', '.join(others) or 'no rows'}), and nobody can draw new patients of "
            "them; leave out the oracle's arm"
        )
    columns = [f"{what}_{axis}" for what in ("size", "spacing") for axis in "xyz"]
    grids = real.loc[real["path"] != "", columns].drop_duplicates()
    if len(grids) != 1 or grids.isna().any(axis=None):
        raise UserError(
            f"the simulated volumes lie on {len(grids)} grids, some of them unknown; bring them to one with "
            "`text2ct preprocess` and give its manifest"
            if len(grids)
            else "the simulated cohort has no files, so the oracle's grid is unknown; simulate it again"
        )
    x, y, z, dx, dy, dz = (float(value) for value in grids.iloc[0])
    return (int(x), int(y), int(z)), (dx, dy, dz)


def _check_rows(rows: pd.DataFrame) -> None:
    if rows.empty:
        raise UserError("there are no synthetic volumes whose findings an oracle could show")
    twice = rows.loc[rows.duplicated(["dataset", "volume"]), "volume"]
    if len(twice):
        raise UserError(f"{len(twice)} volumes are given twice; give each row once", twice.head(10).tolist())
