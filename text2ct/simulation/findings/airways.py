"""Thick and wide bronchi."""

from __future__ import annotations

import numpy as np

from text2ct.simulation.anatomy_scene import Scene
from text2ct.simulation.anatomy_shape import lobe_depth
from text2ct.simulation.anatomy_trees import Tree
from text2ct.simulation.findings.base import FindingModel, choose, draw_severity, side_of
from text2ct.simulation.instance import Instance
from text2ct.simulation.patients import Patient


def bronchi(scene: Scene, lobes: tuple[str, ...], low_mm: float, high_mm: float) -> Tree:
    """Bronchi of some lobes beside arteries of a range of radii, moved aside like the healthy ones."""
    arteries = scene.trees["arteries"]
    x, y, z = arteries.middle.astype(np.float32).T
    inside = np.max([lobe_depth(name, x, y, z) for name in lobes], axis=0) > 0
    return arteries.where(inside & (arteries.radius > low_mm) & (arteries.radius < high_mm)).aside()


def _paint(scene: Scene, tree: Tree, lumen_mm: float, wall_mm: float, factor: float, wall_hu: float) -> None:
    step = 0.62 * min(scene.blur_mm, 6.0)
    points, volumes = tree.points(step, grow_mm=lumen_mm + wall_mm, factor=factor)
    scene.mix(scene.splat(points, volumes) * scene.lung, wall_hu)
    points, volumes = tree.points(step, grow_mm=lumen_mm, factor=factor)
    scene.mix(scene.splat(points, volumes) * scene.lung, -970.0)


class PeribronchialThickening(FindingModel):
    """Cuffs around the bronchi of both lungs or the lower lobes, lumen narrowed a little."""

    finding = "Peribronchial thickening"
    stage = 40

    def draw(self, rng: np.random.Generator, patient: Patient) -> Instance:
        """Draw extent and grade."""
        weights = {"both lungs": 0.55, "lower lobes": 0.25, "right lower lobe": 0.1, "left lower lobe": 0.1}
        site = choose(rng, weights)
        return Instance(self.finding, draw_severity(rng), side_of(site), site)

    def apply(self, scene: Scene, instance: Instance, rng: np.random.Generator) -> None:
        """Paint the cuffs."""
        tree = bronchi(scene, instance.lobes(), 1.35, 9.0)
        _paint(scene, tree, lumen_mm=0.0, wall_mm=2.6 + 2.2 * instance.severity, factor=0.8, wall_hu=15.0)


class Bronchiectasis(FindingModel):
    """Bronchi wider than their arteries, with thick walls, in clusters towards the pleura."""

    finding = "Bronchiectasis"
    stage = 42

    def draw(self, rng: np.random.Generator, patient: Patient) -> Instance:
        """Draw lobes, calibre of the widest bronchus and grade."""
        weights = {
            "right lower lobe": 0.2,
            "left lower lobe": 0.2,
            "right middle lobe": 0.1,
            "both lower lobes": 0.25,
            "right upper lobe": 0.1,
            "left upper lobe": 0.05,
            "both upper lobes": 0.1,
        }
        site = choose(rng, weights)
        severity = draw_severity(rng)
        calibre = round(float(12.0 + 7.0 * severity + rng.uniform(-1, 1)), 0)
        return Instance(self.finding, severity, side_of(site), site, size_mm=calibre)

    def apply(self, scene: Scene, instance: Instance, rng: np.random.Generator) -> None:
        """Paint tubes of up to the drawn calibre with walls of 2 to 3 mm, and cystic ends."""
        lumen = scene.anatomy.canonical_mm(instance.size_mm or 12.0) / 2
        tree = bronchi(scene, instance.lobes(), 1.15, 3.4)
        keep = rng.random(4000)[: len(tree.radius)] < 0.65 + 0.35 * instance.severity
        tree = tree.where(keep[: len(tree.radius)])
        calibre = lumen * np.clip(0.45 + 0.22 * tree.radius, 0.55, 1.0)
        _paint(scene, Tree(tree.start, tree.end, calibre), 0.0, 2.6, 1.0, 30.0)
        lobes = instance.lobes()
        ends = scene.sites(rng, lobes, 6 + int(8 * instance.severity) * len(lobes), 12.0, 2.2 * lumen)
        if len(ends):
            cysts = Tree(ends, ends + np.array([0.0, -0.8, -0.6]) * lumen, np.full(len(ends), lumen))
            _paint(scene, cysts, 0.0, 2.6, 1.0, 30.0)
