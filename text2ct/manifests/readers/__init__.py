"""Readers: whatever the user has, as one validated manifest. One registry, tried in order."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from text2ct.errors import UserError
from text2ct.manifests._columns import SPLITS
from text2ct.manifests._csv import existing, header
from text2ct.manifests._manifest import read_manifest
from text2ct.manifests._schema import is_manifest_header
from text2ct.manifests.readers._request import Reader, Request
from text2ct.manifests.readers.annotated import ANNOTATED
from text2ct.manifests.readers.ct_rate import CT_RATE_FOLDER, CT_RATE_REPORTS
from text2ct.manifests.readers.label_table import LABEL_TABLE
from text2ct.manifests.readers.prompts import PROMPTS_CSV, VLM3D
from text2ct.manifests.readers.rad_chestct import RAD_CHESTCT
from text2ct.manifests.workspace import Workspace

__all__ = ["READERS", "Reader", "Request", "read"]


def _read_manifest(request: Request) -> pd.DataFrame:
    """Read a manifest; a root new to the workspace is declared if its files lie beside the manifest."""
    frame = read_manifest(request.path)
    if request.workspace is None:
        return frame
    folder = request.path if request.path.is_dir() else request.path.parent
    for root in sorted(set(frame["root"]) - {"", *request.workspace.roots}):
        rows = frame["root"] == root
        if (folder / frame.loc[rows, "path"].iloc[0]).is_file():
            name, prefix = request.workspace.root_for(folder, root)
            frame.loc[rows, "path"] = prefix + frame.loc[rows, "path"]
            frame.loc[rows, "root"] = name
    return frame


MANIFEST = Reader(
    "manifest",
    "a manifest.csv",
    lambda path, columns: is_manifest_header(columns) or (path / "manifest.csv").is_file(),
    _read_manifest,
)

READERS: tuple[Reader, ...] = (
    CT_RATE_FOLDER,
    MANIFEST,
    PROMPTS_CSV,
    ANNOTATED,
    LABEL_TABLE,
    CT_RATE_REPORTS,
    VLM3D,
    RAD_CHESTCT,
)
"""Every kind of input; the first that recognises a path reads it."""


def read(
    path: Path | str,
    *,
    split: str = "",
    metadata: Path | None = None,
    reports: Path | None = None,
    names: Path | None = None,
    workspace: Workspace | None = None,
    dataset: str = "",
    volumes: Path | None = None,
) -> pd.DataFrame:
    """Read labels, reports or prompts of any known kind into a manifest.

    Args:
        path: A manifest.csv, a folder in CT-RATE's layout (a simulated cohort too) or RAD-ChestCT's, a label CSV,
            annotated reports, a prompts.csv or a VLM3D prompts.json; recognised by its content.
        split: train, validation or test, for rows whose origin does not decide it.
        metadata: A further CT-RATE metadata CSV, for spacing and size; RAD-ChestCT's, for patients.
        reports: A further CT-RATE reports CSV.
        names: The annotated reports' table of CT-RATE names, which gives them CT-RATE's identity and split.
        workspace: Declares the folder of the volumes as a root; without one the root is named only.
        dataset: The data set's name, where the files' own is not wanted. Identity is (dataset, patient).
        volumes: The folder in which to find a label CSV's volumes.

    Returns:
        A validated manifest.

    Raises:
        UserError: The path is absent or nothing known, an option does not apply, or rows have problems: every
            problem of the file is listed, once.
    """
    path = existing(Path(path))
    if split not in (*SPLITS, ""):
        raise UserError(f"split is '{split}'; expected {', '.join(SPLITS)}")
    if volumes is not None and not existing(Path(volumes)).is_dir():
        raise UserError(f"{volumes} is no folder of volumes")
    reader = _reader_of(path)
    given = {
        "split": split,
        "metadata": metadata,
        "reports": reports,
        "names": names,
        "dataset": dataset,
        "volumes": volumes,
    }
    useless = [option for option, value in given.items() if value and option not in reader.options]
    if useless:
        raise UserError(f"{path} is {reader.what}; leave out {', '.join(useless)}")
    return reader.read(
        Request(
            path,
            split,
            None if metadata is None else existing(Path(metadata)),
            None if reports is None else existing(Path(reports)),
            None if names is None else existing(Path(names)),
            workspace,
            dataset,
            None if volumes is None else Path(volumes).expanduser(),
        )
    )


def _reader_of(path: Path) -> Reader:
    """The reader that recognises ``path``."""
    columns: list[str] = []
    if path.is_file():
        columns = [] if path.suffix.lower() == ".json" else header(path)
    for reader in READERS:
        if reader.recognises(path, columns):
            return reader
    known = [reader.what for reader in READERS]
    kind = "this folder" if path.is_dir() else f"a file with the columns {', '.join(columns[:6])}"
    raise UserError(f"{path} is of no known kind ({kind}); expected one of", known)
