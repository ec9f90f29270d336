"""Calcium in the walls of the aorta and of the coronary arteries."""

from __future__ import annotations

import numpy as np

from text2ct.simulation.anatomy_organs import aorta, coronaries
from text2ct.simulation.anatomy_scene import Scene
from text2ct.simulation.anatomy_trees import Tree
from text2ct.simulation.findings.base import FindingModel, choose, draw_severity
from text2ct.simulation.instance import Instance
from text2ct.simulation.patients import Patient

PLAQUE_HU = 1100.0  # dense calcium; partial volume lowers it


def resample(line: np.ndarray, step_mm: float) -> np.ndarray:
    """Points ``(m, 3)`` every ``step_mm`` along a polyline ``(n, 3)``."""
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    t = np.arange(0.0, length[-1], step_mm)
    return np.stack([np.interp(t, length, line[:, k]) for k in range(3)], axis=1)


class ArterialCalcification(FindingModel):
    """Plaques: curved plates on the wall of the thoracic aorta."""

    finding = "Arterial wall calcification"
    stage = 70

    def draw(self, rng: np.random.Generator, patient: Patient) -> Instance:
        """Draw the segment and the number of plaques."""
        site = choose(rng, {"aortic arch": 0.35, "descending aorta": 0.2, "thoracic aorta": 0.45})
        severity = draw_severity(rng)
        return Instance(self.finding, severity, "", site, count=8 + int(rng.integers(0, 3)) + int(9 * severity))

    def apply(self, scene: Scene, instance: Instance, rng: np.random.Generator) -> None:
        """Paint each plaque as a patch of the wall, 4 to 5 mm thick."""
        line, radii = aorta(scene.anatomy)
        first, last = {"aortic arch": (2, 7), "descending aorta": (6, 11)}.get(instance.site, (1, 11))
        path = resample(line[first : last + 1].astype(float), 1.0)
        radius = float(np.mean(radii[first : last + 1]))
        points, volumes = [], []
        for _ in range(instance.count):
            at, turn = int(rng.integers(0, len(path))), rng.uniform(0, 2 * np.pi)
            half, arc = rng.uniform(5.0, 11.0), rng.uniform(0.4, 0.9)
            rows = np.arange(max(0, int(at - half)), min(len(path) - 1, int(at + half)))
            if len(rows) == 0:
                continue
            angle = turn + np.linspace(-arc, arc, 13)
            axis = path[min(rows[-1] + 1, len(path) - 1)] - path[rows[0]]
            axis /= max(float(np.linalg.norm(axis)), 1e-6)
            side = np.cross(axis, [0.3, 0.9, 0.3])
            side /= np.linalg.norm(side)
            around = np.cos(angle)[:, None] * side + np.sin(angle)[:, None] * np.cross(axis, side)
            thick = rng.uniform(3.8, 5.4)
            for layer in (-0.25, 0.25):
                shell = (radius - 1.0 + layer * thick) * around
                patch = (path[rows][:, None, :] + shell[None]).reshape(-1, 3)
                points.append(patch)
                volumes.append(np.full(len(patch), 2 * arc * radius / 13 * thick / 2))
        if points:
            scene.mix(scene.splat(np.concatenate(points), np.concatenate(volumes)), PLAQUE_HU)


class CoronaryCalcification(FindingModel):
    """Calcified stretches along one or more coronary arteries."""

    finding = "Coronary artery wall calcification"
    stage = 71

    def draw(self, rng: np.random.Generator, patient: Patient) -> Instance:
        """Draw the vessels and the number of plaques."""
        weights = {
            "left anterior descending artery": 0.4,
            "right coronary artery": 0.1,
            "left main and left anterior descending arteries": 0.2,
            "three vessels": 0.3,
        }
        site = choose(rng, weights)
        severity = draw_severity(rng)
        return Instance(self.finding, severity, "", site, count=3 + int(rng.integers(0, 2)) + int(5 * severity))

    def apply(self, scene: Scene, instance: Instance, rng: np.random.Generator) -> None:
        """Paint rods of 2.5 to 3.9 mm radius on the heart's surface."""
        vessels = {"right coronary artery": ("rca",), "three vessels": ("lad", "lcx", "rca")}
        lines = coronaries(scene.anatomy)
        starts, ends, radii = [], [], []
        for name in vessels.get(instance.site, ("lad",)):
            line = resample(lines[name], 1.0)
            reach = len(line) if "descending" not in instance.site else int(0.8 * len(line))
            for k in range(max(2, instance.count if name == "lad" else instance.count // 2 + 1)):
                length = int(rng.uniform(9, 20))
                low = (
                    0
                    if k == 0 and instance.site.startswith("left main")
                    else int(rng.uniform(3, max(4, reach - length)))
                )
                piece = line[low : low + length : 3]
                starts.append(piece[:-1])
                ends.append(piece[1:])
                radii.append(np.full(len(piece) - 1, rng.uniform(2.5, 3.1 + 0.8 * instance.severity)))
        tree = Tree(np.concatenate(starts), np.concatenate(ends), np.concatenate(radii))
        scene.mix(scene.splat(*tree.points(0.6 * min(scene.blur_mm, 4.0))), PLAQUE_HU)
