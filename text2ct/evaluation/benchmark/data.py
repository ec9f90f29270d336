"""The tables of a benchmark: real splits, the synthetic pool, nested subsets of patients; and what is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from text2ct.augment._refusals import pack_folder
from text2ct.augment._scans import held_out_patients, label_matrix
from text2ct.augment.mix import gather
from text2ct.augment.selection import training_volumes
from text2ct.errors import UserError, first_of
from text2ct.evaluation.alignment import Cases, align
from text2ct.findings import FINDINGS
from text2ct.manifests import Workspace, by_scan

_SUBSETS = 5  # the stream of random numbers of subsets of patients


def real_splits(real: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Labelled rows with files, by split; none is synthetic.

    Raises:
        UserError: A split is empty, or a row is synthetic.
    """
    if (real["source"] == "synthetic").any():
        raise UserError("the real manifest holds synthetic rows; a benchmark is judged on real volumes only")
    # Every row is drawn equally often, but where an arm says otherwise.
    real = real.drop(columns="sampling_weight", errors="ignore")
    known = real[list(FINDINGS)].notna().any(axis=1)
    splits = {
        split: real[(real["split"] == split) & (real["path"] != "") & known].reset_index(drop=True)
        for split in ("validation", "test")
    }
    empty = [f"split '{split}' has no labelled volumes with files" for split, rows in splits.items() if rows.empty]
    if empty:
        raise UserError("the benchmark needs training, validation and test patients", empty)
    return {"train": training_volumes(real[known]).reset_index(drop=True), **splits}


def synthetic_pool(
    real: pd.DataFrame,
    synthetic: pd.DataFrame | Sequence[pd.DataFrame],
    workspace: Workspace,
    classifier: str,
    seeds: Sequence[int],
) -> pd.DataFrame:
    """The synthetic rows that arms may draw from.

    Raises:
        UserError: There are none, some would leak validation or test patients, or the gate that judged
            them is the classifier that is scored.
    """
    pool = gather(real, synthetic, workspace).drop(columns="sampling_weight", errors="ignore")
    judged = pool[pool["gate"] != ""]
    if len(judged):
        from text2ct.augment.gate import refuse_same_judge

        for seed in seeds:
            refuse_same_judge(judged, workspace, classifier, seed)
    return pool


def gate_counts(pool: pd.DataFrame, workspace: Workspace) -> dict[str, Any] | None:
    """What the gates of a pool accepted, added up over their records; None without a gate."""
    judged = pool[pool["gate"] != ""]
    if judged.empty:
        return None
    from text2ct.augment.gate import gates_of

    records = [record.model_dump(mode="json") for record in gates_of(judged, workspace)]
    total: dict[str, Any] = {"accepted": 0, "rejected": 0, "unknown": 0, "reasons": {}, "findings": {}}
    for record in records:
        counts = record["counts"]
        for key in ("accepted", "rejected"):
            total[key] += counts[key]
        for reason, count in counts["reasons"].items():
            total["reasons"][reason] = total["reasons"].get(reason, 0) + count
        total["unknown"] += sum(entry["unknown"] for entry in record["findings"].values())
        for name, entry in record["findings"].items():
            sums = total["findings"].setdefault(name, {"asked": 0, "accepted": 0})
            for key in sums:
                sums[key] += entry[key]
    return total


def pack_fidelity(synthetic: pd.DataFrame, workspace: Workspace) -> dict[str, float]:
    """How faithfully the packs that made these volumes render each finding; the lowest share of several packs.

    ``synthesize`` keeps it beside the volumes. A finding of which no pack says anything is not in it.
    """
    from text2ct.fidelity import read_fidelity

    lowest: dict[str, float] = {}
    for (_, digest), rows in synthetic.groupby(["pack", "pack_sha256"], sort=True):
        folder = pack_folder(rows, str(digest), workspace) if digest else None
        for name, share in ({} if folder is None else read_fidelity(folder)).items():
            lowest[name] = min(share, lowest.get(name, share))
    return lowest


def nested_patients(train: pd.DataFrame, count: int, seed: int = 0) -> pd.DataFrame:
    """The training rows of ``count`` random patients; a smaller subset lies within every larger one.

    Raises:
        UserError: There are fewer patients.
    """
    identity = train["dataset"] + "\0" + train["patient"]
    patients = np.sort(identity.unique())
    if count > len(patients):
        raise UserError(f"--train-patients asks for {count} training patients; there are {len(patients)}")
    order = np.random.default_rng([seed, _SUBSETS]).permutation(len(patients))
    return train[identity.isin(patients[order[:count]])].reset_index(drop=True)


def known_to(pool: pd.DataFrame, subset: pd.DataFrame, real: pd.DataFrame) -> pd.DataFrame:
    """The synthetic rows that could have been asked for with a subset's patients alone.

    A prompt made from a scan outside the subset carries knowledge of a patient that the subset does not
    have. A composed prompt, which comes from no scan, is kept if the subset has a scan with its labels.
    """
    patient_of = dict(zip(zip(real["dataset"], real["volume"], strict=True), real["patient"], strict=True))
    own = set(zip(subset["dataset"], subset["patient"], strict=True))
    seen = {tuple(row) for row in _codes(by_scan(subset)[0])}
    kept = [
        (dataset, patient_of.get((dataset, volume))) in own if volume else tuple(labels) in seen
        for dataset, volume, labels in zip(pool["prompt_dataset"], pool["prompt_volume"], _codes(pool), strict=True)
    ]
    return pool[np.array(kept, dtype=bool)].reset_index(drop=True)


def _codes(rows: pd.DataFrame) -> list[list[float]]:
    return np.nan_to_num(label_matrix(rows), nan=-1.0).tolist()


def check_frame(name: str, frame: pd.DataFrame, splits: Mapping[str, pd.DataFrame]) -> None:
    """Refuse an arm's rows if a held-out patient is among the training rows, or validation is not the real one.

    Raises:
        UserError: What is wrong, with the volumes.
    """
    train, validation = (frame[frame["split"] == split] for split in ("train", "validation"))
    held_out = _held_out(splits)
    problems = [
        f"{row.volume}: its patient is in validation or test"
        for row in train[["dataset", "patient", "volume"]].itertuples(index=False)
        if (row.dataset, row.patient) in held_out
    ]
    columns = ["dataset", "volume", "root", "path"]
    if validation[columns].to_numpy().tolist() != splits["validation"][columns].to_numpy().tolist():
        problems.append("its validation rows are not the real validation volumes")
    if len(train) + len(validation) != len(frame):
        problems.append("it has rows that are neither training nor validation")
    if problems:
        raise UserError(f"the arm '{name}' cannot be judged", first_of(problems))


def check_start(name: str, run: Path, splits: Mapping[str, pd.DataFrame]) -> None:
    """Refuse first weights that know a held-out patient.

    Raises:
        UserError: The run was trained on validation or test patients; they are named.
    """
    from text2ct.classifiers import training_patients

    held_out = _held_out(splits)
    seen = [f"{dataset}/{patient}" for dataset, patient in sorted(held_out & training_patients(run))]
    if seen:
        raise UserError(f"the arm '{name}' starts from {run}, trained on validation or test patients", first_of(seen))


def _held_out(splits: Mapping[str, pd.DataFrame]) -> set[tuple[str, str]]:
    return held_out_patients(pd.concat([splits["validation"], splits["test"]]))


def judged(predictions: pd.DataFrame, rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, list[str], list[str]]:
    """Predictions and labels under common names, patient and scan of each row.

    Names carry the data set, since origins share spellings.
    """
    names = (rows["dataset"] + ":" + rows["volume"]).tolist()
    table, labels = (one[list(FINDINGS)].assign(VolumeName=names) for one in (predictions, rows))
    patients, scans = ((rows["dataset"] + "/" + rows[column]).tolist() for column in ("patient", "scan"))
    return table, labels, patients, scans


def cases(predictions: pd.DataFrame, rows: pd.DataFrame) -> Cases:
    """Predictions and labels by scan, see :func:`text2ct.evaluation.alignment.align`."""
    table, labels, patients, scans = judged(predictions, rows)
    return align(table, labels, groups=patients, scans=scans)
