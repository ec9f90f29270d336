"""What a gate was, beside what it judged: ``gate.json``, and the refusals that read it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field, ValidationError

from text2ct.augment.gate.base import Strict, Test
from text2ct.augment.gate.config import GateConfig
from text2ct.augment.gate.geometry import GeometrySettings
from text2ct.augment.gate.intensity import IntensityThreshold
from text2ct.augment.gate.label import FindingThreshold
from text2ct.augment.gate.memorised import MemorisedThreshold
from text2ct.errors import UserError, first_of
from text2ct.files import read_json
from text2ct.findings import FINDINGS
from text2ct.manifests import Workspace

RECORD, SCORES = "gate.json", "gate.csv"
Identity = tuple[str, str]
_UNKNOWN = " unknown"
_CELL = re.compile(r"(accept|reject)@([^:]+)(?:: (.*))?", re.DOTALL)


class GateClassifier(Strict):
    """The classifier that judged labels.

    Attributes:
        name: Its architecture.
        seed: Of its training.
        sha256: Of its weights.
        run: Its folder, relative to the workspace where it lies in it.
    """

    name: str
    seed: int
    sha256: str
    run: str


class Thresholds(Strict):
    """What volumes were compared with; None for a test that was left out."""

    label: dict[str, FindingThreshold] | None = None
    geometry: GeometrySettings | None = None
    intensity: IntensityThreshold | None = None
    memorised: MemorisedThreshold | None = None


class Counts(Strict):
    """Volumes judged, tries included.

    Attributes:
        accepted: By every test.
        rejected: By some test.
        reasons: Test to the volumes that it rejected; one volume may fail several.
    """

    accepted: int
    rejected: int
    reasons: dict[Test, int]


class FindingCount(Strict):
    """Volumes that were asked to show a finding.

    Attributes:
        asked: How many.
        accepted: How many passed every test.
        shown: In how many the classifier saw it; None where it cannot judge the finding.
        unknown: Accepted volumes, whatever they were asked for, whose label of it is in doubt and now unknown.
    """

    asked: int
    accepted: int
    shown: int | None = None
    unknown: int = 0


class CopyFound(Strict):
    """A volume that repeats a real training volume.

    Attributes:
        volume: The copy, ``dataset/volume``.
        copy_of: The training volume, likewise.
        distance_hu: Root mean square difference between them, aligned.
        picture: Both side by side, relative to the record's folder.
    """

    volume: str
    copy_of: str
    distance_hu: float
    picture: str


class Try(Strict):
    """One round of best-of: what was judged, and in which run it lies."""

    run: str
    judged: int
    accepted: int


class GateRecord(Strict):
    """``gate.json``: who judged, whom the judge knows, by which thresholds, and with what result.

    Attributes:
        version: Of this format.
        run: Folder of the record within ``synthetic``.
        request_sha256: Digest of what was asked: volumes, real data, settings.
        classifier: None where labels were not judged.
        trained_on: (dataset, patient) of the real training volumes that it learnt from or compared with.
        calibrated_on: The same of the validation volumes that set its thresholds.
        config: The settings.
        thresholds: What was measured with them.
        counts: Accepted and rejected.
        findings: By finding that was asked for.
        copies: Volumes that repeat a real training volume.
        tries: Rounds of best-of.
        unmet: Requests without an accepted volume.
        real_rejected: Test to the share of real validation scans (at most 100) that it rejects, judged as synthetic
            volumes are, though they set the thresholds: what to compare the rejected share of those with.
        notes: What could not be judged, in words.
        quarantined: Real volumes that could not be read and were left out, with their reasons.
        verdicts: ``dataset/volume`` to the cell that the gate wrote, so that another in a manifest is noticed; None in
            records that were made before it was kept.
    """

    version: int = Field(default=1, ge=1, le=1)
    run: str
    request_sha256: str
    classifier: GateClassifier | None
    trained_on: tuple[Identity, ...]
    calibrated_on: tuple[Identity, ...]
    config: GateConfig
    thresholds: Thresholds
    counts: Counts
    findings: dict[str, FindingCount]
    copies: tuple[CopyFound, ...]
    tries: tuple[Try, ...]
    unmet: int
    real_rejected: dict[Test, float]
    notes: tuple[str, ...] = ()
    quarantined: tuple[str, ...] = ()
    verdicts: dict[str, str] | None = None

    @property
    def patients(self) -> tuple[Identity, ...]:
        """Everyone whom the gate knows."""
        return (*self.trained_on, *self.calibrated_on)


def read_record(folder: Path) -> GateRecord:
    """The record in a gated folder.

    Raises:
        UserError: There is none, it is damaged, or it is another folder's.
    """
    path = Path(folder) / RECORD
    if not path.is_file():
        raise UserError(f"{path} is missing, so nobody can tell who judged these volumes; run `text2ct gate` again")
    try:
        found = GateRecord.model_validate(read_json(path))
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        raise UserError(f"{path} is damaged; run `text2ct gate` again", problems) from error
    if not path.resolve().parent.as_posix().endswith(f"/{found.run}"):
        raise UserError(f"{path} is the record of the gate '{found.run}'; give its folder that name back")
    return found


def gate_cell(run: str, reasons: Iterable[str], doubted: Iterable[str] = ()) -> str:
    """A volume's cell in the manifest's ``gate`` column.

    ``reject@RUN: reason; reason``, or ``accept@RUN``, or ``accept@RUN: FINDING unknown; FINDING unknown`` where labels
    are in doubt.
    """
    given = "; ".join(reasons)
    if given:
        return f"reject@{run}: {given}"
    doubts = "; ".join(f"{name}{_UNKNOWN}" for name in doubted)
    return f"accept@{run}: {doubts}" if doubts else f"accept@{run}"


def known_labels(frame: pd.DataFrame) -> pd.DataFrame:
    """A manifest's rows as they may be learnt from: labels that their gate doubts are unknown.

    The gated manifest keeps what was asked for, since others need to know it: the controls without a gate or without
    this generator, and the search for prompts that a patient could have given.
    """
    if "gate" not in frame:
        return frame
    known = frame.copy()
    doubts = [_doubts(cell) for cell in frame["gate"].fillna("").astype(str)]
    for name in FINDINGS:
        known[name] = known[name].mask(np.array([name in doubted for doubted in doubts], dtype=bool))
    return known


def _doubts(cell: str) -> frozenset[str]:
    """The findings that a cell of the column ``gate`` calls unknown.

    Raises:
        UserError: It is an acceptance that no gate writes: what it doubts cannot be told.
    """
    found = _CELL.fullmatch(cell)
    if found is None or found[1] != "accept" or found[3] is None:
        return frozenset()
    doubted = frozenset(part.removesuffix(_UNKNOWN) for part in found[3].split("; ") if part.endswith(_UNKNOWN))
    if len(doubted) != len(found[3].split("; ")) or not doubted <= set(FINDINGS):
        raise UserError(f"'{cell}' is no verdict of a gate; run `text2ct gate` again")
    return doubted


def judged_by(cells: pd.Series) -> pd.Series:
    """The run of the gate that judged each volume, from the cells of the column ``gate``; "" for none."""
    found = [_CELL.fullmatch(cell) for cell in cells.fillna("").astype(str)]
    return pd.Series([match[2] if match else "" for match in found], index=cells.index, dtype=object)


def gates_of(frame: pd.DataFrame, workspace: Workspace) -> list[GateRecord]:
    """The records of the gates that judged a manifest's rows, sorted by run; empty when nothing was gated.

    Raises:
        UserError: A row does not name its gate, or a record is missing or damaged.
    """
    if "gate" not in frame:
        return []
    cells, runs = frame["gate"].fillna("").astype(str), judged_by(frame["gate"])
    unnamed = (cells != "") & (runs == "")
    problems = [f"{volume}: '{cell}'" for volume, cell in zip(frame["volume"][unnamed], cells[unnamed], strict=True)]
    if problems:
        raise UserError("these volumes do not name the gate that judged them; run `text2ct gate`", first_of(problems))
    return [read_record(workspace.run_dir("synthetic", run)) for run in sorted(set(runs) - {""})]


def refuse_unjudged(frame: pd.DataFrame, path: Path) -> None:
    """Refuse the manifest of a gated folder in which rows have no verdict: what was rejected would be taken.

    Args:
        frame: The manifest.
        path: Where it was read.

    Raises:
        UserError: A gate's record lies beside it and rows have no verdict; they are named.
    """
    cells = frame["gate"].fillna("") if "gate" in frame else pd.Series("", index=frame.index)
    without = frame.loc[cells == "", "volume"].tolist()
    if without and (Path(path).parent / RECORD).is_file():
        raise UserError(
            f"{path} was judged by the gate beside it, and {len(without)} of its rows have no verdict; take the gate's "
            "own manifest (delete the folder and run `text2ct gate` again), or that of the run it judged",
            first_of(without),
        )


def other_verdicts(frame: pd.DataFrame, record: GateRecord) -> list[str]:
    """Volumes of a gate whose cell in a manifest is not the one that it wrote; none where it kept no verdicts."""
    if record.verdicts is None:
        return []
    judged = frame[judged_by(frame["gate"]) == record.run]
    return [
        volume
        for dataset, volume, cell in zip(judged["dataset"], judged["volume"], judged["gate"], strict=True)
        if record.verdicts.get(f"{dataset}/{volume}") != cell
    ]


def refuse_same_judge(frame: pd.DataFrame, workspace: Workspace, classifier_name: str, seed: int) -> None:
    """Refuse to train on volumes that the same architecture, or the same seed, has chosen.

    A classifier agrees with its twin, so volumes that the twin accepted say to it what it would say itself; the
    gain is then in the agreement and not in the volumes.

    Raises:
        UserError: A gate of these rows used the architecture or the seed, or its record is missing.
    """
    for record in gates_of(frame, workspace):
        judge = record.classifier
        if judge is None:
            continue
        if judge.name == classifier_name:
            raise UserError(
                f"the gate '{record.run}' judged these volumes with a classifier '{judge.name}' too; train another "
                "architecture, or gate them with another (--classifier, or `classifier` in --config)"
            )
        if judge.seed == seed:
            raise UserError(
                f"the gate '{record.run}' judged these volumes with a classifier of seed {seed} too; "
                "give another --seed"
            )


def refuse_judge(model_sha256: str, workspace: Workspace) -> None:
    """Refuse to score the very classifier that chose synthetic volumes in this workspace.

    Raises:
        UserError: It is the classifier of a gate, or a record is damaged.
    """
    for path in sorted(workspace.run_dir("synthetic").rglob(RECORD)):
        record = read_record(path.parent)
        if record.classifier is not None and record.classifier.sha256 == model_sha256:
            raise UserError(
                f"this classifier is the gate of synthetic/{record.run}: what chose the volumes cannot be scored "
                "beside what was trained on them; train another"
            )


def as_identities(rows: pd.DataFrame) -> tuple[Identity, ...]:
    """The (dataset, patient) pairs of manifest rows, sorted."""
    pairs: set[Any] = set(rows[["dataset", "patient"]].itertuples(index=False, name=None))
    return tuple(sorted(pairs))
