"""The manifest's schema (pandera) and its problems in a person's words."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from text2ct.findings import FINDINGS
from text2ct.manifests._columns import (
    COLUMNS,
    FLOATS,
    GEOMETRY,
    INTEGERS,
    OPTIONAL_COLUMNS,
    SOURCES,
    SPLITS,
    STRINGS,
    SYNTHETIC_COLUMNS,
    complete,
)
from text2ct.manifests._csv import raise_problems
from text2ct.manifests._labels import UNKNOWN_CELLS

if TYPE_CHECKING:
    from pandera.pandas import DataFrameSchema

_HEX_256 = r"[0-9a-f]{64}|"
_LEAVES_ROOT = r"^/|^\\|^[A-Za-z]:|(?:^|[/\\])\.\.(?:[/\\]|$)"


def to_numbers(values: pd.Series) -> pd.Series:
    """Cells as float64 with NaN for unknown; a column with anything else keeps its odd cells, as objects."""
    if pd.api.types.is_float_dtype(values.dtype) and values.dtype == "float64":
        return values
    if pd.api.types.is_numeric_dtype(values.dtype) and not pd.api.types.is_bool_dtype(values.dtype):
        return values.astype("float64")
    codes, kinds = pd.factorize(values.astype("object"), use_na_sentinel=True)
    meant: list[Any] = [_number(kind) for kind in kinds]
    odd = any(isinstance(value, str) for value in meant)
    lookup = pd.Series([*meant, float("nan")], dtype="object" if odd else "float64")
    return pd.Series(lookup.to_numpy()[codes], index=values.index, name=values.name)


def _number(cell: object) -> float | str:
    text = str(cell).strip()
    if text.lower() in UNKNOWN_CELLS:
        return float("nan")
    try:
        return float(text)
    except ValueError:
        return text


@cache
def _schema(synthetic: bool, weighted: bool) -> DataFrameSchema:
    import pandera.pandas as pa

    def text(rule: str, accepts: str | None = None, **options: Any) -> Any:
        checks = [pa.Check.str_matches(f"^(?:{accepts})$", error=rule)] if accepts else []
        return pa.Column("str", checks, **options)

    def one_of(values: tuple[str, ...], rule: str) -> Any:
        return pa.Column("str", pa.Check.isin(values, error=rule))

    filled = pa.Check(lambda column: column.str.strip() != "", error="a name")
    positive = pa.Check(lambda column: pd.to_numeric(column, errors="coerce") > 0, error="a number above 0, or empty")
    label = pa.Check(lambda column: column.isin([0.0, 1.0]), error="0, 1 or empty")
    whole = pa.Check(lambda column: pd.to_numeric(column, errors="coerce") % 1 == 0, error="a whole number, or empty")
    number = pa.Check(lambda column: pd.notna(pd.to_numeric(column, errors="coerce")), error="a number, or empty")
    inside = pa.Check(
        lambda column: ~column.str.contains(_LEAVES_ROOT, regex=True),
        error="a path inside its root: relative, without '..'",
    )
    columns: dict[str, Any] = {
        "dataset": pa.Column("str", filled),
        "volume": pa.Column(
            "str", [filled, pa.Check(lambda column: ~column.str.contains("/"), error="a name without folder")]
        ),
        "patient": pa.Column("str", filled),
        "scan": pa.Column("str", filled),
        "split": one_of((*SPLITS, ""), "train, validation, test or empty"),
        "source": one_of(SOURCES, "real, synthetic or simulated"),
        "root": pa.Column("str"),
        "path": pa.Column("str", inside),
        "sha256": text("64 hexadecimal digits, or empty", _HEX_256),
    }
    columns |= {name: pa.Column(None, label, nullable=True) for name in FINDINGS}
    columns |= {name: pa.Column(None, positive, nullable=True) for name in GEOMETRY}
    if synthetic:
        columns |= {name: pa.Column(None, whole, nullable=True) for name in INTEGERS}
        columns["guidance_scale"] = pa.Column(None, number, nullable=True)
        columns["pack_sha256"] = text("64 hexadecimal digits, or empty", _HEX_256)
    if weighted:
        at_least_0 = pa.Check(
            lambda column: np.isfinite(numbers := pd.to_numeric(column, errors="coerce")) & (numbers >= 0),
            error="a number of at least 0, or empty",
        )
        columns["sampling_weight"] = pa.Column(None, at_least_0, nullable=True)
    return pa.DataFrameSchema(columns)


def sheet_row(position: int) -> str:
    """A row as a spreadsheet numbers it, the header being row 1."""
    return f"row {position + 2}"


def problems(frame: pd.DataFrame, place: Callable[[int], str] = sheet_row, *, unique: bool = True) -> list[str]:
    """Every problem of a completed manifest, each as ``row 12 (train_7_a_1.nii.gz): ...``.

    Args:
        frame: A manifest with a range index, as :func:`coerce` gives it.
        place: What to call the row at a position, for example ``labels.csv row 12``.
        unique: Whether (dataset, volume) may stand only once.
    """
    import pandera.errors

    found: list[tuple[int, str]] = []
    try:
        _schema("seed" in frame, "sampling_weight" in frame).validate(frame, lazy=True)
    except pandera.errors.SchemaErrors as errors:
        cases = errors.failure_cases
        cells = {name: frame[name].tolist() for name in cases["column"].unique() if name in frame}
        for case in cases.itertuples(index=False):
            if case.index is None:
                found.append((-1, f"column '{case.column}' cannot be checked: {case.failure_case}"))
                continue
            value = _shown(cells[case.column][int(case.index)])
            found.append((int(case.index), f"'{case.column}' is {value}; expected {case.check}"))
    if unique:
        found += _duplicates(frame, place)
    found += _torn_patients(frame)
    orphan = (frame["root"] == "") & (frame["path"] != "")
    found += [(at, f"path '{frame.loc[at, 'path']}' has no root") for at in frame.index[orphan]]
    found.sort(key=lambda item: item[0])
    names = [str(name) or "no volume" for name in frame["volume"]]
    return [message if at < 0 else f"{place(at)} ({names[at]}): {message}" for at, message in found]


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return "empty" if value == "" else f"'{value}'"


def _duplicates(frame: pd.DataFrame, place: Callable[[int], str]) -> list[tuple[int, str]]:
    keys = ["dataset", "volume"]
    again = frame.duplicated(keys) & (frame["volume"] != "")
    if not again.any():
        return []
    first = frame.drop_duplicates(keys).set_index(keys).index
    positions = dict(zip(first, frame.index[~frame.duplicated(keys)], strict=True))
    return [
        (int(at), f"duplicate volume: it stands already in {place(positions[row])}")
        for at, row in zip(frame.index[again], frame.loc[again, keys].itertuples(index=False, name=None), strict=True)
    ]


def _torn_patients(frame: pd.DataFrame) -> list[tuple[int, str]]:
    """Patients whose rows stand in more than one split."""
    used = frame.loc[frame["split"] != "", ["dataset", "patient", "split"]]
    pairs = used.drop_duplicates()
    torn = pairs[pairs.duplicated(["dataset", "patient"], keep=False)]
    messages = []
    for (dataset, patient), group in torn.groupby(["dataset", "patient"], sort=False):
        splits = ", ".join(group["split"])
        messages.append((int(group.index[-1]), f"patient {patient} of {dataset} is in several splits: {splits}"))
    return messages


def coerce(frame: pd.DataFrame) -> pd.DataFrame:
    """A complete manifest with column types as far as the cells allow them."""
    frame = complete(frame)
    typed: dict[str, pd.Series] = {}
    for name in frame.columns:
        column = frame[name]
        if name in STRINGS:
            column = column.astype("object").where(column.notna(), "").astype("str")
        elif name in FLOATS:
            column = to_numbers(column)
        elif column.dtype != "Int64":
            numbers = to_numbers(column)
            whole = numbers.dtype == "float64" and bool((numbers.dropna() % 1 == 0).all())
            column = _integers(column) if whole else numbers
        typed[name] = column
    return pd.DataFrame(typed)


def _integers(values: pd.Series) -> pd.Series:
    """Whole numbers without the detour over float64, which loses digits of a large seed."""
    whole: list[Any] = []
    for value in values:
        cell = str(value).strip()
        unknown = cell.lower() in UNKNOWN_CELLS
        whole.append(pd.NA if unknown else int(cell) if cell.lstrip("-").isdigit() else int(float(cell)))
    return pd.Series(whole, index=values.index, dtype="Int64")


def validate(frame: pd.DataFrame, origin: str, *, unique: bool = True) -> pd.DataFrame:
    """Check a manifest against the schema and give it the schema's column types.

    Args:
        frame: A table with some or all manifest columns; absent ones become unknown.
        origin: Where it came from, for messages; most often the file's path.
        unique: Whether a volume may stand only once per data set (false for lists of prompts).

    Returns:
        A new table with :data:`COLUMNS` (and :data:`SYNTHETIC_COLUMNS` where a row is synthetic, and
        ``sampling_weight`` where it is given), a range index, findings as float64 0.0/1.0/NaN, text as str with
        ``""`` for none.

    Raises:
        UserError: Something does not fit; every problem is listed, with row (the header is row 1) and volume.
    """
    frame = coerce(frame)
    refuse(origin, problems(frame, unique=unique))
    return frame


def refuse(origin: str, found: list[str]) -> None:
    """Raise one :class:`text2ct.errors.UserError` that lists what is wrong with a file, if anything is."""
    if found:
        count = "1 problem" if len(found) == 1 else f"{len(found)} problems"
        raise_problems(f"{origin} has {count}; mend the file and run again", found)


def is_manifest_header(names: list[str]) -> bool:
    """Whether a table with these columns is a manifest."""
    return {"dataset", "volume", "patient", "scan", "split", "source"} <= set(names)


def extra_columns(names: list[str]) -> list[str]:
    """Columns that no manifest has."""
    known = {*COLUMNS, *SYNTHETIC_COLUMNS, *OPTIONAL_COLUMNS}
    return [name for name in names if name not in known]
