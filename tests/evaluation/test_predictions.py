import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from text2ct.errors import UserError
from text2ct.evaluation import read_labels, read_pair, read_predictions, score
from text2ct.evaluation.alignment import align
from text2ct.evaluation.predictions import volume_key
from text2ct.findings import FINDINGS

Tables = tuple[pd.DataFrame, pd.DataFrame]


@pytest.fixture
def files(tables: Tables, tmp_path: Path) -> tuple[Path, Path]:
    paths = tmp_path / "predictions.csv", tmp_path / "labels.csv"
    for table, path in zip(tables, paths, strict=True):
        table.to_csv(path, index=False)
    return paths


def test_round_trip(tables: Tables, files: tuple[Path, Path]) -> None:
    predictions, labels = read_pair(*files)
    pd.testing.assert_frame_equal(predictions, tables[0])
    pd.testing.assert_frame_equal(labels, tables[1])
    pd.testing.assert_frame_equal(read_predictions(files[0]), predictions)
    pd.testing.assert_frame_equal(read_labels(files[1]), labels)


def test_empty_label_is_unknown(tables: Tables, tmp_path: Path) -> None:
    labels = tables[1].copy()
    labels.loc[3, "Lung nodule"] = np.nan
    labels.to_csv(tmp_path / "labels.csv", index=False)
    assert np.isnan(read_labels(tmp_path / "labels.csv").loc[3, "Lung nodule"])


def test_all_problems_of_both_files_in_one_message(tables: Tables, files: tuple[Path, Path]) -> None:
    predictions, labels = (table.astype(object) for table in tables)
    predictions.loc[2, "Lung nodule"] = 1.5
    predictions.loc[4, "Emphysema"] = np.nan
    predictions.loc[5, "Emphysema"] = "high"
    labels.loc[7, "Atelectasis"] = 2
    labels.loc[9, "VolumeName"] = labels.loc[8, "VolumeName"]
    labels.loc[10, "VolumeName"] = "valid_999_a_1.nii.gz"
    predictions.to_csv(files[0], index=False)
    labels.drop(columns="Consolidation").to_csv(files[1], index=False)
    with pytest.raises(UserError) as caught:
        read_pair(*files)
    text = str(caught.value)
    for part in (
        "row 4 (valid_1_b_1.nii.gz): 'Lung nodule' is 1.5; expected a probability from 0 to 1",
        "'Emphysema' is empty",
        "'Emphysema' is high",
        "'Atelectasis' is 2; expected 0, 1 or empty",
        "labels.csv: missing columns: Consolidation",
        "labels.csv: valid_3_a_1 occurs 2 times",
        "valid_999_a_1.nii.gz is only in labels.csv",
        "valid_3_b_1.nii.gz is only in predictions.csv",
    ):
        assert part in text


def test_many_problems_are_counted(tables: Tables, files: tuple[Path, Path]) -> None:
    tables[1].iloc[:5].to_csv(files[1], index=False)
    with pytest.raises(UserError, match=r"and 45 more only in predictions\.csv"):
        read_pair(*files)


@pytest.mark.parametrize("content", ["", "\n", "a,b\n1,2\n", "\xff\xfe\x00"], ids=["empty", "blank", "other", "binary"])
def test_what_is_no_table(tmp_path: Path, content: str) -> None:
    path = tmp_path / "predictions.csv"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=r"predictions\.csv"):
        read_predictions(path)


def test_absent_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_labels(tmp_path / "no.csv")


def test_order_and_spelling_of_ids_do_not_matter(tables: Tables) -> None:
    predictions, labels = tables
    expected = score(predictions, labels, n_bootstrap=20)
    shuffled = predictions.sample(frac=1, random_state=1)
    accession = shuffled.rename(columns={"VolumeName": "AccessionNo"})
    accession["AccessionNo"] = accession["AccessionNo"].str.replace(".nii.gz", ".mha")
    assert score(accession, labels, n_bootstrap=20) == expected


def test_without_ids_rows_are_paired_by_order_and_said(tables: Tables) -> None:
    predictions, labels = (table.drop(columns="VolumeName") for table in tables)
    result = score(predictions, labels, n_bootstrap=0)
    assert result["scans"] == result["volumes"] == result["patients"] == 60
    assert "no id column" in result["notes"][0]
    with pytest.raises(UserError, match="predictions has 60 rows, labels 59"):
        score(predictions, labels.iloc[1:])
    with pytest.raises(UserError, match="labels has no VolumeName"):
        score(tables[0], labels)


def test_reconstructions_are_averaged(tables: Tables) -> None:
    predictions, labels = (table.copy() for table in tables)
    labels.loc[0, FINDINGS[0]] = 0.0  # the other reconstruction says 1
    labels.loc[2, FINDINGS[1]] = np.nan  # the other one knows
    labels.loc[4:5, FINDINGS[1]] = np.nan
    cases = align(predictions, labels)
    assert (cases.n_volumes, cases.n_scans, cases.n_patients) == (60, 30, 15)
    np.testing.assert_allclose(cases.scores[0], predictions[list(FINDINGS)].iloc[:2].mean())
    assert cases.labels[0, 0] == 1
    assert cases.labels[1, 1] == labels.loc[3, FINDINGS[1]]
    assert np.isnan(cases.labels[2, 1])
    assert cases.disagreeing == ("valid_1_a",)


def test_columns_and_arguments_name_patients(tables: Tables) -> None:
    predictions, labels = tables
    named = labels.assign(dataset="d", patient="p" + (labels.index // 6).astype(str), scan=labels["VolumeName"])
    assert align(predictions, named).n_scans == 60
    assert align(predictions, named).n_patients == 10
    cases = align(predictions, labels, groups=["p"] * 60, scans=[str(k // 3) for k in range(60)])
    assert (cases.n_patients, cases.n_scans) == (1, 20)
    with pytest.raises(UserError, match="every row"):
        align(predictions, labels, groups=["p"], scans=["s"])


def test_frames_in_memory_are_checked(tables: Tables) -> None:
    predictions, labels = tables
    with pytest.raises(UserError, match="lack the columns Emphysema"):
        align(predictions.drop(columns="Emphysema"), labels)
    with pytest.raises(UserError, match="twice"):
        align(pd.concat([predictions, predictions]), labels)
    with pytest.raises(UserError, match="outside"):
        align(predictions.assign(Emphysema=2.0), labels)
    with pytest.raises(UserError, match="other than 0, 1"):
        align(predictions, labels.assign(Emphysema=0.5))
    with pytest.raises(UserError, match="no rows"):
        align(predictions.iloc[:0], labels.iloc[:0])


def test_a_column_of_patients_counts_whether_or_not_there_is_one_of_scans(tables: Tables, tmp_path: Path) -> None:
    predictions, labels = tables
    names = [f"exam{k}" for k in range(len(labels))]
    predictions, labels = predictions.assign(VolumeName=names), labels.assign(VolumeName=names)
    assert "a patient of its own" in align(predictions, labels).notes[0]
    patients = [f"p{k // 3}" for k in range(len(labels))]
    cases = align(predictions, labels.assign(patient=patients))
    assert (cases.n_patients, cases.n_scans) == (len(set(patients)), len(labels))
    assert not any("a patient of its own" in note for note in cases.notes)
    gap = labels.assign(patient=["", *patients[1:]])
    gap.to_csv(tmp_path / "labels.csv", index=False)
    with pytest.raises(UserError, match=r"1 cells of 'patient' are empty, row 2 first"):
        read_labels(tmp_path / "labels.csv")
    labels.assign(patient="").to_csv(tmp_path / "none.csv", index=False)
    assert "patient" not in read_labels(tmp_path / "none.csv")


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_challenges_json_scores_as_the_table_does(tables, tmp_path, wrapped: bool) -> None:
    predictions, labels = tables
    entries = [
        {"input_image_name": f"{volume_key(row['VolumeName'])}.mha", "probabilities": {f: row[f] for f in FINDINGS}}
        for row in predictions.to_dict("records")
    ]
    content = [{"outputs": [{"value": {"predictions": entries}}]}] if wrapped else entries
    (tmp_path / "p.json").write_text(json.dumps(content))
    predictions.to_csv(tmp_path / "p.csv", index=False)
    labels.to_csv(tmp_path / "l.csv", index=False)
    scores = [score(*read_pair(tmp_path / name, tmp_path / "l.csv"), n_bootstrap=0) for name in ("p.json", "p.csv")]
    assert scores[0] == scores[1]
    decided = predictions[list(FINDINGS)] >= 0.5
    truth = labels[list(FINDINGS)] == 1
    by_scan = scores[0]["findings"][FINDINGS[0]]
    assert by_scan["accuracy"] is not None
    assert scores[0]["macro_accuracy"] == pytest.approx((decided == truth).to_numpy().mean(), abs=0.02)
    entries[0]["probabilities"].pop(FINDINGS[3])
    (tmp_path / "p.json").write_text(json.dumps(entries))
    with pytest.raises(UserError, match=FINDINGS[3]):
        read_pair(tmp_path / "p.json", tmp_path / "l.csv")
    for wrong in ("[]", "{}", '[{"input_image_name": 3}]', "[1, 2]"):
        (tmp_path / "p.json").write_text(wrong)
        with pytest.raises(UserError, match="is no list of predictions"):
            read_pair(tmp_path / "p.json", tmp_path / "l.csv")
