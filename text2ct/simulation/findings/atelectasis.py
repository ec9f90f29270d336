"""Airless lung with loss of volume."""

from __future__ import annotations

import numpy as np

from text2ct.simulation.anatomy import Anatomy, Array
from text2ct.simulation.anatomy_scene import Scene
from text2ct.simulation.anatomy_shape import diaphragm_z, ellipsoid
from text2ct.simulation.findings.base import FindingModel, choose, draw_severity, side_of
from text2ct.simulation.instance import Instance
from text2ct.simulation.patients import Patient


class Atelectasis(FindingModel):
    """Collapse of (part of) a lobe towards hilum, spine or diaphragm, with plates beside it."""

    finding = "Atelectasis"
    stage = 30

    def draw(self, rng: np.random.Generator, patient: Patient) -> Instance:
        """Draw the lobe and how much of it has collapsed; lower lobes lead."""
        weights = {
            "right lower lobe": 0.24,
            "left lower lobe": 0.26,
            "both lower lobes": 0.22,
            "right middle lobe": 0.14,
            "right upper lobe": 0.07,
            "left upper lobe": 0.07,
        }
        site = choose(rng, weights)
        return Instance(self.finding, draw_severity(rng), side_of(site), site)

    def prepare(self, anatomy: Anatomy, instance: Instance, rng: np.random.Generator) -> None:
        """Raise the diaphragm on the side that lost volume."""
        for lobe in instance.lobes():
            index = 0 if lobe.startswith("right") else 1
            anatomy.dome_z[index] += (5.0 if "lower" in lobe else 3.0) + 12.0 * instance.severity

    def apply(self, scene: Scene, instance: Instance, rng: np.random.Generator) -> None:
        """Paint the collapsed part and two plates in each lobe."""
        airless = 95.0 if scene.anatomy.contrast else 42.0
        for lobe in instance.lobes():
            sign = 1.0 if lobe.startswith("right") else -1.0
            depth = self._collapse(scene, lobe, sign, instance.severity)
            scene.mix(scene.coverage(depth) * scene.lung, airless)
            for centre in scene.sites(rng, (lobe,), 2 + int(2 * instance.severity), 10.0, 22.0):
                self._plate(scene, centre, rng, airless - 30.0)

    @staticmethod
    def _collapse(scene: Scene, lobe: str, sign: float, severity: float) -> Array:
        x, y, z = np.float32(sign) * scene.x, scene.y, scene.z
        s = np.float32(severity)
        if "lower" in lobe:
            # A wedge on the spine, broad on the diaphragm and thin at the hilum.
            floor = diaphragm_z(scene.anatomy, scene.x, scene.y)
            radius = np.clip(38 - z, 0, 110) * (np.float32(0.26) + np.float32(0.26) * s) + 6
            wedge = radius - np.sqrt(np.float32(0.55) * (x - 36) ** 2 + (y + 80) ** 2)
            cap = np.float32(10.0) + np.float32(16.0) * s - (z - floor)
            return np.maximum(np.minimum(wedge, 38 - z), np.minimum(cap, np.float32(5.0) - y))
        if "middle" in lobe:
            tilt = z + np.float32(6.0) + np.float32(0.35) * (y - 30)
            return ellipsoid(x, y, tilt, (44.0, 34.0, 0.0), (36.0, 40.0, float(7.0 + 9.0 * s)))
        return ellipsoid(x, y, z, (34.0, 30.0, 62.0), (float(18 + 16 * s), float(32 + 14 * s), 50.0))

    @staticmethod
    def _plate(scene: Scene, centre: np.ndarray, rng: np.random.Generator, hu: float) -> None:
        tilt = rng.uniform(-0.5, 0.5, 2).astype(np.float32)
        radius = rng.uniform(20.0, 34.0)
        c = tuple(float(v) for v in centre)

        def depth(x: Array, y: Array, z: Array) -> Array:
            return ellipsoid(x, y, z + tilt[0] * (x - c[0]) + tilt[1] * (y - c[1]), c, (radius, 0.8 * radius, 3.6))

        box, cover = scene.local(c, radius * 1.2, depth)
        scene.mix(cover * scene.lung[box], hu, box)
