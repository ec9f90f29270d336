"""The manifest rows that a training takes, and what it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from text2ct import console
from text2ct.classifiers.dataset import VolumeTable
from text2ct.classifiers.metrics import scan_auc
from text2ct.errors import UserError, first_of
from text2ct.findings import FINDINGS

if TYPE_CHECKING:
    from text2ct.augment.leaks import HeldOut
    from text2ct.manifests import Workspace

WEIGHT_COLUMN = "sampling_weight"
_PROMPT = ("prompt", "prompt_dataset", "prompt_volume")


def usable_rows(manifest: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Rows of the two splits that have a known label and were not rejected by a gate, and how many have no label."""
    needed = ("dataset", "volume", "patient", "scan", "split", "source", "root", "path", *FINDINGS)
    missing = [column for column in needed if column not in manifest.columns]
    if missing:
        raise UserError("the manifest lacks columns", missing)
    rows = manifest[manifest["split"].isin(("train", "validation"))]
    if "gate" in rows:
        from text2ct.augment.gate import known_labels

        rows = known_labels(rows)
        rejected = rows["gate"].fillna("").astype(str).str.startswith("reject")
        if rejected.any():
            console.info(f"{int(rejected.sum())} volumes left out: rejected by the gate")
        rows = rows[~rejected]
    known = rows[list(FINDINGS)].notna().any(axis=1)
    if len(rows) and not known.any():
        raise UserError("no row has a known label; a classifier needs some of the 18 finding columns filled in")
    return rows[known], int((~known).sum())


def check_splits(rows: pd.DataFrame, train_rows: pd.Series, validation_rows: pd.Series) -> None:
    """Refuse empty splits, patients in two of them, and synthetic validation rows."""
    for split, chosen in (("train", train_rows), ("validation", validation_rows)):
        if not chosen.any():
            raise UserError(f"the manifest has no labelled rows with split '{split}'; split it by patient first")
    synthetic = rows[validation_rows & (rows["source"] == "synthetic")]
    if len(synthetic):
        raise UserError(
            "synthetic volumes cannot choose a checkpoint; validation rows must be real",
            [str(volume) for volume in synthetic["volume"].head(10)],
        )
    identity = rows["dataset"].astype(str) + "/" + rows["patient"].astype(str)
    both = sorted(set(identity[train_rows]) & set(identity[validation_rows]))
    if both:
        raise UserError(f"{len(both)} patients are in train and in validation; split by patient", first_of(both))


def check_held_out(manifest: pd.DataFrame, workspace: Workspace) -> None:
    """Refuse training rows that carry the manifest's own validation or test patients, or whose makers know them."""
    train = manifest[manifest["split"] == "train"]
    test = manifest[manifest["split"] == "test"]
    identities = [set(zip(part["dataset"], part["patient"], strict=True)) for part in (train, test)]
    leaks = [f"{dataset}/{patient}: in train and in test" for dataset, patient in sorted(set.intersection(*identities))]
    made = train[train["source"] == "synthetic"]
    if len(made):
        from text2ct.augment._refusals import refuse_makers

        known = held_out(manifest)
        refuse_makers(manifest, known, workspace)
        made = made.reindex(columns=["volume", *_PROMPT]).astype(object).fillna("")
        told = known.volumes(made["prompt_dataset"], made["prompt_volume"], by_name=True)
        told |= made["prompt"].map(known.has_text).to_numpy(dtype=bool)
        leaks += [f"{volume}: its prompt is of a validation or test patient" for volume in made.loc[told, "volume"]]
    if leaks:
        raise UserError("this manifest would leak held-out patients into training; mend it", first_of(leaks))


def held_out(manifest: pd.DataFrame) -> HeldOut:
    """The patients and reports of a manifest's validation and test splits."""
    from text2ct.augment.leaks import HeldOut

    identity, texts = ["dataset", "volume", "patient", "split"], ["findings_text", "impression_text"]
    return HeldOut(manifest.reindex(columns=[*identity, *texts]).astype(object).fillna(""))


def check_gate(train_rows: pd.DataFrame, workspace: Workspace, name: str, seed: int) -> None:
    """Refuse volumes that were chosen by a classifier of the same architecture or seed."""
    from text2ct.augment.gate import refuse_same_judge

    refuse_same_judge(train_rows, workspace, name, seed)


def check_validation(validation: VolumeTable) -> None:
    """Refuse validation scans that give no AUC, and name the findings that have none."""
    undefined = scan_auc(np.zeros(validation.labels.shape), validation.labels, validation.scans).undefined
    if len(undefined) == len(FINDINGS):
        raise UserError(
            "no finding has both a positive and a negative validation scan, so no checkpoint can be chosen; "
            "add validation patients"
        )
    if undefined:
        console.warn(f"one class only among the validation scans, so left out of the mean AUC: {', '.join(undefined)}")


def row_weights(
    manifest: pd.DataFrame,
    rows: pd.DataFrame,
    train_rows: pd.Series,
    sampling_weights: np.ndarray | pd.Series | None,
) -> np.ndarray | None:
    """Sampling weights of the training rows, in their order; the manifest's index counts from 0.

    Args:
        manifest: All rows.
        rows: Those that have a known label.
        train_rows: ``(len(rows),)`` bool.
        sampling_weights: ``(len(manifest),)`` relative frequencies; None: those of the manifest's column
            ``sampling_weight``, in which an empty cell is 1.

    Returns:
        ``(training rows,)`` float64, or None where every row is to be drawn equally often.
    """
    if sampling_weights is None and WEIGHT_COLUMN in manifest:
        cells = pd.to_numeric(manifest[WEIGHT_COLUMN].fillna(1.0), errors="coerce")
        drawn = cells[rows.index[train_rows]].to_numpy()
        sampling_weights = None if 0 < drawn.min() == drawn.max() else cells
    if sampling_weights is None:
        return None
    values = np.asarray(sampling_weights, dtype=np.float64)
    if values.shape != (len(manifest),):
        raise UserError(f"{values.size} sampling weights for {len(manifest)} manifest rows; give one for each row")
    chosen: np.ndarray = values[rows.index[train_rows].to_numpy()]
    if not np.isfinite(chosen).all() or (chosen < 0).any() or chosen.sum() <= 0:
        raise UserError("sampling weights must be finite and not negative, with some above 0 among the training rows")
    return chosen


def prompt_origins(train_rows: pd.DataFrame) -> pd.DataFrame:
    """Columns ``prompt_dataset`` and ``prompt_volume`` of the synthetic training rows."""
    columns = ["prompt_dataset", "prompt_volume"]
    if not set(columns) <= set(train_rows.columns):
        return pd.DataFrame({column: [] for column in columns})
    return train_rows.loc[train_rows["source"] == "synthetic", columns].fillna("")


def known_to_makers(train_rows: pd.DataFrame, workspace: Workspace) -> list[dict[str, Any]]:
    """Whom the packs and gates behind the synthetic training rows know, as ``pack.json`` lists it."""
    if not (train_rows["source"] == "synthetic").any():
        return []
    from text2ct.augment import _refusals

    return [one.model_dump(mode="json") for one in _refusals.known_to_makers(train_rows, workspace)]
