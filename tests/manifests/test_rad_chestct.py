"""RAD-ChestCT's labels: the map, what stays unknown, patients and splits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from text2ct.errors import UserError
from text2ct.findings import FINDINGS
from text2ct.manifests import Workspace, read
from text2ct.manifests.readers.rad_chestct import MAP, map_labels

LABELS = tuple(dict.fromkeys(term.label for terms in MAP.values() for term in terms))
PLACES = (
    "lung", "left_upper", "aorta", "heart", "diaphragm", "thyroid", "abdomen", "left", "other_location", "mediastinum",
)  # fmt: skip
OTHERS = ("fracture", "mass", "air_trapping")


def label_table(ids: list[str], **ones: list[int]) -> pd.DataFrame:
    """All labels 0 but those named ``abnormality__location`` in the rows listed."""
    table = pd.DataFrame(0, index=range(len(ids)), columns=[f"{a}*{p}" for a in (*LABELS, *OTHERS) for p in PLACES])
    for name, rows in ones.items():
        table.loc[rows, name.replace("__", "*")] = 1
    table.insert(0, "NoteAcc_DEID", ids)
    return table.astype("object")


def write_rad_chestct(root: Path, change: Callable[[pd.DataFrame], None] | None = None) -> Path:
    """The data set's folder: three tables of labels, its metadata, and some volumes; a patient has two scans."""
    root.mkdir(parents=True)
    rows = []
    for name, prefix in (("train", "trn"), ("valid", "val"), ("test", "tst")):
        ids = [f"{prefix}{number:05d}" for number in range(1, 5)]
        table = label_table(ids, emphysema__lung=[0], nodule__left_upper=[1, 3])
        if change is not None and name == "train":
            change(table)
        table.to_csv(root / f"img{name}_Abnormality_and_Location_Labels.csv", index=False)
        rows += [(scan, f"{prefix}p{max(1, number)}") for number, scan in enumerate(ids)]
        (root / f"{ids[0]}.npz").write_bytes(b"")
    metadata = pd.DataFrame(rows, columns=["NoteAcc_DEID", "MRN_DEID"])
    metadata.to_csv(root / "CT_Scan_Metadata_Complete_35747.csv", index=False)
    return root


def one(finding: str, **ones: list[int]) -> float:
    return float(map_labels(label_table(["trn00001"], **ones)).loc[0, finding])


def test_every_finding_is_in_the_map() -> None:
    assert set(MAP) == set(FINDINGS)
    assert [finding for finding, terms in MAP.items() if not terms] == ["Mosaic attenuation pattern"]


@pytest.mark.parametrize("finding", [finding for finding, terms in MAP.items() if terms])
def test_each_term_alone_makes_its_finding_positive_and_no_other(finding: str) -> None:
    for term in MAP[finding]:
        place = next((place for place in PLACES if place in term.places), "mediastinum")
        row = map_labels(label_table(["trn00001"], **{f"{term.label}__{place}": [0]})).loc[0]
        assert row[finding] == 1
        assert (row.drop([finding, "Mosaic attenuation pattern"]) == 0).all()


def test_what_has_no_counterpart_is_unknown_and_never_negative() -> None:
    labels = map_labels(label_table(["trn00001"] * 3, air_trapping__lung=[1]))
    assert labels["Mosaic attenuation pattern"].isna().all()
    assert (labels.drop(columns="Mosaic attenuation pattern") == 0).all(axis=None)


def test_a_place_decides_where_the_word_alone_does_not() -> None:
    assert one("Lung nodule", nodule__thyroid=[0]) == 0
    assert one("Lung nodule", nodule__thyroid=[0], nodule__lung=[0]) == 1
    assert one("Lung nodule", nodule__left=[0], nodule__thyroid=[0]) == 0
    assert one("Hiatal hernia", hernia__abdomen=[0]) == 0
    assert one("Hiatal hernia", hernia__diaphragm=[0]) == 1
    assert one("Arterial wall calcification", calcification__lung=[0]) == 0
    assert one("Arterial wall calcification", calcification__aorta=[0]) == 1


@pytest.mark.parametrize("place", ["left", "other_location"])
def test_a_word_without_a_structure_is_unknown(place: str) -> None:
    assert np.isnan(one("Lung nodule", **{f"nodule__{place}": [0]}))
    assert one("Consolidation", **{f"consolidation__{place}": [0]}) == 1


def test_an_empty_cell_is_unknown_unless_another_says_yes() -> None:
    table = label_table(["a", "b"], emphysema__lung=[1])
    table["emphysema*heart"] = ""
    labels = map_labels(table)["Emphysema"]
    assert np.isnan(labels[0])
    assert labels[1] == 1


def test_the_map_does_not_depend_on_the_order_of_columns() -> None:
    table = label_table(["a", "b", "c"], nodule__lung=[0], opacity__left=[1], fibrosis__lung=[2])
    pd.testing.assert_frame_equal(map_labels(table), map_labels(table[sorted(table.columns, reverse=True)]))


def test_a_folder_has_patients_splits_volumes_and_spacing(tmp_path: Path) -> None:
    frame = read(write_rad_chestct(tmp_path / "RAD"), workspace=Workspace.open(tmp_path / "space"))
    assert set(frame["dataset"]) == {"RAD-ChestCT"}
    assert frame.groupby("split", sort=False)["scan"].apply(lambda ids: {name[:3] for name in ids}).to_dict() == {
        "test": {"tst"}, "train": {"trn"}, "validation": {"val"},
    }  # fmt: skip
    assert frame["patient"].nunique() == 9
    assert sorted(frame.loc[frame["path"] != "", "path"]) == ["trn00001.npz", "tst00001.npz", "val00001.npz"]
    assert (frame[["spacing_x", "spacing_y", "spacing_z"]] == 0.8).all(axis=None)
    assert (frame.loc[frame["scan"].str.endswith("1"), "Emphysema"] == 1).all()


def test_one_table_alone_and_without_patients(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_rad_chestct(tmp_path / "RAD")
    table = root / "imgtest_Abnormality_and_Location_Labels.csv"
    frame = read(table)
    assert len(frame) == 4
    assert frame["patient"].nunique() == 3
    metadata = root / "CT_Scan_Metadata_Complete_35747.csv"
    metadata = metadata.rename(tmp_path / "elsewhere.csv")
    assert read(table)["patient"].tolist() == frame["scan"].tolist()
    assert "each scan counts as a patient of its own" in " ".join(capsys.readouterr().err.split())
    pd.testing.assert_frame_equal(read(table, metadata=metadata), frame)


def test_the_documented_map_is_the_one_used() -> None:
    """Each row of the table in docs/data.md: finding (empty: as above), abnormalities, places."""
    found: dict[str, set[tuple[str, str]]] = {}
    finding = ""
    for line in (Path(__file__).parents[2] / "docs" / "data.md").read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) != 3 or cells[0] in ("finding", "---"):
            continue
        finding = cells[0] or finding
        terms = [] if cells[1] == "none" else cells[1].split(", ")
        found.setdefault(finding, set()).update((term, cells[2]) for term in terms)
    used = {
        finding: {
            (term.label, "lung" if "lung" in term.places else ", ".join(term.places) or "anywhere") for term in terms
        }
        for finding, terms in MAP.items()
    }
    assert found == used


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    def change(table: pd.DataFrame) -> None:
        table.loc[1, "nodule*lung"] = 2
        for name in [name for name in table.columns if name.startswith("hernia*")]:
            del table[name]

    with pytest.raises(UserError, match="has 2 problems") as caught:
        read(write_rad_chestct(tmp_path / "RAD", change))
    assert caught.value.problems[0].endswith("column 'hernia*...' is missing")
    assert "row 3 (trn00002): 'nodule*lung' is 2; expected 0, 1 or empty" in caught.value.problems[1]
