"""From the scanner's world to the patient: position, size and a smooth random deformation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from text2ct.simulation.anatomy import Anatomy, Array
from text2ct.simulation.patients import generator

FIELD_MM = 320.0  # edge of the default field: 64 voxels of 5 mm
PERIOD_MM = 384.0  # noise lattices repeat after this length, more than any default field


class Frame:
    """The map between world mm (grid centred on the isocentre) and canonical mm.

    ``canonical = scale^-1 (world - offset) + warp``; the warp is a sum of long waves of a few mm, so organs
    bend together and nothing folds. z maps on its own, which keeps every profile along z one-dimensional.

    Args:
        anatomy: Sizes, kyphosis.
        number: The patient's number, for the deformation.
        scan: Index of the scan, for the position on the table.
    """

    def __init__(self, anatomy: Anatomy, number: int, scan: int) -> None:
        rng = generator(number, "warp")
        self._phase = rng.uniform(0, 2 * np.pi, 8)
        self._length = rng.uniform(170.0, 330.0, 8)
        self._amplitude = rng.normal(0.0, 1.0, 8) * np.array([3.0, 2.5, 2.5, 2.0, 3.0, 2.5, 2.5, 2.0])
        pose = generator(number, "pose", scan)
        x, y, z = pose.normal(0, 4.0), 4.0 + pose.normal(0, 4.0), pose.normal(0, 6.0)
        # Whoever scans sees to it that apices and adrenals are in the field.
        self.offset = np.array([x, y, np.clip(z, -10.0, 10.0)])
        self.tilt = float(np.radians(np.clip(pose.normal(0, 2.0), -4.5, 4.5)))
        self.scale = np.array(anatomy.scale)
        self._kyphosis = anatomy.kyphosis_mm

    def _warp(self, x: NDArray, y: NDArray, z: NDArray) -> tuple[NDArray, NDArray]:
        def wave(k: int, v: NDArray) -> NDArray:
            return np.sin((2 * np.pi / self._length[k]) * v + self._phase[k]).astype(v.dtype)

        a = self._amplitude.astype(x.dtype)
        dx = a[0] * wave(0, z) + a[1] * wave(1, y) * wave(2, z) + a[2] * wave(3, x)
        bend = x.dtype.type(self._kyphosis) * ((z - 20.0) / 110.0) ** 2
        dy = a[4] * wave(4, z) + a[5] * wave(5, x) * wave(6, z) + bend - x.dtype.type(0.4 * self._kyphosis)
        return dx, dy

    @property
    def floor_mm(self) -> float:
        """Canonical z of the lower edge of the default field."""
        return float((-FIELD_MM / 2 - self.offset[2]) / self.scale[2])

    def to_canonical(self, x: Array, y: Array, z: Array) -> tuple[Array, Array, Array]:
        """World coordinates, broadcastable float32 arrays in mm, to canonical ones; z keeps its shape."""
        c, s = np.float32(np.cos(self.tilt)), np.float32(np.sin(self.tilt))
        ox, oy, oz = self.offset.astype(np.float32)
        sx, sy, sz = self.scale.astype(np.float32)
        x, y, z = (x - ox) / sx, (y - oy) / sy, (z - oz) / sz
        dx, dy = self._warp(x, y, z)
        return c * x + s * y + dx, c * y - s * x + dy, z

    def to_world(self, points: NDArray) -> NDArray:
        """Canonical points ``(n, 3)`` to world mm, by fixed-point iteration (the warp is a contraction)."""
        c, s = np.cos(self.tilt), np.sin(self.tilt)
        target = np.asarray(points, np.float64)
        x, y, z = (target[:, i].copy() for i in range(3))
        for _ in range(3):
            dx, dy = self._warp(x, y, z)
            u, v = target[:, 0] - dx, target[:, 1] - dy
            x, y = c * u - s * v, s * u + c * v
        return np.stack([x, y, z], axis=1) * self.scale + self.offset


def spline_weights(coordinate_mm: NDArray, pitch_mm: float, cells: int) -> Array:
    """Cubic B-spline weights ``(n, cells)`` of a periodic lattice at world coordinates in mm."""
    position = np.asarray(coordinate_mm, np.float64) / pitch_mm
    base = np.floor(position).astype(int)
    t = position - base
    weights = np.zeros((len(position), cells), np.float32)
    rows = np.arange(len(position))
    parts = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    for k, part in enumerate(parts):
        np.add.at(weights, (rows, (base + k - 1) % cells), (part / 6).astype(np.float32))
    return weights
