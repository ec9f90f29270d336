"""What an evaluation would take: what is missing in the caches, times what one volume takes here."""

from __future__ import annotations

import time
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from text2ct.classifiers.cache import VolumeCache
from text2ct.classifiers.config import Preprocessing
from text2ct.compute import pick_device
from text2ct.evaluation.frechet import frechet_distance
from text2ct.evaluation.generator.alignment import describer as describe_by_clip
from text2ct.evaluation.generator.backbones import plain_view
from text2ct.evaluation.generator.evaluate import (
    COPIES_GRID,
    Measures,
    Settings,
    cache_of,
    check_needs,
    grid_of,
    kept_features,
    strangers_rows,
    training_rows,
)
from text2ct.evaluation.generator.fidelity import DIVISIONS, backbone_name, describer
from text2ct.evaluation.generator.kept_features import Describe
from text2ct.evaluation.generator.leading import LEADING
from text2ct.evaluation.generator.private import GROUP, PAIRS
from text2ct.evaluation.generator.sets import MeasuredSet, real_rows, synthetic_rows
from text2ct.evaluation.similarity import SETTINGS, ms_ssim
from text2ct.evaluation.slices import PLANES, View
from text2ct.findings import FINDINGS
from text2ct.manifests import Workspace
from text2ct.volumes.windows import Window

# What a volume takes when its grid and its features are at hand: copies are looked for at full resolution.
SECONDS_A_VOLUME = 0.1


def estimate(
    real: pd.DataFrame, synthetic: pd.DataFrame, workspace: Workspace, settings: Settings, measures: Measures
) -> dict[str, Any]:
    """``seconds`` and ``bytes`` of :func:`text2ct.evaluation.generator.evaluate`; writes nothing.

    One volume that is not in the cache is read, and an empty one is described, to know how long that takes.

    Raises:
        UserError: As ``evaluate``, but for volumes that are not read.
    """
    check_needs(settings, measures)
    where, kept = pick_device(measures.device), kept_features(workspace)
    own, made, learnt = real_rows(real, settings.split), synthetic_rows(synthetic), training_rows(real, settings)
    compared = pd.concat([own, made], ignore_index=True)
    strangers = strangers_rows(real) if "privacy" in settings.metrics else real.iloc[:0]
    searched = pd.concat([made, learnt, strangers if len(strangers) else own], ignore_index=True)
    everyone = pd.concat([own, made, learnt, strangers], ignore_index=True)
    common = grid_of(settings)
    tasks: list[tuple[str, Describe, pd.DataFrame, Preprocessing]] = []
    seconds, size, to_read = SECONDS_A_VOLUME * len(everyone), 0, 0
    encoder, encoder_3d, scorer = measures.encoder, measures.encoder_3d, measures.scorer
    if "fidelity" in settings.metrics and encoder is not None:
        views: list[View] = [plain_view(encoder), *(Window(one.centre, one.width) for one in settings.windows)]
        for view in views:
            name = backbone_name(encoder, view, settings.every)
            tasks.append((name, describer(encoder, view, settings.every, where), compared, common))
    if "fid_3d" in settings.metrics and encoder_3d is not None:
        tasks.append((encoder_3d.name, encoder_3d, compared, encoder_3d.grid or common))
    if scorer is not None:
        tasks.append((scorer.identity, describe_by_clip(scorer), everyone, scorer.grid))
    caches_of: dict[Preprocessing, VolumeCache] = {}

    @cache
    def key(grid: Preprocessing, root: str, path: str) -> str:
        kept_on = caches_of.setdefault(grid, cache_of(workspace, grid, dry_run=True))
        return kept_on.entry(workspace.resolve(root, path)).stem

    def keys(rows: pd.DataFrame, grid: Preprocessing) -> list[str]:
        return [key(grid, *at) for at in zip(rows["root"], rows["path"], strict=True)]

    keys(compared, common)
    if "diversity" in settings.metrics:
        seconds += _likeness(made, common)
    if "privacy" in settings.metrics:
        keys(searched, COPIES_GRID)
    for name, describe, rows, grid in tasks:
        begun = time.perf_counter()
        arrays = describe(np.zeros(grid.size, dtype=np.int16))
        missing = kept.missing(keys(rows, grid), name)
        seconds += (time.perf_counter() - begun) * missing
        size += sum(array.nbytes for array in arrays) * missing
        if encoder is not None and describe is not encoder_3d and len(arrays) == len(PLANES):
            seconds += _resampling(arrays[0].shape[1], settings.n_bootstrap)
    for volumes in caches_of.values():
        if volumes.missing:
            begun = time.perf_counter()
            volumes.preprocess(volumes.missing[0])
            seconds += (time.perf_counter() - begun) * len(volumes.missing)
            size += volumes.bytes_per_volume() * len(volumes.missing)
            to_read += len(volumes.missing)
    return {
        "dry_run": True,
        "n_real": len(own),
        "n_synthetic": len(made),
        "n_training": len(learnt),
        "volumes_to_read": to_read,
        "seconds": round(seconds, 1),
        "bytes": size,
    }


def _likeness(made: pd.DataFrame, common: Preprocessing) -> float:
    """Seconds of the comparisons of volumes of one prompt, and of real volumes of one finding, by MS-SSIM."""
    counts = pd.Series(MeasuredSet.texts_of(made)).value_counts()
    groups = int(((counts > 1) & (counts.index != "")).sum())
    if not groups or min(common.size) < SETTINGS.smallest_axis:
        return 0.0
    begun = time.perf_counter()
    ms_ssim(np.zeros(common.size, dtype=np.int16), np.zeros(common.size, dtype=np.int16))
    of_prompts = counts[counts > 1].clip(upper=GROUP)
    pairs = (of_prompts * (of_prompts - 1) / 2).clip(upper=PAIRS).sum() + len(FINDINGS) * PAIRS
    return (time.perf_counter() - begun) * float(pairs)


def _resampling(dimension: int, n_bootstrap: int) -> float:
    """Seconds of a view's resampled distances, in as many features as are resampled."""
    width = min(dimension, LEADING)
    covariance, mean = np.eye(width), np.zeros(width)
    begun = time.perf_counter()
    frechet_distance(mean, covariance, mean, covariance)
    return (time.perf_counter() - begun) * len(PLANES) * (n_bootstrap + 2 * DIVISIONS)
