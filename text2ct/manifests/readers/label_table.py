"""A label CSV of any origin: VolumeName or AccessionNo and the 18 findings."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from text2ct.console import warn
from text2ct.manifests._ids import base_name, parse_volume_names
from text2ct.manifests._labels import (
    PATIENT_COLUMNS,
    LabelTable,
    find_column,
    finding_columns,
    read_label_table,
)
from text2ct.manifests._schema import coerce, problems, refuse
from text2ct.manifests._splits import ct_rate_splits
from text2ct.manifests._tables import attach, find_volumes, paths_of, read_metadata, read_reports
from text2ct.manifests.readers._request import (
    CT_RATE,
    Reader,
    Request,
    place_files,
    plain_name,
    simulated_dataset,
)

_FEW = 3
"""Finding columns from which a table is taken for labels, so that it is told which it lacks."""

_SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "": "",
}


def identify(ids: pd.Series) -> tuple[pd.DataFrame, pd.Series]:
    """Volume, patient and scan of id cells, and CT-RATE's part (``train``, ``valid`` or "") of each.

    The folder of a name is dropped; a CT-RATE volume written without extension gets ``.nii.gz``.
    """
    parsed = parse_volume_names(ids)
    full = parsed["scan"] + "_" + parsed["reconstruction"].astype("str")
    volume = pd.Series([base_name(name) for name in ids.tolist()], index=ids.index, dtype="str")
    bare = (parsed["part"] != "") & (volume == full)
    frame = pd.DataFrame({"volume": volume.mask(bare, volume + ".nii.gz"), "patient": parsed["patient"]})
    frame["scan"] = parsed["scan"]
    return frame, parsed["part"]


def _own_columns(frame: pd.DataFrame, labels: LabelTable, own: pd.Series) -> None:
    """Take the patient and the split of the rows in ``own`` from the table's columns, where it has them."""
    patient = find_column(labels.table, PATIENT_COLUMNS)
    if patient is not None:
        given = labels.table[patient].str.strip()
        frame["patient"] = frame["patient"].mask(own & (given != ""), given)
    split = find_column(labels.table, ("split",))
    if split is not None:
        given = labels.table[split].str.strip()
        word = given.str.lower().map(_SPLIT_WORDS).fillna(given)
        frame["split"] = frame["split"].mask(own & (given != ""), word)


def _paths(frame: pd.DataFrame, ids: pd.Series, request: Request) -> tuple[Path, pd.Series]:
    """Folder and path of each row's file: in the folder given, or as the id says beside the table."""
    if request.volumes is not None:
        found = find_volumes(request.volumes, request.volumes)
        return request.volumes, paths_of(frame["volume"], found)
    base = request.path.parent
    beside = {entry.name for entry in base.iterdir()}
    tops = ids.str.extract(r"^([^/\\]+)", expand=False)
    likely = tops.isin(beside) & ~ids.str.contains(r"\.\.|\\", regex=True)
    exists = [bool(near) and (base / name).is_file() for near, name in zip(likely, ids, strict=True)]
    return base, ids.where(pd.Series(exists, index=ids.index, dtype=bool), "")


def read_labels(request: Request) -> pd.DataFrame:
    """Read a label CSV.

    The data set is a simulated cohort where the table lies in one, and otherwise CT-RATE for CT-RATE's names
    and called after the file for others. CT-RATE's names decide the split; other rows have the split column's
    word, or the split of the request. A patient column, if there is one, decides the patient of other names.
    """
    labels = read_label_table(request.path)
    frame, part = identify(labels.ids)
    simulated = next(
        (name for folder in (request.path.parent, request.path.parent.parent) if (name := simulated_dataset(folder))),
        None,
    )
    own = part == ""
    own_name = plain_name(request.path.name.rsplit(".", 1)[0])
    frame["dataset"] = pd.Series(CT_RATE, index=frame.index, dtype="str").mask(own, own_name)
    if request.dataset or simulated:
        frame["dataset"] = request.dataset or simulated
    frame["source"] = "simulated" if simulated else "real"
    frame["split"] = request.split
    _own_columns(frame, labels, own)
    frame = coerce(frame.join(labels.labels))
    frame["split"] = ct_rate_splits(frame, part).where(~own, frame["split"])
    base, paths = _paths(frame, labels.ids, request)
    refuse(str(request.path), [*labels.problems, *problems(frame)])
    if own.any() and not own.all():
        first = int(own.to_numpy().argmax())
        other = f"row {first + 2} ({labels.ids.iloc[first]}) is not"
        warn(f"{int((~own).sum())} of {len(own)} names in {request.path} are CT-RATE's and have its splits; {other}")
    if request.metadata is not None:
        frame = attach(frame, [read_metadata(request.metadata).drop(columns=["slope", "intercept"])])
    if request.reports is not None:
        frame = attach(frame, [read_reports(request.reports)])
    return place_files(frame, paths, base, request)


def _recognises(path: Path, columns: list[str]) -> bool:
    return len(finding_columns(columns)) >= _FEW


LABEL_TABLE = Reader(
    "label-table",
    "a label CSV with VolumeName or AccessionNo and the 18 findings",
    _recognises,
    read_labels,
    frozenset({"split", "metadata", "reports", "dataset", "volumes"}),
)
