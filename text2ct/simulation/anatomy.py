"""The numbers that make one patient's chest differ from another's.

Everything is drawn in *canonical* millimetres: x to the patient's right, y anterior, z superior, the origin
in the middle of the thorax (about the level of the left atrium). `Frame` maps the scanner's world to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from text2ct.simulation.patients import Patient, Scan, generator

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Mass:
    """An ellipsoid that displaces lung: a hernia, a node, a bulge.

    Args:
        centre: Canonical mm.
        semi_axes: Along x, y and z, mm.
    """

    centre: tuple[float, ...]
    semi_axes: tuple[float, ...]


@dataclass
class Anatomy:
    """One scan's anatomy; findings may change it before anything is painted.

    Lengths in mm, attenuation in HU. Normal adult sizes follow Gray's Anatomy (41st ed.) and, for the aorta,
    Rogers et al. 2013 (J Cardiovasc Comput Tomogr 7:351); attenuation follows ICRU Report 44 for tissues and
    Hounsfield values tabulated by Schneider et al. 1996 (Phys Med Biol 41:111).
    """

    scale: tuple[float, float, float]
    sex: str
    age: int
    habitus: float
    fat_mm: float
    muscle_mm: float
    breast_mm: float
    inspiration: float
    arms_up: bool
    contrast: bool
    kyphosis_mm: float
    scoliosis_mm: float
    dome_z: list[float]
    heart_centre: list[float]
    heart_axes: list[float]
    aorta_mm: float
    unfolding_mm: float
    bone_hu: float
    blood_hu: float
    lung_hu: float
    gradient_hu: float
    vessel_gain: float
    epicardial_fat_mm: float
    pericardium_mm: float = 0.0
    cage_gain: float = 1.0
    masses: list[Mass] = field(default_factory=list)
    liver_hu: float = 57.0
    gallbladder: bool = True
    ascending_gain: float = 1.0

    def canonical_mm(self, size_mm: float) -> float:
        """Canonical length of what measures ``size_mm`` in the world, as reports do, whatever its direction."""
        return size_mm / float(np.mean(self.scale))

    def canonical_axes(self, sizes_mm: Sequence[float] | NDArray) -> tuple[float, float, float]:
        """Canonical lengths along (x, y, z) of what measures ``sizes_mm``, (3,), along them in the world."""
        x, y, z = (float(size / scale) for size, scale in zip(sizes_mm, self.scale, strict=True))
        return x, y, z

    @property
    def myocardium_hu(self) -> float:
        """Heart muscle, about 45 HU plain and 100 HU enhanced."""
        return 105.0 if self.contrast else 48.0


def draw_anatomy(patient: Patient, scan: Scan) -> Anatomy:
    """Draw the healthy anatomy of a scan from the patient's own streams.

    What belongs to the person (size, habitus, bones) is the same in all scans; breath and contrast are the
    scan's. Findings have no part in it.
    """
    rng = generator(patient.number, "anatomy")
    u = rng.random(16)
    g = np.clip(rng.normal(size=16), -2.2, 2.2)
    male = patient.sex == "M"
    age = (patient.age - 50.0) / 20.0
    habitus = patient.habitus
    size = patient.height_scale
    moment = generator(patient.number, "breath", scan.index)
    blood = float(moment.uniform(150.0, 330.0)) if scan.contrast else float(40.0 + 4.0 * g[0])
    dome = -58.0 - 34.0 * (scan.inspiration - 0.7) - 5.0 * g[1]
    heart = 1.0 + 0.035 * g[2] + 0.02 * age + 0.03 * (habitus - 0.5)
    return Anatomy(
        scale=(
            float(size * (0.99 + 0.05 * (habitus - 0.5) + 0.025 * g[3])),
            float(size * (0.97 + 0.12 * (habitus - 0.5) + 0.04 * g[4] + 0.02 * age)),
            float(size * (1.0 + 0.03 * g[5] - 0.01 * age)),
        ),
        sex=patient.sex,
        age=patient.age,
        habitus=habitus,
        fat_mm=float(4.0 + 30.0 * habitus**1.3 + (3.0 if not male else 0.0)),
        muscle_mm=float((13.0 if male else 9.0) * (1.0 - 0.1 * age) + 2.0 * u[0]),
        breast_mm=0.0 if male else float(12.0 + 22.0 * habitus + 8.0 * u[1]),
        inspiration=scan.inspiration,
        arms_up=scan.arms_up,
        contrast=scan.contrast,
        kyphosis_mm=float(max(0.0, 4.0 + 5.0 * age + 3.0 * g[6])),
        scoliosis_mm=float(3.0 * g[7]),
        dome_z=[float(dome), float(dome - 10.0 - 3.0 * g[8])],
        heart_centre=[
            float(-16.0 + 3.0 * g[9]),
            float(24.0 + 2.0 * g[10]),
            float(-30.0 + 0.3 * (dome + 58.0)),
        ],
        heart_axes=[float(60.0 * heart), float(46.0 * heart), float(47.0 * heart)],
        aorta_mm=float(13.0 + (1.0 if male else 0.0) + 1.3 * age + 0.8 * g[11]),
        unfolding_mm=float(max(0.0, 5.0 * age + 3.0 * g[12])),
        bone_hu=float(np.clip(170.0 - 40.0 * age + 20.0 * g[13], 80.0, 280.0)),  # trabecular, Pickhardt 2011
        blood_hu=blood,
        lung_hu=float(-888.0 - 45.0 * (scan.inspiration - 0.7) + 20.0 * g[14] - 5.0 * age),
        gradient_hu=float(38.0 + 45.0 * (1.0 - scan.inspiration) + 6.0 * g[15]),
        vessel_gain=float(0.9 + 0.2 * u[2]),
        epicardial_fat_mm=float(2.5 + 4.0 * habitus + 1.0 * max(age, 0.0)),
        liver_hu=105.0 if scan.contrast else 57.0,
    )
