"""Reading the CSV files that people have: separators, byte-order marks, and clear words when it fails."""

from __future__ import annotations

import codecs
import csv
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path

import pandas as pd

from text2ct.errors import UserError, first_of

MAX_PROBLEMS = 100
"""Problems listed of one file; beyond that a person wants the number, not the list."""


_HEAD_BYTES = 1 << 16
# Python itself refuses to read such a number, from anywhere that a cell goes.
_NO_NUMBER = re.compile(r"\d{1000}")


def existing(path: Path) -> Path:
    """``path`` if it exists.

    Raises:
        UserError: It does not; a neighbour with a similar name is suggested.
    """
    path = Path(path).expanduser()
    if path.exists():
        return path
    neighbours = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    close = get_close_matches(path.name, neighbours, n=1)
    hint = f"; did you mean {path.parent / close[0]}?" if close else "; check the path"
    raise UserError(f"{path} does not exist{hint}")


def read_text(path: Path, limit: int = -1) -> str:
    r"""The text of a UTF-8 file, without its byte-order mark and with ``\n`` at the end of lines.

    Args:
        path: The file.
        limit: Bytes to read from the beginning; by default all of them.

    Raises:
        UserError: The path is absent, a folder, empty, unreadable, or not UTF-8 text.
    """
    path = existing(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder; expected a file")
    data = _bytes(path, limit)
    try:
        # A beginning may end inside a letter, which then is left out.
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(data, final=limit < 0)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path} is not UTF-8 text (line {line}, byte 0x{data[error.start]:02x}); save it as 'CSV UTF-8'"
        ) from error
    if not text.strip():
        raise UserError(f"{path} is empty; expected a table with a header line")
    if "\0" in text:
        raise UserError(f"{path} holds zero bytes and is no text file; save it as 'CSV UTF-8'")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _bytes(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(limit)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def header(path: Path) -> list[str]:
    """Column names of a CSV file, of which only the beginning is read.

    Raises:
        UserError: As :func:`read_text`; an odd byte further down is found when the table is read.
    """
    return [name.strip() for name in next(_rows(path, read_text(path, _HEAD_BYTES).lstrip()))]


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV file with every cell as the text that stands in it (empty cells are ``""``).

    Comma, semicolon and tab separators, Windows line ends and a byte-order mark are understood.

    Raises:
        UserError: The file is absent, a folder, empty, without rows, not UTF-8 or not a table.
    """
    text = read_text(path)
    if number := _NO_NUMBER.search(text):
        row = text.count("\n", 0, number.start()) + 1
        raise UserError(f"{path} holds a number of more than a thousand digits (line {row}); mend or remove it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(
                io.StringIO(text),
                sep=_separator(text),
                dtype="str",
                keep_default_na=False,
                index_col=False,
                skip_blank_lines=True,
            )
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError, ValueError) as error:
        raise _no_table(path, error) from error
    frame.columns = frame.columns.str.strip()
    if frame.empty:
        raise UserError(f"{path} has a header and no rows")
    # The parser fills a row that ends too early with empty cells; only such rows are worth a second reading.
    if (frame.iloc[:, -1] == "").any():
        rows = list(_rows(path, text))
        short = [number for number, row in enumerate(rows, start=1) if len(row) < len(rows[0])]
        if short:
            listed = [f"row {number}: fewer cells than the header has columns" for number in short]
            raise_problems(f"{path} has cut-off rows; is the file complete?", listed)
    return frame


def _rows(path: Path, text: str) -> Iterator[list[str]]:
    """The rows of a CSV text as lists of cells, without blank lines."""
    try:
        yield from filter(None, csv.reader(io.StringIO(text), delimiter=_separator(text)))
    except csv.Error as error:
        raise _no_table(path, error) from error


def _no_table(path: Path, error: Exception) -> UserError:
    reason = str(error).replace("Error tokenizing data. C error: ", "").strip()
    return UserError(f"{path} is not a table: {reason}; check its separators and quotation marks")


def raise_problems(message: str, problems: Sequence[str]) -> None:
    """Raise one :class:`UserError` for all ``problems``, of a long list the first hundred and a count."""
    raise UserError(message, first_of(problems, MAX_PROBLEMS))


def _separator(text: str) -> str:
    line = text.lstrip().split("\n", 1)[0]
    return max(",;\t", key=line.count)
