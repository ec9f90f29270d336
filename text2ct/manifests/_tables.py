"""Tables that stand beside labels: CT-RATE's metadata and reports, and lists of scans to leave out."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from text2ct.errors import UserError
from text2ct.manifests._csv import raise_problems, read_table, read_text
from text2ct.manifests._ids import stems
from text2ct.manifests._labels import ID_COLUMNS, find_column
from text2ct.suffixes import VOLUME_SUFFIXES

_NUMBER = r"([-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)"
_PAIR = rf"^\W*?{_NUMBER}(?:[^-+0-9.]+{_NUMBER})?"
_NOT_GIVEN = r"^\s*(?i:not given\.?|none\.?|nan|n/?a)?\s*$"


def _by_name(path: Path, wanted: tuple[str, ...], what: str) -> tuple[pd.DataFrame, pd.Series]:
    """A table and the stems of its ids; rows said twice in the same words count once."""
    table = read_table(path)
    name = find_column(table, ID_COLUMNS)
    if name is None or not any(find_column(table, (column,)) for column in wanted):
        raise UserError(f"{path} is no {what} table: expected VolumeName and {', '.join(wanted)}")
    table = table.drop_duplicates()
    names = stems(table[name].str.strip())
    again = names.duplicated()
    if again.any():
        listed = [f"row {row + 2} ({names[row]}): stands a second time" for row in table.index[again]]
        raise_problems(f"{path} has several rows of one volume; keep one", listed)
    return table, names


def read_metadata(path: Path | str) -> pd.DataFrame:
    """Geometry and rescaling of volumes from a CT-RATE metadata CSV.

    Returns:
        Table indexed by the volume's name without extension: ``spacing_x, spacing_y, spacing_z`` (mm),
        ``size_x, size_y, size_z`` (voxels; columns, rows, slices), ``slope``, ``intercept`` (HU =
        slope * voxel + intercept, for first-generation files); float64, NaN for unknown.

    Raises:
        UserError: The file is no metadata table or has several different rows of one volume.
    """
    path = Path(path)
    table, names = _by_name(path, ("XYSpacing", "ZSpacing", "RescaleSlope"), "metadata")

    def cells(column: str) -> pd.Series:
        name = find_column(table, (column,))
        return table[name] if name else pd.Series("", index=table.index, dtype="str")

    def number(column: str) -> pd.Series:
        return pd.to_numeric(cells(column), errors="coerce")

    pair = cells("XYSpacing").str.extract(_PAIR).apply(pd.to_numeric)
    geometry = {
        "spacing_x": pair[1].fillna(pair[0]),  # DICOM's Pixel Spacing: between rows (y), then between columns (x)
        "spacing_y": pair[0],
        "spacing_z": number("ZSpacing"),
        "size_x": number("Columns"),
        "size_y": number("Rows"),
        "size_z": number("NumberofSlices"),
    }
    frame = pd.DataFrame({name: column.where(column > 0) for name, column in geometry.items()})
    frame["slope"], frame["intercept"] = number("RescaleSlope"), number("RescaleIntercept")
    return frame.astype("float64").set_axis(pd.Index(names, name="volume"))


def is_reports_header(columns: set[str]) -> bool:
    """Whether a table with these columns is a CT-RATE reports CSV."""
    return bool(columns & {"Findings_EN", "Impressions_EN"})


def read_reports(path: Path | str) -> pd.DataFrame:
    """Report texts from a CT-RATE reports CSV, ``Not given.`` being no text.

    Returns:
        Table indexed by the volume's name without extension: ``findings_text``, ``impression_text``.

    Raises:
        UserError: The file is no reports table or has several different rows of one volume.
    """
    path = Path(path)
    table, names = _by_name(path, ("Findings_EN", "Impressions_EN"), "reports")
    texts = {}
    for ours, theirs in (("findings_text", "Findings_EN"), ("impression_text", "Impressions_EN")):
        name = find_column(table, (theirs,))
        text = table[name].str.strip() if name else pd.Series("", index=table.index, dtype="str")
        texts[ours] = text.str.replace(_NOT_GIVEN, "", regex=True)
    return pd.DataFrame(texts).set_axis(pd.Index(names, name="volume"))


def attach(frame: pd.DataFrame, tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Fill rows of a manifest from tables indexed by volume, or by scan where the volume is not listed."""
    frame = frame.copy()
    listed = list(tables)
    if not listed:
        return frame
    table = pd.concat(listed)
    table = table[~table.index.duplicated()]
    names = stems(frame["volume"])
    names = names.where(names.isin(table.index), frame["scan"])
    rows = table.reindex(names)
    for column in table.columns:
        values = rows[column].to_numpy()
        frame[column] = pd.Series(values, index=frame.index, dtype=table[column].dtype)
        if column.endswith("_text"):
            frame[column] = frame[column].fillna("")
    return frame


def read_names(path: Path) -> pd.Series:
    """Stems of the volumes or scans in a text file with one path or name a line."""
    lines = pd.Series(read_text(path).splitlines(), dtype="str").str.strip().str.strip(",\"'")
    return stems(lines[lines != ""])


def find_volumes(folder: Path, base: Path, suffixes: tuple[str, ...] = VOLUME_SUFFIXES) -> dict[str, str]:
    """Stem -> path relative to ``base`` (with ``/``) of every volume below ``folder``, in a settled order."""
    found: dict[str, str] = {}
    for current, folders, files in os.walk(folder):
        folders.sort()
        inside = os.path.relpath(current, base).replace(os.sep, "/")
        prefix = "" if inside == "." else f"{inside}/"
        for name in sorted(files):
            suffix = next((ending for ending in suffixes if name.lower().endswith(ending)), None)
            if suffix is not None and not name.startswith("."):
                found.setdefault(name[: -len(suffix)], prefix + name)
    return found


def paths_of(volumes: pd.Series, found: dict[str, str]) -> pd.Series:
    """The path of each volume among those found by stem, ``""`` where it is not among them."""
    return pd.Series([found.get(name, "") for name in stems(volumes)], index=volumes.index, dtype="str")
