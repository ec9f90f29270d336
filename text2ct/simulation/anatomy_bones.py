"""Spine, ribs, sternum, clavicles, scapulae and shoulders."""

from __future__ import annotations

import numpy as np

from text2ct.simulation.anatomy import Array
from text2ct.simulation.anatomy_scene import Scene
from text2ct.simulation.anatomy_shape import cage_depth, spine_x

# Compact bone: 1.92 g/cm3 of ICRU Report 44's composition attenuates 2.3 times (80 keV) to 2.6 times (70 keV) as
# much as water, so 1300 HU and more. It is thin: what a voxel shows of it is an average.
CORTEX_HU = 1300.0
_CORTEX_MM = 0.6  # of a vertebral body and its end plates, at middle age; from a real chest's HU, as the shares below
VERTEBRA_PITCH_MM = 24.0
RIB_PITCH_MM = 23.0
RIB_SLOPE_MM = 78.0  # how far the front of a rib lies below its head


def paint_ribs(scene: Scene, cage: Array) -> None:
    """Twelve ribs in the shell outside the cage, sloping down to the front, with costal cartilage.

    Args:
        scene: The canvas.
        cage: Depth inside the cage, mm; negative in the wall.
    """
    a = scene.anatomy
    # 0 at the spine, 1 at the sternum, by the angle around the cage.
    angle = np.arctan2(np.abs(scene.x), -(scene.y + np.float32(8.0))) * np.float32(1 / np.pi)
    level = (scene.z + np.float32(RIB_SLOPE_MM) * angle) * np.float32(1 / RIB_PITCH_MM)
    number = np.floor(level)
    offset = np.abs(level - number - np.float32(0.5)) * np.float32(RIB_PITCH_MM)
    height = np.float32(3.5) + np.float32(1.2) * angle
    shell = np.float32(2.8) - np.abs(cage + np.float32(4.8))
    depth = np.minimum(height - offset, shell)
    # Levels 5 (first rib) down to -6 (twelfth); the last two end at the side.
    end = np.where(number > -4, np.float32(0.97), np.float32(0.5))
    depth = np.where((number <= 5) & (number >= -6) & (angle < end) & (angle > 0.07), depth, np.float32(-9.0))
    bone = np.where(angle > 0.8, np.float32(95.0), np.float32(0.8 * a.bone_hu + 330.0))
    scene.mix(scene.coverage(depth), bone)


def paint_spine(scene: Scene) -> None:
    """Vertebral bodies with cortex and discs, canal, arches and processes."""
    a = scene.anatomy
    box = scene.box((0.0, -72.0, 0.0), np.array([52.0, 46.0, 400.0]))
    x, y, z = scene.coordinates(box)
    x = x - spine_x(a, z)
    # Bodies grow downwards, the first thoracic one is three quarters as wide as the last; their backs are in line.
    grow = np.clip(np.float32(0.87) - np.float32(0.0009) * z, 0.7, 1.02)
    # 12 in the disc, 0 in mid-body.
    phase = np.abs(((z + 6.0) / np.float32(VERTEBRA_PITCH_MM)) % 1.0 - 0.5) * VERTEBRA_PITCH_MM
    body = grow - np.sqrt((x / 18.0) ** 2 + ((y + 72.0 - 15.0 * grow) / 15.0) ** 2)
    body = body * np.float32(16.0)
    scene.mix(scene.coverage(body), 85.0, box)  # disc
    bone = np.minimum(body, np.float32(9.8) - phase)
    cortex = np.float32(_CORTEX_MM * (0.6 + 0.4 * a.bone_hu / 170.0))
    scene.mix(scene.coverage(bone), CORTEX_HU, box)
    scene.mix(scene.coverage(bone - cortex), a.bone_hu, box)
    arch = np.float32(15.0) - np.sqrt(x**2 + (y + 80.0) ** 2)
    level = np.float32(8.5) - phase
    spinous = np.minimum(np.float32(3.4) - np.abs(x), np.float32(11.0) - np.abs(y + 100.0))
    transverse = np.minimum(np.float32(4.5) - np.abs(y + 78.0 + 0.25 * np.abs(x)), 32.0 - np.abs(x))
    posterior = np.maximum(np.maximum(arch, spinous), np.minimum(transverse, np.float32(5.5) - phase))
    scene.mix(scene.coverage(np.minimum(posterior, level)), 0.3 * CORTEX_HU, box)
    # Laminae and facets are little but cortex, the densest bone of a chest.
    lamina = np.minimum(np.minimum(arch, np.float32(-80.0) - y), level)
    scene.mix(scene.coverage(lamina), 0.62 * CORTEX_HU, box)
    canal = np.float32(8.0) - np.sqrt(x**2 + (y + 80.0) ** 2)
    scene.mix(scene.coverage(canal), 30.0, box)


def paint_front(scene: Scene, cage: Array) -> None:
    """Sternum in the front wall."""
    box = scene.box((0.0, 70.0, 25.0), np.array([34.0, 60.0, 90.0]))
    x, _, z = scene.coordinates(box)
    wall = np.float32(5.0) - np.abs(cage[box] + np.float32(6.0))
    width = np.where(z > 60, np.float32(26.0), np.float32(15.0))
    front = np.where(scene.y[box] > 10, width - np.abs(x), np.float32(-9.0))
    depth = np.minimum(np.minimum(wall, front), np.minimum(92.0 - z, z + 48.0))
    scene.mix(scene.coverage(depth), 350.0, box)
    scene.mix(scene.coverage(depth - 2), 0.8 * scene.anatomy.bone_hu, box)


def paint_shoulders(scene: Scene) -> None:
    """Clavicles, scapulae and humeral heads; raised arms turn and lift them."""
    lift = 12.0 if scene.anatomy.arms_up else 0.0
    for sign in (1.0, -1.0):
        clavicle = np.array([[14, 50, 92], [55, 44, 104 + lift / 2], [100, 12, 122 + lift], [132, -8, 130 + lift]])
        blade = np.array([_on_wall(scene, 48, 20, 18), _on_wall(scene, 58, 60, 18), [118, -44, 100 + lift]])
        border = np.array([_on_wall(scene, 36, 84, 18), _on_wall(scene, 42, 56, 18), _on_wall(scene, 46, 18, 18)])
        spine = np.array([_on_wall(scene, 38, 88, 20), _on_wall(scene, 60, 98, 24), [136, -42, 120 + lift]])
        flip = np.array([sign, 1.0, 1.0])
        for line, radius, hu in (
            (clavicle, 5.5, 0.58 * CORTEX_HU),
            (blade, 4.0, 0.42 * CORTEX_HU),
            (border, 3.4, 0.42 * CORTEX_HU),
            (spine, 3.8, 0.5 * CORTEX_HU),
        ):
            scene.mix(scene.tube(line * flip, radius), hu)
        head = (sign * 152.0, -22.0, 118.0 + 2 * lift)
        box, cover = scene.ball(head, (22.0, 22.0, 24.0))
        scene.mix(cover, 300.0, box)


def _on_wall(scene: Scene, angle_deg: float, z: float, outside_mm: float) -> tuple[float, float, float]:
    """The right-sided point ``outside_mm`` outside the cage, at an angle from straight back, at height z."""
    rho = np.arange(20.0, 180.0, 1.0, dtype=np.float32)
    turn = np.radians(angle_deg)
    x, y = rho * np.float32(np.sin(turn)), -20.0 - rho * np.float32(np.cos(turn))
    depth = cage_depth(scene.anatomy, x, y, np.full_like(x, z))
    k = int(np.argmax(depth < -outside_mm))
    return float(x[k]), float(y[k]), z
