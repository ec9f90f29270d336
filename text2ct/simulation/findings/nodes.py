"""Enlarged lymph nodes."""

from __future__ import annotations

import numpy as np

from text2ct.simulation.anatomy import Anatomy, Mass
from text2ct.simulation.anatomy_scene import Scene
from text2ct.simulation.anatomy_shape import ellipsoid
from text2ct.simulation.findings.base import FindingModel, choose, draw_severity, signs
from text2ct.simulation.instance import NODE_RATIO, Instance
from text2ct.simulation.patients import Patient

# Middle and spread (mm) of the stations of the IASLC map (Rusch et al. 2009, J Thorac Oncol 4:568).
_STATIONS = {
    "right paratracheal": ((18.0, -4.0, 62.0), (5.0, 9.0, 16.0)),
    "prevascular": ((-10.0, 40.0, 58.0), (13.0, 7.0, 14.0)),
    "subcarinal": ((3.0, -22.0, 12.0), (10.0, 6.0, 12.0)),
    "hilar": ((44.0, -10.0, 15.0), (6.0, 9.0, 14.0)),
    "axillary": ((127.0, -8.0, 74.0), (8.0, 14.0, 18.0)),
    "aortopulmonary": ((-33.0, 4.0, 38.0), (5.0, 10.0, 7.0)),
}


class Lymphadenopathy(FindingModel):
    """Clusters of round nodes with a short axis over 10 mm (RECIST counts from 15 mm)."""

    finding = "Lymphadenopathy"
    stage = 50

    def draw(self, rng: np.random.Generator, patient: Patient) -> Instance:
        """Draw the station, the short axis of the largest node (19 to 36 mm) and the number."""
        weights = {
            "right paratracheal": 0.12,
            "prevascular": 0.1,
            "subcarinal": 0.13,
            "hilar": 0.17,
            "axillary": 0.08,
            "mediastinal": 0.4,
        }
        site = choose(rng, weights)
        severity = draw_severity(rng)
        side = {"right paratracheal": "right"}.get(site, "")
        if site in ("hilar", "axillary"):
            side = choose(rng, {"right": 0.25, "left": 0.25, "bilateral": 0.5})
        size = round(float(18.0 + 16.0 * severity + rng.uniform(0, 2)))
        many = 2 if site == "mediastinal" or side == "bilateral" else 1
        return Instance(self.finding, severity, side, site, float(size), many * (5 + int(rng.integers(0, 4))))

    def _nodes(self, anatomy: Anatomy, instance: Instance, rng: np.random.Generator) -> list[Mass]:
        """The nodes, the largest first; each station in turn gets one."""
        site = instance.site
        stations = (
            ["right paratracheal", "subcarinal", "prevascular", "aortopulmonary", "hilar"]
            if site == "mediastinal"
            else [site]
        )
        places = [
            (np.array(middle) * [sign, 1.0, 1.0], np.array(spread))
            for name in stations
            for middle, spread in [_STATIONS[name]]
            for sign in (signs(instance.side) if name in ("hilar", "axillary") else (1.0,))
        ]
        nodes = []
        largest_mm = instance.size_mm or 18.0
        for k in range(instance.count):
            middle, spread = places[k % len(places)]
            short_mm = largest_mm * (1.0 if k == 0 else rng.uniform(0.6, 0.95))
            centre = middle + spread * np.clip(rng.normal(size=3), -1.5, 1.5) * (0.0 if k < len(places) else 1.0)
            radii_mm = short_mm / 2 * np.array([1.0, NODE_RATIO, rng.uniform(NODE_RATIO, 1.5)])
            nodes.append(Mass(tuple(float(v) for v in centre), anatomy.canonical_axes(radii_mm)))
        return nodes

    def prepare(self, anatomy: Anatomy, instance: Instance, rng: np.random.Generator) -> None:
        """Nodes bulge into the lungs."""
        if instance.site != "axillary":
            anatomy.masses.extend(self._nodes(anatomy, instance, rng))

    def apply(self, scene: Scene, instance: Instance, rng: np.random.Generator) -> None:
        """Paint soft tissue, without covering great vessels and airways."""
        hu = 85.0 if scene.anatomy.contrast else 42.0
        for node in self._nodes(scene.anatomy, instance, rng):
            box = scene.box(node.centre, max(node.semi_axes) + 4)
            cover = scene.coverage(ellipsoid(*scene.coordinates(box), node.centre, node.semi_axes))
            here = scene.hu[box]
            keep = np.where((here < -700) & (scene.lung[box] < 0.5), np.float32(0.0), np.float32(1.0))
            scene.mix(cover * keep, hu, box)
