"""What people see while a command runs: messages and progress, always on standard error.

The same goes to the command's log (:mod:`text2ct.logfile`), and progress also to the note in the lock of the folder
that the command works in (:mod:`text2ct.locks`), where ``text2ct status`` reads it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from text2ct.locks import innermost
from text2ct.logfile import record

console = Console(stderr=True, highlight=False, soft_wrap=True)

# Between two lines of progress in the log, and two notes of it.
TELL_S = 5.0
# The time left follows the pace of as many tellings.
_WINDOW = 12


def info(message: str) -> None:
    """Print one line of information."""
    console.print(message, markup=False)
    record("info", "message", message=message)


def warn(message: str) -> None:
    """Print one line that the user should not miss."""
    console.print(f"warning: {message}", style="yellow", markup=False)
    record("warning", "message", message=message)


def interrupted(message: str) -> None:
    """Print that the user ended the command; in its log that is why it ended."""
    console.print(f"warning: {message}", style="yellow", markup=False)
    record("error", "message", message=message)


def error(message: str) -> None:
    """Print why the command ends."""
    console.print(f"error: {message}", style="red", markup=False)
    record("error", "message", message=message)


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar with the time left and yield ``advance(steps)``, which moves it.

    On a standard error that is no terminal nothing is drawn, so logs stay readable.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(description, total=total)
        told = _Told(description, total)

        def advance(steps: int) -> None:
            bar.advance(task, steps)
            told.advance(steps)

        try:
            yield advance
        finally:
            told.tell()


class _Told:
    """Progress as facts: told at the start, every few seconds and at the end."""

    def __init__(self, description: str, total: int) -> None:
        self._what, self._total, self._done = description, total, 0
        self._begun = self._last = time.monotonic()
        # Moments and what was done by then; the first step may stand for all that was there before.
        self._pace: deque[tuple[float, int]] = deque(maxlen=_WINDOW)
        self._note = innermost()
        self.tell()

    def advance(self, steps: int) -> None:
        self._done += steps
        now = time.monotonic()
        if not self._pace:
            self._pace.append((now, self._done))
        if now - self._last >= TELL_S:
            self._last = now
            self.tell()
            self._pace.append((now, self._done))

    def tell(self) -> None:
        facts = {"doing": self._what, "done": self._done, "total": self._total, "seconds_left": self._seconds_left()}
        record("info", "progress", **facts, seconds=round(time.monotonic() - self._begun, 3))
        if self._note is not None:
            self._note.add(**facts, at=time.time())

    def _seconds_left(self) -> float | None:
        if self._done >= self._total:
            return 0.0
        if not self._pace:
            return None
        moment, done = self._pace[0]
        made = self._done - done
        return round((time.monotonic() - moment) * (self._total - self._done) / made, 1) if made > 0 else None
