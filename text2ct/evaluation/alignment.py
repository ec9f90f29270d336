"""From volumes to independent samples: reconstructions of a scan averaged, patients coded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from text2ct.errors import UserError
from text2ct.evaluation.predictions import id_column, pairing_problems, volume_key
from text2ct.findings import FINDINGS


@dataclass(frozen=True)
class Cases:
    """One row per scan, ready to be scored.

    Attributes:
        scores: ``(scans, 18)`` mean probability over the reconstructions of the scan.
        labels: ``(scans, 18)`` 1, 0 or NaN: positive if any reconstruction is, unknown if all are.
        patients: ``(scans,)`` patient codes ``0 .. n_patients - 1``, the clusters of the bootstrap.
        n_volumes: Rows before averaging.
        disagreeing: Scans whose reconstructions carry different labels.
        notes: What was assumed, in words.
    """

    scores: NDArray[np.float64]
    labels: NDArray[np.float64]
    patients: NDArray[np.intp]
    n_volumes: int
    disagreeing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def n_scans(self) -> int:
        """Number of scans."""
        return len(self.labels)

    @property
    def n_patients(self) -> int:
        """Number of patients."""
        return int(self.patients.max()) + 1


def identify(labels: pd.DataFrame) -> tuple[list[str], list[str], list[str]]:
    """Patient and scan of each row, and what was assumed: from columns, from names, or each its own."""
    dataset = labels["dataset"].astype(str) + "/" if "dataset" in labels else pd.Series("", index=labels.index)
    if "patient" in labels and "scan" in labels:
        return (
            (dataset + labels["patient"].astype(str)).tolist(),
            (dataset + labels["scan"].astype(str)).tolist(),
            [],
        )
    column = id_column(labels)
    if column is None:
        rows = [str(row) for row in range(len(labels))]
        return rows, rows, ["no id column: rows paired by order, each row taken as a patient of its own"]
    from text2ct.manifests import parse_volume_names

    parsed = parse_volume_names(labels[column])
    patients, scans = (
        (dataset + (labels[name].astype(str) if name in labels else parsed[name])).tolist()
        for name in ("patient", "scan")
    )
    alone = len(labels) > 1 and len(set(patients)) == len(labels) and "patient" not in labels
    notes = ["every row is taken as a patient of its own; a column 'patient' says who is the same"] if alone else []
    return patients, scans, notes


def align(
    predictions: pd.DataFrame,
    labels: pd.DataFrame,
    *,
    groups: Sequence[str] | None = None,
    scans: Sequence[str] | None = None,
) -> Cases:
    """Line predictions up with labels and average the reconstructions of each scan.

    A reconstruction is the same patient breathing the same breath: two of them are not two
    samples. Their probabilities are averaged before anything is counted.

    Args:
        predictions: Id column (optional) and the 18 findings, probabilities in [0, 1].
        labels: The same columns with 1, 0 or NaN; columns ``patient``, ``scan`` and ``dataset``
            are used when present (a manifest has them), CT-RATE volume names are parsed otherwise.
        groups: ``(rows of labels,)`` patient of each row, instead of the above.
        scans: ``(rows of labels,)`` scan of each row, instead of the above.

    Raises:
        UserError: Ids that only one side has, missing columns, probabilities outside [0, 1].
    """
    problems = [
        f"{name} lack the columns {', '.join(missing)}"
        for name, frame in (("predictions", predictions), ("labels", labels))
        if (missing := [finding for finding in FINDINGS if finding not in frame.columns])
    ]
    for name, frame in (("predictions", predictions), ("labels", labels)):
        column = id_column(frame)
        if column and (keys := frame[column].map(volume_key)).duplicated().any():
            problems.append(f"{name} name {int(keys.duplicated().sum())} volumes twice")
    problems += pairing_problems(predictions, labels)
    if not problems and (len(labels) == 0):
        problems.append("no rows to score")
    if problems:
        raise UserError("predictions and labels do not belong together", problems)

    probability = predictions[list(FINDINGS)].to_numpy(dtype=float)
    truth = labels[list(FINDINGS)].to_numpy(dtype=float)
    column_a, column_b = id_column(predictions), id_column(labels)
    if column_a and column_b:
        position = pd.Series(np.arange(len(predictions)), index=predictions[column_a].map(volume_key))
        probability = probability[position.loc[labels[column_b].map(volume_key)].to_numpy()]
    if not ((probability >= 0) & (probability <= 1)).all():
        raise UserError("predictions hold values outside [0, 1] or NaN; write probabilities")
    if not (np.isnan(truth) | (truth == 0) | (truth == 1)).all():
        raise UserError("labels hold values other than 0, 1 and empty")

    patient_names, scan_names, notes = identify(labels) if groups is None or scans is None else ([], [], [])
    patient_names = [str(name) for name in groups] if groups is not None else patient_names
    scan_names = [str(name) for name in scans] if scans is not None else scan_names
    if not len(patient_names) == len(scan_names) == len(labels):
        raise UserError("groups and scans must name the patient and the scan of every row of the labels")
    return _average(probability, truth, patient_names, scan_names, notes)


def _average(
    probability: NDArray[np.float64],
    truth: NDArray[np.float64],
    patients: list[str],
    scans: list[str],
    notes: list[str],
) -> Cases:
    code, names = pd.factorize(np.asarray(scans, dtype=object))
    n_scans = len(names)
    count = np.bincount(code, minlength=n_scans)
    scores = np.zeros((n_scans, truth.shape[1]))
    np.add.at(scores, code, probability)
    scores /= count[:, None]
    highest = np.full_like(scores, np.nan)
    lowest = np.full_like(scores, np.nan)
    np.fmax.at(highest, code, truth)
    np.fmin.at(lowest, code, truth)
    disagreeing = tuple(str(names[row]) for row in np.flatnonzero((lowest < highest).any(axis=1)))
    first = np.full(n_scans, -1)
    first[code[::-1]] = np.arange(len(code))[::-1]
    patient_code, _ = pd.factorize(np.asarray(patients, dtype=object)[first])
    if len(code) > n_scans:
        notes = [*notes, f"{len(code)} volumes averaged to {n_scans} scans"]
    if disagreeing:
        notes = [*notes, f"{len(disagreeing)} scans whose reconstructions disagree count as positive"]
    return Cases(scores, highest, patient_code, len(code), disagreeing, tuple(notes))
