"""Spine and ribs."""

from __future__ import annotations

import numpy as np

from text2ct.simulation.anatomy import Anatomy
from text2ct.simulation.anatomy_bones import RIB_PITCH_MM, RIB_SLOPE_MM, VERTEBRA_PITCH_MM
from text2ct.simulation.anatomy_frame import FIELD_MM
from text2ct.simulation.anatomy_scene import Scene
from text2ct.simulation.anatomy_shape import cage_depth, spine_x
from text2ct.simulation.distractors.base import BOTH, DistractorModel, radius_mm, sign_of
from text2ct.simulation.instance import Distractor

_CALLUS_MM = (7.5, 9.0, 8.0)  # semi-axes


def _vertebra(scene: Scene, rng: np.random.Generator, low: int, high: int) -> tuple[float, float, float]:
    """The middle of one of the vertebral bodies ``low`` to ``high``, counted upwards from the origin."""
    z = VERTEBRA_PITCH_MM * float(rng.integers(low, high + 1)) + 6.0
    return _middle_x(scene, z), -57.0, z


def _middle_x(scene: Scene, z: float) -> float:
    """Where the spine is at height z."""
    return float(spine_x(scene.anatomy, np.array([z], np.float32))[0])


class Osteophytes(DistractorModel):
    """Spurs that bridge discs; on the right, where no aorta beats against them."""

    kind = "osteophytes"
    region = "bones"
    weight = 5.0
    ageing = 2.5
    counts = (3, 7)
    findings = (
        "{Degenerative|Osteodegenerative|Osteophytic degenerative} changes <are> in the {bone "
        "structures|vertebrae|thoracic vertebrae}",
        "{Osteophytes|Osteophyte formations} <are> at the {corners|edges} of the vertebral {bodies|corpora}",
    )
    impression = (
        "Degenerative changes in {bones|the bone structures|the vertebrae}",
        "{Thoracic spondylosis|Osteodegenerative changes}",
    )

    def apply(self, scene: Scene, item: Distractor, rng: np.random.Generator) -> None:
        """Paint a spur in front and to the right of each of ``count`` discs, from one level downwards."""
        first = int(rng.integers(-1, 2))
        for k in range(item.count):
            z = VERTEBRA_PITCH_MM * (first - k) - 6.0
            turn = np.radians(rng.uniform(25.0, 75.0))
            x = _middle_x(scene, z) + 18.0 * float(np.cos(turn))
            r = float(rng.uniform(4.0, 6.0))
            box, cover = scene.ball((x, -57.0 + 15.0 * float(np.sin(turn)), z), (r, r, 1.6 * r))
            scene.mix(cover, 480.0, box)


class Scoliosis(DistractorModel):
    """A curve beyond 10 degrees after Cobb: 7 mm and more to either side of the midline here."""

    kind = "scoliosis"
    region = "bones"
    weight = 0.75
    sides = BOTH
    findings = (
        "{Mild scoliosis|Scoliosis} <is>, {convex to the <side>|with <side> convexity} in the upper thoracic region",
        "S-shaped scoliosis <is> {in the thoracic region|}, the upper curve facing <side>",
    )
    impression = ("{Scoliosis|Thoracic scoliosis}",)

    def prepare(self, anatomy: Anatomy, item: Distractor, rng: np.random.Generator) -> None:
        """Bend the spine."""
        anatomy.scoliosis_mm = sign_of(item) * float(rng.uniform(9.0, 17.0))


class RibFracture(DistractorModel):
    """Callus: thickened, dense bone at the side of one or a few neighbouring ribs."""

    kind = "old rib fracture"
    region = "bones"
    weight = 0.5
    sides = BOTH
    counts = (1, 3)
    findings = (
        "{An old|A healed} fracture {line|sequela} <is> in the lateral part of a <side> rib",
        "A <side> rib shows a {healed|united} fracture with callus {laterally|}",
    )
    many = ("{Old|Healed} fracture {lines|sequelae} <are> in the lateral parts of the <side> ribs",)
    impression = ("{Old|Healed} {rib fracture|fracture of the ribs} on the <side>",)

    def apply(self, scene: Scene, item: Distractor, rng: np.random.Generator) -> None:
        """Paint a bump on each rib, mostly outwards."""
        share = float(rng.uniform(0.4, 0.58))  # of the way around the cage from the spine to the sternum
        first = int(rng.integers(0, 3))
        for k in range(item.count):
            box, cover = scene.ball(self._on_rib(scene, sign_of(item), first - k, share), _CALLUS_MM)
            scene.mix(cover, 0.55 * scene.anatomy.bone_hu + 560.0, box)

    def _on_rib(self, scene: Scene, sign: float, number: int, share: float) -> tuple[float, float, float]:
        """A point on a rib; further forward where the widest chests leave the default field."""
        rho = np.arange(30.0, 180.0, 0.5, dtype=np.float32)
        point = (0.0, 0.0, 0.0)
        for part in np.arange(share, 0.8, 0.02):
            x, y = rho * np.float32(np.sin(np.pi * part)), -8.0 - rho * np.float32(np.cos(np.pi * part))
            z = float(RIB_PITCH_MM * (number + 0.5) - RIB_SLOPE_MM * part)
            at = int(np.argmax(cage_depth(scene.anatomy, x, y, np.full_like(x, z)) < -6.0))
            point = (sign * float(x[at]), float(y[at]), z)
            across = abs(float(scene.frame.to_world(np.array([point]))[0, 0]))
            if across + _CALLUS_MM[0] * float(scene.frame.scale[0]) < FIELD_MM / 2:
                break
        return point


class Haemangioma(DistractorModel):
    """Fat and thinned trabeculae in a vertebral body."""

    kind = "vertebral haemangioma"
    region = "bones"
    weight = 0.5
    sizes_mm = (9, 16)
    findings = (
        "A hypodense {lesion|area} of <size> compatible with hemangioma <is> in {one|a} thoracic vertebra",
        "In a thoracic vertebral body a <size> lesion suggesting hemangioma <is>",
    )
    impression = ("{Vertebral hemangioma|Hemangioma in a thoracic vertebra}",)

    def apply(self, scene: Scene, item: Distractor, rng: np.random.Generator) -> None:
        """Paint a ball well below the bone around it."""
        r = radius_mm(scene, item)
        box, cover = scene.ball(_vertebra(scene, rng, -4, 2), (r, r, min(r, 8.0)))
        scene.mix(cover, scene.anatomy.bone_hu - 160.0, box)


class BoneIsland(DistractorModel):
    """Compact bone inside a vertebral body; islands exceed 885 HU on average (Ulano et al. 2016, AJR 207:362)."""

    kind = "compact bone island"
    region = "bones"
    weight = 0.5
    sizes_mm = (6, 13)
    findings = (
        "A <size> sclerotic {focus|lesion} (compact bone island?) <is> {in a thoracic vertebra|}",
        "In a vertebral body a sclerotic focus of <size> <is>, {compatible with|suggesting} a compact bone island",
    )
    impression = ("Compact bone island",)

    def apply(self, scene: Scene, item: Distractor, rng: np.random.Generator) -> None:
        """Paint a dense ball."""
        r = radius_mm(scene, item)
        box, cover = scene.ball(_vertebra(scene, rng, -4, 2), (r, r, r))
        scene.mix(cover, 1000.0, box)
