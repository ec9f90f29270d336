"""Annotated reports: AccessionNo, report_text and the 18 findings, as in CT-CLIP's text classifier."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from text2ct.errors import UserError
from text2ct.manifests._csv import read_table
from text2ct.manifests._ids import parse_volume_names
from text2ct.manifests._labels import find_column, read_label_table
from text2ct.manifests._schema import coerce, problems, refuse
from text2ct.manifests._splits import ct_rate_split_by_name
from text2ct.manifests.readers._request import CT_RATE, Reader, Request

DATASET = "annotated-reports"
_TEXT = ("report_text",)
_NAME = ("NameinCTRATE",)
_ABSENT = "not in ct-rate"


def read_annotated(request: Request) -> pd.DataFrame:
    """Read annotated reports; the whole text goes to ``findings_text``.

    The ids look like CT-RATE's and are not, so a row is its own patient of data set ``annotated-reports``.
    With the table of names, a row that is in CT-RATE has CT-RATE's identity, and its split by name (see
    :func:`text2ct.manifests.ct_rate_split_by_name`).
    """
    labels = read_label_table(request.path)
    column = find_column(labels.table, _TEXT)
    assert column is not None  # recognised by it
    frame = labels.labels.assign(
        dataset=request.dataset or DATASET,
        volume=labels.ids,
        patient=labels.ids,
        scan=labels.ids,
        split=request.split or "train",
        source="real",
        findings_text=labels.table[column].str.strip(),
    )
    found = list(labels.problems)
    if request.names is not None:
        found += _rename(frame, labels.ids, request.names)
    frame = coerce(frame)
    refuse(str(request.path), [*found, *problems(frame)])
    return frame


def _rename(frame: pd.DataFrame, ids: pd.Series, path: Path) -> list[str]:
    """Give rows their identity in CT-RATE, in place; returns what is wrong with the table of names."""
    table = read_table(path)
    key, value = find_column(table, ("AccessionNo",)), find_column(table, _NAME)
    if key is None or value is None:
        raise UserError(f"{path} is no table of names: expected the columns AccessionNo and NameinCTRATE")
    keys = table[key].str.strip()
    found = [f"{path.name} row {row + 2} ({keys[row]}): stands a second time" for row in keys[keys.duplicated()].index]
    names = table[value].str.strip().set_axis(keys)
    names = names[~names.index.duplicated()].reindex(ids).set_axis(ids.index)
    found += [f"row {row + 2} ({ids[row]}): is not in {path.name}" for row in ids.index[names.isna()]]
    names = names.fillna(_ABSENT)
    there = names.str.lower() != _ABSENT
    parsed = parse_volume_names(names)
    odd = there & (parsed["part"] == "")
    found += [f"row {row + 2} ({ids[row]}): '{names[row]}' is no name of CT-RATE" for row in ids.index[odd]]
    for column, values in {
        "dataset": CT_RATE,
        "volume": names,
        "patient": parsed["patient"],
        "scan": parsed["scan"],
        "split": ct_rate_split_by_name(parsed["patient"], parsed["part"]),
    }.items():
        frame[column] = frame[column].mask(there, values)
    return found


ANNOTATED = Reader(
    "annotated-reports",
    "annotated reports with AccessionNo, report_text and the 18 findings",
    lambda path, columns: {"accessionno", *_TEXT} <= {column.lower() for column in columns},
    read_annotated,
    frozenset({"split", "names", "dataset"}),
)
