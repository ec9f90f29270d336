"""A large heart, and fluid around it."""

from __future__ import annotations

import numpy as np

from text2ct.simulation.anatomy import Anatomy
from text2ct.simulation.anatomy_scene import Scene
from text2ct.simulation.findings.base import FindingModel, draw_severity
from text2ct.simulation.instance import Instance
from text2ct.simulation.patients import Patient


def heart_width_mm(anatomy: Anatomy) -> float:
    """Transverse diameter of the heart muscle in world mm."""
    a, b, c = anatomy.heart_axes
    # Half extent along x of an ellipsoid with the axes' x components of `heart_frame`.
    return 2.0 * float(np.sqrt((0.80 * a) ** 2 + (0.48 * b) ** 2 + (0.36 * c) ** 2)) * anatomy.scale[0]


class Cardiomegaly(FindingModel):
    """A heart wider than half the chest (Danzer 1919); it pushes the lungs and the left diaphragm."""

    finding = "Cardiomegaly"
    stage = 5

    def draw(self, rng: np.random.Generator, patient: Patient) -> Instance:
        """Draw the transverse diameter: 142 to 171 mm for a mean adult, 115 mm being normal."""
        severity = draw_severity(rng)
        width = round(float((141.0 + 30.0 * severity) * patient.height_scale))
        return Instance(self.finding, severity, "", "heart", size_mm=float(width))

    def prepare(self, anatomy: Anatomy, instance: Instance, rng: np.random.Generator) -> None:
        """Scale the heart to the drawn width, more along its long axis, and shift it to the left."""
        wanted = float(instance.size_mm or 150.0)
        factor = wanted / heart_width_mm(anatomy)
        for axis, power in enumerate((1.15, 0.85, 0.7)):
            anatomy.heart_axes[axis] *= factor**power
        rest = wanted / heart_width_mm(anatomy)
        anatomy.heart_axes = [rest * axis for axis in anatomy.heart_axes]
        anatomy.heart_centre[0] -= 26.0 * max(factor - 1.0, 0.0)
        anatomy.heart_centre[2] -= 8.0 * max(factor - 1.0, 0.0)

    def apply(self, scene: Scene, instance: Instance, rng: np.random.Generator) -> None:
        """Nothing is left to paint: the anatomy was painted with the large heart."""


class PericardialEffusion(FindingModel):
    """A layer of fluid between epicardial fat and pericardium."""

    finding = "Pericardial effusion"
    stage = 6

    def draw(self, rng: np.random.Generator, patient: Patient) -> Instance:
        """Draw the thickness: 10 to 26 mm."""
        severity = draw_severity(rng)
        thickness = round(float(9.0 + 16.0 * severity + rng.uniform(0, 1.5)))
        return Instance(self.finding, severity, "", "pericardium", size_mm=float(thickness))

    def prepare(self, anatomy: Anatomy, instance: Instance, rng: np.random.Generator) -> None:
        """Open the sac; the lungs give way."""
        anatomy.pericardium_mm = anatomy.canonical_mm(instance.size_mm or 12.0)

    def apply(self, scene: Scene, instance: Instance, rng: np.random.Generator) -> None:
        """Nothing is left to paint: the heart was painted in its full sac."""
