"""Scars of old infection in the apices."""

from __future__ import annotations

import numpy as np

from text2ct.simulation.anatomy import Anatomy
from text2ct.simulation.anatomy_scene import Scene
from text2ct.simulation.findings.base import FindingModel, choose, draw_severity, side_of, signs
from text2ct.simulation.instance import Instance
from text2ct.simulation.patients import Patient


class FibroticSequela(FindingModel):
    """Bands from the hilum to the apical pleura, a thick pleural cap, specks of calcium, lost volume."""

    finding = "Pulmonary fibrotic sequela"
    stage = 34

    def draw(self, rng: np.random.Generator, patient: Patient) -> Instance:
        """Draw the side and the number of bands."""
        site = choose(rng, {"both apices": 0.45, "right apex": 0.3, "left apex": 0.25})
        severity = draw_severity(rng)
        return Instance(self.finding, severity, side_of(site), site, count=5 + int(5 * severity))

    def prepare(self, anatomy: Anatomy, instance: Instance, rng: np.random.Generator) -> None:
        """Lost volume pulls the diaphragm up a little."""
        for sign in signs(instance.side):
            anatomy.dome_z[0 if sign > 0 else 1] += 3.0 + 5.0 * instance.severity

    def apply(self, scene: Scene, instance: Instance, rng: np.random.Generator) -> None:
        """Paint cap, bands and specks."""
        s = instance.severity
        for sign in signs(instance.side):
            mine = np.where(np.float32(sign) * scene.x > 0, scene.lung, np.float32(0.0))
            ragged = scene.noise(rng, 20.0)
            cap = np.float32(6.0 + 8.0 * s) + np.float32(4.0) * ragged - scene.depth
            cap = np.minimum(cap, scene.z - np.float32(84.0 - 14.0 * s))
            scene.mix(scene.coverage(cap) * mine, 32.0)
            ends = np.stack(
                [sign * rng.uniform(28, 78, 12), rng.uniform(-62, 18, 12), rng.uniform(70, 116, 12)], axis=1
            )
            bends = rng.normal(0, 6.0, (12, 3))
            for k in range(instance.count):
                root = np.array([sign * 36.0, -10.0, 38.0]) + 0.7 * bends[k]
                line = np.stack([root, (root + ends[k]) / 2 + bends[k], ends[k]])
                cover = scene.tube(line, [3.4, 4.4 + s, 5.6 + 1.5 * s])
                scene.mix(cover * mine, 36.0)
            specks = rng.integers(0, 2, 12)
            for j in np.flatnonzero(specks[: instance.count]):
                cover = scene.tube(np.stack([ends[j], ends[j] + 2.0]), 2.8)
                scene.mix(cover * mine, 480.0)
