"""``metrics.csv``: how a training goes, a row every few steps, whatever was interrupted in between."""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping
from pathlib import Path

from text2ct.files import write_text

METRICS = "metrics.csv"


class StepLog:
    """The log of one training, in its folder.

    Lightning's own CSV logger begins a new file when a training goes on, so it cannot keep one.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = Path(folder) / METRICS
        self._step, self._moment = 0, time.monotonic()

    def begin(self, step: int) -> None:
        """Go on after ``step``: rows of later ones, which are computed again, are dropped."""
        self._step, self._moment = step, time.monotonic()
        if self._path.is_file():
            header, *rows = self._path.read_text(encoding="utf-8").splitlines() or [""]
            kept = [row for row in rows if row.split(",")[0].isdigit() and int(row.split(",")[0]) <= step]
            if kept:
                write_text(self._path, "\n".join([header, *kept]) + "\n")
            else:
                self._path.unlink()

    def add(self, step: int, losses: Mapping[str, float], **facts: float) -> None:
        """Append a row: ``step``, ``facts``, ``seconds_per_step`` since the row before, and the losses."""
        now = time.monotonic()
        pace = (now - self._moment) / max(1, step - self._step)
        self._step, self._moment = step, now
        row = {"step": step, **facts, "seconds_per_step": round(pace, 4), **losses}
        new = not self._path.is_file()
        with self._path.open("a", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(row), lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(row)


def last_step(folder: Path) -> int:
    """The last step in a training's log; 0 if there is none."""
    try:
        rows = (Path(folder) / METRICS).read_text(encoding="utf-8").splitlines()[1:]
    except (OSError, UnicodeDecodeError):
        return 0
    steps = [int(first) for first in (row.partition(",")[0] for row in rows) if first.isdigit()]
    return steps[-1] if steps else 0
