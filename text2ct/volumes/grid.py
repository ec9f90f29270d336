"""A volume on another grid, with the affine that is true for it.

Both fits are linear and separable, so each is one small matrix an axis: no intermediate volume is made, and a few
planes are worked on at a time.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from text2ct.errors import UserError
from text2ct.volumes.lazy import Planes, copy_tiled, slabs
from text2ct.volumes.volume import HU_MAX, HU_MIN, Volume

Fit = Literal["crop-pad", "resize"]
# Headers round their numbers: a centre this near to the edge of a volume, in its voxels, lies inside.
_EDGE = 1e-3
FITS: tuple[str, ...] = get_args(Fit)


def to_grid(
    volume: Planes,
    size: tuple[int, int, int] = (64, 64, 64),
    spacing_mm: tuple[float, float, float] = (5.0, 5.0, 5.0),
    fit: Fit = "crop-pad",
    pad_hu: float = HU_MIN,
) -> Volume:
    """Bring a volume to a grid of ``size`` voxels, clipped to [-1000, 1000] HU.

    ``crop-pad`` (Text2CT, section 4.1) samples at ``spacing_mm`` around the volume's centre; what does
    not fit is cut off, what is missing is ``pad_hu``. Downsampling averages with a triangle as wide as
    two output voxels, so that nothing aliases.

    ``resize`` is what Text2CT's released code does: trilinear to ``spacing_mm``, then trilinear again
    to ``size`` (both with half-voxel centres and clamped edges, without anti-aliasing). The whole
    volume is kept and its spacing becomes whatever that makes it. The released code then stamps
    ``spacing_mm`` on the result; here the affine says the true one.

    The axes stay parallel to the volume's own, so an oblique volume keeps its rotation in the affine.

    Args:
        volume: Any volume; of a lazy one only a few planes are in HU at a time.
        size: Voxels along x, y, z.
        spacing_mm: Voxel sizes along x, y, z, of the result (``crop-pad``) or of the step before it
            (``resize``).
        fit: ``crop-pad`` or ``resize``.
        pad_hu: HU of voxels outside the volume (``crop-pad`` only).

    Raises:
        UserError: A size below 1, a spacing that is not positive, or an unknown fit.
    """
    if len(size) != 3 or any(int(n) != n or n < 1 for n in size):
        raise UserError(f"a grid of size {size} is impossible; give three whole numbers above 0")
    if len(spacing_mm) != 3 or not all(np.isfinite(s) and s > 0 for s in spacing_mm):
        raise UserError(f"a voxel spacing of {spacing_mm} mm is impossible; give three numbers above 0")
    if fit not in FITS:
        raise UserError(f"there is no fit '{fit}'; use {' or '.join(FITS)}")
    matrices, inside = [], []
    step = np.eye(4)
    for axis in range(3):
        n_in, n_out = volume.size[axis], int(size[axis])
        own_mm, wanted_mm = volume.spacing_mm[axis], float(spacing_mm[axis])
        if fit == "crop-pad":
            scale = wanted_mm / own_mm
            start = (n_in - 1) / 2 - scale * (n_out - 1) / 2
            centres = start + scale * np.arange(n_out, dtype=np.float64)
            matrices.append(_triangle_weights(centres, n_in, width=max(1.0, scale)))
            inside.append((centres >= -0.5 - _EDGE) & (centres <= n_in - 0.5 + _EDGE))
        else:
            n_mid = max(1, round(n_in * own_mm / wanted_mm))
            scale = n_in / n_out
            start = (scale - 1) / 2
            matrices.append(_linear_weights(n_mid, n_out) @ _linear_weights(n_in, n_mid))
            inside.append(np.ones(n_out, dtype=bool))
        step[axis, axis], step[axis, 3] = scale, start
    hu = _resample(volume, matrices)
    for axis, keep in enumerate(inside):
        np.moveaxis(hu, axis, 0)[~keep] = pad_hu
    return Volume(hu, volume.affine @ step, intensity=volume.intensity, notes=volume.notes)


def _triangle_weights(centres: npt.NDArray[np.floating], n_in: int, width: float) -> Any:
    """Sparse (n_out, n_in) float32: linear interpolation, widened to a triangle filter when downsampling.

    Rows sum to 1 over the voxels that exist; at ``width`` 1 this is linear interpolation with clamped edges.
    """
    reach = int(np.ceil(width))
    nearest = np.floor(centres).astype(int)
    taps = nearest[:, None] + np.arange(-reach, reach + 2)[None, :]
    weights = np.clip(1.0 - np.abs(taps - centres[:, None]) / width, 0.0, None)
    if width == 1.0:
        taps = np.clip(taps, 0, n_in - 1)
    weights[(taps < 0) | (taps >= n_in)] = 0.0
    return _sparse(weights, np.clip(taps, 0, n_in - 1), n_in)


def _linear_weights(n_in: int, n_out: int) -> Any:
    """Sparse (n_out, n_in) float32: linear interpolation with half-voxel centres and clamped edges."""
    centres = np.clip((np.arange(n_out) + 0.5) * n_in / n_out - 0.5, 0, n_in - 1)
    return _triangle_weights(centres, n_in, width=1.0)


def _sparse(weights: npt.NDArray[np.float64], taps: npt.NDArray[np.int_], n_in: int) -> Any:
    from scipy.sparse import csr_array

    total = weights.sum(axis=1, keepdims=True)
    weights = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    rows = np.repeat(np.arange(len(taps)), taps.shape[1])
    matrix = csr_array((weights.ravel().astype(np.float32), (rows, taps.ravel())), shape=(len(taps), n_in))
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


def _resample(volume: Planes, matrices: list[Any]) -> npt.NDArray[np.float32]:
    """Multiply each axis of the clipped HU by its matrix, the axis that shrinks most first, a few planes at a time.

    Each voxel is the same sum in the same order however the planes are cut, so the cut decides no bit of it.
    """
    order = sorted(range(3), key=lambda k: matrices[k].shape[0] / matrices[k].shape[1])
    before, after = order[: order.index(2)], order[order.index(2) + 1 :]
    x, y, z = (matrix.shape[0] for matrix in matrices)
    along_z = matrices[2]
    used = _columns(along_z)

    def planes(start: int, stop: int) -> npt.NDArray[np.float32]:
        hu = volume.planes(start, stop)
        return np.clip(hu, HU_MIN, HU_MAX, out=hu if hu.base is None else None)  # not in place in a view

    if before:
        extent = tuple(matrices[axis].shape[0] if axis in before else volume.size[axis] for axis in (0, 1))
        shrunk = np.zeros((used.stop - used.start, *extent), dtype=np.float32)
        for first, last in _runs(along_z):
            for start, stop in slabs((volume.size[0], volume.size[1], last - first), volume.slab_voxels):
                piece = planes(first + start, first + stop)
                for axis in before:
                    piece = _along(piece, axis, matrices[axis])
                shrunk[first - used.start :][start:stop] = piece.transpose(2, 0, 1)
    hu = np.empty((x, y, z), dtype=np.float32)
    widest = max(x, volume.size[0]), max(y, volume.size[1]), z
    for start, stop in slabs((x, y, z) if before else widest, volume.slab_voxels):
        rows = along_z[start:stop]
        need = _columns(rows)
        if before:
            piece = shrunk[need.start - used.start : need.stop - used.start].transpose(1, 2, 0)
        else:
            piece = planes(need.start, need.stop)
        piece = _along(piece, 2, rows[:, need])
        for axis in after:
            piece = _along(piece, axis, matrices[axis])
        copy_tiled(piece, hu[:, :, start:stop])
    return hu


def _columns(matrix: Any) -> slice:
    """The columns from the first to the last that a matrix looks at; at least one."""
    looked_at = matrix.indices
    return slice(int(looked_at.min()), int(looked_at.max()) + 1) if looked_at.size else slice(0, 1)


def _runs(matrix: Any) -> list[tuple[int, int]]:
    """First and last column (exclusive) of the runs of columns that a matrix looks at."""
    looked_at = np.unique(matrix.indices)
    return [
        (int(run[0]), int(run[-1]) + 1)
        for run in np.split(looked_at, np.flatnonzero(np.diff(looked_at) > 1) + 1)
        if run.size
    ]


def _along(hu: npt.NDArray[np.float32], axis: int, matrix: Any) -> npt.NDArray[np.float32]:
    """Multiply one axis of (X, Y, Z) voxels by a matrix; the memory layout of the others stays."""
    others = sorted({0, 1, 2} - {axis}, key=lambda k: -abs(hu.strides[k]))
    turned = hu.transpose(axis, *others)
    looked_at: Any = _columns(matrix)
    if 0 < 2 * len(few := np.unique(matrix.indices)) < looked_at.stop - looked_at.start:
        looked_at = few  # picking them makes a copy, which pays where most are left out
    turned, matrix = turned[looked_at], matrix[:, looked_at]
    front = np.empty(turned.shape, dtype=np.float32)
    copy_tiled(turned, front)
    mixed = (matrix @ front.reshape(len(front), -1)).reshape(-1, *turned.shape[1:])
    return mixed.transpose(np.argsort([axis, *others]))
