"""The two sets that are compared: rows with volumes, brought to one grid, and who belongs to whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from text2ct.augment.leaks import report_prompt
from text2ct.classifiers.cache import CachedVolumes, VolumeCache
from text2ct.classifiers.dataset import make_table, on_grid
from text2ct.engines import LOCAL, Engine
from text2ct.errors import UserError, first_of
from text2ct.findings import FINDINGS
from text2ct.manifests import Workspace, by_scan

# Tissue of any kind: a volume that reaches it nowhere holds no patient.
_TISSUE_HU = -500
_SCAN = ["dataset", "scan"]


@dataclass(frozen=True, eq=False)
class MeasuredSet:
    """Rows of a manifest whose volumes are on the common grid.

    Attributes:
        rows: Manifest rows.
        volumes: Their volumes, in the same order.
    """

    rows: pd.DataFrame
    volumes: CachedVolumes

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def labels(self) -> NDArray[np.float64]:
        """(n, 18) 1, 0 or NaN."""
        return self.rows[list(FINDINGS)].to_numpy(dtype=np.float64)

    @property
    def groups(self) -> NDArray[np.intp]:
        """(n,) codes of what is not independent: volumes of one prompt, or else of one patient."""
        prompts = self.rows["prompt"] if "prompt" in self.rows else pd.Series("", index=self.rows.index)
        patients = self.rows["dataset"].astype(str) + "/" + self.rows["patient"].astype(str)
        return pd.factorize(prompts.where(prompts != "", patients))[0].astype(np.intp)

    @property
    def texts(self) -> list[str]:
        """Each row's prompt, or its report where it has none."""
        return self.texts_of(self.rows)

    @staticmethod
    def texts_of(rows: pd.DataFrame) -> list[str]:
        """:attr:`texts` of rows whose volumes are not read yet."""
        prompts = rows["prompt"] if "prompt" in rows else pd.Series("", index=rows.index)
        reports = map(report_prompt, rows["findings_text"], rows["impression_text"])
        return [prompt or report for prompt, report in zip(prompts, reports, strict=True)]


def real_rows(frame: pd.DataFrame, split: str) -> pd.DataFrame:
    """Of each scan of a split the first reconstruction, with the labels that any of them has.

    Raises:
        UserError: There is none with a file, or one alone.
    """
    rows = frame[(frame["split"] == split) & (frame["path"] != "") & (frame["source"] != "synthetic")]
    if rows.empty:
        raise UserError(f"the real manifest has no {split} volumes with files")
    return _enough(by_scan(rows)[0], "real")


def synthetic_rows(frame: pd.DataFrame, *, rejected: bool = False) -> pd.DataFrame:
    """The synthetic rows with files.

    Args:
        frame: Synthetic manifest.
        rejected: Keep what a gate rejected.

    Raises:
        UserError: As :func:`real_rows`.
    """
    gate = frame["gate"] if "gate" in frame else pd.Series("", index=frame.index)
    passed = rejected | ~gate.str.startswith("reject")
    rows = frame[(frame["source"] == "synthetic") & (frame["path"] != "") & passed]
    if rows.empty:
        raise UserError("the synthetic manifest has no synthetic volumes with files; run `text2ct synthesize`")
    return _enough(rows, "synthetic")


def _enough(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    if len(rows) < 2:
        raise UserError(f"one {name} volume is no set to compare; give 2 or more")
    return rows.reset_index(drop=True)


def measured(
    rows: pd.DataFrame,
    workspace: Workspace,
    cache: VolumeCache,
    name: str,
    engine: Engine = LOCAL,
    quarantine: list[str] | None = None,
) -> MeasuredSet:
    """Bring the volumes of rows to the common grid.

    Args:
        rows: Of :func:`real_rows` or :func:`synthetic_rows`.
        workspace: Resolves roots.
        cache: Of the common grid.
        name: What messages call them.
        engine: Where they are brought there.
        quarantine: Takes the volumes that cannot be read, with their reasons, and these rows are left out; None: they
            are an error.

    Raises:
        UserError: A volume cannot be read, or fewer than 2 of several are left; or one holds nothing but air: what a
            generator makes counts, so such a volume is never left out in silence.
    """
    if quarantine is None:
        volumes = CachedVolumes(make_table(rows, workspace, cache, name, engine).entries)
    else:
        rows, entries, problems = on_grid(rows, workspace, cache, name, engine)
        volumes = CachedVolumes(entries)
        quarantine += problems
        if len(rows) < min(2, len(rows) + len(problems)):
            raise UserError(f"{len(problems)} {name} volumes cannot be read, and too few are left", first_of(problems))
        rows = rows.reset_index(drop=True)
    empty = [str(rows["volume"][i]) for i in range(len(rows)) if volumes[i].max() < _TISSUE_HU]
    if empty:
        raise UserError(
            f"{len(empty)} {name} volumes hold nothing but air on the common grid; leave their rows out",
            first_of(empty),
        )
    return MeasuredSet(rows, volumes)


def pairs(frame: pd.DataFrame, real: MeasuredSet, synthetic: MeasuredSet) -> NDArray[np.intp]:
    """Which real volume each synthetic one was asked to resemble.

    Args:
        frame: The real manifest, whose every reconstruction may be a prompt's.
        real: One reconstruction of each scan.
        synthetic: Generated volumes.

    Returns:
        (k, 2) rows of ``synthetic`` and of ``real``: those whose prompt came from a scan of ``real``.
    """
    scans = {key: number for number, key in enumerate(real.rows[_SCAN].itertuples(index=False, name=None))}
    place: dict[tuple[Any, Any], int] = dict(scans)
    for row in frame[[*_SCAN, "volume"]].itertuples(index=False):
        if (row.dataset, row.scan) in scans:
            place[row.dataset, row.volume] = scans[row.dataset, row.scan]
    found = []
    columns = ["prompt_dataset", "prompt_volume"]
    if not set(columns) <= set(synthetic.rows.columns):
        return np.zeros((0, 2), dtype=np.intp)
    for number, key in enumerate(synthetic.rows[columns].itertuples(index=False, name=None)):
        if key in place:
            found.append((number, place[key]))
    return np.array(found, dtype=np.intp).reshape(-1, 2)
