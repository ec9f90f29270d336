"""Scans out of volumes: a reconstruction is never an independent sample."""

from __future__ import annotations

import pandas as pd

from text2ct.findings import FINDINGS

_SCAN = ["dataset", "scan"]
_PATIENT = ["dataset", "patient"]


def by_scan(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """One row per scan, identified by (dataset, scan), in order of first appearance.

    A scan is positive for a finding if any of its reconstructions is, and unknown only if all are.

    Args:
        frame: A manifest.

    Returns:
        The scans, with every column of the scan's first row beside the findings, and the names of
        the scans whose reconstructions disagree (``dataset/scan`` where there are several data sets).
    """
    first = frame.drop_duplicates(_SCAN).reset_index(drop=True)
    if len(first) == len(frame):
        return first, []
    groups = frame.groupby(_SCAN, sort=False)[list(FINDINGS)]
    highest, lowest = groups.max(), groups.min()
    first[list(FINDINGS)] = highest.to_numpy()
    torn = highest.index[(highest > lowest).any(axis=1)]
    several = bool((frame["dataset"] != frame["dataset"].iloc[0]).any())
    return first, [f"{dataset}/{scan}" if several else str(scan) for dataset, scan in torn]


def labels_by_patient(frame: pd.DataFrame) -> pd.DataFrame:
    """The (patients, 18) labels: positive if any row of the patient is, unknown only if all are."""
    return frame.groupby(_PATIENT, sort=False)[list(FINDINGS)].max()
