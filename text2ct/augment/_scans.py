"""The training scans of a manifest: what plans, prompts and mixes may draw from."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd

from text2ct.errors import UserError
from text2ct.findings import FINDINGS
from text2ct.manifests import by_scan

HELD_OUT = ("validation", "test")
NAMES = list(FINDINGS)


def held_out_patients(frame: pd.DataFrame) -> set[tuple[str, str]]:
    """The (dataset, patient) identities with any row in validation or test."""
    rows = frame[frame["split"].isin(HELD_OUT)]
    return set(zip(rows["dataset"], rows["patient"], strict=True))


def _identity(rows: pd.DataFrame) -> pd.Series:
    """Data set and patient as one text, for quick comparisons."""
    return rows["dataset"] + "\0" + rows["patient"]


def training_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows that a generator may be asked about: training split, not synthetic, patient nowhere held out.

    A table that knows no split at all (annotated reports alone) is taken whole.

    Raises:
        UserError: No row is left.
    """
    real = frame[frame["source"] != "synthetic"]
    splits_known = bool((real["split"] != "").any())
    rows = real[real["split"] == "train"] if splits_known else real
    held_out = _identity(frame[frame["split"].isin(HELD_OUT)]).unique()
    rows = rows[~_identity(rows).isin(held_out)]
    if rows.empty:
        raise UserError("the manifest has no training rows; its 'split' column needs rows with 'train'")
    return rows


def training_scans(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per training scan in a stable order (see :func:`training_rows`)."""
    scans, _ = by_scan(training_rows(frame))
    return scans.sort_values(["dataset", "scan"], kind="stable").reset_index(drop=True)


def label_matrix(frame: pd.DataFrame) -> np.ndarray:
    """The labels as ``(n, 18)`` float64: 1, 0 or NaN for unknown."""
    return frame[NAMES].to_numpy(dtype=np.float64, na_value=np.nan)


def labels_digest(labels: np.ndarray) -> str:
    """SHA-256 of which label sets occur and how often, whatever the scans' order and names.

    Args:
        labels: (n, 18) of 1, 0 or NaN.
    """
    coded = np.nan_to_num(labels, nan=2).astype(np.int8)
    return hashlib.sha256(coded[np.lexsort(coded.T)].tobytes()).hexdigest()
