"""Annotated reports, and the real files where they are here."""

from __future__ import annotations

import pandas as pd
import pytest

from text2ct.errors import UserError
from text2ct.findings import FINDINGS
from text2ct.manifests import read, read_metadata, summarise

from .conftest import REAL, label_rows, needs_real


@pytest.fixture
def annotated(tmp_path):
    table = label_rows(["train_1", "train_2", "train_3", "train_4"], column="AccessionNo")
    table.insert(1, "report_text", "A report.")
    table.to_csv(tmp_path / "annotated.csv", index=False)
    return tmp_path / "annotated.csv"


def names(annotated, text: str):
    path = annotated.with_name("names.csv")
    path.write_text("AccessionNo,NameinCTRATE\n" + text)
    return path


def test_ids_that_look_like_ct_rates_are_not(annotated):
    frame = read(annotated)
    assert set(frame["dataset"]) == {"annotated-reports"}
    assert set(frame["split"]) == {"train"}
    assert frame["patient"].tolist() == frame["scan"].tolist() == ["train_1", "train_2", "train_3", "train_4"]
    assert set(read(annotated, split="test")["split"]) == {"test"}


def test_the_table_of_names_gives_ct_rates_identity_and_split(annotated):
    table = names(annotated, "train_2,not in CT-RATE\ntrain_1,train_17_a\ntrain_3,valid_9_b\ntrain_4,train_17_b\n")
    frame = read(annotated, names=table, split="test")
    assert list(frame["dataset"]) == ["CT-RATE", "annotated-reports", "CT-RATE", "CT-RATE"]
    assert list(frame["patient"]) == ["train_17", "train_2", "valid_9", "train_17"]
    assert list(frame["scan"]) == ["train_17_a", "train_2", "valid_9_b", "train_17_b"]
    assert list(frame["split"])[:2] == ["train", "test"]
    assert frame.loc[2, "split"] in ("validation", "test")


def test_what_is_wrong_with_the_table_of_names_is_told_at_once(annotated):
    table = names(annotated, "train_1,train_17_a\ntrain_1,train_18_a\ntrain_2,odd\ntrain_3,train_17_a\n")
    with pytest.raises(UserError) as caught:
        read(annotated, names=table)
    said = "\n".join(caught.value.problems)
    assert "names.csv row 3 (train_1): stands a second time" in said
    assert "row 3 (train_2): 'odd' is no name of CT-RATE" in said
    assert "row 5 (train_4): is not in names.csv" in said
    assert "row 4 (train_17_a): duplicate volume" in said
    assert len(caught.value.problems) == 4
    with pytest.raises(UserError, match="no table of names"):
        read(annotated, names=annotated)


@needs_real
def test_real_reports_have_exactly_the_prevalences_of_pandas():
    path = REAL / "annotated_reports_train.csv"
    table = pd.read_csv(path)
    summary = summarise(read(path))
    assert (summary.volumes, summary.scans, summary.patients) == (len(table),) * 3
    assert {name: numbers.prevalence for name, numbers in summary.findings.items()} == {
        name: table[name].mean() for name in FINDINGS
    }


@needs_real
def test_real_names():
    frame = read(REAL / "annotated_reports_train.csv", names=REAL / "annotated_reports_train_volume_names.csv")
    assert frame.loc[0, ["dataset", "patient", "scan", "split"]].tolist() == [
        "CT-RATE",
        "train_17051",
        "train_17051_a",
        "train",
    ]
    valid = frame["patient"].str.startswith("valid_")
    assert int(valid.sum()) == 33
    assert set(frame.loc[valid, "split"]) <= {"validation", "test"}
    assert int((frame["dataset"] == "annotated-reports").sum()) == 253


@needs_real
def test_real_metadata():
    table = read_metadata(REAL / "validation_metadata.csv")
    assert len(table) == 3039
    assert table.notna().all(axis=None)
    assert set(table["intercept"]) == {-1024, -8192}
    assert table.loc["valid_1_a_1", ["spacing_x", "spacing_z", "size_z"]].tolist() == [0.341796875, 1.5, 251]


@needs_real
def test_real_prompts_of_the_challenge():
    frame = read(REAL / "vlm3d_prompts.json")
    assert frame.loc[0, "volume"] == "65f43b26-34fd-447a-9462-faf4d7b139ed.mha"
    assert frame.loc[0, "findings_text"].startswith("58-year-old male: Findings:")
    assert frame[list(FINDINGS)].isna().all(axis=None)


@needs_real
def test_a_real_label_matrix_without_ids_is_refused():
    with pytest.raises(UserError, match="no column VolumeName or AccessionNo"):
        read(REAL / "validation_label_matrix.csv")
