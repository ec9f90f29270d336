"""What trees are told of a volume: statistics of blocks, of anatomical regions, and of blobs in them.

All of it is numpy and scipy on one core, about 60 ms for 64x64x64 voxels. Blocks keep the place, pools over
regions forget it: a calcification of a few voxels or a nodule anywhere in a lung moves a pool's extremes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from text2ct.errors import UserError

BLOCKS = 8
# Edges of HU bins: emphysema, lung, ground glass, fat, soft tissue, contrast, calcium, metal.
EDGES_HU = (
    -950,
    -920,
    -890,
    -850,
    -800,
    -740,
    -660,
    -550,
    -400,
    -200,
    -120,
    -30,
    20,
    60,
    100,
    150,
    220,
    300,
    450,
    700,
    950,
)
LUNG_HU = -400
DENSE_HU = (-600, -400, -200)
NODULE_VOXELS = (2, 61)
RANKS = (1, 4, 16)
# Side of the grid that is laid over the lungs' box, and the margin around it, as a share of the box.
ALIGNED, MARGIN = 48, 0.12
REACHES = (2, 3, 4)
SIDES, LEVELS = 2, 3
# Lungs by side and level; mediastinum in front by level, and behind; the heart's left half; and the wall.
REGIONS = SIDES * LEVELS + LEVELS + LEVELS + 2
_BINS = np.searchsorted(np.array(EDGES_HU), np.arange(-1000, 1001), side="right").astype(np.int64)


def volume_features(volume_hu: NDArray[np.generic]) -> NDArray[np.float32]:
    """All features of one volume.

    Args:
        volume_hu: (X, Y, Z) HU in RAS order, each axis a multiple of 8, at least 16.

    Returns:
        (f,) float32; f does not depend on the grid.

    Raises:
        UserError: Another shape, or voxels that are not finite.
    """
    check_volume(volume_hu)
    hu = np.clip(volume_hu, -1000, 1000).astype(np.float32)
    smooth = ndimage.gaussian_filter(hu, 0.6, truncate=2.5)
    maps = _maps(hu, smooth)
    lung = lung_mask(hu)
    box = _lung_box(lung)
    regions = _regions(lung, box)
    parts = [
        _block_statistics(hu, smooth, maps),
        _aligned_statistics(hu, maps, box),
        _pools(hu, maps, regions),
        _components(hu, lung, regions),
        np.array([*box[0], *box[1], lung.mean()], dtype=np.float32),
    ]
    return np.concatenate(parts).astype(np.float32)


def check_volume(volume_hu: NDArray[np.generic]) -> None:
    """Refuse what has no blocks.

    Raises:
        UserError: Not three axes that are multiples of 8 from 16 on, or voxels that are not finite.
    """
    shape = volume_hu.shape
    if len(shape) != 3 or any(n % BLOCKS or n < 2 * BLOCKS for n in shape):
        raise UserError(f"a volume has shape {shape}; expected three axes, each a multiple of {BLOCKS} from 16 on")
    if not np.isfinite(volume_hu).all():
        raise UserError("a volume has voxels that are NaN or infinite")


def lung_mask(hu: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Air inside the body: what is below -400 HU and reaches no side face of the volume."""
    labels, _ = ndimage.label(hu < LUNG_HU)
    sizes = np.bincount(labels.ravel())
    kept = sizes > hu.size // 4000
    for face in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        kept[np.unique(face)] = False
    kept[0] = False
    mask: NDArray[np.bool_] = kept[labels]
    return mask


def _maps(hu: NDArray[np.float32], smooth: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Band passes, and how far a voxel lies above (or below) all that is ``reach`` voxels away."""
    one, two = ndimage.gaussian_filter(hu, 1.0, truncate=2.5), ndimage.gaussian_filter(hu, 2.0, truncate=2.5)
    maps = {"fine": hu - one, "coarse": one - two}
    pad = max(REACHES)
    padded = np.pad(smooth, pad, mode="edge")
    for reach in REACHES:
        near = round(reach * 0.7)
        steps = [(reach, 0, 0), (0, reach, 0), (0, 0, reach)]
        steps += [
            (near, near, 0),
            (near, -near, 0),
            (near, 0, near),
            (near, 0, -near),
            (0, near, near),
            (0, near, -near),
        ]
        high, low = np.full_like(smooth, -np.inf), np.full_like(smooth, np.inf)
        for step in steps:
            for sign in (1, -1):
                x, y, z = (pad + sign * s for s in step)
                part = padded[x : x + hu.shape[0], y : y + hu.shape[1], z : z + hu.shape[2]]
                np.maximum(high, part, out=high)
                np.minimum(low, part, out=low)
        maps[f"bright{reach}"] = smooth - high
        maps[f"dark{reach}"] = low - smooth
    return maps


def _lung_box(lung: NDArray[np.bool_]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Where the lungs begin and end along each axis, as shares of the grid; the grid's middle without lungs."""
    low, high = [], []
    for axis in range(3):
        profile = lung.sum(axis=tuple(a for a in range(3) if a != axis)).cumsum()
        total = int(profile[-1])
        n = len(profile)
        if total == 0:
            low.append(0.15)
            high.append(0.85)
            continue
        first, last = np.searchsorted(profile, [0.005 * total, 0.995 * total])
        low.append(float(first) / n)
        high.append(max(float(last + 1), float(first) + 4) / n)
    return tuple(low), tuple(high)


def _regions(lung: NDArray[np.bool_], box: tuple[tuple[float, ...], tuple[float, ...]]) -> NDArray[np.uint8]:
    """(X, Y, Z) number of the region of each voxel."""
    field = ndimage.uniform_filter(lung.astype(np.float32), 5) > 0.5
    inside = np.maximum.accumulate(lung, axis=0) & np.maximum.accumulate(lung[::-1], axis=0)[::-1]
    x, y, z = (((np.arange(n) + 0.5) / n - low) / (high - low) for n, low, high in zip(lung.shape, *box, strict=True))
    level = np.clip((z * LEVELS).astype(np.int64), 0, LEVELS - 1).astype(np.uint8)[None, None, :]
    right = (x > 0.5).astype(np.uint8)[:, None, None]
    front = (y > 0.38)[None, :, None]
    regions = np.full(lung.shape, REGIONS - 1, dtype=np.uint8)
    middle = SIDES * LEVELS
    within = inside & ((z > -0.05) & (z < 1.05))[None, None, :]
    behind = middle + LEVELS + level + np.zeros_like(right)
    ahead = middle + np.where((level == 0) & (right == 0), 2 * LEVELS, level)
    regions = np.where(within, np.where(front, ahead, behind), regions)
    return np.where(field, right * LEVELS + level, regions).astype(np.uint8)


def _as_blocks(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """(512, voxels) of the 8x8x8 blocks."""
    x, y, z = (n // BLOCKS for n in values.shape)
    parts = values.reshape(BLOCKS, x, BLOCKS, y, BLOCKS, z).transpose(0, 2, 4, 1, 3, 5)
    return parts.reshape(BLOCKS**3, -1)


def _block_statistics(
    hu: NDArray[np.float32], smooth: NDArray[np.float32], maps: dict[str, NDArray[np.float32]]
) -> NDArray[np.float32]:
    parts, soft = _as_blocks(hu), _as_blocks(smooth)
    ranked = np.partition(soft, [parts.shape[1] // 10, parts.shape[1] - 1 - parts.shape[1] // 10], axis=1)
    statistics = [
        parts.mean(1), parts.std(1), soft.max(1), soft.min(1),
        ranked[:, parts.shape[1] // 10], ranked[:, -1 - parts.shape[1] // 10],
        ((parts > -700) & (parts < -200)).mean(1), (parts < -950).mean(1), (parts > 150).mean(1), (parts > 400).mean(1),
        *(np.abs(_as_blocks(maps[name])).mean(1) for name in ("fine", "coarse")),
        _as_blocks(maps["bright2"]).max(1), _as_blocks(maps["bright3"]).max(1),
        _as_blocks(maps["dark2"]).max(1),
    ]  # fmt: skip
    return np.concatenate(statistics).astype(np.float32)


def _aligned_statistics(
    hu: NDArray[np.float32],
    maps: dict[str, NDArray[np.float32]],
    box: tuple[tuple[float, ...], tuple[float, ...]],
) -> NDArray[np.float32]:
    """Block statistics on a grid laid over the lungs, whatever their size and place."""
    indices = []
    for n, low, high in zip(hu.shape, *box, strict=True):
        margin = MARGIN * (high - low)
        places = np.linspace((low - margin) * n, (high + margin) * n, ALIGNED + 1)[:-1]
        indices.append(np.clip(places.astype(np.int64), 0, n - 1))
    grid = np.ix_(*indices)
    parts = _as_blocks(hu[grid])
    statistics = [parts.mean(1), parts.std(1), parts.max(1), parts.min(1), (parts > 150).mean(1), (parts > 400).mean(1)]
    statistics += [_as_blocks(maps[name][grid]).max(1) for name in ("bright2", "bright3", "dark2", "coarse")]
    statistics += [((parts > -700) & (parts < -200)).mean(1)]
    return np.concatenate(statistics).astype(np.float32)


def _pools(
    hu: NDArray[np.float32], maps: dict[str, NDArray[np.float32]], regions: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """Histogram, moments and extremes of each map over each region."""
    flat = regions.ravel()
    order = np.argsort(flat, kind="stable")  # by radix, since there are at most 256 regions
    edges = np.searchsorted(flat[order], np.arange(REGIONS + 1))
    count = np.maximum(np.diff(edges), 1)
    bins = len(EDGES_HU) + 1
    counted = np.bincount(
        flat.astype(np.int64) * bins + _BINS[np.rint(hu.ravel()).astype(np.int64) + 1000], minlength=REGIONS * bins
    )
    shares = counted.reshape(REGIONS, bins) / count[:, None]
    out: list[NDArray[Any]] = [np.diff(edges) / len(flat), shares.ravel(), shares[:, ::-1].cumsum(1).ravel()]
    for name, values in {"hu": hu, **maps}.items():
        ranked = values.ravel()[order]
        found = np.zeros((REGIONS, len(RANKS) + 2), dtype=np.float32)
        for region in range(REGIONS):
            part = ranked[edges[region] : edges[region + 1]]
            if len(part) < max(RANKS):
                continue
            top = np.partition(part, [len(part) - k for k in RANKS])
            found[region, : len(RANKS)] = [top[len(part) - k] for k in RANKS]
            found[region, -2:] = part.mean(), (np.abs(part).mean() if name != "hu" else part.std())
        # And over both lungs, and over all of the mediastinum.
        lungs, middle = found[: SIDES * LEVELS], found[SIDES * LEVELS : -1]
        out += [found.ravel(), lungs.max(0), lungs.mean(0), middle.max(0), middle.mean(0)]
    return np.concatenate(out).astype(np.float32)


def _components(hu: NDArray[np.float32], lung: NDArray[np.bool_], regions: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Separate dense components in the lungs, by threshold: number, sizes, density."""
    field = regions < SIDES * LEVELS
    out: list[float] = []
    for threshold in DENSE_HU:
        labels, count = ndimage.label(field & (hu > threshold))
        sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
        small = (sizes >= NODULE_VOXELS[0]) & (sizes < NODULE_VOXELS[1])
        largest = np.sort(sizes[small])[::-1][:3]
        out += [count, small.sum(), sizes[small].sum(), sizes.max(initial=0), *largest, *[0] * (3 - len(largest))]
        where = np.flatnonzero(np.concatenate([[False], small])[labels.ravel()])
        inside = hu.ravel()[where]
        out += [inside.max(initial=-1000), inside.mean() if len(inside) else -1000]
    return np.array(out, dtype=np.float32)
