"""What a manifest deserves a look for, and nothing else."""

from __future__ import annotations

import csv

import numpy as np
import pandas as pd
import pytest

from text2ct import hygiene, planning
from text2ct.findings import FINDINGS
from text2ct.manifests import Workspace, validate, write_manifest
from text2ct.tables import imbalance_table

NORMAL = "Trachea and both main bronchi are open. No pleural effusion was detected. Bone structures are natural."


def manifest(rows: int = 6, **columns: object) -> pd.DataFrame:
    """Volumes of as many patients, two in each split, each with a report of its own."""
    names = [f"train_{row}_a_1.nii.gz" for row in range(rows)]
    frame = pd.DataFrame({name: np.zeros(rows) for name in FINDINGS})
    frame = frame.assign(
        dataset="CT-RATE",
        volume=names,
        patient=[f"train_{row}" for row in range(rows)],
        scan=[f"train_{row}_a" for row in range(rows)],
        split=(["train", "validation", "test"] * rows)[:rows],
        source="real",
        findings_text=[f"{NORMAL} The {row} th rib is short." for row in range(rows)],
        sha256=[f"{row:064x}" for row in range(rows)],
        **{f"spacing_{axis}": 0.75 for axis in "xyz"},
    )
    return validate(frame.assign(**columns), "test")


def found(frame: pd.DataFrame) -> dict[str, list[str]]:
    """Check -> the numbers of the patients."""
    table = hygiene.check_manifest(frame)
    assert set(table["check"]) <= set(hygiene.CHECKS)
    return {str(name): [volume.split("_")[1] for volume in rows["volume"]] for name, rows in table.groupby("check")}


def detail(frame: pd.DataFrame, row: int = 0) -> str:
    return str(hygiene.check_manifest(frame)["detail"][row])


def test_a_clean_manifest_has_nothing():
    assert found(manifest()) == {}
    assert found(manifest(findings_text="", sha256="", split="")) == {}


def test_reports_of_several_splits():
    frame = manifest()
    frame.loc[1, "findings_text"] = f"  {frame.loc[0, 'findings_text'].upper()}"
    assert found(frame) == {"shared-report": ["0", "1"]}
    assert detail(frame) == "the words of train_1_a_1.nii.gz in validation; this one is in train"
    # Within one split nothing leaks, and a few words are anybody's.
    assert found(frame.assign(split=["train", "train", *frame["split"][2:]])) == {}
    assert found(manifest(findings_text="Normal chest.")) == {}


def test_files_under_several_names():
    frame = manifest(sha256=["a" * 64, "b" * 64, "a" * 64, "c" * 64, "b" * 64, "b" * 64])
    frame.loc[4, ["patient", "scan", "split"]] = frame.loc[1, ["patient", "scan", "split"]].to_list()
    frame.loc[4, "volume"] = "train_1_a_2.nii.gz"
    assert found(frame) == {"shared-volume": ["0", "1", "2", "1", "5"]}
    table = hygiene.check_manifest(frame).set_index("volume")["detail"]
    assert table["train_0_a_1.nii.gz"] == "the file of train_2_a_1.nii.gz of patient train_2 in test"
    assert table["train_1_a_2.nii.gz"] == "the file of train_5_a_1.nii.gz of patient train_5 in test"
    twins = manifest(2, sha256="a" * 64, patient="train_0", scan="train_0_a", split="train")
    assert detail(twins) == "the file of train_1_a_1.nii.gz of the same patient"


def test_labels_that_the_report_contradicts():
    frame = manifest()
    frame.loc[2, "Pleural effusion"] = 1.0
    frame.loc[3, "findings_text"] = "Emphysematous changes are observed in both lungs."
    frame.loc[4, "Emphysema"] = np.nan
    frame.loc[4, "findings_text"] = "Emphysematous changes are observed in the upper lobes."
    assert found(frame) == {"label-denied": ["2"], "label-missed": ["3"]}
    assert detail(frame) == "Pleural effusion is 1, the report says 'No pleural effusion was detected.'"


def test_reconstructions_that_disagree():
    frame = manifest(4, patient="train_0", scan="train_0_a", split="train", findings_text="")
    frame["Emphysema"] = [0.0, 1.0, np.nan, 0.0]
    assert found(frame) == {"reconstructions": ["0", "1", "3"]}
    assert detail(frame, 1) == "another reconstruction of the scan is labelled otherwise: Emphysema is 1"


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ((np.nan, 0.75, 0.75), "no voxel size is known"),
        ((1.0, 1.0, 1.0), "1 x 1 x 1 mm, as of an unknown size"),
        ((0.75, 0.75, 45.0), "voxels of 0.75 x 0.75 x 45 mm are absurd"),
    ],
)
def test_spacing(sizes, words):
    frame = manifest()
    frame.loc[3, ["spacing_x", "spacing_y", "spacing_z"]] = sizes
    assert found(frame) == {"spacing": ["3"]}
    assert detail(frame) == words


def test_a_data_set_of_one_spacing_is_no_news():
    for size in (1.0, np.nan):
        assert found(manifest(**{f"spacing_{axis}": size for axis in "xyz"})) == {}


def test_notes_of_preprocess():
    notes = [
        "",
        "no chest: 0.00 litres of lung in 18 cm of body, by its size and bone a head",
        "oblique: its axes are tilted",
        "",
        "",
        "",
    ]
    notes[4] = "oblique: tilted; the metadata says 1 x 1 x 1 mm, the header 5 x 5 x 5 mm, which is used"
    frame = manifest(notes=notes)
    assert found(frame) == {"no-chest": ["1"], "spacing": ["4"]}
    assert detail(frame, 0) == "the metadata says 1 x 1 x 1 mm, the header 5 x 5 x 5 mm, which is used"


def test_rows_of_the_table_do_not_depend_on_the_index():
    frame = manifest()
    frame.loc[3, "Pleural effusion"] = 1.0
    turned = frame.set_index(frame.index[::-1])
    pd.testing.assert_frame_equal(hygiene.check_manifest(turned), hygiene.check_manifest(frame))


def test_counts_are_by_volume_and_scan():
    frame = manifest(4, patient="train_0", scan="train_0_a", split="train", findings_text=NORMAL)
    frame["Pleural effusion"] = 1.0
    counts = hygiene.summarise(hygiene.check_manifest(frame), frame)
    assert list(counts) == list(hygiene.CHECKS)
    assert counts["label-denied"]["volumes"] == 4
    assert counts["label-denied"]["scans"] == 1
    assert counts["label-denied"]["examples"] == frame["volume"].tolist()[:3]
    assert counts["spacing"]["volumes"] == 0


def test_no_cell_is_a_formula(tmp_path):
    cells = ["=1+1", "+1", "-1", "@x", "\tx", "plain", "a=b"]
    table = pd.DataFrame({name: cells for name in hygiene.COLUMNS}, dtype="str")
    hygiene.write_csv(table, tmp_path / "hygiene.csv")
    with (tmp_path / "hygiene.csv").open(newline="") as stream:
        rows = list(csv.reader(stream))[1:]
    assert [row[0] for row in rows] == [*(f"'{cell}" for cell in cells[:5]), "plain", "a=b"]


def test_the_report_shows_it(tmp_path):
    frame = manifest(12)
    frame["Emphysema"] = [1.0, 0.0] * 6
    frame.loc[0, "Pleural effusion"] = 1.0
    write_manifest(frame, tmp_path / "in/manifest.csv")
    result = planning.report(Workspace.open(tmp_path / "ws"), tmp_path / "in/manifest.csv")
    assert result["hygiene"]["label-denied"]["examples"] == ["train_0_a_1.nii.gz"]
    table = pd.read_csv(result["hygiene_csv"])
    assert table[["volume", "check"]].to_numpy().tolist() == [["train_0_a_1.nii.gz", "label-denied"]]
    for page in ("report.html", "report.md"):
        text = (tmp_path / "ws/reports").rglob(page).__next__().read_text(encoding="utf-8")
        assert "a finding is labelled 1 and the report denies it" in text
        assert "the voxel size is unknown" not in text
    assert imbalance_table(result)
