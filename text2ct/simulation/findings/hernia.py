"""Stomach in the chest."""

from __future__ import annotations

import numpy as np

from text2ct.simulation.anatomy import Anatomy, Mass
from text2ct.simulation.anatomy_scene import Scene
from text2ct.simulation.anatomy_shape import ellipsoid
from text2ct.simulation.findings.base import FindingModel, draw_severity
from text2ct.simulation.instance import Instance
from text2ct.simulation.patients import Patient


class HiatalHernia(FindingModel):
    """A sac behind the heart with a wall, gastric contents and, in front of them, air."""

    finding = "Hiatal hernia"
    stage = 45

    def draw(self, rng: np.random.Generator, patient: Patient) -> Instance:
        """Draw the width of the sac: 44 to 86 mm."""
        severity = draw_severity(rng)
        width = round(float(42.0 + 40.0 * severity + rng.uniform(0, 4)))
        return Instance(self.finding, severity, "", "oesophageal hiatus", size_mm=float(width))

    def _sac(self, anatomy: Anatomy, instance: Instance) -> Mass:
        half = float(instance.size_mm or 50.0) / 2 / anatomy.scale[0]
        deep = 0.42 * half + 11.0
        centre = (-4.0, -43.0 + deep, min(anatomy.dome_z) + 4.0 + 0.25 * half)
        return Mass(centre, (half, deep, 0.6 * half + 10.0))

    def prepare(self, anatomy: Anatomy, instance: Instance, rng: np.random.Generator) -> None:
        """The sac displaces lung and, forwards, the heart."""
        sac = self._sac(anatomy, instance)
        anatomy.masses.append(sac)
        anatomy.heart_centre[1] += 0.3 * sac.semi_axes[1]

    def apply(self, scene: Scene, instance: Instance, rng: np.random.Generator) -> None:
        """Paint wall, contents and the air-fluid level (the patient lies on the back: air is in front)."""
        sac = self._sac(scene.anatomy, instance)
        box = scene.box(sac.centre, max(sac.semi_axes) + 6)
        x, y, z = scene.coordinates(box)
        depth = ellipsoid(x, y, z, sac.centre, sac.semi_axes)
        free = np.sqrt(x**2 + (y + 62) ** 2) - np.float32(17.0)  # never inside the spine
        depth = np.minimum(depth, free)
        scene.mix(scene.coverage(depth), 48.0, box)
        scene.mix(scene.coverage(depth - 3.5), 22.0, box)
        level = np.float32(sac.centre[1] + rng.uniform(-0.35, 0.15) * sac.semi_axes[1])
        scene.mix(scene.coverage(np.minimum(depth - 3.5, y - level)), -960.0, box)
