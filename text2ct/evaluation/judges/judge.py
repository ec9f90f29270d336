"""What every judge is: something that reads the 18 findings from volumes, and how well it does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from text2ct.diffusion.training.cases import Cases
from text2ct.errors import UserError
from text2ct.files import read_json
from text2ct.findings import FINDINGS

VolumesHu = Sequence[NDArray[np.generic]]
JUDGE_FILE = "judge.json"


class Judge(Protocol):
    """Reads findings from volumes.

    Attributes:
        name: What tables call it.
        size: Voxels along (x, y, z) of the volumes that it reads.
    """

    name: str
    size: tuple[int, int, int]

    def scores(self, volumes_hu: VolumesHu) -> NDArray[np.float32]:
        """Probability of each finding.

        Args:
            volumes_hu: Volumes (X, Y, Z) in HU, of the judge's grid.

        Returns:
            (n, 18) float32 in [0, 1], in the order of ``FINDINGS``.

        Raises:
            UserError: A volume of another grid, or with voxels that are not finite.
        """
        ...

    def save(self, folder: Path) -> None:
        """Write the judge into ``folder``; the class's ``load`` gives one with the same scores."""
        ...


def aucs(scores: NDArray[np.floating], labels: NDArray[np.floating]) -> dict[str, float]:
    """AUC of each finding that has both classes among its known labels.

    Args:
        scores: (n, 18).
        labels: (n, 18), NaN where unknown.
    """
    found = {}
    for column, name in enumerate(FINDINGS):
        known = ~np.isnan(labels[:, column])
        truth = labels[known, column]
        if 0 < truth.sum() < len(truth):
            found[name] = round(float(roc_auc_score(truth, scores[known, column])), 3)
    return found


def macro(aucs_by_finding: dict[str, float]) -> float | None:
    """Mean over findings; None where none could be computed."""
    return round(float(np.mean(list(aucs_by_finding.values()))), 3) if aucs_by_finding else None


def check_volumes(volumes_hu: VolumesHu, size: tuple[int, int, int]) -> None:
    """Refuse volumes that a judge cannot read.

    Raises:
        UserError: All problems, one line each.
    """
    problems = []
    for number, volume in enumerate(volumes_hu):
        if volume.shape != size:
            problems.append(f"volume {number} has the grid {'x'.join(map(str, volume.shape))}")
        elif not np.isfinite(volume).all():
            problems.append(f"volume {number} has voxels that are NaN or infinite")
    if problems:
        raise UserError(f"the judge reads finite volumes of {'x'.join(map(str, size))} voxels", problems)


def check_cases(cases: Cases, multiple: int) -> None:
    """Refuse cases that a judge cannot learn from.

    Args:
        cases: Training cases.
        multiple: What each axis of their grid must be a multiple of; at least 16 voxels in any case.

    Raises:
        UserError: All problems, one line each.
    """
    problems = []
    unknown = np.isnan(cases.labels)
    if unknown.any():
        first = int(np.flatnonzero(unknown.any(axis=1))[0])
        problems.append(
            f"{int(unknown.any(axis=1).sum())} cases have unknown labels, the first is {cases.texts[first].id} "
            f"('{FINDINGS[int(np.flatnonzero(unknown[first])[0])]}'); a judge learns from known ones only"
        )
    if any(n % multiple or n < 16 for n in cases.size):
        problems.append(
            f"their grid is {'x'.join(map(str, cases.size))}; each axis must be a multiple of {multiple} from 16 on"
        )
    if problems:
        raise UserError(f"{cases.folder} cannot train a judge", problems)


def origin(cases: Cases) -> dict[str, Any]:
    """What a judge was trained on, so that nobody lets it judge a pack of the same patients."""
    kept: dict[str, Any] = {
        name: cases.info[name]
        for name in ("kind", "first", "count", "spacing_mm", "cohort_version")
        if name in cases.info
    }
    return {"digest": cases.digest, **kept}


def read_judge_file(folder: Path, kind: str) -> dict[str, Any]:
    """The record of a saved judge.

    Raises:
        UserError: There is none, or it is of another kind.
    """
    path = Path(folder) / JUDGE_FILE
    if not path.is_file():
        raise UserError(f"{folder} holds no judge: it has no {JUDGE_FILE}; train one first")
    record: dict[str, Any] = read_json(path)
    if record.get("kind") != kind:
        raise UserError(f"{path} is of a judge of kind '{record.get('kind')}', not '{kind}'")
    return record
