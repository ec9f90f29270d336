"""What is wrong with a volume, said before anyone trains on it."""

from __future__ import annotations

import numpy as np

from text2ct.volumes.intensity import levels
from text2ct.volumes.volume import Volume

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


def check(volume: Volume) -> list[str]:
    """Every problem of a volume, one sentence each; empty if it is fit for use.

    Looks for NaN and infinite voxels, a constant, too few slices, impossible voxel sizes, a tiny or
    an absurdly large field of view, voxels that are not HU of a chest, and flat or repeated axial slices.
    """
    return [*check_geometry(volume), *check_voxels(volume)]


def check_voxels(volume: Volume) -> list[str]:
    """The problems of the voxels alone."""
    finite = np.isfinite(volume.hu)
    if not finite.all():
        return [f"{np.count_nonzero(~finite)} of {volume.hu.size} voxels are NaN or infinite"]
    low, high = float(volume.hu.min()), float(volume.hu.max())
    if low == high:
        return [f"every voxel is {low:g}: the volume is constant"]
    problems = []
    not_hu = levels(volume.hu).problems
    if not_hu:
        problems.append(f"the voxels ({low:g} to {high:g}) do not look like HU of a chest: {', '.join(not_hu)}")
    return problems + _slices(volume)


def check_geometry(volume: Volume) -> list[str]:
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


def _slices(volume: Volume) -> list[str]:
    """Problems of the axial slices: flat ones inside the volume, and neighbours that are equal."""
    problems = []
    slices = volume.hu.reshape(-1, volume.size[2])
    flat = slices.min(axis=0) == slices.max(axis=0)
    used = np.flatnonzero(~flat)
    inner_flat = int(flat[used[0] : used[-1]].sum()) if used.size else 0
    if inner_flat:
        problems.append(f"{inner_flat} axial slice(s) between others are flat, as after a damaged transfer")
    if flat.mean() > MAX_FLAT:
        problems.append(f"{int(flat.sum())} of {flat.size} axial slices are flat")
    same = (slices[:, 1:] == slices[:, :-1]).all(axis=0) & ~flat[1:]
    if same.mean() > MAX_REPEATED:
        problems.append(f"{int(same.sum())} of {flat.size} axial slices repeat the one below them")
    return problems
