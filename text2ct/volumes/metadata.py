"""The metadata table of CT-RATE: how the voxels of each volume were scaled, and their true spacing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from text2ct.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

_EXTENSIONS = re.compile(r"(\.nii\.gz|\.nii|\.mha|\.mhd|\.nrrd|\.nhdr)$", re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?\d*\.?\d+(?:[eE][-+]?\d+)?")


@dataclass(frozen=True)
class Scale:
    """One volume's row; None where the table is silent.

    Args:
        slope: ``RescaleSlope``.
        intercept: ``RescaleIntercept`` in HU.
        spacing_mm: (x, y, z) from ``XYSpacing`` (rows, columns) and ``ZSpacing``.
    """

    slope: float | None = None
    intercept: float | None = None
    spacing_mm: tuple[float, float, float] | None = None


def stem(name: str) -> str:
    """A volume's name without folder and extension: the key that tables and files share."""
    return _EXTENSIONS.sub("", Path(name).name)


def read_metadata(table: Path | str | pd.DataFrame) -> dict[str, Scale]:
    """Read ``VolumeName, RescaleSlope, RescaleIntercept, XYSpacing, ZSpacing``; by volume stem.

    Raises:
        UserError: The file is absent, is no CSV, or has no ``VolumeName`` or no scale column.
    """
    import pandas as pd

    if isinstance(table, pd.DataFrame):
        frame, origin = table, "the metadata table"
    else:
        origin = str(table)
        try:
            frame = pd.read_csv(table)
        except FileNotFoundError as error:
            raise UserError(f"{table} does not exist") from error
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
            raise UserError(f"{table} is not a CSV table: {error}") from error
    missing = [name for name in ("VolumeName", "RescaleSlope", "RescaleIntercept") if name not in frame]
    if missing:
        raise UserError(f"{origin} lacks the column(s) {', '.join(missing)} of CT-RATE's metadata")
    return {stem(str(row["VolumeName"])): _scale(row) for row in frame.to_dict("records")}


def _scale(row: dict[Any, Any]) -> Scale:
    slope, intercept, z = (_number(row.get(key)) for key in ("RescaleSlope", "RescaleIntercept", "ZSpacing"))
    in_plane = [float(text) for text in _NUMBER.findall(str(row.get("XYSpacing", "")))]
    spacing = (in_plane[1], in_plane[0], z) if len(in_plane) == 2 and z else None
    return Scale(slope, intercept, spacing)


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return None if number != number else number
