"""Filled airspaces: partly (ground glass) or wholly (consolidation)."""

from __future__ import annotations

import numpy as np

from text2ct.simulation.anatomy import Array
from text2ct.simulation.anatomy_scene import Scene
from text2ct.simulation.anatomy_shape import ellipsoid
from text2ct.simulation.findings.base import FindingModel, choose, draw_severity, side_of
from text2ct.simulation.instance import Instance
from text2ct.simulation.patients import Patient


def _patches(
    scene: Scene,
    lobes: tuple[str, ...],
    rng: np.random.Generator,
    count: int,
    radius_mm: float,
    ragged: float,
) -> Array:
    """Coverage of ``count`` clouds with ragged edges in each of the lobes."""
    cover = np.zeros(scene.size, np.float32)
    rough = scene.noise(rng, 22.0) * np.float32(ragged)
    for lobe in lobes:
        for site in scene.sites(rng, (lobe,), count, 9.0, 0.9 * radius_mm):
            centre = (float(site[0]), float(site[1]), float(site[2]))
            radius = radius_mm * rng.uniform(0.75, 1.1)
            axes = tuple(float(v) for v in radius * rng.uniform(0.8, 1.15, 3))
            box = scene.box(centre, radius * 1.2 + 2.5 * ragged)
            depth = ellipsoid(*scene.coordinates(box), centre, axes) + rough[box]
            np.maximum(cover[box], np.clip(depth / np.float32(9.0) + np.float32(0.5), 0, 1), out=cover[box])
    return cover * scene.lobes(lobes, 3.0)


class LungOpacity(FindingModel):
    """Ground-glass opacity: vessels stay visible through it."""

    finding = "Lung opacity"
    stage = 20

    def draw(self, rng: np.random.Generator, patient: Patient) -> Instance:
        """Draw lobes and extent."""
        weights = {
            "both lungs": 0.4,
            "both lower lobes": 0.2,
            "right upper lobe": 0.09,
            "right middle lobe": 0.05,
            "right lower lobe": 0.1,
            "left upper lobe": 0.08,
            "left lower lobe": 0.08,
        }
        site = choose(rng, weights)
        severity = draw_severity(rng)
        return Instance(self.finding, severity, side_of(site), site, count=2 + int(3 * severity))

    def apply(self, scene: Scene, instance: Instance, rng: np.random.Generator) -> None:
        """Raise the parenchyma to about -500 HU in patches near the pleura."""
        s = instance.severity
        per_lobe = instance.count if len(instance.lobes()) <= 2 else max(1, instance.count - 1)
        cover = _patches(scene, instance.lobes(), rng, per_lobe, 24.0 + 12.0 * s, 7.0)
        target = np.float32(-560.0 + 120.0 * s)
        scene.mix(cover * np.float32(0.85), np.maximum(scene.hu, target))


class Consolidation(FindingModel):
    """Airspaces full of fluid, with air bronchograms and a halo of ground glass."""

    finding = "Consolidation"
    stage = 32

    def draw(self, rng: np.random.Generator, patient: Patient) -> Instance:
        """Draw lobes and extent."""
        weights = {
            "right lower lobe": 0.25,
            "left lower lobe": 0.2,
            "both lower lobes": 0.25,
            "right upper lobe": 0.1,
            "right middle lobe": 0.1,
            "left upper lobe": 0.1,
        }
        site = choose(rng, weights)
        severity = draw_severity(rng)
        return Instance(self.finding, severity, side_of(site), site, count=2 + int(2 * severity))

    def apply(self, scene: Scene, instance: Instance, rng: np.random.Generator) -> None:
        """Paint clouds of soft tissue, then the bronchi that stay open in them."""
        lobes = instance.lobes()
        cover = _patches(scene, lobes, rng, instance.count, 28.0 + 14.0 * instance.severity, 6.0)
        scene.mix(np.clip(cover * np.float32(1.6), 0, 1) * np.float32(0.5), np.maximum(scene.hu, -450.0))
        scene.mix(cover, 75.0 if scene.anatomy.contrast else 34.0)
        airways = scene.trees["airways"]
        points, volumes = airways.points(0.62 * min(scene.blur_mm, 6.0), grow_mm=0.3)
        scene.mix(scene.splat(points, volumes) * cover, -950.0)
