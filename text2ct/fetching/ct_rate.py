"""Where CT-RATE keeps what on the hub, and which of its volumes carry a finding.

The layout is that of the data set's repository, ibrahimhamamci/CT-RATE (Hamamci et al. 2024, arXiv 2403.17834).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from text2ct.errors import UserError
from text2ct.manifests import parse_volume_name, parse_volume_names, read, read_names

REPOSITORY = "ibrahimhamamci/CT-RATE"


def table_paths(part: str) -> dict[str, str]:
    """Paths in the repository of a part's ``labels``, ``no_chest``, ``reports`` and ``metadata``.

    Args:
        part: ``train`` or ``valid``; reports and metadata of the latter are called ``validation``.
    """
    long = {"train": "train", "valid": "validation"}[part]
    return {
        "labels": f"dataset/multi_abnormality_labels/{part}_predicted_labels.csv",
        "no_chest": f"dataset/metadata/no_chest_{part}.txt",
        "reports": f"dataset/radiology_text_reports/{long}_reports.csv",
        "metadata": f"dataset/metadata/{long}_metadata.csv",
    }


def volume_path(volume: str) -> str:
    """Path in the repository of a volume's second generation, whose voxels are HU.

    Example:
        >>> volume_path("valid_3_a_1.nii.gz")
        'dataset/valid_fixed/valid_3/valid_3_a/valid_3_a_1.nii.gz'
    """
    name = parse_volume_name(volume)
    part = name.patient.split("_", 1)[0]
    return f"dataset/{part}_fixed/{name.patient}/{name.scan}/{volume}"


def select_volumes(
    labels: Path,
    no_chest: Path | None = None,
    *,
    findings: Sequence[str] = (),
    limit: int | None = None,
    seed: int = 0,
    all_reconstructions: bool = False,
) -> list[str]:
    """Volumes of the scans that carry any of the findings, patient by patient in an order that the seed decides.

    The first volumes of a larger limit are those of a smaller one. A scan carries a finding if any of its
    reconstructions is labelled so.

    Args:
        labels: CT-RATE's label table.
        no_chest: List of scans to leave out.
        findings: Names of the 18; none takes every scan.
        limit: At most so many volumes.
        seed: Decides the order of the patients.
        all_reconstructions: Instead of the first of each scan.

    Raises:
        UserError: The table is not usable, or no scan carries any of the findings.
    """
    frame = read(labels)
    if no_chest is not None:
        listed = set(read_names(no_chest))
        stems = frame["volume"].str.removesuffix(".nii.gz")
        frame = frame[~(stems.isin(listed) | frame["scan"].isin(listed))]
    if findings:
        positive = (frame[list(findings)] == 1).any(axis=1)
        frame = frame[positive.groupby(frame["scan"]).transform("any")]
    if frame.empty:
        raise UserError(f"no scan in {labels} carries {' or '.join(findings) or 'anything'}")
    frame = _ordered(frame, seed)
    if not all_reconstructions:
        frame = frame.drop_duplicates("scan")
    return frame["volume"].iloc[:limit].tolist()


def _ordered(frame: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Rows by a hash of seed and patient, which does not depend on who else is there; then by scan and number."""
    draw = {patient: hashlib.sha256(f"{seed}/{patient}".encode()).hexdigest() for patient in frame["patient"].unique()}
    number = parse_volume_names(frame["volume"])["reconstruction"]
    order = frame.assign(draw=frame["patient"].map(draw), number=number)
    # After scan z comes scan aa.
    order["length"] = order["scan"].str.len()
    return order.sort_values(["draw", "length", "scan", "number"], kind="stable")
