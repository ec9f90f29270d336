from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from text2ct.errors import UserError
from text2ct.findings import FINDINGS
from text2ct.manifests import Workspace, read

from .conftest import ct_rate_names, label_rows


def test_a_2_a_missing_column_a_duplicate_and_an_unknown_finding_are_named_together(write_labels):
    def spoil(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[4, "Pleural effusion"] = 2
        table.loc[6, "VolumeName"] = table.loc[3, "VolumeName"]
        return table.drop(columns="Hiatal hernia").assign(Fracture=0)

    with pytest.raises(UserError) as caught:
        read(write_labels(spoil))
    said = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 4
    assert "column 'Hiatal hernia' is missing" in said
    assert "column 'Fracture' holds labels of an unknown finding" in said
    assert "row 6 (train_2_a_1.nii.gz): 'Pleural effusion' is 2; expected 0, 1 or empty" in said
    assert "row 8 (train_1_b_2.nii.gz): duplicate volume: it stands already in row 5" in said


@pytest.mark.parametrize("cell", ["yes", "-1", "0.5", "inf", "0;1"])
def test_odd_labels_are_named_with_row_and_volume(write_labels, cell):
    def spoil(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[1, "Emphysema"] = cell
        return table

    with pytest.raises(UserError, match=r"row 3 \(train_1_a_2\.nii\.gz\): 'Emphysema' is .*; expected 0, 1 or empty"):
        read(write_labels(spoil))


@pytest.mark.parametrize("cell", ["", "nan", "NaN", "NA", "None", "null"])
def test_every_word_for_unknown(write_labels, cell):
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[1, "Emphysema"] = cell
        return table

    frame = read(write_labels(change))
    assert np.isnan(frame.loc[1, "Emphysema"])
    assert frame[list(FINDINGS)].isna().to_numpy().sum() == 1


def test_columns_that_users_have_are_no_findings(write_labels):
    extra = {
        "report_text": "Emphysema, lung nodule.",
        "PatientAge": 60,
        "Sex": 1,
        "fold": 0,
        "Unnamed: 0": 1,
        "Manufacturer": "Philips",
        "nodule_size_mm": 4.5,
        "RescaleSlope": 1,
        "Device": "scanner 3",
    }
    plain, more = read(write_labels()), read(write_labels(lambda table: table.assign(**extra), "more.csv"))
    pd.testing.assert_frame_equal(plain, more)


@pytest.mark.parametrize("unknown", ["", "NaN", " na "])
def test_an_unknown_finding_may_have_unknown_labels(write_labels, unknown):
    cells = [0, 1, unknown] * 4
    with pytest.raises(UserError, match="column 'Fracture' holds labels of an unknown finding"):
        read(write_labels(lambda table: table.assign(Fracture=cells)))


@pytest.mark.parametrize("column", ["PatientID", "subject", "dataset", "scan"])
def test_an_identity_of_0_and_1_is_no_finding(write_labels, column):
    read(write_labels(lambda table: table.assign(**{column: [0, 1] * 6})))


@pytest.mark.parametrize("second", ["EMPHYSEMA", "Emphysema.1"])
def test_two_columns_of_one_finding(write_labels, second):
    with pytest.raises(UserError, match=f"column '{second}' is a second column of 'Emphysema'; keep one"):
        read(write_labels(lambda table: table.assign(**{second: 0})))


@pytest.mark.parametrize("column", ["Lung nodulee", "Pleural efusion", "Lung nodules"])
def test_a_column_spelled_like_a_finding_is_an_unknown_finding(write_labels, column):
    with pytest.raises(UserError, match=f"column '{column}' is an unknown finding; did you mean"):
        read(write_labels(lambda table: table.assign(**{column: "text"})))


def test_columns_align_by_name_whatever_order_and_case(write_labels):
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table = table[[*reversed(FINDINGS), "VolumeName"]]
        return table.rename(columns=lambda name: name if name == "VolumeName" else name.upper().replace(" ", "_"))

    pd.testing.assert_frame_equal(read(write_labels()), read(write_labels(change, "other.csv")))


def _rewrite(path: Path, change) -> Path:
    path.write_bytes(change(path.read_bytes()))
    return path


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda data: b"\xef\xbb\xbf" + data, id="byte-order mark"),
        pytest.param(lambda data: data.replace(b"\n", b"\r\n"), id="windows line ends"),
        pytest.param(lambda data: data.replace(b"\n", b"\r"), id="old line ends"),
        pytest.param(lambda data: data.replace(b",", b";"), id="semicolons"),
        pytest.param(lambda data: data.replace(b",", b"\t"), id="tabs"),
        pytest.param(lambda data: b"\xef\xbb\xbf" + data.replace(b",", b";").replace(b"\n", b"\r\n"), id="excel"),
        pytest.param(lambda data: data + b"\n\n", id="blank lines"),
    ],
)
def test_dialects_of_csv_read_alike(write_labels, change):
    pd.testing.assert_frame_equal(read(write_labels()), read(_rewrite(write_labels(), change)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda data: b"", "is empty", id="empty"),
        pytest.param(lambda data: b" \n\n", "is empty", id="blank"),
        pytest.param(lambda data: data.split(b"\n")[0] + b"\n", "has a header and no rows", id="header only"),
        pytest.param(
            lambda data: data.replace(b"train_2", "tr\xe4in_2".encode("latin-1")),
            "line 6, byte 0xe4",
            id="latin",
        ),
        pytest.param(lambda data: data.decode().encode("utf-16"), "is not UTF-8", id="utf-16"),
        pytest.param(lambda data: data.replace(b"train_2", b"\0"), "zero bytes", id="binary"),
        pytest.param(lambda data: data[:-20], "row 13: fewer cells", id="cut off"),
        pytest.param(lambda data: data + b"x" + b",1" * 30 + b"\n", "is not a table", id="too many cells"),
        pytest.param(
            lambda data: data.replace(b"\n", b",\n").replace(b",\n", b"\n", 1),
            "is not a table",
            id="one more",
        ),
        pytest.param(lambda data: data + b'"unclosed', "is not a table", id="quote"),
        pytest.param(
            lambda data: data.replace(b"train_1_a_1", b"x" * 200_000).replace(b"\n", b";\n").replace(b",", b";"),
            "is not a table: field larger than field limit",
            id="endless cell",
        ),
        pytest.param(lambda data: b"\x1f\x8b" + data * 100, "line 1, byte 0x8b", id="volume"),
        pytest.param(
            lambda data: data.replace(b"VolumeName", b"Name"),
            "no column VolumeName or AccessionNo",
            id="no id",
        ),
        pytest.param(lambda data: data.replace(b"train_1_a_1.nii.gz", b""), "'volume' is empty", id="empty name"),
    ],
)
def test_broken_files_are_clear_mistakes(write_labels, change, message):
    with pytest.raises(UserError, match=message):
        read(_rewrite(write_labels(), change))


def test_a_folder_in_place_of_a_file_and_a_wrong_path(tmp_path, write_labels):
    path = write_labels()
    with pytest.raises(UserError, match="is a folder"):
        read(path, metadata=tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        read(tmp_path / "nowhere" / "labels.csv")
    with pytest.raises(UserError, match="no folder of volumes"):
        read(path, volumes=path)


def test_a_long_list_of_problems_is_cut(write_labels):
    with pytest.raises(UserError) as caught:
        read(write_labels(lambda table: table.assign(**dict.fromkeys(FINDINGS, 3))))
    assert len(caught.value.problems) == 101
    assert caught.value.problems[-1] == "and 116 more"


def test_identity_of_names(tmp_path):
    label_rows(ct_rate_names("train", 2) + ct_rate_names("valid", 3)).to_csv(tmp_path / "a.csv", index=False)
    frame = read(tmp_path / "a.csv", split="test")
    assert set(frame["dataset"]) == {"CT-RATE"}
    assert set(frame.loc[frame["patient"].str.startswith("train"), "split"]) == {"train"}
    label_rows(["a_1.nii.gz", "b_1.nii.gz"]).to_csv(tmp_path / "my labels.csv", index=False)
    own = read(tmp_path / "my labels.csv", split="test")
    assert set(own["dataset"]) == {"my-labels"}
    assert set(own["split"]) == {"test"}
    assert list(own["patient"]) == ["a_1", "b_1"]
    assert set(read(tmp_path / "a.csv", dataset="mine")["dataset"]) == {"mine"}


def test_in_a_table_of_several_origins_ct_rates_valid_stays_held_out(tmp_path, capsys):
    table = label_rows(["mine_1.nii.gz", *ct_rate_names("train", 2), *ct_rate_names("valid", 4)])
    table.assign(split="train", PatientID="P").to_csv(tmp_path / "all.csv", index=False)
    frame = read(tmp_path / "all.csv")
    assert list(frame["dataset"]) == ["all"] + ["CT-RATE"] * (len(frame) - 1)
    assert list(frame["patient"])[:2] == ["P", "train_1"]
    valid = frame["patient"].str.startswith("valid")
    assert set(frame.loc[~valid, "split"]) == {"train"}
    assert set(frame.loc[valid, "split"]) == {"validation", "test"}
    assert f"{len(frame) - 1} of {len(frame)} names" in capsys.readouterr().err


def test_own_patient_and_split_columns_and_files_beside_the_table(tmp_path):
    (tmp_path / "scans").mkdir()
    for name in ("x.mha", "y.mha"):
        (tmp_path / "scans" / name).write_bytes(b"")
    table = label_rows(["scans/x.mha", "scans/y.mha", "scans/z.mha", "../w.mha"])
    table = table.assign(PatientID=["P1", "P1", "P2", ""], split=["val", "val", "Training", ""])
    table.to_csv(tmp_path / "labels.csv", index=False)
    workspace = Workspace.open(tmp_path / "ws")
    frame = read(tmp_path / "labels.csv", workspace=workspace)
    assert list(frame["patient"]) == ["P1", "P1", "P2", "w"]
    assert list(frame["split"]) == ["validation", "validation", "train", ""]
    assert list(frame["path"]) == ["scans/x.mha", "scans/y.mha", "", ""]
    assert list(frame["volume"]) == ["x.mha", "y.mha", "z.mha", "w.mha"]
    assert workspace.resolve(frame.loc[0, "root"], frame.loc[0, "path"]) == tmp_path / "scans" / "x.mha"
    found = read(tmp_path / "labels.csv", volumes=tmp_path / "scans", workspace=workspace)
    assert list(found["path"]) == ["x.mha", "y.mha", "", ""]
    (tmp_path / "none").mkdir()
    assert set(read(tmp_path / "labels.csv", volumes=tmp_path / "none")["path"]) == {""}
    table.assign(split=["val", "test", "odd", ""]).to_csv(tmp_path / "torn.csv", index=False)
    with pytest.raises(UserError, match="several splits: validation, test") as caught:
        read(tmp_path / "torn.csv")
    assert any("'split' is 'odd'; expected train, validation, test or empty" in p for p in caught.value.problems)


def test_metadata_and_reports_are_attached(ct_rate_folder):
    path = ct_rate_folder / "multi_abnormality_labels/train_predicted_labels.csv"
    frame = read(
        path,
        metadata=ct_rate_folder / "metadata/train_metadata.csv",
        reports=ct_rate_folder / "radiology_text_reports/train_reports.csv",
    )
    assert frame.loc[0, ["spacing_x", "spacing_y", "spacing_z"]].tolist() == [0.8, 0.7, 1.5]
    assert frame.loc[0, ["size_x", "size_y", "size_z"]].tolist() == [256, 512, 100]
    assert frame.loc[0, "findings_text"] == "Findings of train_1_a_1.nii.gz."
    assert set(frame["impression_text"]) == {""}
    with pytest.raises(UserError, match="no reports table"):
        read(path, reports=path)


def test_a_table_inside_a_simulated_cohort_has_its_data_set(tmp_path):
    (tmp_path / "simulation.json").write_text('{"dataset": "simulated-seed3"}')
    (tmp_path / "multi_abnormality_labels").mkdir()
    path = tmp_path / "multi_abnormality_labels" / "valid_predicted_labels.csv"
    label_rows(ct_rate_names("valid", 8)).to_csv(path, index=False)
    frame = read(path)
    assert set(frame["dataset"]) == {"simulated-seed3"}
    assert set(frame["source"]) == {"simulated"}
    assert set(frame["split"]) == {"validation", "test"}


def test_a_large_table_of_probabilities_is_refused_in_seconds(tmp_path):
    import time

    table = label_rows(ct_rate_names("train", 2000))
    table[list(FINDINGS)] = np.random.default_rng(0).random((len(table), 18))
    table.to_csv(tmp_path / "predictions.csv", index=False)
    began = time.process_time()
    with pytest.raises(UserError, match=f"has {18 * len(table)} problems"):
        read(tmp_path / "predictions.csv")
    assert time.process_time() - began < 3


def test_a_table_of_fifty_thousand_rows_reads_in_seconds(tmp_path):
    import time

    table = label_rows(ct_rate_names("train", 8000, "abc", 3) + ct_rate_names("valid", 370, "abc", 3))
    assert len(table) > 50_000
    table.to_csv(tmp_path / "labels.csv", index=False)
    began = time.process_time()
    frame = read(tmp_path / "labels.csv")
    assert len(frame) == len(table)
    assert time.process_time() - began < 5
