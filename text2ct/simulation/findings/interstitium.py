"""Patterns of the whole lung: mosaic attenuation and thick interlobular septa."""

from __future__ import annotations

import numpy as np

from text2ct.simulation.anatomy_scene import Scene
from text2ct.simulation.anatomy_shape import oblique_fissure_z
from text2ct.simulation.findings.base import FindingModel, choose, draw_severity
from text2ct.simulation.instance import Instance
from text2ct.simulation.patients import Patient


class MosaicAttenuation(FindingModel):
    """Sharply bounded regions of lighter and darker lung (Fleischner glossary)."""

    finding = "Mosaic attenuation pattern"
    stage = 12

    def draw(self, rng: np.random.Generator, patient: Patient) -> Instance:
        """Draw distribution and contrast."""
        site = choose(rng, {"both lungs": 0.65, "lower lobes": 0.25, "upper lobes": 0.1})
        return Instance(self.finding, draw_severity(rng), "bilateral", site)

    def apply(self, scene: Scene, instance: Instance, rng: np.random.Generator) -> None:
        """Add to the light regions and take from the dark ones."""
        field = scene.noise(rng, 30.0)
        light = np.clip(field / np.float32(0.3) + np.float32(0.5), 0, 1)
        where = scene.lobes(instance.lobes(), 8.0)
        gain = np.float32(110.0 + 90.0 * instance.severity)
        scene.hu += where * (gain * light - np.float32(45.0) * (1 - light)) * (scene.hu < -500)


class SeptalThickening(FindingModel):
    """A net of septa, densest under the pleura and at the bases, with thick fissures."""

    finding = "Interlobular septal thickening"
    stage = 15

    def draw(self, rng: np.random.Generator, patient: Patient) -> Instance:
        """Draw distribution and grade."""
        site = choose(rng, {"both lungs": 0.55, "lower lobes": 0.35, "upper lobes": 0.1})
        return Instance(self.finding, draw_severity(rng), "bilateral", site)

    def apply(self, scene: Scene, instance: Instance, rng: np.random.Generator) -> None:
        """Paint sheets where smooth fields change sign: closed cells of about 2 cm, the size of lobules."""
        ridge = np.zeros(scene.size, np.float32)
        for _ in range(2):
            field = scene.noise(rng, 19.0)
            np.maximum(ridge, np.exp(-((field / np.float32(0.2)) ** 2)), out=ridge)
        rim = np.clip(np.float32(1.35) - scene.depth / np.float32(32.0), np.float32(0.2), 1)
        fissure = np.abs(scene.z - oblique_fissure_z(scene.x, scene.y)) * np.float32(0.75)
        ridge = np.maximum(ridge * rim, np.float32(0.7) * np.clip(np.float32(1.3) - fissure / np.float32(4.0), 0, 1))
        where = scene.lobes(instance.lobes(), 8.0)
        gain = np.float32(300.0 + 260.0 * instance.severity)
        scene.hu += where * ridge * gain * (scene.hu < -450)
