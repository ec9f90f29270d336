"""The 18 columns of a label table, and which other columns are mistakes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from text2ct.errors import UserError
from text2ct.findings import FINDINGS, exact_name, nearest, normalise
from text2ct.manifests._columns import IDENTITY
from text2ct.manifests._csv import read_table

ID_COLUMNS = ("VolumeName", "AccessionNo")
PATIENT_COLUMNS = ("PatientID", "PatientName", "patient", "subject", "SubjectID")

_NO_FINDINGS = frozenset({
    "index", "id", "fold", "age", "sex", "gender", "split", "contrast", "patientsex", "patientage", "slope",
    "intercept", "rescaleslope", "rescaleintercept", "samplesperpixel", "gantrydetectortilt",
    "numberofslices", "zspacing", "reconstruction", "seed", "steps", "gate", "samplingweight", "nofinding", "normal",
    *(name.lower() for name in (*PATIENT_COLUMNS, *IDENTITY)),
})  # fmt: skip
"""Columns, in lower case without separators, that may hold 0 and 1 and are no findings."""

UNKNOWN_CELLS = ("", "nan", "na", "n/a", "none", "null", "<na>")
"""Cells, in lower case, that mean unknown."""

_MIN_RESEMBLANCE = 80.0
"""rapidfuzz ratio (0..100) from which a column's name is taken for a misspelled finding."""


@dataclass
class LabelTable:
    """A label CSV taken apart.

    Attributes:
        table: All cells as text.
        ids: (n,) the cells of the id column.
        labels: (n, 18) cells of the findings, in order; an absent column is "".
        problems: What is wrong with the columns.
    """

    table: pd.DataFrame
    ids: pd.Series
    labels: pd.DataFrame
    problems: list[str] = field(default_factory=list)


def find_column(frame: pd.DataFrame, names: tuple[str, ...]) -> str | None:
    """The first of ``names`` that ``frame`` has, whatever letter case and separators it is written with."""
    have = {_bare(str(column)): str(column) for column in reversed(frame.columns)}
    return next((have[_bare(name)] for name in names if _bare(name) in have), None)


def finding_columns(names: list[str]) -> dict[str, str]:
    """Finding -> the column that holds it, for the findings that are there; of two spellings the first."""
    found: dict[str, str] = {}
    for name in names:
        finding = exact_name(name)
        if finding is not None:
            found.setdefault(finding, name)
    return found


def read_label_table(path: Path, *, require: bool = True, id_column: bool = True) -> LabelTable:
    """Read a CSV with an id column and the 18 findings, in any order, among whatever other columns.

    Args:
        path: The file.
        require: Whether all 18 must be there; otherwise an absent one is unknown in every row.
        id_column: Whether ``VolumeName`` or ``AccessionNo`` must be there.

    Raises:
        UserError: It is no table, or has no id column.
    """
    table = read_table(path)
    name = find_column(table, ID_COLUMNS)
    if name is None and id_column:
        raise UserError(
            f"{path} has no column {' or '.join(ID_COLUMNS)}, so its rows cannot be told apart by patient; "
            f"add one. It has: {', '.join(table.columns[:6])}{', ...' if len(table.columns) > 6 else ''}"
        )
    columns = finding_columns(list(table.columns))
    problems = []
    if require:
        problems += [f"column '{finding}' is missing" for finding in FINDINGS if finding not in columns]
    if require or columns:
        others = [other for other in table.columns if other not in columns.values() and other != name]
        problems += [problem for other in others if (problem := _unknown_finding(other, table[other]))]
    labels = pd.DataFrame(
        {finding: table[columns[finding]] if finding in columns else "" for finding in FINDINGS},
        index=table.index,
    )
    ids = table[name].str.strip() if name is not None else pd.Series("", index=table.index, dtype="str")
    return LabelTable(table, ids, labels, problems)


def _unknown_finding(column: str, cells: pd.Series) -> str | None:
    """Why a further column looks like a label of no known finding, or None where it does not."""
    from rapidfuzz import fuzz

    bare = _bare(column)
    if not bare or bare.startswith("unnamed") or bare in _NO_FINDINGS:
        return None
    again = exact_name(re.sub(r"\.\d+$", "", column))  # a name that stands twice is read as "name" and "name.1"
    if again is not None:
        return f"column '{column}' is a second column of '{again}'; keep one"
    close = max(fuzz.ratio(normalise(column), normalise(finding)) for finding in FINDINGS)
    if close >= _MIN_RESEMBLANCE:
        return f"column '{column}' is an unknown finding; did you mean '{nearest(column)[0]}'?"
    known = {cell for cell in cells.str.strip().unique() if cell.lower() not in UNKNOWN_CELLS}
    if known and known <= {"0", "1", "0.0", "1.0"}:
        return f"column '{column}' holds labels of an unknown finding; remove it, or rename it to one of the 18"
    return None


def _bare(name: str) -> str:
    return normalise(name).replace(" ", "")
