"""What an evaluation would take: what is missing in the caches, times what one volume takes here."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from text2ct.compute import pick_device
from text2ct.diffusion.pack import Pack
from text2ct.evaluation.generator.alignment import clip_name, describe_by_clip
from text2ct.evaluation.generator.evaluate import Settings, caches, check_needs, training_rows
from text2ct.evaluation.generator.fidelity import backbone_name, describer, plain_view
from text2ct.evaluation.generator.kept_features import Describe
from text2ct.evaluation.generator.sets import real_rows, synthetic_rows
from text2ct.evaluation.slices import SliceEncoder
from text2ct.manifests import Workspace
from text2ct.volumes.windows import WINDOWS

# What a volume takes when its grid and its features are at hand: copies are looked for at full resolution.
SECONDS_A_VOLUME = 0.1


def estimate(
    real: pd.DataFrame,
    synthetic: pd.DataFrame,
    workspace: Workspace,
    settings: Settings,
    *,
    encoder: SliceEncoder | None = None,
    pack: Pack | None = None,
    classifier: Path | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """``seconds`` and ``bytes`` of :func:`text2ct.evaluation.generator.evaluate`; writes nothing.

    One volume that is not in the cache is read, and an empty one is described, to know how long that takes.

    Raises:
        UserError: As ``evaluate``, but for volumes that are not read.
    """
    check_needs(settings, encoder, pack, classifier)
    where = pick_device(device)
    cache, kept = caches(workspace, settings, dry_run=True)
    own, made = real_rows(real, settings.split), synthetic_rows(synthetic)
    learnt = training_rows(real, settings)

    def keys(rows: pd.DataFrame) -> list[str]:
        places = rows[["root", "path"]].itertuples(index=False)
        return [cache.entry(workspace.resolve(root, path)).stem for root, path in places]

    compared, others = keys(pd.concat([own, made], ignore_index=True)), keys(learnt)
    seconds, size = SECONDS_A_VOLUME * (len(compared) + len(others)), 0
    if cache.missing:
        begun = time.perf_counter()
        cache.preprocess(cache.missing[0])
        seconds += (time.perf_counter() - begun) * len(cache.missing)
        size += cache.bytes_per_volume() * len(cache.missing)
    tasks: list[tuple[str, Describe, list[str]]] = []
    if "fidelity" in settings.metrics and encoder is not None:
        for view in (plain_view(encoder), *WINDOWS):
            name = backbone_name(encoder, view, settings.every)
            tasks.append((name, describer(encoder, view, settings.every, where), compared))
    if pack is not None:
        tasks.append((clip_name(pack), partial(describe_by_clip, pack=pack, device=where), compared + others))
    for name, describe, of in tasks:
        begun = time.perf_counter()
        arrays = describe(np.zeros(settings.grid, dtype=np.int16))
        missing = kept.missing(of, name)
        seconds += (time.perf_counter() - begun) * missing
        size += sum(array.nbytes for array in arrays) * missing
    return {
        "dry_run": True,
        "n_real": len(own),
        "n_synthetic": len(made),
        "n_training": len(learnt),
        "volumes_to_read": len(cache.missing),
        "seconds": round(seconds, 1),
        "bytes": size,
    }
