"""What a reader is asked for, and what all readers share."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from text2ct.errors import UserError
from text2ct.files import read_json
from text2ct.manifests.workspace import Workspace

CT_RATE = "CT-RATE"
"""Name of the data set that CT-RATE's volume names identify."""


@dataclass(frozen=True)
class Request:
    """A path to read, and what the user said about it.

    Attributes:
        path: File or folder, which exists.
        split: Split of rows whose names do not decide it; "" for none.
        metadata: A CT-RATE metadata CSV.
        reports: A CT-RATE reports CSV.
        names: The annotated reports' table of CT-RATE names.
        workspace: Where roots are declared; without one the root is only named.
        dataset: The data set's name; "" to take it from the files.
        volumes: A folder to look for the volumes in.
    """

    path: Path
    split: str = ""
    metadata: Path | None = None
    reports: Path | None = None
    names: Path | None = None
    workspace: Workspace | None = None
    dataset: str = ""
    volumes: Path | None = None


@dataclass(frozen=True)
class Reader:
    """One kind of input: how it is recognised and read.

    Attributes:
        name: Short name.
        what: What it is, in words.
        recognises: Whether a path (and the column names, if it is a CSV file) is of this kind.
        read: Makes a validated manifest; raises UserError with every problem.
        options: Which of ``split, metadata, reports, names, dataset, volumes`` it can use.
    """

    name: str
    what: str
    recognises: Callable[[Path, list[str]], bool]
    read: Callable[[Request], pd.DataFrame]
    options: frozenset[str] = frozenset()


def simulated_dataset(folder: Path) -> str | None:
    """The data set's name in ``simulation.json`` of a simulated cohort's folder; None where there is none.

    Raises:
        UserError: The file names no data set.
    """
    file = folder / "simulation.json"
    if not file.is_file():
        return None
    stored = read_json(file)
    dataset = stored.get("dataset") if isinstance(stored, dict) else None
    if not isinstance(dataset, str) or not dataset.strip():
        raise UserError(f"{file} names no 'dataset'; simulate the cohort again")
    return dataset


def plain_name(text: str) -> str:
    """``text`` as the name of a data set or root: letters, digits, ``.``, ``_`` and ``-``."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._") or "data"


def place_files(frame: pd.DataFrame, paths: pd.Series, base: Path, request: Request) -> pd.DataFrame:
    """Set ``root`` and ``path`` of the rows that have a file.

    Args:
        frame: Rows with ``dataset``.
        paths: (n,) path relative to ``base``, or "" for a row without a file.
        base: Folder that the paths start from; declared as a root of the workspace if there is one.
        request: Carries the workspace.
    """
    frame = frame.copy()
    have = paths != ""
    preferred = plain_name(str(frame["dataset"].iloc[0]).lower()) if len(frame) else "data"
    root, prefix = preferred, ""
    if request.workspace is not None and have.any():
        root, prefix = request.workspace.root_for(base, preferred)
    frame["root"] = pd.Series("", index=frame.index, dtype="str").mask(have, root)
    frame["path"] = paths.mask(have, prefix + paths)
    return frame
