"""Which run of synthetic volumes a command takes when the user names none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from text2ct.augment._run import TRY_FILE
from text2ct.augment.gate.record import RECORD, read_record
from text2ct.console import info
from text2ct.errors import UserError
from text2ct.manifests import Workspace


def newest_ungated(workspace: Workspace) -> Path:
    """The manifest of the newest run of ``synthesize``: neither a gate's result nor one of its further tries.

    Raises:
        UserError: There is none.
    """
    return _newest(workspace, [path for path in _runs(workspace) if not (path.parent / RECORD).is_file()])


def newest_usable(workspace: Workspace) -> Path:
    """The manifest of the newest run that may be learnt from: of a run that was judged, the gate's result.

    Raises:
        UserError: There is none, or a gate's record is damaged.
    """
    runs = _runs(workspace)
    judged = {}
    for path in runs:
        if (path.parent / RECORD).is_file():
            record = read_record(path.parent)
            judged.update({one.run: record.run for one in record.tries})
    chosen = _newest(workspace, [path for path in runs if path.parent.name not in judged])
    passed_over = [path.parent.name for path in runs if path.parent.name in judged]
    if passed_over:
        info(f"leaving out {', '.join(sorted(passed_over))}: judged, so the gate's result counts; name one to use it")
    return chosen


def _runs(workspace: Workspace) -> list[Path]:
    found = workspace.run_dir("synthetic").glob("*/manifest.csv")
    return [path for path in found if not (path.parent / TRY_FILE).is_file()]


def _newest(workspace: Workspace, runs: Sequence[Path]) -> Path:
    if not runs:
        workspace.newest("synthetic")  # says so where there is none at all
        raise UserError("every synthetic run is a gate's result or one of its tries; name one with --synthetic")
    return max(runs, key=lambda path: (path.stat().st_mtime_ns, path.as_posix()))
