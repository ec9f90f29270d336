"""Free fluid in the pleural space."""

from __future__ import annotations

import numpy as np

from text2ct.simulation.anatomy_organs import FLUID_HU
from text2ct.simulation.anatomy_scene import Scene
from text2ct.simulation.findings.base import FindingModel, choose, draw_severity, signs
from text2ct.simulation.instance import Instance
from text2ct.simulation.patients import Patient

_BACK_MM = -88.0  # the posterior pleura at the base, canonical y


class PleuralEffusion(FindingModel):
    """Fluid layers along the back of the lying patient, deepest at the base; the lung above it collapses."""

    finding = "Pleural effusion"
    stage = 60

    def draw(self, rng: np.random.Generator, patient: Patient) -> Instance:
        """Draw the side and the greatest depth: 19 to 75 mm."""
        side = choose(rng, {"right": 0.3, "left": 0.22, "bilateral": 0.48})
        severity = draw_severity(rng)
        depth = round(float(18.0 + 54.0 * severity + rng.uniform(-2, 3)))
        return Instance(self.finding, severity, side, "pleural space", size_mm=float(depth))

    def apply(self, scene: Scene, instance: Instance, rng: np.random.Generator) -> None:
        """Paint collapsed lung, then the fluid under it; the right side is the deeper of two."""
        full = float(instance.size_mm or 25.0) / float(scene.frame.scale[1])
        second = rng.uniform(0.55, 0.9)
        rise = np.clip((scene.z + 90) / np.float32(170.0), 0, 1)
        for order, sign in enumerate(signs(instance.side)):
            depth = np.float32(full * (1.0 if order == 0 else second))
            mine = np.where(np.float32(sign) * scene.x > 0, scene.lung, np.float32(0.0))
            # The layer thins towards the apex and climbs the side wall a little.
            top = _BACK_MM + depth * (1 - np.float32(0.75) * rise)
            top = top + np.float32(0.12) * np.clip(np.abs(scene.x) - 70, 0, 60)
            below = top - scene.y
            rim = np.float32(5.0) + np.float32(0.2) * depth * (1 - rise)
            airless = 90.0 if scene.anatomy.contrast else 45.0
            scene.mix(scene.coverage(below + rim) * mine * np.float32(0.9), airless)
            scene.mix(scene.coverage(below) * mine, FLUID_HU)
