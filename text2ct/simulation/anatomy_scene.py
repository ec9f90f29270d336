"""The canvas: one grid in HU with its canonical coordinates, and ways to paint on it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from text2ct.simulation.anatomy import Anatomy, Array
from text2ct.simulation.anatomy_frame import PERIOD_MM, Frame, spline_weights
from text2ct.simulation.anatomy_shape import ellipsoid, lobe_depth, lung_depth
from text2ct.simulation.anatomy_trees import Tree

Box = tuple[slice, slice, slice]
EVERYWHERE: Box = (slice(None), slice(None), slice(None))


class Scene:
    """What is painted: ``hu`` and the fields that findings ask for.

    Args:
        anatomy: The scan's anatomy, findings' changes included.
        frame: World to canonical.
        size: Voxels along x, y, z.
        spacing_mm: Voxel spacing, mm.

    Attributes:
        hu: ``(X, Y, Z)`` float32, HU, RAS order.
        x: Canonical mm, ``(X, Y, Z)``; ``y`` likewise; ``z`` is ``(1, 1, Z)``.
        blur_mm: Canonical width of the partial volume at a surface.
        lung: ``(X, Y, Z)`` fraction of each voxel inside the lungs; set by the painter.
        depth: ``(X, Y, Z)`` depth inside the lungs, mm; set by the painter.
        trees: "arteries", "veins" and "airways" of both lungs; set by the painter.
        chest: The box outside which there is no lung.
    """

    def __init__(
        self,
        anatomy: Anatomy,
        frame: Frame,
        size: tuple[int, int, int],
        spacing_mm: tuple[float, float, float],
    ) -> None:
        self.anatomy = anatomy
        self.frame = frame
        self.size = size
        self.spacing_mm = spacing_mm
        world = [((np.arange(n) - (n - 1) / 2) * s).astype(np.float32) for n, s in zip(size, spacing_mm, strict=True)]
        self.world = world
        x, y, self.z = frame.to_canonical(world[0][:, None, None], world[1][None, :, None], world[2][None, None, :])
        self.x, self.y = (np.ascontiguousarray(np.broadcast_to(v, size)) for v in (x, y))
        self.blur_mm = float(np.mean(np.array(spacing_mm) / frame.scale))
        self.hu: Array = np.full(size, -1000.0, np.float32)
        self.lung: Array = np.zeros(size, np.float32)
        self.depth: Array = np.full(size, -40.0, np.float32)
        self.chest: Box = self.box((0.0, 0.0, 0.0), np.array([128.0, 96.0, 400.0]))
        self.trees: dict[str, Tree] = {}

    def coverage(self, depth: Array) -> Array:
        """Fraction of each voxel inside a surface from the depth in mm (a box filter one voxel wide)."""
        return np.clip(depth * np.float32(1.0 / self.blur_mm) + np.float32(0.5), 0, 1)

    def mix(self, fraction: Array, hu: Array | float, box: Box = EVERYWHERE) -> None:
        """Replace ``fraction`` of each voxel of ``box`` by tissue of ``hu``."""
        part = self.hu[box]
        part += fraction * (np.asarray(hu, np.float32) - part)

    def box(self, centre: ArrayLike, half_mm: ArrayLike) -> Box:
        """Slices that hold everything within ``half_mm`` (one value or three) of a canonical point."""
        middle = self.frame.to_world(np.asarray(centre, np.float64)[None])[0]
        return self._world_box(middle, np.asarray(half_mm, np.float64))

    def _world_box(self, middle: NDArray, half_mm: NDArray) -> Box:
        half = np.broadcast_to(half_mm, 3) * self.frame.scale * 1.12 + 4.0
        slices = []
        for axis in range(3):
            n, s = self.size[axis], self.spacing_mm[axis]
            low = int(np.floor((middle[axis] - half[axis]) / s + (n - 1) / 2))
            high = int(np.ceil((middle[axis] + half[axis]) / s + (n - 1) / 2)) + 1
            slices.append(slice(min(max(low, 0), n), min(max(high, 0), n)))
        return (slices[0], slices[1], slices[2])

    def coordinates(self, box: Box) -> tuple[Array, Array, Array]:
        """Canonical x, y, z of a box."""
        return self.x[box], self.y[box], self.z[:, :, box[2]]

    def local(
        self, centre: tuple[float, ...], half_mm: float, depth: Callable[[Array, Array, Array], Array]
    ) -> tuple[Box, Array]:
        """Coverage of a shape given by its depth function, on the box around ``centre``."""
        box = self.box(centre, half_mm)
        return box, self.coverage(depth(*self.coordinates(box)))

    def ball(self, centre: tuple[float, ...], semi_axes: tuple[float, ...]) -> tuple[Box, Array]:
        """Coverage of an ellipsoid, canonical mm, on the box around it."""
        return self.local(centre, max(semi_axes) + 4, lambda x, y, z: ellipsoid(x, y, z, centre, semi_axes))

    def tube(self, points: NDArray, radii: ArrayLike, growth_mm: float = 0.0) -> Array:
        """Coverage ``(X, Y, Z)`` of a tube along canonical ``points (n, 3)`` with ``radii (n,)`` mm."""
        points = np.asarray(points, np.float32)
        radii = np.broadcast_to(np.asarray(radii, np.float32), len(points)) + np.float32(growth_mm)
        out = np.zeros(self.size, np.float32)
        middles = self.frame.to_world((points[:-1] + points[1:]) / 2)
        for middle, p, q, a, b in zip(middles, points[:-1], points[1:], radii[:-1], radii[1:], strict=True):
            box = self._world_box(middle, np.abs(q - p) / 2 + max(a, b) + self.blur_mm)
            x, y, z = self.coordinates(box)
            d = q - p
            length2 = np.float32(max(float(d @ d), 1e-6))
            t = np.clip(((x - p[0]) * d[0] + (y - p[1]) * d[1] + (z - p[2]) * d[2]) / length2, 0, 1)
            dx, dy, dz = x - p[0] - t * d[0], y - p[1] - t * d[1], z - p[2] - t * d[2]
            depth = a + t * (b - a) - np.sqrt(dx * dx + dy * dy + dz * dz)
            np.maximum(out[box], self.coverage(depth), out=out[box])
        return out

    def splat(self, points: NDArray, volumes_mm3: NDArray) -> Array:
        """Deposit small volumes at canonical points: the fraction ``(X, Y, Z)`` they fill, at most 1.

        Each point is shared out to its eight neighbours trilinearly, so things thinner than a voxel keep
        their volume at any grid.
        """
        total: NDArray = np.zeros(int(np.prod(self.size)))
        if len(points):
            spacing = np.array(self.spacing_mm)
            size = np.array(self.size)
            index = self.frame.to_world(points) / spacing + (size - 1) / 2
            weight = np.asarray(volumes_mm3, np.float64) * float(np.prod(self.frame.scale) / np.prod(spacing))
            base = np.floor(index).astype(np.int64)
            t = index - base
            cells, parts = [], []
            for corner in np.ndindex(2, 2, 2):
                at = base + np.array(corner)
                share = np.prod(np.where(np.array(corner) == 1, t, 1 - t), axis=1) * weight
                inside = np.all((at >= 0) & (at < size), axis=1)
                cells.append(np.ravel_multi_index(tuple(at[inside].T), self.size))
                parts.append(share[inside])
            total = np.bincount(np.concatenate(cells), np.concatenate(parts), minlength=len(total))
        return np.minimum(total, 1.0).astype(np.float32).reshape(self.size)

    def noise(self, rng: np.random.Generator, scale_mm: float) -> Array:
        """A smooth random field ``(X, Y, Z)``, mean 0 and variance about 1, with structure of ``scale_mm``.

        It lives on a lattice in world mm, so every grid samples the same field.
        """
        cells = max(4, round(PERIOD_MM / scale_mm))
        pitch = PERIOD_MM / cells
        lattice = rng.standard_normal((cells, cells, cells), dtype=np.float32)
        wx, wy, wz = (spline_weights(axis, pitch, cells) for axis in self.world)
        field = np.tensordot(wx, lattice, (1, 0))
        field = np.einsum("xbc,yb->xyc", field, wy, optimize=True)
        # A cubic B-spline of white noise has variance (0.479)^3.
        return np.asarray((field @ wz.T) * np.float32(3.01), np.float32)

    def lobes(self, names: tuple[str, ...], soft_mm: float = 4.0) -> Array:
        """Soft membership ``(X, Y, Z)`` in any of the lobes, times the lung fraction."""
        out = np.zeros(self.size, np.float32)
        for name in names:
            depth = lobe_depth(name, self.x, self.y, self.z)
            np.maximum(out, np.clip(depth / np.float32(2 * soft_mm) + np.float32(0.5), 0, 1), out=out)
        return out * self.lung

    def sites(
        self,
        rng: np.random.Generator,
        lobes: tuple[str, ...],
        count: int,
        margin_mm: float,
        apart_mm: float = 0.0,
    ) -> NDArray:
        """Random canonical points ``(n, 3)`` in the lobes, ``margin_mm`` inside the lung.

        As many as ``count``, nearer to each other than ``apart_mm`` where there is no other room; fewer only where
        fewer lie so deep.
        """
        x, y, z = rng.uniform([-130, -90, -150], [130, 85, 130], (4000, 3)).astype(np.float32).T
        inside = np.max([lobe_depth(name, x, y, z) for name in lobes], axis=0)
        depth = np.minimum(lung_depth(self.anatomy, x, y, z), inside + np.float32(4.0))
        candidates = np.stack([x, y, z], axis=1)[depth > margin_mm]
        chosen: list[NDArray] = []
        while len(chosen) < min(count, len(candidates)):
            for point in candidates:
                if len(chosen) == count:
                    break
                if all(np.linalg.norm(point - other) >= apart_mm for other in chosen):
                    chosen.append(point)
            apart_mm = 0.7 * apart_mm if apart_mm > 1.0 else 1e-6
        return np.array(chosen, np.float64).reshape(-1, 3)
