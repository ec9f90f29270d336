"""Fidelity: are synthetic volumes distributed as real ones? Every distance beside its floor between real volumes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from text2ct.evaluation.fid_infinity import FEWEST, fid_infinity
from text2ct.evaluation.fidelity import Fid2p5d, fid_between, fid_floor
from text2ct.evaluation.generator.kept_features import Arrays, Describe, Described, KeptFeatures
from text2ct.evaluation.generator.sets import MeasuredSet
from text2ct.evaluation.neighbourhoods import NEAREST_OF_DENSITY, kernel_distance, neighbourhoods
from text2ct.evaluation.slices import COLOUR, PLANES, SliceEncoder, SliceStatistics, StatisticsOfSet, slice_features
from text2ct.volumes.windows import WINDOWS

DIVISIONS = 10
FEATURES_VERSION = 1
"""Raise it when slices are cut or scaled in another way: what was kept before is then made again."""


def fidelity_section(
    real: MeasuredSet,
    synthetic: MeasuredSet,
    encoder: SliceEncoder,
    kept: KeptFeatures,
    *,
    every: int,
    n_bootstrap: int,
    seed: int,
    device: torch.device,
) -> dict[str, Any]:
    """``fid_2p5d``, ``fid_window``, ``kid``, ``precision`` and the rest, with all that they depend on."""
    plain = plain_view(encoder)
    found: dict[str, Any] = {}
    described: dict[str, tuple[Described, Described]] = {}
    statistics: dict[str, tuple[SliceStatistics, SliceStatistics]] = {}
    for view in (plain, *WINDOWS):
        pair = [
            kept.of(
                one.volumes,
                backbone_name(encoder, view, every),
                describer(encoder, view, every, device),
                f"{name} slices, {view}",
            )
            for name, one in (("real", real), ("synthetic", synthetic))
        ]
        described[view] = pair[0], pair[1]
        grid = real.volumes[0].shape
        first = _statistics(pair[0], encoder, view, every, grid)
        statistics[view] = first, _statistics(pair[1], encoder, view, every, grid, origin=first)
    main = statistics[plain]
    fid = fid_between(*main, n_bootstrap=n_bootstrap, seed=seed)
    found["fid_2p5d"] = _planes(fid) | _rests_on(fid)
    # Distances fall as volumes are added, so floor and distance are compared at one number of volumes.
    each = min(main[0].n // 2, main[1].n)
    if each >= 2:
        floor = fid_floor(main[0], n_each=each, divisions=DIVISIONS, seed=seed)
        beside = _at(*main, each, seed)
        found["fid_2p5d"]["floor"] = asdict(floor) | {
            "distance_at_n_each": beside,
            "ratio": beside / floor.mean if floor.mean > 0 else None,
        }
    if min(one.n for one in main) >= FEWEST:
        found["fid_2p5d"]["infinity"] = asdict(fid_infinity(*main, seed=seed))
    found["fid_window"] = {
        view: _planes(fid_between(*statistics[view], n_bootstrap=n_bootstrap, seed=seed))
        | {"low_hu": WINDOWS[view].low_hu, "high_hu": WINDOWS[view].high_hu}
        for view in WINDOWS
    }
    vectors = [np.stack([_mean_slice(one[i]) for i in range(len(one))]) for one in described[plain]]
    found["kid"] = asdict(kernel_distance(*vectors))
    if min(len(one) for one in vectors) > NEAREST_OF_DENSITY:
        near = asdict(neighbourhoods(*vectors, n_bootstrap=n_bootstrap, seed=seed))
        found |= {name: near[name] for name in ("precision", "recall", "density", "coverage")}
    return found


def _at(real: SliceStatistics, synthetic: SliceStatistics, each: int, seed: int) -> float:
    """The distance between random parts of ``each`` volumes, mean over planes and as many draws as the floor has."""
    rng = np.random.default_rng(seed)
    parts = ((real.subset(rng.permutation(real.n)[:each]), synthetic.subset(rng.permutation(synthetic.n)[:each]))
             for _ in range(DIVISIONS))  # fmt: skip
    return float(np.mean([fid_between(*pair, n_bootstrap=0).mean for pair in parts]))


def plain_view(encoder: SliceEncoder) -> str:
    """The grey scale of FIDs that name no window."""
    return "colour" if encoder.channels == len(COLOUR) else "full_range"


def backbone_name(encoder: SliceEncoder, view: str, every: int) -> str:
    """What decides a volume's features besides the volume."""
    scale = f"{WINDOWS[view].low_hu:g} to {WINDOWS[view].high_hu:g} HU" if view in WINDOWS else view
    return f"{encoder.name} {scale} every {every}, version {FEATURES_VERSION}"


def describer(encoder: SliceEncoder, view: str, every: int, device: torch.device) -> Describe:
    """A volume to the features of its slices."""
    return lambda volume_hu: slice_features(volume_hu, encoder, view, every, device)


def _statistics(
    described: Described,
    encoder: SliceEncoder,
    view: str,
    every: int,
    grid: tuple[int, ...],
    origin: SliceStatistics | None = None,
) -> SliceStatistics:
    collected = StatisticsOfSet(encoder.name, view, every, origin)
    for index in range(len(described)):
        axial, coronal, sagittal = described[index]
        collected.add((axial, coronal, sagittal))
    return collected.statistics(grid)


def _mean_slice(planes: Arrays) -> NDArray[np.float64]:
    """(3 d,): what a volume's slices are on average, plane by plane."""
    return np.concatenate([plane.mean(axis=0, dtype=np.float64) for plane in planes])


def _planes(fid: Fid2p5d) -> dict[str, Any]:
    return {name: getattr(fid, name) for name in (*PLANES, "mean")} | {"ci": None if fid.ci is None else list(fid.ci)}


def _rests_on(fid: Fid2p5d) -> dict[str, Any]:
    names = ("backbone", "view", "dimension", "slices", "every", "grid", "rank_deficient", "n_bootstrap", "seed")
    return {name: getattr(fid, name) for name in names}
