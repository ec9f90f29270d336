"""What a gate found, round by round, and how it is counted, drawn and written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from text2ct.augment.gate import memorised
from text2ct.augment.gate.base import TESTS
from text2ct.augment.gate.judges import Judged, Judges
from text2ct.augment.gate.record import RECORD, SCORES, CopyFound, Counts, FindingCount, GateRecord, gate_cell
from text2ct.console import warn
from text2ct.files import atomic_path, write_json
from text2ct.findings import FINDINGS
from text2ct.manifests import write_manifest

_COLUMNS = ("dataset", "volume", "try", "verdict", "test", "score", "value", "low", "high", "passed", "reason")


@dataclass(frozen=True)
class Round:
    """The volumes of one run and what was found."""

    run: str
    rows: pd.DataFrame
    judged: Sequence[Judged]

    @property
    def rejected(self) -> list[str]:
        """File names of the rejected volumes."""
        return [name for name, one in zip(self.rows["volume"], self.judged, strict=True) if one.failed]


def counts(rounds: Sequence[Round]) -> Counts:
    """Volumes accepted and rejected, over all rounds."""
    judged = [one for turn in rounds for one in turn.judged]
    return Counts(
        accepted=sum(not one.failed for one in judged),
        rejected=sum(bool(one.failed) for one in judged),
        reasons={test: sum(test in one.failed for one in judged) for test in TESTS},
    )


def findings(rounds: Sequence[Round], judges: Judges) -> dict[str, FindingCount]:
    """Acceptance of each finding that was asked for, over all tries."""
    found = {}
    accepted = [one for turn in rounds for one in turn.judged if not one.failed]
    for name in FINDINGS:
        asked = [
            one
            for turn in rounds
            for one, label in zip(turn.judged, turn.rows[name].tolist(), strict=True)
            if label == 1
        ]
        if not asked:
            continue
        limits = judges.thresholds.label
        judged = limits is not None and not limits[name].not_judged
        seen = [s.passed for one in asked for s in one.scores if s.test == "label" and s.name == name]
        found[name] = FindingCount(
            asked=len(asked),
            accepted=sum(not one.failed for one in asked),
            shown=sum(seen) if judged else None,
            unknown=sum(name in one.unknown for one in accepted),
        )
    return found


def copies(rounds: Sequence[Round], judges: Judges, folder: Path) -> list[CopyFound]:
    """List the copies and draw each beside what it repeats."""
    found = []
    for turn in rounds:
        for row, one in zip(turn.rows.to_dict("records"), turn.judged, strict=True):
            if one.copy is None:
                continue
            picture = f"copies/{row['dataset']}--{row['volume']}.png"
            with atomic_path(folder / picture) as temporary:
                temporary.write_bytes(judges.picture(row, one.copy))
            original = judges.training.iloc[one.copy.index]
            found.append(
                CopyFound(
                    volume=f"{row['dataset']}/{row['volume']}",
                    copy_of=f"{original['dataset']}/{original['volume']}",
                    distance_hu=one.copy.distance_hu,
                    picture=picture,
                )
            )
    return found


def not_judged(judges: Judges) -> list[str]:
    """Which findings the classifier cannot judge and why, labels nobody vouches for, and what tells copies badly."""
    notes = []
    for name, one in (judges.thresholds.label or {}).items():
        if one.not_judged:
            unsure = " and the pack does not render it faithfully, so that its labels are unknown"
            more = unsure if judges.unsure(name) else ""
            notes.append(f"{name} is not judged by the classifier: {one.not_judged}{more}")
    copies_told_by = judges.thresholds.memorised
    return notes + ([] if copies_told_by is None else memorised.notes(copies_told_by))


def write(folder: Path, rounds: Sequence[Round], record: GateRecord) -> None:
    """The manifest is written last: where it is, all is."""
    gated = [
        turn.rows.assign(gate=[gate_cell(record.run, one.reasons, one.unknown) for one in turn.judged])
        for turn in rounds
    ]
    scores = [
        (
            row.dataset,
            row.volume,
            number,
            "reject" if one.failed else "accept",
            score.test,
            score.name,
            score.value,
            score.low,
            score.high,
            score.passed,
            score.reason or score.note,
        )
        for number, turn in enumerate(rounds, start=1)
        for row, one in zip(turn.rows.itertuples(index=False), turn.judged, strict=True)
        for score in one.scores
    ]
    table = pd.DataFrame(scores, columns=list(_COLUMNS)).replace([float("inf"), float("-inf")], float("nan"))
    with atomic_path(folder / SCORES) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
    manifest = pd.concat(gated, ignore_index=True)
    names = (manifest["dataset"] + "/" + manifest["volume"]).tolist()
    record = record.model_copy(update={"verdicts": dict(zip(names, manifest["gate"], strict=True))})
    write_json(folder / RECORD, record.model_dump(mode="json"))
    write_manifest(manifest, folder / "manifest.csv")
    if not record.counts.accepted:
        warn("no volume is accepted; look at gate.csv for the reasons")
