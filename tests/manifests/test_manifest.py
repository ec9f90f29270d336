from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from text2ct.errors import UserError
from text2ct.findings import FINDINGS
from text2ct.manifests import (
    COLUMNS,
    SYNTHETIC_COLUMNS,
    parse_volume_name,
    parse_volume_names,
    read_manifest,
    validate,
    write_manifest,
)


def rows(number: int = 3, **columns) -> pd.DataFrame:
    frame = pd.DataFrame({"dataset": "D", "volume": [f"v{n}.nii.gz" for n in range(number)]})
    frame["patient"] = frame["scan"] = frame["volume"].str[:-7]
    return frame.assign(split="train", source="real", **columns)


def synthetic(number: int = 3, **columns) -> pd.DataFrame:
    given = {
        "source": "synthetic",
        "seed": 2**60 + 1,
        "steps": 30,
        "guidance_scale": 2.5,
        "prompt": "A text.",
    }
    return rows(number).assign(**(given | columns))


def test_absent_columns_are_unknown_and_never_zero():
    frame = validate(rows(), "here")
    assert list(frame.columns) == list(COLUMNS)
    assert frame[list(FINDINGS)].isna().all(axis=None)
    assert (frame["findings_text"] == "").all()
    assert list(validate(pd.DataFrame(columns=list(COLUMNS)), "nothing").columns) == list(COLUMNS)


def test_evidence_stands_only_where_it_is_given(tmp_path):
    plain, told = rows(2), rows(2).assign(dataset="E", intensity=["HU as stored: 5% air", ""], notes="oblique, by 2°")
    assert not {"intensity", "notes"} & set(validate(plain, "old").columns)
    write_manifest(pd.concat([plain, told]), tmp_path / "m.csv")
    frame = read_manifest(tmp_path / "m.csv")
    assert list(frame.columns) == [*COLUMNS, "intensity", "notes"]
    assert frame["intensity"].tolist() == ["", "", "HU as stored: 5% air", ""]
    assert frame["notes"].tolist() == ["", "", "oblique, by 2°", "oblique, by 2°"]


def test_synthetic_columns_stand_only_where_a_row_is_synthetic(tmp_path):
    mixed = pd.concat([rows(), synthetic().assign(dataset="S")])
    mixed["seed"] = pd.array([pd.NA] * 3 + [2**60 + 1] * 3, dtype="Int64")
    write_manifest(mixed, tmp_path / "m.csv")
    frame = read_manifest(tmp_path / "m.csv")
    assert list(frame.columns) == [*COLUMNS, *SYNTHETIC_COLUMNS]
    assert frame["seed"].dtype == "Int64"
    assert frame["seed"].isna().tolist() == [True] * 3 + [False] * 3
    assert frame["seed"].tolist()[3:] == [2**60 + 1] * 3
    write_manifest(frame[frame["source"] == "real"], tmp_path / "manifest.csv")
    assert list(read_manifest(tmp_path).columns) == list(COLUMNS)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"Pleural effusion": 2}, r"row 2 \(v0.nii.gz\): 'Pleural effusion' is 2; expected 0, 1 or empty"),
        ({"Pleural effusion": "maybe"}, "'Pleural effusion' is 'maybe'; expected 0, 1 or empty"),
        ({"split": "valid"}, "'split' is 'valid'; expected train, validation, test or empty"),
        ({"source": "fake"}, "'source' is 'fake'; expected real, synthetic or simulated"),
        ({"dataset": ""}, "'dataset' is empty; expected a name"),
        ({"volume": "a/b.nii.gz"}, "expected a name without folder"),
        ({"root": "r", "path": "../x.nii.gz"}, "expected a path inside its root"),
        ({"root": "r", "path": "/x.nii.gz"}, "expected a path inside its root"),
        ({"root": "r", "path": "C:\\x.nii.gz"}, "expected a path inside its root"),
        ({"path": "x.nii.gz"}, "has no root"),
        ({"spacing_x": 0}, "'spacing_x' is 0; expected a number above 0, or empty"),
        ({"size_z": "many"}, "'size_z' is 'many'; expected a number above 0, or empty"),
        ({"sha256": "abc"}, "'sha256' is 'abc'; expected 64 hexadecimal digits, or empty"),
        (
            {"patient": "p", "split": ["train", "test", "train"]},
            "patient p of D is in several splits: train, test",
        ),
        ({"volume": "same.nii.gz"}, r"row 4 \(same.nii.gz\): duplicate volume: it stands already in row 2"),
    ],
)
def test_each_mistake_is_named(columns, message):
    with pytest.raises(UserError, match=message):
        validate(rows().assign(**columns), "here")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"seed": 1.5}, "'seed' is 1.5; expected a whole number, or empty"),
        ({"steps": "x"}, "'steps' is 'x'; expected a whole number, or empty"),
        ({"guidance_scale": "strong"}, "'guidance_scale' is 'strong'; expected a number, or empty"),
        ({"pack_sha256": "1"}, "64 hexadecimal digits"),
    ],
)
def test_mistakes_in_synthetic_columns(columns, message):
    with pytest.raises(UserError, match=message):
        validate(synthetic(**columns), "here")


def test_all_mistakes_come_at_once():
    frame = rows(4)
    frame["Emphysema"] = [2, 0, 1, 1]
    frame["split"] = ["train", "valid", "train", "train"]
    frame["spacing_z"] = [1, 1, -1, np.nan]
    with pytest.raises(UserError, match="here has 3 problems") as caught:
        validate(frame, "here")
    assert [problem.split(" (")[0] for problem in caught.value.problems] == ["row 2", "row 3", "row 4"]


def test_equal_spelling_in_another_data_set_is_another_patient():
    two = pd.concat([rows().assign(split="train"), rows().assign(dataset="E", split="test")])
    assert len(validate(two, "here")) == 6


def test_a_file_that_is_no_manifest(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="is no manifest"):
        read_manifest(path)
    with pytest.raises(UserError, match="does not exist"):
        read_manifest(tmp_path)
    write_manifest(rows(), path)
    table = pd.read_csv(path, dtype="object", keep_default_na=False)
    table.drop(columns="Emphysema").to_csv(path, index=False)
    with pytest.raises(UserError, match="column 'Emphysema' is missing"):
        read_manifest(path)
    table.assign(Fracture=1).to_csv(path, index=False)
    with pytest.raises(UserError, match="columns that no manifest has: Fracture"):
        read_manifest(path)


def test_whole_numbers_are_written_without_a_point(tmp_path):
    write_manifest(rows(1, Emphysema=1.0, Cardiomegaly=0, spacing_x=0.75, size_x=512), tmp_path / "m.csv")
    cells = pd.read_csv(tmp_path / "m.csv", dtype="object", keep_default_na=False).loc[0]
    assert cells[["Emphysema", "Cardiomegaly", "Atelectasis", "spacing_x", "size_x"]].tolist() == [
        "1",
        "0",
        "",
        "0.75",
        "512",
    ]


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), max_size=30)
LABEL = st.sampled_from([0.0, 1.0, np.nan])


@settings(max_examples=8, deadline=None)
@given(
    st.lists(st.tuples(TEXT, LABEL, LABEL, st.floats(0.01, 1e4), st.integers(0, 2**62)), min_size=1, max_size=5),
    st.booleans(),
)
def test_any_manifest_survives_the_file(tmp_path_factory, drawn, made):
    texts, first, second, spacings, seeds = (list(values) for values in zip(*drawn, strict=True))
    frame = (synthetic if made else rows)(len(drawn)).assign(findings_text=texts, impression_text=texts[::-1])
    frame = frame.assign(Emphysema=first, Consolidation=second, spacing_y=spacings)
    if made:
        frame = frame.assign(prompt=texts, seed=pd.array(seeds, dtype="Int64"))
    frame = validate(frame, "drawn")
    path = tmp_path_factory.mktemp("manifest") / "manifest.csv"
    write_manifest(frame, path)
    pd.testing.assert_frame_equal(read_manifest(path), frame)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("train_1_a_2.nii.gz", ("train_1", "train_1_a", 2)),
        ("dataset/valid_fixed/valid_12/valid_12_b/valid_12_b_1.nii.gz", ("valid_12", "valid_12_b", 1)),
        ("train_17051_a", ("train_17051", "train_17051_a", 1)),
        ("train_1_a_2.mha", ("train_1", "train_1_a", 2)),
        ("train_1", ("train_1", "train_1", 1)),
        ("case_3_a_1.NII.GZ", ("case_3_a_1", "case_3_a_1", 1)),
        ("folder\\scan 7.nrrd", ("scan 7", "scan 7", 1)),
    ],
)
def test_volume_names(name, parts):
    assert tuple(parse_volume_name(name)) == parts
    row = parse_volume_names(pd.Series([name])).iloc[0]
    assert (row["patient"], row["scan"], row["reconstruction"]) == parts


@given(st.sampled_from(["train", "valid"]), st.integers(1, 99999), st.sampled_from("abz"), st.integers(1, 20))
def test_ct_rate_names_round_trip(part, patient, scan, reconstruction):
    found = parse_volume_name(f"{part}_{patient}_{scan}_{reconstruction}.nii.gz")
    assert found == (f"{part}_{patient}", f"{part}_{patient}_{scan}", reconstruction)
