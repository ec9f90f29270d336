"""A CT to the released grid: read, reorient, resample, resize."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from text2ct import volumes
from text2ct.diffusion.parity.folder import Folder
from text2ct.diffusion.parity.result import HU_TOLERANCE, TOLERANCE, ArrayResult, compare

# The fixtures keep every 8th slice and every 16th row and column of large arrays.
STRIDE_ZYX = (slice(None, None, 8), slice(None, None, 16), slice(None, None, 16))
# The networks' [0, 1] is 2000 HU.
FLOAT_HU_TOLERANCE = TOLERANCE * 2000
IN_HU = "in HU, of which 2000 are the networks' [0, 1]"
PERMUTED = "at the file's unpermuted zooms, as released; ours takes the true spacing"


def check_preprocess(folder: Folder) -> Iterator[ArrayResult]:
    """Compare the oriented volume, the intermediate one and the result."""
    config, expected = folder.json(), folder.arrays("expected.npz")
    volume = volumes.read(folder.path / "input.nii.gz")
    oriented = volume.hu.transpose(2, 1, 0)
    stride = re.search(r"::(\d+)", config["oriented_saved"])
    if stride is not None:
        oriented = oriented[(slice(None, None, int(stride.group(1))),) * 3]
    yield compare(folder.variant, "oriented_zyx_f32", oriented, expected["oriented_zyx_f32"])
    volume, note = _as_released(volume, tuple(config["original_spacing_zyx_used"][::-1]))
    x, y, z = (float(config["saved_nifti_affine"][axis][axis]) for axis in range(3))
    middle, size = (tuple(config[name][::-1]) for name in ("intermediate_shape_zyx", "output_shape_zyx"))
    # Resized to its own size the intermediate volume stays what it is.
    between = volumes.to_grid(volume, middle, (x, y, z), fit="resize").hu.transpose(2, 1, 0)
    result = volumes.to_grid(volume, size, (x, y, z), fit="resize").hu.transpose(2, 1, 0)
    probes = tuple(expected["probe_index_zyx"].T.astype(int))
    exact = {
        "mid_sub": between[STRIDE_ZYX],
        "resampled_float_sub": result[STRIDE_ZYX],
        "probe_float": result[probes],
    }
    for array, value in exact.items():
        yield compare(
            folder.variant, array, value, expected[array], FLOAT_HU_TOLERANCE, "; ".join(filter(None, (note, IN_HU)))
        )
    # Written volumes are rounded; the released code cuts towards zero.
    for array, value in (("int16_sub", exact["resampled_float_sub"]), ("probe_int16", exact["probe_float"])):
        yield compare(folder.variant, array, np.rint(value), expected[array], HU_TOLERANCE, note)


def _as_released(volume: volumes.Volume, used_mm: tuple[float, ...]) -> tuple[volumes.Volume, str]:
    """The volume with the spacing that the released code used, where that is the true one in another order."""
    true_mm = volume.spacing_mm
    if np.allclose(true_mm, used_mm, rtol=1e-4) or not np.allclose(sorted(true_mm), sorted(used_mm), rtol=1e-4):
        return volume, ""
    scale = np.diag([*(np.asarray(used_mm) / true_mm), 1.0])
    return replace(volume, affine=volume.affine @ scale), PERMUTED
