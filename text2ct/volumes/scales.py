"""What a metadata table says of volumes, for files whose headers do not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Scale:
    """What a metadata table says of one volume; None where it is silent.

    Args:
        slope: ``RescaleSlope``.
        intercept: ``RescaleIntercept`` in HU.
        spacing_mm: Voxel sizes along x, y, z.
        size: Voxels along x, y, z.
    """

    slope: float | None = None
    intercept: float | None = None
    spacing_mm: tuple[float, float, float] | None = None
    size: tuple[int, int, int] | None = None


def read_scales(metadata: Path | str | pd.DataFrame) -> dict[str, Scale]:
    """The statements of CT-RATE's metadata CSV, or of what `text2ct.manifests.read_metadata` makes of it.

    Returns:
        By the volume's name without extension.
    """
    import pandas as pd

    from text2ct.manifests import read_metadata

    table = metadata if isinstance(metadata, pd.DataFrame) else read_metadata(metadata)
    scales = {}
    for name, row in zip(table.index, table.to_dict("records"), strict=True):
        slope, intercept = (None if pd.isna(row[key]) else float(row[key]) for key in ("slope", "intercept"))
        x, y, z = (float(row[f"spacing_{axis}"]) for axis in "xyz")
        # A table of the caller's own may have no sizes.
        nx, ny, nz = (float(row.get(f"size_{axis}", math.nan)) for axis in "xyz")
        scales[str(name)] = Scale(
            slope,
            intercept,
            (x, y, z) if math.isfinite(x + y + z) and x and y and z else None,
            (int(nx), int(ny), int(nz)) if math.isfinite(nx + ny + nz) else None,
        )
    return scales
