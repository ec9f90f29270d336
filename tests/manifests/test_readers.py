"""One battery of laws for every reader of the registry."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from text2ct.errors import UserError
from text2ct.findings import FINDINGS
from text2ct.manifests import COLUMNS, READERS, SOURCES, SPLITS, Workspace, read, validate, write_manifest
from text2ct.manifests.readers import _reader_of

from .conftest import label_rows, write_ct_rate
from .test_rad_chestct import write_rad_chestct


def _labels(folder: Path) -> Path:
    table = label_rows([f"case{n}_1.nii.gz" for n in range(9)]).astype("object")
    table.loc[2, "Emphysema"] = ""
    table.to_csv(folder / "labels.csv", index=False)
    return folder / "labels.csv"


def _annotated(folder: Path) -> Path:
    table = label_rows([f"train_{n}" for n in range(1, 9)], column="AccessionNo").astype("object")
    table.insert(1, "report_text", [f'Report, "{n}"\nsecond line' for n in range(8)])
    table.loc[2, "Emphysema"] = ""
    table.to_csv(folder / "annotated.csv", index=False)
    return folder / "annotated.csv"


def _prompts(folder: Path) -> Path:
    table = label_rows(["train_1_a_1.nii.gz"] * 2 + ["train_2_a_1.nii.gz"], column="volume").astype("object")
    table = table.assign(prompt=["Effusion.", "Small effusion.", "Nodule."], dataset="CT-RATE", split="train")
    table["patient"] = ["train_1", "train_1", "train_2"]
    table.loc[2, "Emphysema"] = ""
    table.to_csv(folder / "prompts.csv", index=False)
    return folder / "prompts.csv"


def _vlm3d(folder: Path) -> Path:
    entries = [{"input_image_name": f"{name}.mha", "report": f"Report {name}"} for name in "abc"]
    (folder / "prompts.json").write_text(json.dumps(entries))
    return folder / "prompts.json"


def _manifest(folder: Path) -> Path:
    write_manifest(read(_labels(folder)), folder / "manifest.csv")
    return folder / "manifest.csv"


def _reports(folder: Path) -> Path:
    return write_ct_rate(folder) / "radiology_text_reports/valid_reports.csv"


def _rad_chestct(folder: Path) -> Path:
    def change(table: pd.DataFrame) -> None:
        table.loc[2, "emphysema*lung"] = ""

    return write_rad_chestct(folder / "RAD", change)


EXAMPLES: dict[str, Callable[[Path], Path]] = {
    "ct-rate": write_ct_rate,
    "manifest": _manifest,
    "prompts-csv": _prompts,
    "annotated-reports": _annotated,
    "label-table": _labels,
    "ct-rate-reports": _reports,
    "vlm3d-prompts": _vlm3d,
    "rad-chestct": _rad_chestct,
}


@pytest.fixture(params=[reader.name for reader in READERS])
def example(request, tmp_path):
    return request.param, EXAMPLES[request.param](tmp_path)


def test_each_input_is_recognised_by_its_reader(example):
    name, path = example
    assert _reader_of(path).name == name


def test_a_reader_gives_a_valid_manifest_and_the_same_one_again(example):
    name, path = example
    frame = read(path)
    assert list(frame.columns) == list(COLUMNS)
    assert len(frame)
    pd.testing.assert_frame_equal(frame, read(path))
    pd.testing.assert_frame_equal(frame, validate(frame, "again", unique=name != "prompts-csv"))
    assert all(frame[finding].dtype == "float64" for finding in FINDINGS)
    assert set(frame["split"]) <= {*SPLITS, ""}
    assert set(frame["source"]) <= set(SOURCES)


def test_written_and_read_again_is_equal(example, tmp_path):
    _, path = example
    frame = read(path).drop_duplicates(["dataset", "volume"]).reset_index(drop=True)
    write_manifest(frame, tmp_path / "out" / "manifest.csv")
    pd.testing.assert_frame_equal(frame, read(tmp_path / "out" / "manifest.csv"))
    before = (tmp_path / "out" / "manifest.csv").read_bytes()
    write_manifest(frame, tmp_path / "out" / "manifest.csv")
    assert (tmp_path / "out" / "manifest.csv").read_bytes() == before


def test_unknown_stays_unknown(example):
    name, path = example
    if name == "ct-rate":
        labels = path / "multi_abnormality_labels/train_predicted_labels.csv"
        table = pd.read_csv(labels, dtype="object")
        table.loc[2, "Emphysema"] = ""
        table.to_csv(labels, index=False)
    frame = read(path)
    expected = len(frame) * 18 if name in ("vlm3d-prompts", "ct-rate-reports") else 1
    if name == "rad-chestct":  # and what it has no label of
        expected += len(frame)
    assert int(frame[list(FINDINGS)].isna().to_numpy().sum()) == expected


def test_no_patient_is_in_two_splits(example):
    _, path = example
    frame = read(path)
    pairs = frame[["dataset", "patient", "split"]].drop_duplicates()
    assert not pairs.duplicated(["dataset", "patient"]).any()


def test_a_row_with_a_file_has_a_root_that_resolves(example, tmp_path):
    _, path = example
    workspace = Workspace.open(tmp_path / "elsewhere")
    frame = read(path, workspace=workspace)
    assert ((frame["root"] == "") == (frame["path"] == "")).all()
    for row in frame[frame["path"] != ""].itertuples():
        assert workspace.resolve(row.root, row.path).name == row.volume


def test_an_option_that_does_not_apply_is_refused(example):
    name, path = example
    reader = next(reader for reader in READERS if reader.name == name)
    useless = {"split", "names", "volumes", "dataset"} - reader.options
    values = {"split": "test", "names": path, "volumes": path.parent, "dataset": "mine"}
    for option in useless:
        with pytest.raises(UserError, match=f"leave out {option}"):
            read(path, **{option: values[option]})


def test_what_is_no_known_input_says_what_is_expected(tmp_path):
    (tmp_path / "odd.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="no known kind") as caught:
        read(tmp_path / "odd.csv")
    assert len(caught.value.problems) == len(READERS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="this folder"):
        read(tmp_path / "empty")
    with pytest.raises(UserError, match="split is 'valid'"):
        read(tmp_path / "odd.csv", split="valid")
    with pytest.raises(UserError, match=r"did you mean .*odd\.csv"):
        read(tmp_path / "od.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1}', "no list of prompts"),
        ("[]", "no list of prompts"),
        ("[", "not valid JSON"),
        ('[{"input_image_name": "a.mha"}, 3]', "has 3 problems"),
        (
            '[{"input_image_name": "a.mha", "report": "x"}, {"input_image_name": "a.mha", "report": "y"}]',
            "duplicate",
        ),
    ],
)
def test_bad_vlm3d_prompts(tmp_path, content, message):
    (tmp_path / "prompts.json").write_text(content)
    with pytest.raises(UserError, match=message):
        read(tmp_path / "prompts.json")


def test_prompts_written_by_hand(tmp_path):
    (tmp_path / "mine.csv").write_text("prompt\nA large effusion.\nNodules.\n")
    frame = read(tmp_path / "mine.csv")
    assert list(frame["findings_text"]) == ["A large effusion.", "Nodules."]
    assert frame["patient"].nunique() == 2
    assert frame[list(FINDINGS)].isna().all(axis=None)
    (tmp_path / "bad.csv").write_text("prompt,Emphysema\nText,1\n,0\n")
    with pytest.raises(UserError, match="row 3: the prompt is empty") as caught:
        read(tmp_path / "bad.csv")
    assert len(caught.value.problems) == 1
