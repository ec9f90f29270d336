"""Heart, great vessels, oesophagus, airways' trunk and the upper abdomen."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from text2ct.simulation.anatomy import Anatomy, Array
from text2ct.simulation.anatomy_frame import Frame
from text2ct.simulation.anatomy_scene import Scene
from text2ct.simulation.anatomy_shape import cage_depth, diaphragm_z, ellipsoid, heart_depth, heart_frame

FLUID_HU = 8.0  # effusions and bile, 0 to 20 HU
FAT_HU = -102.0
TRACHEA = np.array([[0, 6, 165], [0, -4, 120], [1, -12, 75], [2, -16, 40]], np.float32)
RIGHT_MAIN = np.array([[2, -16, 40], [18, -15, 26], [34, -12, 18]], np.float32)
# Centres and semi-axes: the fossa under the liver, and the right kidney, whose upper pole lies at the twelfth
# thoracic vertebra; `gallbladder_mm` and `kidney_mm` place them in a scan.
_GALLBLADDER_MM = ((34.0, 42.0, -138.0), (12.0, 18.0, 20.0))
_KIDNEY_MM = ((55.0, -48.0, -158.0), (24.0, 22.0, 32.0))
# How much of them the default field shows at least, mm below the upper end: a chest scan goes down to the adrenals,
# and what a report says of these organs is seen.
_GALLBLADDER_SEEN_MM, _KIDNEY_SEEN_MM = 36.0, 30.0
THYROID_MM = ((16.0, 3.0, 127.0), (7.5, 9.0, 19.0))  # the right lobe: about 15 x 18 x 38 mm
LEFT_MAIN = np.array([[2, -16, 40], [-20, -17, 24], [-40, -16, 14]], np.float32)


Ellipsoid = tuple[tuple[float, float, float], tuple[float, float, float]]


def gallbladder_mm(frame: Frame) -> Ellipsoid:
    """Centre and semi-axes of the gallbladder, canonical mm; high enough for the default field."""
    (x, y, z), axes = _GALLBLADDER_MM
    return (x, y, max(z, frame.floor_mm + _GALLBLADDER_SEEN_MM - axes[2])), axes


def kidney_mm(frame: Frame, sign: float) -> Ellipsoid:
    """Centre and semi-axes of the right (+1) or left (-1) kidney, canonical mm; high enough for the default field."""
    (x, y, z), axes = _KIDNEY_MM
    return (sign * x, y, max(z, frame.floor_mm + _KIDNEY_SEEN_MM - axes[2])), axes


def aorta(anatomy: Anatomy) -> tuple[NDArray, NDArray]:
    """Centre line ``(n, 3)`` from the root to the abdomen, and radii ``(n,)``, canonical mm.

    With age the aorta widens and unfolds: the arch rises and the descending part moves to the left.
    """
    out, r = anatomy.unfolding_mm, anatomy.aorta_mm
    points = np.array(
        [
            [2, 16, 0],
            [11, 26, 18],
            [13 + 0.3 * out, 27, 36],
            [7, 20, 53 + 0.4 * out],
            [-6, 3, 60 + 0.5 * out],
            [-16 - 0.4 * out, -16, 58 + 0.4 * out],
            [-21 - 0.8 * out, -31, 47],
            [-22 - out, -38, 28],
            [-21 - out, -39, -10],
            [-18 - 0.9 * out, -37, -60],
            [-12 - 0.5 * out, -33, -110],
            [-6, -30, -175],
        ],
        np.float32,
    )
    radii = r * np.array([1.2, 1.2, 1.15, 1.1, 1.03, 0.98, 0.95, 0.92, 0.9, 0.86, 0.82, 0.76])
    radii[:5] *= 1 + (anatomy.ascending_gain - 1) * np.array([0.7, 1.0, 1.0, 0.7, 0.2])
    return points, radii.astype(np.float32)


def coronaries(anatomy: Anatomy) -> dict[str, NDArray]:
    """Centre lines ``(n, 3)`` on the surface of the heart: left main + LAD, circumflex, right coronary."""
    # Points as (along the axis, across, down) in units of the heart's semi-axes; on the unit sphere.
    tracks = {
        "lad": [
            (-0.35, 0.75, -0.55),
            (-0.05, 0.85, -0.52),
            (0.3, 0.83, -0.47),
            (0.6, 0.7, -0.38),
            (0.82, 0.5, -0.27),
        ],
        "lcx": [(-0.35, 0.45, -0.82), (-0.3, -0.05, -0.95), (-0.15, -0.6, -0.78), (-0.05, -0.88, -0.47)],
        "rca": [(-0.5, 0.8, -0.33), (-0.55, 0.83, 0.05), (-0.45, 0.72, 0.53), (-0.3, 0.4, 0.87)],
    }
    rows = np.array([[-0.80, 0.44, -0.41], [0.48, 0.877, 0.0], [0.36, -0.197, -0.912]])
    axes = np.array(anatomy.heart_axes)
    centre = np.array(anatomy.heart_centre)
    out = {}
    for name, track in tracks.items():
        unit = np.array(track)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        out[name] = (unit * (axes + 1.5)) @ rows + centre
    return out


def paint_heart(scene: Scene) -> None:
    """Sac, fat, muscle and the four chambers."""
    a = scene.anatomy
    box = scene.box(tuple(a.heart_centre), max(a.heart_axes) + a.pericardium_mm + 14)
    x, y, z = scene.coordinates(box)
    surface = heart_depth(a, x, y, z)
    fat = a.epicardial_fat_mm
    scene.mix(scene.coverage(surface + np.float32(fat + a.pericardium_mm + 1.5)), 15.0, box)
    if a.pericardium_mm > 0:
        scene.mix(scene.coverage(surface + np.float32(fat + a.pericardium_mm)), FLUID_HU, box)
    scene.mix(scene.coverage(surface + np.float32(fat)), FAT_HU + 15, box)
    scene.mix(scene.coverage(surface), a.myocardium_hu, box)
    u, v, w = heart_frame(a, x, y, z)
    sx, sy, sz = a.heart_axes
    chambers = (  # centre and semi-axes as fractions of the heart's, share of the aortic enhancement
        ((0.30, -0.38, 0.12), (0.46, 0.30, 0.42), 0.95),  # left ventricle
        ((0.20, 0.48, 0.12), (0.55, 0.30, 0.52), 1.0),  # right ventricle
        ((-0.45, -0.50, -0.30), (0.33, 0.34, 0.42), 1.0),  # left atrium
        ((-0.58, 0.25, 0.22), (0.30, 0.40, 0.52), 1.0),  # right atrium
    )
    for centre, axes, share in chambers:
        depth = ellipsoid(
            u,
            v,
            w,
            (centre[0] * sx, centre[1] * sy, centre[2] * sz),
            (axes[0] * sx, axes[1] * sy, axes[2] * sz),
        )
        scene.mix(scene.coverage(depth), share * a.blood_hu if a.contrast else a.blood_hu, box)


def thyroid_hu(anatomy: Anatomy) -> float:
    """Attenuation of the healthy gland, which holds iodine of its own."""
    return 160.0 if anatomy.contrast else 100.0


def paint_thyroid(scene: Scene) -> None:
    """Two lobes and the isthmus in front of the trachea; iodine makes the gland denser than muscle."""
    (cx, cy, cz), axes = THYROID_MM
    hu = thyroid_hu(scene.anatomy)
    for centre, semi_axes in (((cx, cy, cz), axes), ((-cx, cy, cz), axes), ((0.0, 10.0, cz - 4), (14.0, 4.0, 7.0))):
        box, cover = scene.ball(centre, semi_axes)
        scene.mix(cover, hu, box)


def paint_vessels(scene: Scene) -> None:
    """Aorta and its branches, pulmonary trunk, caval veins, oesophagus; fat lies around them already."""
    a = scene.anatomy
    blood = a.blood_hu
    oesophagus = np.array([[-2, -16, 165], [-3, -27, 90], [-1, -29, 30], [-4, -28, -30], [-10, -22, -75]])
    scene.mix(scene.tube(oesophagus, 7.5), 38.0)
    scene.mix(scene.tube(oesophagus[:3], 2.2), -500.0)
    venous = 0.8 * blood if a.contrast else blood
    scene.mix(scene.tube(np.array([[24, 12, 78], [23, 10, 40], [23, 8, -6]]), [8.5, 9.5, 11.0]), blood)
    scene.mix(scene.tube(np.array([[-38, 22, 92], [0, 24, 84], [24, 12, 76]]), 6.5), blood)
    scene.mix(scene.tube(np.array([[20, -8, -48], [22, -12, -90], [18, -16, -170]]), 11.5), venous)
    trunk = np.array([[-18, 38, -2], [-20, 30, 16], [-14, 14, 26]])
    scene.mix(scene.tube(trunk, [14.0, 13.5, 12.0]), blood)
    scene.mix(scene.tube(np.array([[-14, 14, 26], [8, 2, 23], [34, -6, 20]]), [11.0, 11.0, 9.0]), blood)
    scene.mix(scene.tube(np.array([[-14, 14, 26], [-28, -6, 32], [-36, -18, 24]]), [11.0, 10.5, 9.0]), blood)
    for sign in (1.0, -1.0):
        veins = np.array([[sign * 10 - 2, -12, -4], [sign * 32, -10, 2]])
        scene.mix(scene.tube(veins, [8.0, 6.5]), blood)
    points, radii = aorta(a)
    scene.mix(scene.tube(points, radii), blood)
    for start, bend, end in (
        ((9, 14, 60), (14, 8, 92), (26, 4, 160)),
        ((-6, 3, 64), (-12, 2, 95), (-24, 0, 160)),
        ((-15, -10, 62), (-24, -14, 96), (-60, -20, 125)),
    ):
        scene.mix(scene.tube(np.array([start, bend, end], np.float32), [6.5, 5.0, 4.0]), blood)


def paint_trachea(scene: Scene) -> None:
    """Trachea and main bronchi: a wall of about 2 mm around air."""
    for wall, hu in ((2.0, 20.0), (0.0, -1000.0)):
        for line, radius in ((TRACHEA, 9.0), (RIGHT_MAIN, 7.5), (LEFT_MAIN, 6.5)):
            grow = 1.0 if scene.anatomy.sex == "M" else 0.88
            scene.mix(scene.tube(line, radius * grow, wall), hu)


def abdomen_depth(anatomy: Anatomy, x: Array, y: Array, z: Array) -> Array:
    """Depth below the diaphragm and inside the abdominal wall, canonical mm."""
    under = np.float32(0.75) * (diaphragm_z(anatomy, x, y) - z)
    return np.minimum(cage_depth(anatomy, x, y, z) - 1, under)


def liver_depth(x: Array, y: Array, z: Array, within: Array) -> Array:
    """Depth inside the liver, canonical mm, from the depth ``within`` the abdomen."""
    spine_side = np.sqrt(x * x + (y + 62) ** 2) - np.float32(30.0)
    medial = np.minimum(x + np.float32(12.0) + np.float32(0.75) * y + np.float32(0.15) * (z + 100), spine_side)
    edge = np.float32(18.0) + z + np.float32(155.0) + np.float32(0.35) * (x - 20)
    return np.minimum(np.minimum(medial, within), edge)


def paint_abdomen(scene: Scene) -> None:
    """Fat, liver, gallbladder, spleen, stomach with an air bubble, kidneys and gut below the diaphragm."""
    a = scene.anatomy
    top = int(np.searchsorted(scene.z.ravel(), max(a.dome_z) + 12))
    if top == 0:
        return
    box = (slice(None), slice(None), slice(0, top))
    x, y, z = scene.coordinates(box)
    under = abdomen_depth(a, x, y, z)
    scene.mix(scene.coverage(under), FAT_HU, box)
    scene.mix(scene.coverage(np.minimum(under, 4.0 - under)), 45.0, box)  # the diaphragm itself
    within = under - np.float32(3.0)
    gut = ellipsoid(x, y, z, (-20.0, 40.0, -160.0), (80.0, 40.0, 30.0))
    scene.mix(scene.coverage(np.minimum(gut, within)), 20.0, box)
    scene.mix(scene.coverage(liver_depth(x, y, z, within)), a.liver_hu, box)
    if a.gallbladder:
        scene.mix(scene.coverage(np.minimum(ellipsoid(x, y, z, *gallbladder_mm(scene.frame)), within)), FLUID_HU, box)
    spleen = ellipsoid(x, y, z, (-88.0, -38.0, a.dome_z[1] - 48.0), (30.0, 42.0, 42.0))
    scene.mix(scene.coverage(np.minimum(spleen, within)), 110.0 if a.contrast else 48.0, box)
    for sign in (1.0, -1.0):
        kidney = ellipsoid(x, y, z, *kidney_mm(scene.frame, sign))
        scene.mix(scene.coverage(np.minimum(kidney, within)), 120.0 if a.contrast else 32.0, box)
    stomach = np.minimum(ellipsoid(x, y, z, (-58.0, 22.0, a.dome_z[1] - 42.0), (40.0, 42.0, 36.0)), within)
    scene.mix(scene.coverage(stomach), 42.0, box)
    scene.mix(scene.coverage(stomach - 4), 18.0, box)
    scene.mix(scene.coverage(np.minimum(stomach - 4, y - np.float32(30.0))), -980.0, box)
