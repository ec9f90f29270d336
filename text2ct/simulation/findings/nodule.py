"""Lung nodules."""

from __future__ import annotations

import numpy as np

from text2ct.simulation.anatomy_scene import Scene
from text2ct.simulation.findings.base import FindingModel, choose, draw_severity, side_of
from text2ct.simulation.instance import LOBES, NODULE_RATIO, Instance
from text2ct.simulation.patients import Patient


class LungNodule(FindingModel):
    """Round opacities up to 30 mm (Fleischner glossary: Bankier et al. 2024), solid or calcified."""

    finding = "Lung nodule"
    stage = 35

    def draw(self, rng: np.random.Generator, patient: Patient) -> Instance:
        """Draw lobe, diameter of the largest (13 to 30 mm) and number."""
        severity = draw_severity(rng)
        several = rng.random() < 0.65
        site = "both lungs" if several else choose(rng, dict.fromkeys(LOBES, 1.0))
        count = 5 + int(rng.integers(0, 5)) + int(5 * severity) if several else 1 + int(rng.integers(0, 3))
        size = round(float(12.0 + 12.0 * severity + rng.uniform(0, 3) + (0 if several else 3)))
        return Instance(self.finding, severity, side_of(site), site, size_mm=float(size), count=count)

    def apply(self, scene: Scene, instance: Instance, rng: np.random.Generator) -> None:
        """Paint slightly lobulated balls, the largest first."""
        size_mm = instance.size_mm or 12.0
        largest = scene.anatomy.canonical_mm(size_mm)
        calcified = rng.random() < 0.2
        hu = 260.0 if calcified else 90.0 if scene.anatomy.contrast else 40.0
        shrink = rng.uniform(0.7, 1.0, 64)
        shape = rng.uniform(0.88, 1.0, (64, 3))
        sites = scene.sites(rng, instance.lobes(), instance.count, 0.45 * largest + 2, 1.2 * largest)
        for k, site in enumerate(sites):
            ratios = shrink[k % 64] * shape[k % 64] if k else np.array([1.0, NODULE_RATIO, NODULE_RATIO])
            centre = (float(site[0]), float(site[1]), float(site[2]))
            box, cover = scene.ball(centre, scene.anatomy.canonical_axes(size_mm / 2 * ratios))
            scene.mix(cover * scene.lung[box], hu, box)
