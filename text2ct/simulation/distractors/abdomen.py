"""Liver, gallbladder and kidneys."""

from __future__ import annotations

import numpy as np

from text2ct.simulation.anatomy import Anatomy
from text2ct.simulation.anatomy_organs import abdomen_depth, gallbladder_mm, kidney_mm, liver_depth
from text2ct.simulation.anatomy_scene import Scene
from text2ct.simulation.anatomy_shape import diaphragm_z
from text2ct.simulation.distractors.base import BOTH, DistractorModel, radius_mm, sign_of
from text2ct.simulation.instance import Distractor

_WHOLE_MM = 2.0  # between the edge of the default field and what is to be seen whole
CYST_HU = 8.0  # water: 0 to 20 HU (Bosniak 1986, Radiology 158:1)


class RenalCyst(DistractorModel):
    """Water on the upper pole, the part of a kidney that a chest CT shows."""

    kind = "renal cyst"
    region = "abdomen"
    weight = 1.25
    ageing = 1.5
    sides = BOTH
    sizes_mm = (10, 34)
    findings = (
        "A {hypodense|simple cystic|cortical|low-density} lesion of <size> {evaluated as a cyst|(cyst?)} <is> in the "
        "<side> kidney",
        "{In the upper pole of the <side> kidney|In the <side> kidney} a cortical cyst of <size> <is>",
    )
    impression = ("Renal cyst", "Cortical cyst in the <side> kidney")

    def apply(self, scene: Scene, item: Distractor, rng: np.random.Generator) -> None:
        """Paint a ball of water."""
        r = radius_mm(scene, item)
        box, cover = scene.ball(in_kidney(scene, item, (1.0, 4.0, -5.0), r), (r, r, r))
        scene.mix(cover, CYST_HU, box)


class HepaticCyst(DistractorModel):
    """Water in the right or left lobe."""

    kind = "hepatic cyst"
    region = "abdomen"
    weight = 1.25
    ageing = 1.0
    sides = BOTH
    sizes_mm = (9, 30)
    findings = (
        "A <size> hypodense {lesion|area} <is> in the <side> lobe of the liver (cyst?)",
        "{In the <side> lobe of the liver|In the <side> liver lobe} a {cystic|simple cystic} lesion of <size> <is>",
    )
    impression = ("{Hepatic|Liver} cyst", "Cyst in the <side> lobe of the liver")

    def draw(self, rng: np.random.Generator) -> Distractor:
        """Draw as usual; the thin left lobe holds small cysts only."""
        item = super().draw(rng)
        small = min(float(item.size_mm or 10.0), 16.0)
        return Distractor(item.kind, item.side, small if item.side == "left" else item.size_mm)

    def apply(self, scene: Scene, item: Distractor, rng: np.random.Generator) -> None:
        """Paint a ball of water where the lobe is deepest of some random places."""
        r = radius_mm(scene, item)
        low, high = ([45, -30, -130], [85, 20, -95]) if item.side == "right" else ([-8, 34, -142], [14, 52, -122])
        x, y, z = rng.uniform(low, high, (6 if item.side == "right" else 24, 3)).astype(np.float32).T
        z = np.maximum(z, np.float32(scene.frame.floor_mm + r + _WHOLE_MM))
        within = abdomen_depth(scene.anatomy, x, y, z) - np.float32(3.0)
        best = int(np.argmax(liver_depth(x, y, z, within)))
        box, cover = scene.ball((float(x[best]), float(y[best]), float(z[best])), (r, r, r))
        scene.mix(cover, CYST_HU, box)


class Hepatosteatosis(DistractorModel):
    """A liver of less than 40 HU without contrast (Kodama et al. 2007, AJR 188:1307)."""

    kind = "hepatosteatosis"
    region = "abdomen"
    weight = 3.0
    findings = (
        "{Liver parenchyma density|The density of the liver parenchyma} is {diffusely |}decreased, "
        "{compatible|consistent} with {steatosis|fatty liver|hepatosteatosis}",
        "{Hepatosteatosis|Fatty infiltration of the liver} <is>",
    )
    impression = ("Hepatosteatosis", "Fatty liver")

    def prepare(self, anatomy: Anatomy, item: Distractor, rng: np.random.Generator) -> None:
        """Lower the liver to 25 to 40 HU, or by as much where contrast raises it."""
        anatomy.liver_hu += float(rng.uniform(25.0, 40.0)) - 57.0


class Gallstone(DistractorModel):
    """Calcified stones, 100 to 300 HU, on the dependent wall of the gallbladder."""

    kind = "gallstone"
    region = "abdomen"
    weight = 0.75
    ageing = 1.0
    sizes_mm = (7, 18)
    counts = (1, 3)
    findings = (
        "A {stone|calculus|hyperdense stone} of <size> <is> in the gallbladder {lumen|}",
        "A <size> {calculus|stone} <is> in the {lumen of the gallbladder|gallbladder}",
    )
    many = (
        "{Calculi|Hyperdense stones|Stones}, the largest <size>, <are> in the {gallbladder|gallbladder lumen}",
        "{Calculi|Stones} measuring up to <size> <are> in the {gallbladder|lumen of the gallbladder}",
    )
    impression = ("Cholelithiasis", "{Gallstone|Gallbladder stone}")

    def apply(self, scene: Scene, item: Distractor, rng: np.random.Generator) -> None:
        """Paint balls side by side, the largest first."""
        (cx, cy, cz), (_, ay, _) = gallbladder_mm(scene.frame)
        r = radius_mm(scene, item)
        for k, (dx, dz) in enumerate(((0.0, 2.0), (-0.3, -9.0), (0.3, 12.0))[: item.count]):
            size = r if k == 0 else 0.7 * min(r, 6.0)
            box, cover = scene.ball((cx + 10 * dx, cy - ay + 3.0 + size, cz + dz), (size, size, size))
            scene.mix(cover, 280.0, box)


class Cholecystectomy(DistractorModel):
    """No gallbladder."""

    kind = "cholecystectomy"
    region = "abdomen"
    weight = 0.5
    ageing = 1.0
    findings = ("{Gallbladder|The gallbladder} is {operated|not seen, operated}",)
    impression = ("{Cholecystectomized|Status after cholecystectomy}",)

    def prepare(self, anatomy: Anatomy, item: Distractor, rng: np.random.Generator) -> None:
        """Take the gallbladder away."""
        anatomy.gallbladder = False


class KidneyStone(DistractorModel):
    """A stone in an upper calyx; calcium oxalate has 500 HU and more."""

    kind = "kidney stone"
    region = "abdomen"
    weight = 0.75
    sides = BOTH
    sizes_mm = (6, 14)
    findings = ("A <size> {stone|calculus} <is> in the {upper pole of the |}<side> kidney",)
    impression = ("Nephrolithiasis", "{Calculus|Stone} in the <side> kidney")

    def apply(self, scene: Scene, item: Distractor, rng: np.random.Generator) -> None:
        """Paint a dense ball."""
        r = radius_mm(scene, item)
        box, cover = scene.ball(in_kidney(scene, item, (-3.0, -2.0, -11.0), r), (r, r, r))
        scene.mix(cover, 650.0, box)


def in_kidney(
    scene: Scene, item: Distractor, from_pole: tuple[float, float, float], r: float
) -> tuple[float, float, float]:
    """A point below the upper pole of the item's kidney: a ball of ``r`` there is under the diaphragm and in the field.

    Args:
        scene: The canvas.
        item: Names the side.
        from_pole: Laterally, forwards and upwards from the pole, canonical mm.
        r: Radius, canonical mm.
    """
    sign = sign_of(item)
    (cx, cy, cz), (_, _, az) = kidney_mm(scene.frame, sign)
    x, y, pole = cx + sign * from_pole[0], cy + from_pole[1], cz + az
    under = float(diaphragm_z(scene.anatomy, np.array([x], np.float32), np.array([y], np.float32))[0]) - r - 5.0
    # Lungs that reach below the field, which the lowest diaphragms do, give way.
    return x, y, max(min(pole + from_pole[2], under), scene.frame.floor_mm + r + _WHOLE_MM)
