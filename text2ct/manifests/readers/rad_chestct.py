"""RAD-ChestCT's tables of abnormalities and locations, mapped to the 18 findings.

The data set (Draelos et al. 2021, "Machine-learning-based multiple abnormality prediction with large-scale chest
computed tomography volumes", Medical Image Analysis 67; zenodo.org/records/6406114) labels a scan by columns
``abnormality*location``. What an abnormality and a location mean is in the vocabulary of its labeller, SARLE
(github.com/rachellea/sarle-labeler, ``vocabulary_ct.py`` and ``vocabulary_locations.py``); :data:`MAP` is written
from it. Published zero-shot tests (CT-CLIP, arXiv 2403.17834) merge both calcifications to have 16 of the 18
findings; here they are told apart by location.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from text2ct.console import warn
from text2ct.errors import UserError
from text2ct.findings import FINDINGS
from text2ct.manifests._csv import header, read_table
from text2ct.manifests._labels import UNKNOWN_CELLS, find_column
from text2ct.manifests._schema import coerce, problems, refuse, to_numbers
from text2ct.manifests._tables import find_volumes, paths_of
from text2ct.manifests.readers._request import Reader, Request, place_files

DATASET = "RAD-ChestCT"
SPACING_MM = 0.8
SPLITS = {"trn": "train", "val": "validation", "tst": "test"}
"""The beginning of a scan's id says which of the data set's own splits, made by patient, it is in."""

_SCAN, _PATIENT = "NoteAcc_DEID", "MRN_DEID"
_LUNG = (
    "lung", "left_lung", "right_lung", "left_upper", "left_mid", "left_lower", "right_upper", "right_mid",
    "right_lower", "subpleural", "centrilobular", "interstitial",
)  # fmt: skip
_NOWHERE = frozenset(
    {"other_location", "left", "right", "anterior", "posterior", "superior", "inferior", "medial", "lateral"}
)
"""Locations that name no structure."""


@dataclass(frozen=True)
class Term:
    """An abnormality that means a finding.

    Attributes:
        label: Its name in the table.
        places: Locations where it means the finding; none for all. At another structure it does not, and where
            the table names no structure, nobody knows.
    """

    label: str
    places: tuple[str, ...] = ()


MAP: dict[str, tuple[Term, ...]] = {
    "Medical material": tuple(
        Term(label)
        for label in (
            "breast_implant", "catheter_or_port", "chest_tube", "clip", "gi_tube", "hardware",
            "heart_valve_replacement", "pacemaker_or_defib", "staple", "stent", "sternotomy", "suture", "tracheal_tube",
        )
    ),
    "Arterial wall calcification": (Term("calcification", ("aorta",)), Term("atherosclerosis", ("aorta",))),
    "Cardiomegaly": (Term("cardiomegaly"),),
    "Pericardial effusion": (Term("pericardial_effusion"),),
    # The labeller's rule for it: the coronary arteries with disease, calcium or atherosclerosis.
    "Coronary artery wall calcification": (Term("coronary_artery_disease"),),
    # "hiatal" is a word of the location diaphragm.
    "Hiatal hernia": (Term("hernia", ("diaphragm", "esophagus", "stomach")),),
    "Lymphadenopathy": (Term("lymphadenopathy"),),
    "Emphysema": (Term("emphysema"),),
    "Atelectasis": (Term("atelectasis"),),
    "Lung nodule": (Term("nodule", _LUNG),),
    "Lung opacity": (Term("groundglass"), Term("opacity", _LUNG), Term("infiltrate", _LUNG)),
    "Pulmonary fibrotic sequela": (Term("fibrosis", _LUNG), Term("scarring", _LUNG)),
    "Pleural effusion": (Term("pleural_effusion"),),
    "Mosaic attenuation pattern": (),
    "Peribronchial thickening": (Term("bronchial_wall_thickening"),),
    "Consolidation": (Term("consolidation"),),
    "Bronchiectasis": (Term("bronchiectasis"),),
    "Interlobular septal thickening": (Term("septal_thickening"),),
}  # fmt: skip
"""Each finding and what means it; a finding that nothing means is unknown in every row."""


def map_labels(table: pd.DataFrame) -> pd.DataFrame:
    """The 18 findings of a table with columns ``abnormality*location``.

    A finding is positive if any of its terms is, unknown if none is and one is unknown, and negative otherwise.

    Args:
        table: (n, ...) cells 1, 0 or empty, as text or numbers.

    Returns:
        (n, 18) float64, 1, 0 or NaN, with the index of ``table``.
    """
    columns = {
        finding: [_term(table, term) for term in terms] or [np.full(len(table), np.nan)]
        for finding, terms in MAP.items()
    }
    return pd.DataFrame({finding: _any(np.stack(columns[finding], 1)) for finding in FINDINGS}, index=table.index)


def _any(values: np.ndarray) -> np.ndarray:
    """(n,) of (n, k): 1 where any is 1, otherwise NaN where any is NaN, otherwise 0."""
    unknown = np.where(np.isnan(values).any(axis=1), np.nan, 0.0)
    return np.where((values == 1).any(axis=1), 1.0, unknown)


def _columns(table: pd.DataFrame, label: str) -> list[str]:
    return [name for name in table.columns if name.startswith(f"{label}*")]


def _term(table: pd.DataFrame, term: Term) -> np.ndarray:
    names = _columns(table, term.label)
    cells = {name.partition("*")[2]: to_numbers(table[name]).to_numpy(dtype=float) for name in names}
    if not term.places:
        return _any(np.stack(list(cells.values()), 1))
    none = np.zeros((len(table), 0))

    def at(places: set[str]) -> np.ndarray:
        chosen = [values for place, values in cells.items() if place in places]
        return _any(np.stack(chosen, 1) if chosen else none)

    wanted, nowhere = at(set(term.places)), at(set(_NOWHERE))
    elsewhere = at(set(cells) - set(term.places) - _NOWHERE)
    unplaced = np.where((nowhere == 0) | (elsewhere == 1), 0.0, np.nan)
    return np.where(wanted == 0, unplaced, wanted)


def _table_problems(table: pd.DataFrame, ids: pd.Series, file: str) -> list[str]:
    """Columns that the map needs and the table lacks, and cells that are no labels."""
    found = []
    for label in dict.fromkeys(term.label for terms in MAP.values() for term in terms):
        names = _columns(table, label)
        if not names:
            found.append(f"{file}: column '{label}*...' is missing")
        for name in names:
            cells = table[name].str.strip().str.lower()
            odd = ~cells.isin(["0", "1", "0.0", "1.0", *UNKNOWN_CELLS])
            found += [
                f"{file} row {row + 2} ({ids[row]}): '{name}' is {table.loc[row, name]}; expected 0, 1 or empty"
                for row in table.index[odd]
            ]
    return found


def _is_labels(columns: list[str]) -> bool:
    return _SCAN in columns and any("*" in name for name in columns)


def _csvs(folder: Path) -> list[tuple[Path, list[str]]]:
    """The tables of a folder and its subfolders, with their columns; what is no table is left to itself."""
    found = []
    for path in sorted([*folder.glob("*.csv"), *folder.glob("*/*.csv")]):
        try:
            found.append((path, header(path)))
        except UserError:
            continue
    return found


def read_rad_chestct(request: Request) -> pd.DataFrame:
    """Read RAD-ChestCT's folder, or one of its tables of labels.

    Patients are those of a table with ``NoteAcc_DEID`` and ``MRN_DEID`` in the folder (or ``request.metadata``);
    without one each scan counts as a patient, and a warning says so. Volumes are ``<NoteAcc_DEID>.npz`` below the
    folder, or beside the table. ``imgtrain`` is train, ``imgvalid`` validation and ``imgtest`` test.
    """
    alone = request.path.is_file()
    folder = request.path.parent if alone else request.path
    csvs = _csvs(folder)
    labels = [request.path] if alone else [path for path, columns in csvs if _is_labels(columns)]
    frames, found, places = [], [], []
    for path in labels:
        table = read_table(path)
        ids = table[_SCAN].str.strip()
        found += _table_problems(table, ids, path.name)
        places += [f"{path.name} row {row + 2}" for row in table.index]
        frames.append(pd.DataFrame({"scan": ids}) if found else map_labels(table).assign(scan=ids))
    frame = pd.concat(frames, ignore_index=True)
    stem = frame["scan"].str.lower().str[:3]
    frame = frame.assign(
        dataset=request.dataset or DATASET,
        volume=frame["scan"] + ".npz",
        patient=_patients(frame["scan"], csvs, request),
        split=stem.map(SPLITS).fillna(request.split),
        source="real",
        spacing_x=SPACING_MM,
        spacing_y=SPACING_MM,
        spacing_z=SPACING_MM,
    )
    frame = coerce(frame)
    refuse(str(request.path), [*found, *problems(frame, lambda position: places[position])])
    base = request.volumes or folder
    if alone and request.volumes is None:  # its folder may be anything, so only what lies beside it is looked at
        volumes = {path.stem: path.name for path in sorted(folder.glob("*.npz"))}
    else:
        volumes = find_volumes(base, base, suffixes=(".npz",))
    return place_files(frame, paths_of(frame["volume"], volumes), base, request)


def _patients(scans: pd.Series, csvs: list[tuple[Path, list[str]]], request: Request) -> pd.Series:
    """The patient of each scan, from the first table that has them."""
    tables = [path for path, columns in csvs if {_SCAN, _PATIENT} <= set(columns)]
    if request.metadata is not None:
        tables = [request.metadata]
    if not tables:
        warn(
            f"no table beside {request.path} has {_SCAN} and {_PATIENT} (CT_Scan_Metadata_Complete_35747.csv has); "
            "each scan counts as a patient of its own"
        )
        return scans
    table = read_table(tables[0])
    scan, patient = find_column(table, (_SCAN,)), find_column(table, (_PATIENT,))
    if scan is None or patient is None:
        raise UserError(f"{tables[0]} has no columns {_SCAN} and {_PATIENT}")
    table = table.assign(**{name: table[name].str.strip() for name in (scan, patient)}).drop_duplicates(scan)
    return scans.map(table.set_index(scan)[patient]).fillna(scans)


def _recognises(path: Path, columns: list[str]) -> bool:
    if path.is_dir():
        return any(_is_labels(names) for _, names in _csvs(path))
    return _is_labels(columns)


RAD_CHESTCT = Reader(
    "rad-chestct",
    "RAD-ChestCT's folder, or one of its tables of abnormalities and locations",
    _recognises,
    read_rad_chestct,
    frozenset({"split", "metadata", "dataset", "volumes"}),
)
