"""manifest.csv: the one table that every command reads and writes."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from text2ct.errors import UserError
from text2ct.files import atomic_path
from text2ct.findings import FINDINGS
from text2ct.manifests._columns import STRINGS
from text2ct.manifests._csv import read_table
from text2ct.manifests._schema import extra_columns, is_manifest_header, validate


def read_manifest(path: Path | str) -> pd.DataFrame:
    """Read and validate a ``manifest.csv``; a folder stands for the manifest inside it.

    Raises:
        UserError: The file is absent or is no manifest, or rows have problems (all are listed).
    """
    path = Path(path)
    if path.is_dir():
        path = path / "manifest.csv"
    frame = read_table(path)
    names = list(frame.columns)
    if not is_manifest_header(names):
        raise UserError(f"{path} is no manifest: it lacks the columns dataset, volume, patient, scan, split, source")
    missing = [name for name in FINDINGS if name not in names]
    if missing:
        raise UserError(f"{path} lacks findings", [f"column '{name}' is missing" for name in missing])
    unknown = extra_columns(names)
    if unknown:
        raise UserError(f"{path} has columns that no manifest has: {', '.join(unknown)}; remove them")
    return validate(frame, str(path))


def write_manifest(frame: pd.DataFrame, path: Path | str) -> None:
    r"""Validate ``frame`` and write it atomically; equal tables give equal bytes.

    Whole numbers are written without a decimal point and unknown values as empty cells; line breaks in text
    are written as ``\n``. The folder is made where it is absent.

    Raises:
        UserError: The table has problems, or the file cannot be written.
    """
    path = Path(path)
    table = validate(frame, f"the table for {path}")
    for name in table.columns:
        column = table[name]
        if name in STRINGS:
            table[name] = column.str.replace("\r\n", "\n").str.replace("\r", "\n").str.replace("\0", "")
        elif column.dtype == "float64" and bool((column.dropna() % 1 == 0).all()):
            table[name] = column.astype("Int64")
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n", encoding="utf-8")
