"""Fidelity: are synthetic volumes distributed as real ones? Every distance beside its floor between real volumes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from text2ct.classifiers.config import WindowSetting
from text2ct.evaluation.fid_3d import fid_3d
from text2ct.evaluation.fid_infinity import FEWEST, fid_infinity
from text2ct.evaluation.fidelity import Fid2p5d, fid_between, fid_floor
from text2ct.evaluation.frechet import frechet_distance
from text2ct.evaluation.generator.backbones import plain_view
from text2ct.evaluation.generator.backbones_3d import VolumeEncoder
from text2ct.evaluation.generator.kept_features import Arrays, Describe, Described, KeptFeatures
from text2ct.evaluation.generator.leading import LEADING, leading_components
from text2ct.evaluation.generator.sets import MeasuredSet
from text2ct.evaluation.neighbourhoods import NEAREST_OF_DENSITY, kernel_distance, neighbourhoods
from text2ct.evaluation.slices import PLANES, SliceEncoder, SliceStatistics, StatisticsOfSet, View, slice_features
from text2ct.volumes.windows import Window

DIVISIONS = 10
SHARES = ("precision", "recall", "density", "coverage")
FEATURES_VERSION = 1
"""Raise it when slices are cut or scaled in another way: what was kept before is then made again."""
Pair = tuple[Described, Described]


def fidelity_section(
    real: MeasuredSet,
    synthetic: MeasuredSet,
    encoder: SliceEncoder,
    kept: KeptFeatures,
    *,
    windows: Sequence[WindowSetting],
    every: int,
    n_bootstrap: int,
    seed: int,
    device: torch.device,
) -> dict[str, Any]:
    """``fid_2p5d``, ``fid_window``, ``kid``, ``precision`` and the rest, with all that they depend on.

    One view is in memory at a time.
    """
    groups = real.groups, synthetic.groups
    how: dict[str, Any] = {"groups": groups, "n_bootstrap": n_bootstrap, "seed": seed}
    # One scan a patient: another one is no stranger to it.
    alone = np.unique(groups[0], return_index=True)[1]
    described = partial(_described, real, synthetic, encoder, kept, every, device)
    plain = plain_view(encoder)
    pair = described(plain, plain)
    fid, main, leading = _distance(pair, encoder, plain, every, real.volumes[0].shape, how)
    found: dict[str, Any] = {"fid_2p5d": _planes(fid) | _rests_on(fid) | leading | _floor(main, alone, seed)}
    if min(one.n for one in main) >= FEWEST:
        found["fid_2p5d"]["infinity"] = asdict(fid_infinity(*main, **how))
    vectors = [np.stack([_mean_slice(one[i]) for i in range(len(one))]) for one in pair]
    found["kid"] = asdict(kernel_distance(*vectors, groups=groups))
    if min(len(one) for one in vectors) > NEAREST_OF_DENSITY:
        near = asdict(neighbourhoods(*vectors, **how))
        found |= {name: near[name] for name in SHARES}
    for name, floor in _floors_of_volumes(vectors[0][alone], vectors[1], seed).items():
        found[name]["floor"] = floor
    del main
    found["fid_window"] = {}
    for one in windows:
        window = Window(one.centre, one.width)
        pair = described(one.name, window)
        fid, main, leading = _distance(pair, encoder, one.name, every, real.volumes[0].shape, how)
        bounds = {"low_hu": window.low_hu, "high_hu": window.high_hu}
        found["fid_window"][one.name] = _planes(fid) | bounds | leading | _floor(main, alone, seed)
        del main
    return found


def _floor(sets: tuple[SliceStatistics, SliceStatistics], alone: NDArray[np.intp], seed: int) -> dict[str, Any]:
    """``floor``: of halves of the real volumes, beside the distance at as many volumes; distances fall as these grow.

    Nothing where a half would have fewer than 2 volumes.
    """
    real, synthetic = sets[0].subset(alone), sets[1]
    each = min(real.n // 2, synthetic.n)
    if each < 2:
        return {}
    floor = fid_floor(real, n_each=each, divisions=DIVISIONS, seed=seed)
    beside = _at(real, synthetic, each, seed)
    ratio = beside / floor.mean if floor.mean > 0 else None
    return {"floor": asdict(floor) | {"distance_at_n_each": beside, "ratio": ratio}}


def _floors_of_volumes(
    real: NDArray[np.float64], synthetic: NDArray[np.float64], seed: int
) -> dict[str, dict[str, float]]:
    """As :func:`_floor`, for measures of volumes' mean features: ``mean``, ``at_n_each`` and ``n_each`` of each."""
    each = min(len(real) // 2, len(synthetic))
    if each < 2:
        return {}
    rng = np.random.default_rng(seed)
    values: dict[str, list[tuple[float, float]]] = {}
    for _ in range(DIVISIONS):
        order, some = rng.permutation(len(real)), rng.permutation(len(synthetic))[:each]
        half = real[order[:each]]
        others = real[order[each : 2 * each]], synthetic[some]
        kernels = [kernel_distance(half, other).value for other in others]
        values.setdefault("kid", []).append((kernels[0], kernels[1]))
        if each > NEAREST_OF_DENSITY:
            near = [neighbourhoods(half, other, n_bootstrap=0) for other in others]
            for name in SHARES:
                values.setdefault(name, []).append((getattr(near[0], name).value, getattr(near[1], name).value))
    means = {name: np.mean(drawn, axis=0) for name, drawn in values.items()}
    return {name: {"mean": float(one[0]), "at_n_each": float(one[1]), "n_each": each} for name, one in means.items()}


def statistics_of_sets(
    real: MeasuredSet,
    synthetic: MeasuredSet,
    encoder: SliceEncoder,
    kept: KeptFeatures,
    *,
    every: int,
    device: torch.device,
) -> tuple[float, tuple[SliceStatistics, SliceStatistics]]:
    """The mean distance under the encoder's own grey scale, and statistics by volume to resample."""
    plain = plain_view(encoder)
    pair = _described(real, synthetic, encoder, kept, every, device, plain, plain)
    fid, statistics, _ = _distance(pair, encoder, plain, every, real.volumes[0].shape, {"n_bootstrap": 0})
    return fid.mean, statistics


def volume_section(
    real: MeasuredSet,
    synthetic: MeasuredSet,
    encoder: VolumeEncoder,
    kept: KeptFeatures,
    *,
    n_bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    """``fid_3d``, and what it rests on; the sets are on the encoder's grid."""
    features = [
        kept.of(one.volumes, encoder.name, encoder, f"{name} volumes, 3D backbone").rows()
        for name, one in (("real", real), ("synthetic", synthetic))
    ]
    groups = real.groups, synthetic.groups
    found = asdict(fid_3d(*features, groups=groups, n_bootstrap=n_bootstrap, seed=seed))
    return {"fid_3d": found.pop("value"), "fid_3d_rests_on": found | {"backbone": encoder.name}}


def backbone_name(encoder: SliceEncoder, view: View, every: int) -> str:
    """What decides a volume's features besides the volume."""
    scale = f"{view.low_hu:g} to {view.high_hu:g} HU" if isinstance(view, Window) else view
    return f"{encoder.name} {scale} every {every}, version {FEATURES_VERSION}"


def describer(encoder: SliceEncoder, view: View, every: int, device: torch.device) -> Describe:
    """A volume to the features of its slices."""
    return partial(slice_features, encoder=encoder, view=view, every=every, device=device)


def _described(
    real: MeasuredSet,
    synthetic: MeasuredSet,
    encoder: SliceEncoder,
    kept: KeptFeatures,
    every: int,
    device: torch.device,
    name: str,
    view: View,
) -> Pair:
    """Features of the slices of both sets under a view, which messages call ``name``."""
    backbone, describe = backbone_name(encoder, view, every), describer(encoder, view, every, device)
    first, second = (
        kept.of(one.volumes, backbone, describe, f"{side} slices, {name}")
        for side, one in (("real", real), ("synthetic", synthetic))
    )
    return first, second


def _distance(
    pair: Pair, encoder: SliceEncoder, view: str, every: int, grid: tuple[int, ...], how: dict[str, Any]
) -> tuple[Fid2p5d, tuple[SliceStatistics, SliceStatistics], dict[str, Any]]:
    """The distance, statistics by volume to resample, and what was left out of these.

    Of a network with more than ``LEADING`` features a volume's statistics would not fit into memory, nor a resampled
    distance into an hour: the distance is that of all features, its spread and floor those of the leading components.
    """
    leading = leading_components(pair) if pair[0][0][0].shape[1] > LEADING else None

    def statistics(described: Described, origin: SliceStatistics | None = None) -> SliceStatistics:
        collected = StatisticsOfSet(encoder.name, view, every, origin)
        for index in range(len(described)):
            planes = described[index] if leading is None else leading.of(described[index])
            collected.add((planes[0], planes[1], planes[2]))
        return collected.statistics(grid)

    first = statistics(pair[0])
    both = first, statistics(pair[1], first)
    fid = fid_between(*both, **how)
    if leading is None:
        return fid, both, {"components": None}
    planes = [frechet_distance(*a, *b) for a, b in zip(*leading.moments, strict=True)]
    mean = float(np.mean(planes))
    ci = None if fid.ci is None else _moved(fid.ci, mean - fid.mean)
    parts = [getattr(fid, name) for name in PLANES]
    if fid.plane_cis is not None:
        shifts = [whole - part for whole, part in zip(planes, parts, strict=True)]
        plane_cis = tuple(_moved(one, by) for one, by in zip(fid.plane_cis, shifts, strict=True))
    else:
        plane_cis = None
    fewest = min(one.n for one in both)
    few = tuple(p for p, each in zip(PLANES, fid.slices, strict=True) if fewest * each <= leading.dimension)
    whole: dict[str, Any] = dict(zip(PLANES, planes, strict=True)) | {
        "dimension": leading.dimension,
        "rank_deficient": few,
    }
    fid = replace(fid, mean=mean, ci=ci, plane_cis=plane_cis, **whole)
    return fid, both, {"components": LEADING, "variance_kept": leading.variance_kept}


def _at(real: SliceStatistics, synthetic: SliceStatistics, each: int, seed: int) -> float:
    """The distance between random parts of ``each`` volumes, mean over planes and as many draws as the floor has."""
    rng = np.random.default_rng(seed)
    parts = ((real.subset(rng.permutation(real.n)[:each]), synthetic.subset(rng.permutation(synthetic.n)[:each]))
             for _ in range(DIVISIONS))  # fmt: skip
    return float(np.mean([fid_between(*pair, n_bootstrap=0).mean for pair in parts]))


def _mean_slice(planes: Arrays) -> NDArray[np.float64]:
    """(3 d,): what a volume's slices are on average, plane by plane."""
    return np.concatenate([plane.mean(axis=0, dtype=np.float64) for plane in planes])


def _moved(ci: tuple[float, float], by: float) -> tuple[float, float]:
    return max(0.0, ci[0] + by), ci[1] + by


def _planes(fid: Fid2p5d) -> dict[str, Any]:
    found = {name: getattr(fid, name) for name in (*PLANES, "mean")} | {"ci": None if fid.ci is None else list(fid.ci)}
    cis = fid.plane_cis or (None,) * len(PLANES)
    return found | {f"{name}_ci": None if ci is None else list(ci) for name, ci in zip(PLANES, cis, strict=True)}


def _rests_on(fid: Fid2p5d) -> dict[str, Any]:
    names = ("backbone", "view", "dimension", "slices", "every", "grid", "rank_deficient", "n_bootstrap", "seed")
    return {name: getattr(fid, name) for name in names}
