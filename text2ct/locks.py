"""One command at a time in a folder: a lock that ends with its process, and a note of its holder and progress."""

from __future__ import annotations

import json
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from text2ct.errors import UserError
from text2ct.logfile import without_secrets

try:
    import fcntl
except ImportError:  # only Unix has it; elsewhere two commands at once are not told apart
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
# `text2ct status` holds a lock for an instant to see whether it is free: who wants it looks again.
_GLANCE_S = 0.5
_LOOK_S = 0.05
# How long a command waits for a file that others change in milliseconds.
_PATIENCE_S = 60.0
_COMMAND_LENGTH = 300


class Note:
    """What a lock file says: who holds it, since when, and the progress of the work.

    Args:
        stream: The lock file, held; it is written in place, since another file would be another lock.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        program = [Path(sys.argv[0]).name, *sys.argv[1:]]
        self._facts: dict[str, Any] = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            # Before it is cut, since half a secret is not known for one.
            "command": without_secrets(shlex.join(program))[:_COMMAND_LENGTH],
        }
        self.add()

    def add(self, **facts: Any) -> None:
        """Write these facts beside the others; a full disk costs the note and not the work."""
        self._facts |= facts
        line = without_secrets(json.dumps(self._facts)).encode() + b"\n"
        with suppress(OSError):
            os.pwrite(self._stream.fileno(), line, 0)
            os.ftruncate(self._stream.fileno(), len(line))


_held: list[Note] = []


def innermost() -> Note | None:
    """The note of the folder that this process began to work in last; None if it holds none."""
    return _held[-1] if _held else None


@contextmanager
def working_in(folder: Path, *, unless: bool = False, instead: str = "choose another --run") -> Iterator[None]:
    """Keep other commands out of ``folder`` while the block runs.

    The folder is made if need be, and removed again if nothing came into it. A process that is killed leaves the
    file ``.lock``, which holds nobody up: what counts is the system's lock on it, which ends with the process.

    Args:
        folder: A run's folder.
        unless: Hold nothing: a dry run, or a process that only computes for the one that holds it.
        instead: What the user may do beside waiting.

    Raises:
        UserError: Another command works there, or the folder cannot be made.
    """
    folder = Path(folder)
    if unless:
        yield
        return
    new = not folder.exists()
    try:
        with _locked(folder / LOCK, _GLANCE_S) as stream:
            if stream is None:
                who = _who(folder)
                raise UserError(f"another text2ct command{who} is working in {folder}; wait for it, or {instead}")
            _held.append(Note(stream))
            try:
                yield
            finally:
                _held.pop()
    finally:
        if new:
            with suppress(OSError):
                folder.rmdir()  # only if it is empty


@contextmanager
def changing(path: Path) -> Iterator[None]:
    """Hold a file that several commands read, change and write, each for an instant; whoever comes second waits.

    Raises:
        UserError: It is not let go.
    """
    with _locked(path.with_name(f".{path.name}{LOCK}"), _PATIENCE_S) as stream:
        if stream is None:
            raise UserError(f"another command has been changing {path} for {_PATIENCE_S:.0f} s; see whether it hangs")
        yield


def holder(folder: Path) -> tuple[bool, dict[str, Any]]:
    """Whether a command works in ``folder`` now, and the note of the one that does or that was killed there."""
    try:
        stream = (folder / LOCK).open("rb")
    except OSError:
        return False, {}
    with stream:
        try:
            note = json.loads(stream.read())
        except ValueError:  # being written, or by a machine that fell over
            note = {}
        return _is_held(stream), _understood(note) if isinstance(note, dict) else {}


def _understood(note: dict[str, Any]) -> dict[str, Any]:
    """What of a note is as `Note` writes it: any file may have this name."""
    numbers, words = ("pid", "done", "total", "seconds_left", "at"), ("host", "since", "command", "doing")
    known = {key: note[key] for key in numbers if isinstance(note.get(key), int | float)}
    known |= {key: note[key] for key in words if isinstance(note.get(key), str)}
    try:
        datetime.fromisoformat(known.get("since", ""))
    except ValueError:
        known.pop("since", None)
    # Progress is told whole or not at all.
    for together in (("done", "total"), ("seconds_left", "at")):
        if not set(together) <= known.keys():
            known = {key: value for key, value in known.items() if key not in together}
    return known


def _is_held(stream: IO[bytes]) -> bool:
    if fcntl is None:
        return False
    try:
        fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def _who(folder: Path) -> str:
    _, note = holder(folder)
    if not {"pid", "host", "since", "command"} <= note.keys():
        return ""
    return f" (pid {note['pid']} on {note['host']}, since {note['since']}, `{note['command']}`)"


@contextmanager
def alone_with(path: Path) -> Iterator[bool]:
    """Make ``path`` if need be, and say whether no other process is in such a block with it."""
    if fcntl is None:
        yield True
        return
    with path.open("ab") as stream:
        yield _take(stream, path)


@contextmanager
def _locked(path: Path, patience_s: float) -> Iterator[IO[bytes] | None]:
    """The lock file, held and then removed; None if another process keeps it for longer than ``patience_s``."""
    until = time.monotonic() + patience_s
    while True:
        stream = _opened(path)
        if stream is not None:
            with stream:
                if _take(stream, path):
                    try:
                        yield stream
                    finally:
                        path.unlink(missing_ok=True)
                    return
        if time.monotonic() >= until:
            break
        time.sleep(_LOOK_S)
    yield None


def _opened(path: Path) -> IO[bytes] | None:
    """The lock file, made if need be; None if another command removes the folder, empty, at this very moment.

    Raises:
        UserError: It cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Neither truncated nor appended to: the note in it is its holder's.
        return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)
    except FileNotFoundError:
        return None
    except FileExistsError as error:
        raise UserError(f"{path.parent} is a file; choose another folder") from error
    except OSError as error:
        raise UserError(f"cannot write in {path.parent}: {error.strerror}; choose another folder") from error


def _take(stream: IO[bytes], path: Path) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks: two commands at once are not told apart there
    # The one that held it may have removed it in between: this file is then nobody's lock.
    try:
        return path.stat().st_ino == os.fstat(stream.fileno()).st_ino
    except FileNotFoundError:
        return False
