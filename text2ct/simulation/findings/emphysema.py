"""Destroyed airspaces."""

from __future__ import annotations

import numpy as np

from text2ct.simulation.anatomy import Anatomy
from text2ct.simulation.anatomy_scene import Scene
from text2ct.simulation.findings.base import FindingModel, choose, draw_severity, side_of
from text2ct.simulation.instance import Instance
from text2ct.simulation.patients import Patient


class Emphysema(FindingModel):
    """Holes under -950 HU without walls, vessels thinned out, diaphragm low and flat, chest deep.

    The threshold is that of densitometry (Gevenois et al. 1995, Am J Respir Crit Care Med 152:653).
    """

    finding = "Emphysema"
    stage = 10

    def draw(self, rng: np.random.Generator, patient: Patient) -> Instance:
        """Draw distribution and grade."""
        weights = {"upper lobes": 0.45, "both lungs": 0.4, "right upper lobe": 0.08, "left upper lobe": 0.07}
        site = choose(rng, weights)
        return Instance(self.finding, draw_severity(rng), side_of(site), site)

    def prepare(self, anatomy: Anatomy, instance: Instance, rng: np.random.Generator) -> None:
        """Hyperinflate: lower both domes and deepen the chest."""
        wide = 1.0 if instance.site in ("upper lobes", "both lungs") else 0.5
        for index in (0, 1):
            anatomy.dome_z[index] -= wide * (6.0 + 14.0 * instance.severity)
        anatomy.cage_gain *= 1.0 + 0.06 * wide * instance.severity

    def apply(self, scene: Scene, instance: Instance, rng: np.random.Generator) -> None:
        """Paint confluent holes of one to three centimetres."""
        s = np.float32(instance.severity)
        where = scene.lobes(instance.lobes(), 12.0)
        if instance.site == "both lungs":
            where = where * np.clip(np.float32(0.75) + scene.z / np.float32(300.0), np.float32(0.5), 1)
        holes = scene.noise(rng, 13.0)
        hole = np.clip((holes + np.float32(0.3) + np.float32(0.8) * s) / np.float32(0.6), 0, 1)
        scene.mix(where * (np.float32(0.35) + np.float32(0.62) * hole), -995.0)
