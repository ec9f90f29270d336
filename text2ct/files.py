"""Files that are either whole or absent: atomic writes, checksums, JSON."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from text2ct.errors import UserError
from text2ct.locks import alone_with


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that replaces it when the block ends without error.

    A reader never sees a half-written file, and a killed process leaves at most a hidden
    ``.partial`` file behind, which the next write to the same path overwrites. The suffixes of
    ``path`` are kept, since writers choose a format by them. Several processes may write one path at
    once, as happens in a cache: each writes a file of its own, and the last one stays.

    Raises:
        UserError: The folder cannot be written or the disk is full.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _partial(path) as temporary:
            yield temporary
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            temporary.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"cannot write {path}: {reason}; free some space or choose another folder") from error


@contextmanager
def _partial(path: Path) -> Iterator[Path]:
    """The file that becomes ``path``; it goes when the block fails."""
    temporary = path.with_name(f".partial-{path.name}")
    with alone_with(temporary) as alone:
        if not alone:
            temporary = path.with_name(f".partial-{uuid.uuid4().hex[:8]}-{path.name}")
        try:
            yield temporary
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically; NaN is refused, since JSON has none."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: The file is absent or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except RecursionError as error:
        raise UserError(f"{path} is not JSON that can be read: it is nested too deeply") from error
    except ValueError as error:  # no JSON, no UTF-8, or a number of thousands of digits
        raise UserError(f"{path} is not valid JSON: {error}") from error


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
