"""Text headers of MetaImage and NRRD, looked at before ITK does: some of them crash it, and some hang it.

Seen with ITK 5.4: a NRRD field or number of thousands of letters overruns a buffer; 65,536 dimensions, and a
file name with ``%`` in it, which MetaImage takes for a pattern, end the process; a direction of 1e308 is inverted for
ever.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

# A header of a chest CT is a few hundred bytes; scanners' private fields make it longer.
_MOST_BYTES = 2**20
# Letters of a field; ITK's buffers for those of NRRD hold 512. Free text may be longer.
_LONGEST_FIELD, _LONGEST_TEXT = 500, 4000
_LONGEST_NUMBER, _LARGEST_NUMBER, _MOST_DIMENSIONS = 64, 1e12, 8
_DATA_FILE = re.compile(rb"^\s*(?:ElementDataFile\s*=|data ?file\s*:)(.*)$", re.IGNORECASE)
_DIMENSIONS = re.compile(rb"^\s*(?:NDims\s*=|dimension\s*:)(.*)$", re.IGNORECASE)
_NUMBER = re.compile(rb"[-+]?[\d.][\w.+-]*|[-+]?inf\w*", re.IGNORECASE)


def check_header(path: Path) -> None:
    """Refuse what no volume's header says.

    Raises:
        ValueError: The header has no end, a line that is too long, too many dimensions, a number out of all proportion,
            or voxels in another folder or in several files.
    """
    for line in _fields(path):
        for number in _NUMBER.findall(line):
            if len(number) > _LONGEST_NUMBER or not _is_plausible(number):
                raise ValueError(f"its header holds the number {_shown(number)}, which is impossible there")
        if (found := _DIMENSIONS.match(line)) and not 1 <= _whole(found[1]) <= _MOST_DIMENSIONS:
            raise ValueError(f"its header says {_shown(found[1])} dimensions; expected 3")
        if found := _DATA_FILE.match(line):
            name = found[1].strip().decode("latin-1")
            if name != Path(name).name or "%" in name or "\\" in name or name.upper().startswith("LIST"):
                raise ValueError(f"its header names {_shown(found[1])} for its voxels; expected one file beside it")


def _fields(path: Path) -> list[bytes]:
    """The lines of the header that are fields and no free text, without what follows them."""
    with path.open("rb") as stream:
        content = stream.read(_MOST_BYTES)
    is_nrrd = content[:4] == b"NRRD"
    lines: list[bytes] = []
    for line in content.split(b"\n"):
        line = line.rstrip(b"\r")
        if is_nrrd and not line:
            return lines
        text = is_nrrd and (line.startswith(b"#") or b":=" in line)
        if len(line) > (_LONGEST_TEXT if text else _LONGEST_FIELD):
            raise ValueError("its header has no end, or a line of more letters than any has")
        if not text:
            lines.append(line)
        if not is_nrrd and _DATA_FILE.match(line):
            return lines
    # A detached NRRD header ends with its file.
    if is_nrrd and len(content) < _MOST_BYTES:
        return lines
    raise ValueError("its header has no end")


def _is_plausible(number: bytes) -> bool:
    try:
        value = float(number)
    except ValueError:
        return True  # a word, such as a date or an identifier
    return math.isfinite(value) and abs(value) <= _LARGEST_NUMBER


def _whole(text: bytes) -> int:
    try:
        return int(text)
    except ValueError:
        return 0


def _shown(text: bytes) -> str:
    return f"'{text[:40].decode('latin-1').strip()}'"
