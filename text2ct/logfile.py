"""``--log-file``: what a command says, as one JSON object a line, for machines that watch many commands."""

from __future__ import annotations

import json
import os
import re
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from text2ct.errors import UserError

# Processes that a command starts write under its name.
_RUN = "TEXT2CT_LOG_RUN"
_HIDDEN = "***"
_SECRET_NAMES = re.compile(r"(TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_KEY)$", re.IGNORECASE)
# A hub's token, and a password in an address.
_SECRETS = re.compile(r"\bhf_[A-Za-z0-9]{16,}|(?<=://)[^/\s\"@]+:[^/\s\"@]+(?=@)")
_SHORTEST_SECRET = 8

_current: LogFile | None = None


class LogFile:
    """A file that lines are appended to, each in one write, so that several processes may share it.

    Args:
        path: The file; it and its folder are made if absent.
        command: Which command says what follows.

    Raises:
        UserError: It cannot be opened.
    """

    def __init__(self, path: Path, command: str) -> None:
        self.error: str | None = None
        self._path, self._failed, self._cut = Path(path), False, False
        self._who = {"run": os.environ[_RUN], "pid": os.getpid(), "command": command}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        except OSError as error:
            raise UserError(f"cannot open the log {path}: {error.strerror}; choose another --log-file") from error

    def write(self, level: str, event: str, **facts: Any) -> None:
        """Append one line; a disk that is full costs the line and not the work, and is said once."""
        moment = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"ts": moment, "level": level, **self._who, "event": event, **facts}, default=str)
        data = (("\n" if self._cut else "") + without_secrets(line) + "\n").encode()
        try:
            written = os.write(self._file, data)
            if written < len(data):
                raise OSError(f"{written} of {len(data)} bytes were written")
            self._cut = False
        except OSError as error:
            self._cut = True  # perhaps in the middle of a line
            if not self._failed:
                self._failed = True
                print(f"warning: cannot write to the log {self._path}: {error}; going on without", file=sys.stderr)

    def close(self) -> None:
        """Write nothing more."""
        os.close(self._file)


def without_secrets(line: str) -> str:
    """A line of JSON with ``***`` for tokens, for passwords in addresses and for values of variables named so."""
    for name, value in os.environ.items():
        if _SECRET_NAMES.search(name) and len(value) >= _SHORTEST_SECRET:
            line = line.replace(json.dumps(value)[1:-1], _HIDDEN)
    return _SECRETS.sub(_HIDDEN, line)


def record(level: str, event: str, **facts: Any) -> None:
    """Append a line to the log of this command, if it keeps one."""
    if _current is None:
        return
    if level == "error":
        _current.error = facts.get("message")
    _current.write(level, event, **facts)


@contextmanager
def logging_to(path: Path | None, command: str) -> Iterator[None]:
    """Keep a log while the block runs: its start, what it says, and its end with the exit code.

    Args:
        path: Where; None keeps none.
        command: The command's name, as ``models pull``.

    Raises:
        UserError: The log cannot be opened.
    """
    global _current
    if path is None:
        yield
        return
    inherited = os.environ.get(_RUN)
    os.environ[_RUN] = inherited or uuid.uuid4().hex[:12]
    before, begun = _current, time.monotonic()
    code: object = 0
    try:
        _current = log = LogFile(path, command)
        log.write("info", "start", argv=sys.argv[1:])
        try:
            yield
        except BaseException as error:
            code = getattr(error, "exit_code", getattr(error, "code", None))  # of Typer, or of Python
            if code is None and not isinstance(error, SystemExit):  # a traceback follows
                code, log.error = 1, f"{type(error).__name__}: {error}"
            raise
        finally:
            ended = {"exit_code": code or 0, "seconds": round(time.monotonic() - begun, 3)}
            log.write("error" if code else "info", "end", **ended, **({"error": log.error} if code else {}))
            log.close()
    finally:
        _current = before
        if inherited is None:
            del os.environ[_RUN]
