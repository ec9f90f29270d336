"""The healthy chest, painted from the skin inwards."""

from __future__ import annotations

import numpy as np

from text2ct.simulation.anatomy import Anatomy, Array
from text2ct.simulation.anatomy_bones import paint_front, paint_ribs, paint_shoulders, paint_spine
from text2ct.simulation.anatomy_organs import (
    FAT_HU,
    paint_abdomen,
    paint_heart,
    paint_thyroid,
    paint_trachea,
    paint_vessels,
)
from text2ct.simulation.anatomy_scene import Scene
from text2ct.simulation.anatomy_shape import (
    cage_depth,
    ellipsoid,
    lung_depth,
    oblique_fissure_z,
)
from text2ct.simulation.anatomy_trees import Tree
from text2ct.simulation.patients import generator

MUSCLE_HU = 52.0
_RIB_WALL_MM = 10.0
# Where the table is, behind the origin: this far, and further by this share of the fat's thickness.
BACK_MM = 114.0
BACK_FAT = 0.6


def paint(scene: Scene, number: int, trees: dict[str, Tree]) -> None:
    """Paint all healthy tissue and set ``scene.lung`` and ``scene.depth``.

    Args:
        scene: An empty canvas (air).
        number: The patient's number, for texture.
        trees: From `grow_trees`, grown in the anatomy without findings.
    """
    a = scene.anatomy
    cage = cage_depth(a, scene.x, scene.y, scene.z)
    _paint_wall(scene, cage, generator(number, "muscle texture"))
    scene.mix(scene.coverage(cage), FAT_HU + 15)
    paint_abdomen(scene)
    paint_spine(scene)
    paint_ribs(scene, cage)
    paint_front(scene, cage)
    paint_shoulders(scene)
    paint_heart(scene)
    paint_thyroid(scene)
    paint_vessels(scene)
    scene.depth[scene.chest] = lung_depth(a, *scene.coordinates(scene.chest))
    scene.lung[scene.chest] = scene.coverage(scene.depth[scene.chest])
    _paint_lungs(scene, number, trees)
    paint_trachea(scene)


def _paint_wall(scene: Scene, cage: Array, rng: np.random.Generator) -> None:
    """Skin, fat and muscle of trunk, shoulders, neck, breasts and, lowered, arms."""
    a = scene.anatomy
    x, y, z = scene.x, scene.y, scene.z
    back = np.clip(-(y + 40) / np.float32(50.0), 0, 1)
    # Two columns of muscle beside the spinous processes, with a groove between them.
    near_spine = back * np.exp(-(((np.abs(x) - np.float32(30.0)) / np.float32(30.0)) ** 2))
    chest = np.clip((y - 20) / np.float32(40.0), 0, 1) * np.exp(-(((z - 55) / np.float32(45.0)) ** 2))
    muscle = np.float32(_RIB_WALL_MM) + np.float32(a.muscle_mm) * (
        np.float32(0.55) + np.float32(0.3) * chest + np.float32(1.1) * near_spine
    )
    belly = np.clip(-(z + 40) / np.float32(90.0), 0, 1) * np.clip((y + 40) / np.float32(80.0), 0, 1)
    fat = np.float32(a.fat_mm) * (np.float32(0.7) + np.float32(0.55) * belly - np.float32(0.15) * back)
    trunk = cage + muscle + fat
    # The back lies on the table, which flattens it.
    trunk = np.minimum(trunk, y + np.float32(BACK_MM + BACK_FAT * a.fat_mm))
    body = np.where(z < 128, trunk, np.float32(-50.0))
    deep = np.where(z < 128, np.minimum(cage + muscle, trunk - np.float32(3.0)), np.float32(-50.0))
    shoulder = _shoulder_depth(a, x, y, z)
    body = np.maximum(body, shoulder)
    deep = np.maximum(deep, shoulder - np.float32(0.6 * a.fat_mm + 2))
    if a.breast_mm > 0:
        for sign in (1.0, -1.0):
            centre = (sign * 62.0, 78.0 + a.muscle_mm, -2.0)
            axes = (54.0, 14.0 + a.breast_mm, 56.0)
            box = scene.box(centre, max(axes) + 3)
            body[box] = np.maximum(body[box], ellipsoid(*scene.coordinates(box), centre, axes))
    scene.mix(scene.coverage(body), FAT_HU)
    skin = np.minimum(body, np.float32(2.2) - body)
    scene.mix(scene.coverage(skin) * np.float32(0.8), 30.0)
    # Fat between the fibres, more with age and weight (Goodpaster et al. 2000, J Appl Physiol 89:104).
    fatty = np.float32(0.1 + 0.12 * max((a.age - 40.0) / 40.0, 0.0) + 0.12 * a.habitus)
    marbling = np.clip(fatty * (1 + np.float32(0.9) * scene.noise(rng, 11.0)), 0, np.float32(0.8))
    scene.mix(scene.coverage(deep), np.float32(MUSCLE_HU + 5) + marbling * np.float32(FAT_HU - MUSCLE_HU))
    for sign in (1.0, -1.0):
        axilla = (sign * 128.0, -8.0, 76.0)
        box, pad = scene.ball(axilla, (16.0, 26.0, 32.0))
        scene.mix(pad * (body[box] > 6), FAT_HU, box)
    if a.breast_mm > 0:
        for sign in (1.0, -1.0):
            centre = (sign * 64.0, 88.0 + a.muscle_mm, -4.0)
            share = 0.75 if a.age < 50 else 0.35
            box, gland = scene.ball(centre, (34.0, 6.0 + 0.5 * a.breast_mm, 34.0))
            keep = np.clip(-(deep[box]) / np.float32(4.0), 0, 1)
            scene.mix(gland * keep * np.float32(share), 30.0, box)
    if not a.arms_up:
        for sign in (1.0, -1.0):
            arm = np.array([[sign * 168, -22, 118], [sign * 184, -30, -10], [sign * 186, -24, -180]])
            scene.mix(scene.tube(arm, 40.0), FAT_HU)
            scene.mix(scene.tube(arm, 33.0), MUSCLE_HU)
            scene.mix(scene.tube(arm, 11.0), 550.0)


def _shoulder_depth(a: Anatomy, x: Array, y: Array, z: Array) -> Array:
    """Depth in shoulders and neck."""
    wide, deep = np.float32(140.0 if a.arms_up else 172.0), np.float32(60.0 + 0.35 * a.fat_mm)
    u, v = (x / wide) ** 2, ((y + 22) / deep) ** 2
    r = np.sqrt(np.sqrt(u * u + v * v + u * v))
    slope = np.float32(0.25 if a.arms_up else 0.4)
    top = np.float32(152.0) - slope * np.maximum(np.abs(x) - 55, 0)
    depth = np.minimum((1 - r) * deep, np.float32(0.9) * (top - z))
    depth = np.minimum(depth, np.float32(0.45) * (z - np.float32(72.0)))
    neck = np.float32(56.0 + 0.2 * a.fat_mm) - np.sqrt(x * x + (y + 14) ** 2)
    return np.maximum(depth, np.minimum(neck, z - np.float32(100.0)))


def _paint_lungs(scene: Scene, number: int, trees: dict[str, Tree]) -> None:
    """Parenchyma with gravity gradient and texture, fissures, vessels and bronchi."""
    a = scene.anatomy
    rng = generator(number, "lung texture")
    chest = scene.chest
    x, y, z = scene.coordinates(chest)
    lung = scene.lung[chest]
    # Supine: blood and collapse weigh on the back (about 40 HU at full inspiration; Verschakelen 1998).
    parenchyma = np.float32(a.lung_hu) - np.float32(a.gradient_hu) * (y / np.float32(75.0))
    parenchyma += np.float32(9.0) * scene.noise(rng, 34.0)[chest] + np.float32(13.0) * scene.noise(rng, 9.0)[chest]
    rim = np.clip(1 - scene.depth[chest] / np.float32(9.0), 0, 1) * np.clip(-(y + 25) / np.float32(50.0), 0, 1)
    parenchyma += np.float32(45.0) * rim
    scene.mix(lung, parenchyma, chest)
    fissure = np.abs(z - oblique_fissure_z(x, y)) * np.float32(0.75)
    thin = np.float32(0.9 / scene.blur_mm)
    scene.mix(lung * np.clip(1 - fissure / np.float32(scene.blur_mm), 0, 1) * thin, -640.0, chest)
    step = 0.62 * min(min(scene.spacing_mm) / float(max(scene.frame.scale)), 6.0)
    for name in ("veins", "arteries"):
        points, volumes = trees[name].points(step, factor=a.vessel_gain)
        scene.mix(scene.splat(points, volumes) * scene.lung, min(a.blood_hu, 260.0))
    airways = trees["airways"]
    wall, volumes = airways.points(step, grow_mm=1.1)
    scene.mix(scene.splat(wall, volumes) * scene.lung, -60.0)
    lumen, volumes = airways.points(step)
    scene.mix(scene.splat(lumen, volumes) * scene.lung, -980.0)
    scene.trees = trees
