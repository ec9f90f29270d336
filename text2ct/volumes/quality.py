"""What is wrong with a volume, said before anyone trains on it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from text2ct.volumes.intensity import levels_of_sample
from text2ct.volumes.lazy import Planes, slabs

# Fewer slices than this are a picture or two, not a volume.
MIN_VOXELS = 3
# No chest CT has voxels finer than a high-resolution bone kernel's or coarser than a localiser's slices.
MIN_SPACING_MM, MAX_SPACING_MM = 0.1, 20.0
# Less than a vertebra and its discs: not a chest, nor a useful crop of one.
MIN_EXTENT_MM = 60.0
# More than a whole person: no scanner's table moves so far.
MAX_EXTENT_MM = 2000.0
# A few equal neighbours come from rounding in air; more come from repeated or interpolated slices.
MAX_REPEATED = 0.1
MAX_FLAT = 0.5


def check(volume: Planes) -> list[str]:
    """Every problem of a volume, one sentence each; empty if it is fit for use.

    Looks for NaN and infinite voxels, a constant, too few slices, impossible voxel sizes, a tiny or
    an absurdly large field of view, voxels that are not HU of a chest, and flat or repeated axial slices.
    """
    return [*check_geometry(volume), *check_voxels(volume)]


def check_voxels(volume: Planes) -> list[str]:
    """The problems of the voxels alone."""
    broken = 0
    lows, highs, same = [], [], []
    last = None
    for start, stop in slabs(volume.size, volume.slab_voxels):
        planes = volume.planes(start, stop)
        broken += int(planes.size - np.count_nonzero(np.isfinite(planes)))
        lows.append(planes.min(axis=(0, 1)))
        highs.append(planes.max(axis=(0, 1)))
        if last is not None:
            same.append([bool((planes[:, :, 0] == last).all())])
        same.append((planes[:, :, 1:] == planes[:, :, :-1]).all(axis=(0, 1)))
        last = planes[:, :, -1]
    if broken:
        return [f"{broken} of {np.prod(volume.size)} voxels are NaN or infinite"]
    low, high = np.concatenate(lows), np.concatenate(highs)
    lowest, highest = float(low.min()), float(high.max())
    if lowest == highest:
        return [f"every voxel is {lowest:g}: the volume is constant"]
    problems = []
    not_hu = levels_of_sample(volume.sample()).problems
    if not_hu:
        problems.append(f"the voxels ({lowest:g} to {highest:g}) do not look like HU of a chest: {', '.join(not_hu)}")
    return problems + _slices(low == high, np.concatenate(same))


def check_geometry(volume: Planes) -> list[str]:
    """The problems of size, spacing and field of view alone."""
    problems = []
    size = " x ".join(map(str, volume.size))
    spacing = " x ".join(f"{s:g}" for s in volume.spacing_mm)
    extents = [n * s for n, s in zip(volume.size, volume.spacing_mm, strict=True)]
    if min(volume.size) < MIN_VOXELS:
        problems.append(f"only {min(volume.size)} slice(s) along one axis ({size}); expected a 3D volume")
    if not all(MIN_SPACING_MM <= s <= MAX_SPACING_MM for s in volume.spacing_mm):
        problems.append(
            f"a voxel spacing of {spacing} mm is absurd; expected {MIN_SPACING_MM:g} to {MAX_SPACING_MM:g} mm"
        )
    view = " x ".join(f"{extent:.0f}" for extent in extents)
    if not problems and min(extents) < MIN_EXTENT_MM:
        problems.append(f"a field of view of {view} mm is tiny; expected at least {MIN_EXTENT_MM:g} mm")
    if not problems and max(extents) > MAX_EXTENT_MM:
        problems.append(f"a field of view of {view} mm is absurd; expected at most {MAX_EXTENT_MM:g} mm")
    return problems


def _slices(flat: npt.NDArray[np.bool_], same: npt.NDArray[np.bool_]) -> list[str]:
    """Problems of the axial slices: flat ones inside the volume, and neighbours that are equal."""
    problems = []
    used = np.flatnonzero(~flat)
    inner_flat = int(flat[used[0] : used[-1]].sum()) if used.size else 0
    if inner_flat:
        problems.append(f"{inner_flat} axial slice(s) between others are flat, as after a damaged transfer")
    if flat.mean() > MAX_FLAT:
        problems.append(f"{int(flat.sum())} of {flat.size} axial slices are flat")
    same = same & ~flat[1:]
    if same.mean() > MAX_REPEATED:
        problems.append(f"{int(same.sum())} of {flat.size} axial slices repeat the one below them")
    return problems
