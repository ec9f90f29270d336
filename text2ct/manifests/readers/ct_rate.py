"""A folder in CT-RATE's layout: labels, reports and metadata CSVs and the tree of volumes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from text2ct.console import info, warn
from text2ct.errors import UserError
from text2ct.findings import FINDINGS
from text2ct.manifests._csv import header
from text2ct.manifests._ids import stems
from text2ct.manifests._labels import finding_columns, read_label_table
from text2ct.manifests._schema import coerce, problems, refuse
from text2ct.manifests._splits import ct_rate_splits
from text2ct.manifests._tables import (
    attach,
    find_volumes,
    is_reports_header,
    paths_of,
    read_metadata,
    read_names,
    read_reports,
)
from text2ct.manifests.readers._request import CT_RATE, Reader, Request, place_files, simulated_dataset
from text2ct.manifests.readers.label_table import identify

_TREES = ("train_fixed", "valid_fixed", "train", "valid")
"""Folders of volumes, the second generation (HU already) first: of a volume in both, that one is taken."""


@dataclass
class _Layout:
    """The files of a CT-RATE folder, by kind."""

    labels: list[Path] = field(default_factory=list)
    reports: list[Path] = field(default_factory=list)
    metadata: list[Path] = field(default_factory=list)
    no_chest: list[Path] = field(default_factory=list)
    trees: list[Path] = field(default_factory=list)


def _layout(folder: Path) -> _Layout:
    """Look into a folder, its ``dataset`` and their subfolders, but not into the trees of volumes."""
    layout = _Layout()
    bases = [base for base in (folder / "dataset", folder) if base.is_dir()]
    layout.trees = [base / name for name in _TREES for base in bases if (base / name).is_dir()]
    subfolders = [path for base in bases for path in sorted(base.iterdir()) if path.is_dir()]
    for place in dict.fromkeys([folder, *subfolders]):
        if place in layout.trees:
            continue
        for path in sorted(place.glob("*.csv")):
            _sort_table(path, layout)
        layout.no_chest += sorted(place.glob("no_chest*.txt"))
    return layout


def _sort_table(path: Path, layout: _Layout) -> None:
    name = path.stem.lower()
    try:
        columns = set(header(path))
    except UserError:  # an unreadable table is taken for what its name says, so that its reader says why
        columns = {*FINDINGS, "Findings_EN" if "report" in name else "", "XYSpacing" if "metadata" in name else ""}
    if "label" in name and finding_columns(list(columns)):
        layout.labels.append(path)
    elif is_reports_header(columns):
        layout.reports.append(path)
    elif columns & {"XYSpacing", "RescaleSlope"}:
        layout.metadata.append(path)


def _volumes(layout: _Layout, base: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for tree in layout.trees:
        found = {**find_volumes(tree, base), **found}
    return found


@dataclass
class _Labels:
    """Label rows of all files: ids, (n, 18) cells, where each row stands, and what is wrong with columns."""

    ids: pd.Series
    labels: pd.DataFrame
    places: list[tuple[str, int]]
    problems: list[str]

    def place(self, position: int) -> str:
        """A row's file and number."""
        file, row = self.places[position]
        return f"{file} row {row}".strip()


def _read_labels(paths: list[Path]) -> _Labels:
    tables = [read_label_table(path) for path in paths]
    return _Labels(
        pd.concat([table.ids for table in tables], ignore_index=True),
        pd.concat([table.labels for table in tables], ignore_index=True),
        [(path.name, row + 2) for path, table in zip(paths, tables, strict=True) for row in table.table.index],
        [f"{path.name}: {text}" for path, table in zip(paths, tables, strict=True) for text in table.problems],
    )


def read_ct_rate(request: Request) -> pd.DataFrame:
    """Read a folder in CT-RATE's layout, or its table of reports alone.

    Rows are those of the label tables; without any, those of the reports, and without those, the volumes
    found, with unknown labels. A row whose volume is not on disk has no file. ``*_fixed`` volumes come before
    the first generation. Scans listed in ``no_chest_*.txt`` are left out. ``simulation.json`` makes the data
    set a simulated one.
    """
    alone = request.path.is_file()
    folder = request.path.parent if alone else request.path
    layout = _Layout(reports=[request.path]) if alone else _layout(folder)
    reports = [read_reports(path) for path in layout.reports + ([request.reports] if request.reports else [])]
    metadata_files = layout.metadata + ([request.metadata] if request.metadata else [])
    metadata = [read_metadata(path).drop(columns=["slope", "intercept"]) for path in metadata_files]
    volumes = _volumes(layout, folder)
    if layout.labels:
        rows = _read_labels(layout.labels)
    else:
        names = [name for table in reports for name in table.index] or sorted(volumes)
        rows = _Labels(pd.Series(names, dtype="str"), pd.DataFrame(index=range(len(names))), [], [])
        rows.places = [("reports", position + 2) for position in range(len(names))]
    if rows.ids.empty:
        raise UserError(f"{folder} holds neither labels, reports nor volumes in CT-RATE's layout")
    frame, part = identify(rows.ids)
    simulated = simulated_dataset(folder) or (simulated_dataset(folder.parent) if alone else None)
    frame["dataset"] = request.dataset or simulated or CT_RATE
    frame["source"] = "simulated" if simulated else "real"
    frame["split"] = ""
    frame = coerce(frame.join(rows.labels))
    stray = [
        f"{rows.place(at)} ({frame.loc[at, 'volume']}): is no name of CT-RATE, such as train_1_a_1.nii.gz"
        for at in frame.index[part == ""]
    ]
    frame["split"] = ct_rate_splits(frame, part)
    refuse(str(request.path), [*rows.problems, *stray, *problems(frame, rows.place)])
    frame = attach(attach(frame, reports), metadata)
    _say_unlabelled(volumes, frame, folder)
    frame = place_files(frame, paths_of(frame["volume"], volumes), folder, request)
    return _leave_out(frame, layout.no_chest)


def _say_unlabelled(volumes: dict[str, str], frame: pd.DataFrame, folder: Path) -> None:
    unlabelled = sorted(set(volumes) - set(stems(frame["volume"])))
    if unlabelled:
        warn(f"{len(unlabelled)} volumes in {folder} have no row of labels and are left out, such as {unlabelled[0]}")


def _leave_out(frame: pd.DataFrame, lists: list[Path]) -> pd.DataFrame:
    """Drop what the lists of non-chest scans name."""
    if not lists:
        return frame
    names = pd.concat([read_names(path) for path in lists])
    listed = stems(frame["volume"]).isin(names) | frame["scan"].isin(names)
    if listed.any():
        origin = ", ".join(path.name for path in lists)
        info(f"{int(listed.sum())} volumes are no chest scans ({origin}); left out")
    if listed.all():
        raise UserError("every volume is listed as no chest scan", [path.name for path in lists])
    return frame[~listed].reset_index(drop=True)


def _recognises(path: Path, columns: list[str]) -> bool:
    if not path.is_dir():
        return False
    layout = _layout(path)
    return bool(layout.labels or layout.reports or layout.trees)


CT_RATE_REPORTS = Reader(
    "ct-rate-reports",
    "a CT-RATE reports CSV (VolumeName, Findings_EN, Impressions_EN)",
    lambda path, columns: is_reports_header(set(columns)),
    read_ct_rate,
    frozenset({"metadata", "dataset"}),
)
CT_RATE_FOLDER = Reader(
    "ct-rate",
    "a folder in CT-RATE's layout (labels, reports, metadata, dataset/train_fixed/...)",
    _recognises,
    read_ct_rate,
    frozenset({"metadata", "reports", "dataset"}),
)
