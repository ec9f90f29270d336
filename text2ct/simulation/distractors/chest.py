"""Thyroid, aorta and lungs."""

from __future__ import annotations

import numpy as np

from text2ct.simulation.anatomy import Anatomy, Mass
from text2ct.simulation.anatomy_organs import THYROID_MM, aorta, thyroid_hu
from text2ct.simulation.anatomy_scene import Scene
from text2ct.simulation.distractors.base import BOTH, DistractorModel, radius_mm, sign_of
from text2ct.simulation.instance import Distractor


class ThyroidNodule(DistractorModel):
    """A nodule without the gland's iodine, beside the trachea."""

    kind = "thyroid nodule"
    region = "airways"
    weight = 0.75
    ageing = 1.0
    sides = BOTH
    sizes_mm = (8, 24)
    findings = (
        "A hypodense nodule of <size> <is> in the <side> {thyroid lobe|lobe of the thyroid gland}, "
        "{US correlation is recommended|ultrasound evaluation is appropriate}",
        "{In the <side> lobe of the thyroid|In the <side> thyroid lobe} a <size> hypodense nodule <is>",
    )
    impression = ("{Thyroid nodule|Nodular thyroid}", "Nodule in the <side> thyroid lobe")

    def apply(self, scene: Scene, item: Distractor, rng: np.random.Generator) -> None:
        """Paint a ball in a rim of gland that touches the trachea and widens the lobe; lung gives no way."""
        r = radius_mm(scene, item)
        _, y, z = THYROID_MM[0]
        centre = (sign_of(item) * (11.0 + r), y + 3.0, z - 3.0)
        for radius, hu in ((r + 2.0, thyroid_hu(scene.anatomy)), (r, 45.0)):
            box, cover = scene.ball(centre, (radius, radius, radius))
            scene.mix(cover * (1 - scene.lung[box]) * (np.abs(scene.x[box]) > 9.5), hu, box)


class EctaticAorta(DistractorModel):
    """An ascending aorta of 40 to 44 mm; from 45 mm on it would be an aneurysm."""

    kind = "ectatic ascending aorta"
    region = "vessels"
    weight = 0.75
    ageing = 2.0
    sizes_mm = (40, 44)
    findings = (
        "The ascending aorta is {ectatic|wide|dilated} and measures <size>",
        "{The diameter of the ascending aorta|Ascending aorta diameter} is <size>, {wider than normal|increased}",
    )
    impression = ("{Ectasia|Dilatation} of the ascending aorta",)

    def prepare(self, anatomy: Anatomy, item: Distractor, rng: np.random.Generator) -> None:
        """Widen the ascending part to the drawn diameter; the lung gives way."""
        wanted = float(item.size_mm or 42.0) / (anatomy.scale[0] + anatomy.scale[1])
        line, radii = aorta(anatomy)
        anatomy.ascending_gain *= wanted / float(radii[1])
        anatomy.masses.append(Mass((float(line[2, 0]), 27.0, 24.0), (wanted + 2, wanted + 2, 40.0)))


class AirCyst(DistractorModel):
    """Air within a thin wall, in a lower lobe."""

    kind = "lung air cyst"
    region = "lung"
    weight = 0.5
    sides = BOTH
    sizes_mm = (8, 20)
    findings = (
        "{An air cyst|A thin-walled air cyst} of <size> <is> in the <side> lower lobe",
        "{In the <side> lung lower lobe|In the <side> lower lobe} a thin-walled <size> air cyst <is>",
    )
    impression = ("Air cyst in the <side> {lung|lower lobe}",)

    def apply(self, scene: Scene, item: Distractor, rng: np.random.Generator) -> None:
        """Paint a wall of 1.5 mm around air."""
        r = radius_mm(scene, item)
        for site in scene.sites(rng, (f"{item.side} lower lobe",), 1, r + 3.0):
            centre = (float(site[0]), float(site[1]), float(site[2]))
            for radius, hu in ((r, -350.0), (r - 1.5, -990.0)):
                box, cover = scene.ball(centre, (radius, radius, radius))
                scene.mix(cover * scene.lung[box], hu, box)
