"""Cases from a manifest: a user's own volumes and reports on a pack's grid."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from text2ct import console
from text2ct.diffusion.training.cases import DETAILS, Cases, CaseText, Size, Spacing, write_cases
from text2ct.errors import UserError
from text2ct.findings import FINDINGS

if TYPE_CHECKING:
    import pandas as pd

    from text2ct.manifests import Workspace
    from text2ct.volumes.grid import Fit


def usable_rows(frame: pd.DataFrame, splits: tuple[str, ...] = ("train",)) -> pd.DataFrame:
    """The rows of ``splits`` that have a file and a report.

    Raises:
        UserError: There is none.
    """
    with_file = frame["path"].ne("") & frame["split"].isin(splits)
    with_text = frame["findings_text"].ne("") | frame["impression_text"].ne("")
    rows = frame[with_file & with_text]
    if rows.empty:
        raise UserError(f"no row of the manifest is in {', '.join(splits)} and has both a volume and a report")
    return rows


def cache_manifest(
    folder: Path,
    frame: pd.DataFrame,
    workspace: Workspace,
    *,
    size: Size,
    spacing_mm: Spacing,
    fit: Fit = "crop-pad",
    splits: tuple[str, ...] = ("train",),
) -> Cases:
    """Read the volumes of a manifest, put them on a grid and write them as cases; goes on where it was stopped.

    Only rows of ``splits`` that have a file and a report are used: patients of other splits judge later.

    Args:
        folder: Where the cases go.
        frame: A manifest.
        workspace: Resolves roots to folders.
        size: Voxels along (x, y, z).
        spacing_mm: Spacing along (x, y, z); for ``resize``, the spacing before it.
        fit: ``crop-pad`` or ``resize``, as for :func:`text2ct.volumes.to_grid`.
        splits: Which splits to use.

    Raises:
        UserError: No row qualifies, or no volume can be read; some that cannot are quarantined.
    """
    rows = usable_rows(frame, splits)
    left_out = int((frame["split"].isin(splits)).sum()) - len(rows)
    if left_out:
        console.warn(f"{left_out} rows of the manifest have no volume or no report and are not used")

    records = rows.to_dict("records")

    def read(number: int) -> tuple[NDArray[np.int16], CaseText]:
        from text2ct import volumes

        row = records[number]
        try:
            volume = volumes.read(workspace.resolve(str(row["root"]), str(row["path"])))
        except OSError as error:
            raise UserError(f"{row['path']}: {error.strerror or error}") from error
        on_grid = volumes.to_grid(volume, size, spacing_mm, fit=fit)
        hu = np.clip(np.rint(on_grid.hu), -1000, 1000).astype(np.int16)
        labels = np.array([row[finding] for finding in FINDINGS], dtype=np.float32)
        details = np.full((len(FINDINGS), len(DETAILS)), np.nan, dtype=np.float32)
        text = CaseText(str(row["volume"]), str(row["findings_text"]), str(row["impression_text"]), labels, details)
        return hu, text

    return write_cases(folder, read, len(records), size=size, spacing_mm=spacing_mm, source="manifest")
