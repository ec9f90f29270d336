from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from text2ct.errors import UserError
from text2ct.findings import FINDINGS
from text2ct.manifests import Workspace, read, read_metadata, write_manifest

from .conftest import label_rows, write_ct_rate


def test_a_whole_folder(ct_rate_folder, tmp_path):
    workspace = Workspace.open(tmp_path / "ws")
    frame = read(ct_rate_folder, workspace=workspace)
    assert set(frame["dataset"]) == {"CT-RATE"}
    assert set(frame["source"]) == {"real"}
    assert frame.loc[0, "path"] == "dataset/train_fixed/train_1/train_1_a/train_1_a_1.nii.gz"
    assert workspace.resolve(frame.loc[0, "root"], frame.loc[0, "path"]).is_file()
    assert workspace.roots["ct-rate"] == ct_rate_folder
    assert int((frame["path"] == "").sum()) == 2  # the last volume of each part is not on disk
    assert frame.loc[0, "findings_text"] == "Findings of train_1_a_1.nii.gz."
    assert set(frame["impression_text"]) == {""}
    assert frame.loc[0, "spacing_x"] == 0.8
    assert not np.isnan(frame[list(FINDINGS)].to_numpy()).any()


def test_valid_is_a_quarter_validation_and_the_rest_test_by_patient(ct_rate_folder):
    frame = read(ct_rate_folder)
    valid = frame["patient"].str.startswith("valid")
    assert set(frame.loc[~valid, "split"]) == {"train"}
    patients = frame[valid].drop_duplicates("patient")["split"].value_counts()
    assert patients.to_dict() == {"test": 9, "validation": 3}


def test_the_split_of_valid_is_the_same_from_the_table_alone(ct_rate_folder):
    whole = read(ct_rate_folder).set_index("volume")["split"]
    alone = read(ct_rate_folder / "multi_abnormality_labels/valid_predicted_labels.csv").set_index("volume")["split"]
    pd.testing.assert_series_equal(whole[alone.index], alone)


@pytest.mark.parametrize("inside", [True, False])
def test_a_manifest_beside_its_volumes_brings_its_root_along(tmp_path, inside):
    root = write_ct_rate(tmp_path / ("ws/cohort" if inside else "cohort"), simulated=True)
    write_manifest(read(root), root / "list.csv")
    workspace = Workspace.open(tmp_path / "ws")
    frame = read(root / "list.csv", workspace=workspace)
    assert set(frame["root"]) == {"", "workspace" if inside else "simulated-seed7"}
    there = frame[frame["path"] != ""].iloc[0]
    assert workspace.resolve(there["root"], there["path"]).is_file()


def test_tables_inside_dataset_as_the_hub_has_them(ct_rate_folder):
    expected = read(ct_rate_folder)
    for folder in ("multi_abnormality_labels", "radiology_text_reports", "metadata"):
        (ct_rate_folder / folder).rename(ct_rate_folder / "dataset" / folder)
    pd.testing.assert_frame_equal(read(ct_rate_folder), expected)
    inside = read(ct_rate_folder / "dataset")
    pd.testing.assert_frame_equal(inside.drop(columns="path"), expected.drop(columns="path"))
    assert inside.loc[0, "path"] == "train_fixed/train_1/train_1_a/train_1_a_1.nii.gz"


@pytest.mark.parametrize("base", ["dataset", "."])
def test_second_generation_comes_before_the_first(tmp_path, base):
    root = write_ct_rate(tmp_path / "C", fixed=True)
    write_ct_rate(root, fixed=False)
    if base == ".":
        for tree in (root / "dataset").iterdir():
            tree.rename(root / tree.name)
    paths = read(root)["path"]
    assert paths[paths != ""].str.contains("_fixed/").all()


def test_the_first_generation_alone(tmp_path):
    frame = read(write_ct_rate(tmp_path / "C", fixed=False))
    assert frame.loc[0, "path"] == "dataset/train/train_1/train_1_a/train_1_a_1.nii.gz"


def test_a_simulated_cohort_says_so(tmp_path):
    root = write_ct_rate(tmp_path / "ws" / "real" / "cohort", simulated=True)
    workspace = Workspace.open(tmp_path / "ws")
    frame = read(root, workspace=workspace)
    assert set(frame["dataset"]) == {"simulated-seed7"}
    assert set(frame["source"]) == {"simulated"}
    assert frame.loc[0, "root"] == "workspace"
    assert workspace.resolve("workspace", frame.loc[0, "path"]).is_file()
    (root / "simulation.json").write_text("[]")
    with pytest.raises(UserError, match="names no 'dataset'"):
        read(root)


def test_scans_that_are_no_chest_are_left_out(ct_rate_folder, capsys):
    lists = ct_rate_folder / "metadata"
    (lists / "no_chest_train.txt").write_text("dataset/train/train_1/train_1_a/train_1_a_1.nii.gz\n\ntrain_2_a\n")
    frame = read(ct_rate_folder)
    assert "train_1_a_1.nii.gz" not in set(frame["volume"])
    assert "train_2_a" not in set(frame["scan"])
    assert "3 volumes are no chest scans" in capsys.readouterr().err


def test_volumes_without_labels_are_counted(ct_rate_folder, capsys):
    extra = ct_rate_folder / "dataset/train_fixed/train_99/train_99_a"
    extra.mkdir(parents=True)
    (extra / "train_99_a_1.nii.gz").write_bytes(b"")
    (extra / ".partial-train_99_a_2.nii.gz").write_bytes(b"")
    frame = read(ct_rate_folder)
    assert "train_99" not in set(frame["patient"])
    assert "1 volumes in" in capsys.readouterr().err


def test_without_labels_the_reports_make_rows_and_labels_are_unknown(ct_rate_folder):
    for path in (ct_rate_folder / "multi_abnormality_labels").iterdir():
        path.unlink()
    frame = read(ct_rate_folder)
    assert frame[list(FINDINGS)].isna().all(axis=None)
    assert frame.loc[0, "volume"] == "train_1_a_1.nii.gz"
    for path in (ct_rate_folder / "radiology_text_reports").iterdir():
        path.unlink()
    only_files = read(ct_rate_folder)
    assert (only_files["path"] != "").all()
    assert len(only_files) == len(frame) - 2


def test_problems_of_all_tables_come_at_once_with_their_file(ct_rate_folder):
    labels = ct_rate_folder / "multi_abnormality_labels"
    for part in ("train", "valid"):
        path = labels / f"{part}_predicted_labels.csv"
        table = pd.read_csv(path)
        table.loc[3, "Emphysema"] = 7
        table.to_csv(path, index=False)
    again = pd.read_csv(labels / "valid_predicted_labels.csv").head(1)
    again.to_csv(labels / "z_labels.csv", index=False)
    label_rows(["other.nii.gz"]).to_csv(labels / "y_labels.csv", index=False)
    with pytest.raises(UserError) as caught:
        read(ct_rate_folder)
    said = "\n".join(caught.value.problems)
    assert "train_predicted_labels.csv row 5 (" in said
    assert "valid_predicted_labels.csv row 5 (" in said
    assert "z_labels.csv row 2 (valid_1_a_1.nii.gz): duplicate volume: it stands already in valid_predicted_l" in said
    assert "y_labels.csv row 2 (other.nii.gz): is no name of CT-RATE" in said


@pytest.mark.parametrize(
    "table",
    [
        "multi_abnormality_labels/train_predicted_labels.csv",
        "radiology_text_reports/train_reports.csv",
        "metadata/train_metadata.csv",
    ],
)
def test_an_unreadable_table_is_not_passed_over(ct_rate_folder, table):
    (ct_rate_folder / table).write_bytes(b"")
    with pytest.raises(UserError, match=r"\.csv is empty"):
        read(ct_rate_folder)


def test_reports_alone(ct_rate_folder):
    whole = read(ct_rate_folder)
    frame = read(
        ct_rate_folder / "radiology_text_reports/train_reports.csv",
        metadata=ct_rate_folder / "metadata/train_metadata.csv",
    )
    assert set(frame["split"]) == {"train"}
    assert frame[list(FINDINGS)].isna().all(axis=None)
    texts = ["dataset", "volume", "patient", "scan", "findings_text", "spacing_x"]
    pd.testing.assert_frame_equal(frame[texts], whole.loc[whole["split"] == "train", texts])


def test_a_volume_twice_in_the_metadata(ct_rate_folder):
    path = ct_rate_folder / "metadata/train_metadata.csv"
    table = pd.read_csv(path)
    pd.concat([table, table.head(1)]).to_csv(path, index=False)
    assert len(read_metadata(path)) == len(table)  # said twice in the same words
    pd.concat([table, table.head(1).assign(ZSpacing=9)]).to_csv(path, index=False)
    with pytest.raises(UserError, match=r"\(train_1_a_1\): stands a second time"):
        read(ct_rate_folder)


def test_metadata_that_makes_no_sense_is_unknown(tmp_path: Path):
    path = tmp_path / "metadata.csv"
    path.write_text('VolumeName,XYSpacing,ZSpacing\na.nii.gz,"[0.5, 0.25]",0\nb.nii.gz,0.5,-1\nc.nii.gz,,x\n')
    table = read_metadata(path)
    assert table["spacing_x"].tolist()[:2] == [0.25, 0.5]
    assert table["spacing_y"].tolist()[:2] == [0.5, 0.5]
    assert table["spacing_z"].isna().all()
    assert table["slope"].isna().all()
