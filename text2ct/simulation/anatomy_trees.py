"""Branching trees that fill the lungs: pulmonary arteries and veins, and the bronchi beside the arteries.

Targets are scattered in a lung and joined one by one, nearest to the hilum first, to the node that costs the
least wire plus path (Cuntz et al. 2010, PLoS Comput Biol 6:e1000877). Calibres follow Murray's law with the
exponent 2.7 measured in pulmonary arteries (Huang et al. 1996, J Appl Physiol 81:2123).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from text2ct.simulation.anatomy import Anatomy
from text2ct.simulation.anatomy_shape import lung_depth

_MURRAY = 2.7
_LEAF_MM = 0.75  # radius of the smallest vessel drawn


@dataclass(frozen=True)
class Tree:
    """Tapered segments in canonical mm: ``start (n, 3)``, ``end (n, 3)``, ``radius (n,)``."""

    start: NDArray
    end: NDArray
    radius: NDArray

    def where(self, keep: NDArray) -> Tree:
        """The segments for which ``keep (n,)`` is true."""
        return Tree(self.start[keep], self.end[keep], self.radius[keep])

    @property
    def middle(self) -> NDArray:
        """Midpoints ``(n, 3)``."""
        return (self.start + self.end) / 2

    def aside(self) -> Tree:
        """Where the bronchi run that accompany these arteries: moved by the sum of both radii."""
        offset = np.array([0.0, 0.75, 0.65]) * np.clip(2.1 * self.radius, 3.0, 9.0)[:, None]
        return Tree(self.start + offset, self.end + offset, self.radius)

    def points(self, step_mm: float, grow_mm: float = 0.0, factor: float = 1.0) -> tuple[NDArray, NDArray]:
        """Sample points ``(m, 3)`` that fill the segments, and the volume ``(m,)`` in mm^3 each stands for.

        Args:
            step_mm: Distance between neighbouring points.
            grow_mm: Added to every radius after ``factor``.
            factor: Multiplies every radius.
        """
        radius = np.maximum(self.radius * factor + grow_mm, 0.1)
        direction = self.end - self.start
        length = np.linalg.norm(direction, axis=1)
        along = np.maximum(np.ceil(length / step_mm), 1).astype(int)
        across = np.maximum(np.round(np.pi * radius**2 / step_mm**2), 1).astype(int)
        total = along * across
        which = np.repeat(np.arange(len(radius)), total)
        serial = np.arange(total.sum()) - np.repeat(np.cumsum(total) - total, total)
        ring = serial % across[which]
        t = (serial // across[which] + 0.5) / along[which]
        unit = direction / np.maximum(length, 1e-6)[:, None]
        helper = np.where(np.abs(unit[:, 2:]) < 0.8, [[0.0, 0.0, 1.0]], [[1.0, 0.0, 0.0]])
        side = np.cross(unit, helper)
        side /= np.linalg.norm(side, axis=1, keepdims=True)
        other = np.cross(unit, side)
        # A sunflower of points fills the cross-section evenly; a single point sits in the middle.
        r = np.where(across[which] > 1, radius[which] * np.sqrt((ring + 0.5) / across[which]), 0.0)
        angle = 2.399963 * (ring + serial // across[which])
        points = self.start[which] + t[:, None] * direction[which]
        points += (r * np.cos(angle))[:, None] * side[which] + (r * np.sin(angle))[:, None] * other[which]
        return points, (np.pi * radius**2 * length / total)[which]


def join(*trees: Tree) -> Tree:
    """All segments of several trees."""
    return Tree(*(np.concatenate([getattr(t, name) for t in trees]) for name in ("start", "end", "radius")))


def grow(root: NDArray, targets: NDArray, balance: float, leaf_mm: float = _LEAF_MM) -> Tree:
    """Join ``targets (n, 3)`` to ``root (3,)`` and give every branch its calibre.

    Args:
        root: Where the tree enters.
        targets: Points to supply.
        balance: Weight of path length against wire length; higher gives straighter paths.
        leaf_mm: Radius at the tips.
    """
    targets = targets[np.argsort(np.linalg.norm(targets - root, axis=1))]
    n = len(targets)
    nodes = np.vstack([root[None], targets])
    path = np.zeros(n + 1)
    parent = np.zeros(n + 1, int)
    for i in range(1, n + 1):
        gap = nodes[:i] - nodes[i]
        distance = np.sqrt(np.einsum("ij,ij->i", gap, gap))
        best = int(np.argmin(distance + balance * path[:i]))
        parent[i], path[i] = best, path[best] + distance[best]
    flow = np.full(n + 1, leaf_mm**_MURRAY)
    for i in range(n, 0, -1):  # parents always come before their children
        flow[parent[i]] += flow[i]
    return Tree(nodes[parent[1:]], nodes[1:], flow[1:] ** (1 / _MURRAY))


def grow_trees(anatomy: Anatomy, rng: np.random.Generator) -> dict[str, Tree]:
    """Arteries, veins and airways of both lungs.

    Returns:
        ``arteries``, ``veins`` and ``airways``, each both lungs together. Airways are the larger arteries
        moved aside by the sum of the radii: a bronchus and its artery run in one bundle.
    """
    parts: dict[str, list[Tree]] = {"arteries": [], "veins": [], "airways": []}
    for sign in (1.0, -1.0):
        low, high = sorted((sign * 5.0, sign * 128.0))
        cloud = rng.uniform([low, -88, -145], [high, 80, 128], (2600, 3)).astype(np.float32)
        depth = lung_depth(anatomy, cloud[:, 0], cloud[:, 1], cloud[:, 2])
        inside = cloud[depth > 5.0].astype(np.float64)
        half = len(inside) // 2
        arteries = grow(np.array([sign * 27.0, -10.0, 20.0]), inside[: min(half, 380)], 0.35)
        veins = grow(np.array([sign * 24.0, -8.0, 0.0]), inside[half : half + min(half, 300)], 0.3)
        bronchi = arteries.where(arteries.radius > 1.9).aside()
        parts["arteries"].append(arteries)
        parts["veins"].append(veins)
        parts["airways"].append(replace(bronchi, radius=0.95 * bronchi.radius))
    return {name: join(*trees) for name, trees in parts.items()}
