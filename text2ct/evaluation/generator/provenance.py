"""Who made a synthetic set, and whom its makers have learnt from: as the packs beside the volumes say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from text2ct.augment._refusals import known_to_makers, pack_folder, trained_on
from text2ct.evaluation.generator.scorers import Scorer
from text2ct.files import read_json
from text2ct.manifests import Workspace

_CLIP_WEIGHTS = "clip/model.safetensors"


def makers(made: pd.DataFrame) -> list[dict[str, Any]]:
    """Packs and settings that made the set, and of how many volumes each."""
    columns = [name for name in ("pack", "pack_sha256", "guidance_scale", "steps") if name in made]
    counts = (
        made[columns].astype(object).fillna("").astype(str).value_counts(sort=False)
        if columns
        else pd.Series(dtype=int)
    )
    keys: list[Any] = counts.index.tolist()
    return [
        dict(zip(columns, key, strict=True)) | {"volumes": int(n)}
        for key, n in zip(keys, counts.to_numpy(), strict=True)
    ]


def conditioned_by(made: pd.DataFrame, scorer: Scorer, workspace: Workspace) -> bool | None:
    """Whether this 3D CLIP conditioned any of these rows; None where their packs are not at hand."""
    digests = set()
    for digest, rows in made.groupby("pack_sha256" if "pack_sha256" in made else "source", sort=True):
        folder = pack_folder(rows, str(digest), workspace) if "pack_sha256" in made else None
        record = {} if folder is None else read_json(folder / "pack.json")
        digests.add(record.get("files", {}).get(_CLIP_WEIGHTS))
    return True if scorer.weights in digests - {None} else None if None in digests else False


def of_unknown_makers(made: pd.DataFrame, workspace: Workspace) -> int:
    """How many synthetic rows name a pack that is not beside them, or none."""
    if "pack_sha256" not in made:
        return len(made)
    groups = made.groupby("pack_sha256", sort=False)
    return sum(len(rows) for digest, rows in groups if pack_folder(rows, str(digest), workspace) is None)


def known_rows(made: pd.DataFrame, rows: pd.DataFrame, workspace: Workspace) -> NDArray[np.bool_]:
    """Which of ``rows`` are of patients that the packs behind synthetic rows say they have learnt from."""
    known = known_to_makers(made, workspace)
    people = zip(rows["dataset"], rows["patient"], strict=True)
    return np.array([trained_on(known, d, p) for d, p in people], dtype=bool)
