from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from text2ct.findings import FINDINGS

REAL = Path(__file__).resolve().parents[3] / "shared" / "real" / "ct_rate"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the folder ../shared/real is not here")


def label_rows(names: Sequence[str], seed: int = 0, column: str = "VolumeName") -> pd.DataFrame:
    """Names with 0/1 labels, the scan's reconstructions agreeing."""
    scans = [name.split(".")[0].rpartition("_")[0] or name for name in names]
    rng = np.random.default_rng(seed)
    drawn = {scan: rng.integers(0, 2, len(FINDINGS)) for scan in dict.fromkeys(scans)}
    table = pd.DataFrame([drawn[scan] for scan in scans], columns=list(FINDINGS))
    table.insert(0, column, list(names))
    return table


def ct_rate_names(part: str, patients: int, scans: str = "ab", reconstructions: int = 2) -> list[str]:
    return [
        f"{part}_{patient}_{scan}_{reconstruction}.nii.gz"
        for patient in range(1, patients + 1)
        for scan in scans[: 1 + patient % len(scans)]
        for reconstruction in range(1, reconstructions + 1)
    ]


def write_ct_rate(root: Path, *, fixed: bool = True, patients: int = 12, simulated: bool = False) -> Path:
    """A folder in CT-RATE's layout; the last volume of each part is missing on disk."""
    for part in ("train", "valid"):
        names = ct_rate_names(part, patients)
        for folder in ("multi_abnormality_labels", "radiology_text_reports", "metadata"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        label_rows(names).to_csv(root / f"multi_abnormality_labels/{part}_predicted_labels.csv", index=False)
        reports = pd.DataFrame({"VolumeName": names})
        reports["ClinicalInformation_EN"] = "Not given."
        reports["Technique_EN"] = "Thoracic CT."
        reports["Findings_EN"] = [f"Findings of {name}." for name in names]
        reports["Impressions_EN"] = "Not given."
        reports.to_csv(root / f"radiology_text_reports/{part}_reports.csv", index=False)
        metadata = pd.DataFrame({"VolumeName": names, "XYSpacing": "[0.7, 0.8]", "ZSpacing": 1.5})
        metadata = metadata.assign(Rows=512, Columns=256, NumberofSlices=100, RescaleSlope=1, RescaleIntercept=-1024)
        metadata.to_csv(root / f"metadata/{part}_metadata.csv", index=False)
        for name in names[:-1]:
            patient, scan, _ = name.rsplit("_", 2)
            folder = root / "dataset" / (f"{part}_fixed" if fixed else part) / patient / f"{patient}_{scan}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(b"")
    if simulated:
        (root / "simulation.json").write_text(json.dumps({"dataset": "simulated-seed7", "seed": 7}))
    return root


@pytest.fixture
def ct_rate_folder(tmp_path: Path) -> Path:
    return write_ct_rate(tmp_path / "CT-RATE")


@pytest.fixture
def write_labels(tmp_path: Path) -> Callable[..., Path]:
    """Write a label CSV, changed by a function if one is given."""

    def write(change: Callable[[pd.DataFrame], pd.DataFrame] | None = None, name: str = "labels.csv") -> Path:
        table = label_rows(ct_rate_names("train", 4)).astype("object")
        table = table if change is None else change(table)
        table.to_csv(tmp_path / name, index=False)
        return tmp_path / name

    return write
