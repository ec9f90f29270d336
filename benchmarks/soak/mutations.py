"""Valid files broken in one way of many; a number decides which, so that a failure can be made again."""

from __future__ import annotations

import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Callable
from typing import Literal

import numpy as np

Kind = Literal["binary", "text", "gzip", "zip"]
_EXTREMES = [
    value.to_bytes(width, order, signed=True)
    for width in (1, 2, 4, 8)
    for order in ("little", "big")
    for value in (0, 1, -1, 2 ** (8 * width - 1) - 1, -(2 ** (8 * width - 1)), 2 ** (8 * width - 2))
] + [np.array(value, kind).tobytes() for kind in ("<f4", ">f4", "<f8") for value in (np.nan, np.inf, 1e30, -1, 1e-30)]
_NUMBERS = (
    "0", "-1", "1e308", "-1e308", "nan", "inf", "NaN", "4294967296", "99999999999", "9" * 30, "9" * 5000, "0x10", "1.5",
    "1e-320", "100000", "65536", "16777216", "true", '""', "null", "[]", "{}",
)  # fmt: skip
_WORDS = (
    "=cmd|' /C touch CANARY'!A0", "@SUM(1)", "<script>alert(1)</script>", "<img src=x onerror=alert(1)>",
    "../../../../etc/passwd", "/etc/passwd", "C:\\Windows\\win.ini", "\\\\host\\share", "..", "~/.bashrc",
    "$(touch CANARY)",
    "\0", "\ufeff", '"', "'", ",", "\n", "\r", ";", "\t", "🫁", "\u202e", "[" * 100_000, "{" * 3_000, "(" * 500,
    "!!python/object/apply:os.system ['touch CANARY']", "__import__('os').system('touch CANARY')", "a" * 100_000,
    "%s%s%n", "{{7*7}}", "{0.__class__}", "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
)  # fmt: skip
_HEADER = 400


def mutate(data: bytes, kind: Kind, rng: np.random.Generator) -> bytes:
    """One to three changes."""
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        data = _once(data, kind, rng)
    return data


def _once(data: bytes, kind: Kind, rng: np.random.Generator) -> bytes:
    if kind == "gzip" and rng.random() < 0.75:
        return _within_gzip(data, rng)
    if kind == "zip" and rng.random() < 0.75:
        return _within_zip(data, rng)
    ways: list[Callable[[bytes, np.random.Generator], bytes]] = [_flip, _cut, _insert, _delete, _repeat, _extreme]
    if kind == "text":
        ways = [_number, _number, _word, _word, *ways[:5]]
    elif kind == "binary":
        ways += [_extreme, _extreme, _number]
    return ways[int(rng.integers(len(ways)))](data, rng)


def _place(data: bytes, rng: np.random.Generator) -> int:
    """Anywhere, more often in the header."""
    end = min(len(data), _HEADER) if rng.random() < 0.7 else len(data)
    return int(rng.integers(max(1, end)))


def _flip(data: bytes, rng: np.random.Generator) -> bytes:
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 17)) if out else 0):
        out[_place(data, rng)] ^= 1 << int(rng.integers(8))
    return bytes(out)


def _cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(len(data) + 1))]


def _insert(data: bytes, rng: np.random.Generator) -> bytes:
    at = _place(data, rng)
    return data[:at] + rng.bytes(int(rng.integers(1, 200))) + data[at:]


def _delete(data: bytes, rng: np.random.Generator) -> bytes:
    at = _place(data, rng)
    return data[:at] + data[at + int(rng.integers(1, 200)) :]


def _repeat(data: bytes, rng: np.random.Generator) -> bytes:
    at, n = _place(data, rng), int(rng.integers(1, 2000))
    return data[:at] + data[at : at + n] * int(rng.integers(2, 6)) + data[at + n :]


def _extreme(data: bytes, rng: np.random.Generator) -> bytes:
    value = _EXTREMES[int(rng.integers(len(_EXTREMES)))]
    at = _place(data, rng) // len(value) * len(value)
    return data[:at] + value + data[at + len(value) :]


def _number(data: bytes, rng: np.random.Generator) -> bytes:
    """A number in a text, or in a header that is one, becomes another."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?", data[:100_000]))
    if not found:
        return _insert(data, rng)
    one = found[int(rng.integers(len(found)))]
    return data[: one.start()] + _NUMBERS[int(rng.integers(len(_NUMBERS)))].encode() + data[one.end() :]


def _word(data: bytes, rng: np.random.Generator) -> bytes:
    word = _WORDS[int(rng.integers(len(_WORDS)))].encode("utf-8", "replace")
    at = int(rng.integers(len(data) + 1))
    return data[:at] + word + data[at + (len(word) if rng.random() < 0.3 else 0) :]


def _within_gzip(data: bytes, rng: np.random.Generator) -> bytes:
    """The content changed and packed again: its checksum is right."""
    try:
        content = gzip.decompress(data)
    except (OSError, EOFError, zlib.error):
        return _flip(data, rng)
    if rng.random() < 0.1:
        return gzip.compress(data, 1, mtime=0)  # twice
    if rng.random() < 0.1:
        return data + gzip.compress(content, 1, mtime=0)  # and once more behind
    return gzip.compress(_once(content, "binary", rng), 1, mtime=0)


def _within_zip(data: bytes, rng: np.random.Generator) -> bytes:
    """One member changed, renamed or added, and all packed again."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(one.filename, archive.read(one)) for one in archive.infolist()]
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, zlib.error, ValueError, EOFError):
        return _flip(data, rng)
    if not members:
        return _insert(data, rng)
    at = int(rng.integers(len(members)))
    name, content = members[at]
    if rng.random() < 0.15:
        names = (
            "../outside.nii.gz",
            "/tmp/outside.nii.gz",
            "a/../../outside.mha",
            "..\\outside.mha",
            "ct.npy",
            "x" * 300,
        )
        members[at] = (names[int(rng.integers(len(names)))], content)
    else:
        members[at] = (name, _once(content, "gzip" if name.endswith(".gz") else "binary", rng))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED if rng.random() < 0.5 else zipfile.ZIP_STORED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return out.getvalue()
