"""Implicit shapes of the thorax: cage, diaphragm, mediastinum, lungs, lobes.

All functions take canonical mm, as arrays that broadcast (a whole grid or a list of points), and return
depths in mm: positive inside, negative outside, about Euclidean near the surface.
"""

from __future__ import annotations

import numpy as np

from text2ct.simulation.anatomy import Anatomy, Array

_Z = np.array([-220, -150, -100, -50, 0, 40, 75, 100, 118, 130, 138], np.float32)
_CAGE_X = np.array([118, 123, 127, 127, 123, 115, 101, 84, 62, 40, 8], np.float32)
_CAGE_Y = np.array([78, 84, 88, 88, 84, 76, 66, 55, 43, 30, 8], np.float32)
_CAGE_CENTRE_Y = np.array([2, 1, 0, 0, -2, -6, -12, -20, -26, -30, -32], np.float32)
_MEDIASTINUM_Z = np.array([-220, -60, 0, 25, 60, 90, 120, 140], np.float32)
_MEDIASTINUM_X = np.array([14, 14, 19, 27, 27, 25, 22, 26], np.float32)


def profile(z: Array, nodes: Array, values: Array) -> Array:
    """A profile along z, linear between nodes, as float32 of z's shape."""
    return np.interp(z, nodes, values).astype(np.float32)


def ellipsoid(x: Array, y: Array, z: Array, centre: tuple[float, ...], axes: tuple[float, ...]) -> Array:
    """Depth in an axis-aligned ellipsoid, measured along the ray from its centre."""
    cx, cy, cz = (np.float32(v) for v in centre)
    ax, ay, az = (np.float32(v) for v in axes)
    dx, dy, dz = x - cx, y - cy, z - cz
    tiny = np.float32(1e-6)  # keeps the centre itself at the smallest semi-axis
    k = np.sqrt((dx / ax) ** 2 + (dy / ay) ** 2 + (dz / az) ** 2 + tiny / np.float32(min(axes)) ** 2)
    # |p| (1/k - 1) is exact along the ray; bounded at the centre by the smallest semi-axis.
    length = np.sqrt(dx * dx + dy * dy + dz * dz + tiny)
    return np.minimum(length / k - length, np.float32(min(axes)))


def cage_depth(anatomy: Anatomy, x: Array, y: Array, z: Array) -> Array:
    """Depth inside the inner surface of the rib cage (continued below as the abdominal wall)."""
    gain = np.float32(anatomy.cage_gain)
    ax = profile(z, _Z, _CAGE_X)
    ay = profile(z, _Z, _CAGE_Y) * gain
    dy = y - profile(z, _Z, _CAGE_CENTRE_Y)
    # A squircle between ellipse (coefficient 2) and square (0): the flattened front and back of a chest.
    u, v = (x / ax) ** 2, (dy / ay) ** 2
    r = np.sqrt(np.sqrt(u * u + v * v + np.float32(1.1) * u * v)) + np.float32(1e-3)
    rho = np.sqrt(x * x + dy * dy)
    return np.minimum(rho / r - rho, np.float32(60.0))


def diaphragm_z(anatomy: Anatomy, x: Array, y: Array) -> Array:
    """Height of the upper surface of the diaphragm under (x, y), mm."""
    right = x > np.float32(-6.0)
    top = np.where(right, np.float32(anatomy.dome_z[0]), np.float32(anatomy.dome_z[1]))
    dy = y - np.float32(14.0)
    across = ((np.abs(x) - np.float32(60.0)) / np.float32(72.0)) ** 2
    along = (dy / np.where(dy < 0, np.float32(92.0), np.float32(105.0))) ** 2
    return np.maximum(top - np.float32(70.0) * (across + along), np.float32(-165.0))


def heart_frame(anatomy: Anatomy, x: Array, y: Array, z: Array) -> tuple[Array, Array, Array]:
    """Coordinates along the heart's long axis (to the apex), across it and upwards, from its centre."""
    cx, cy, cz = (np.float32(v) for v in anatomy.heart_centre)
    dx, dy, dz = x - cx, y - cy, z - cz
    # The axis points left, forward and down; the rows are orthonormal.
    a = np.array([[-0.80, 0.44, -0.41], [0.48, 0.877, 0.0], [0.36, -0.197, -0.912]], np.float32)
    return (
        a[0, 0] * dx + a[0, 1] * dy + a[0, 2] * dz,
        a[1, 0] * dx + a[1, 1] * dy,
        a[2, 0] * dx + a[2, 1] * dy + a[2, 2] * dz,
    )


def heart_depth(anatomy: Anatomy, x: Array, y: Array, z: Array) -> Array:
    """Depth inside the outer surface of the heart muscle."""
    u, v, w = heart_frame(anatomy, x, y, z)
    axes = tuple(anatomy.heart_axes)
    return ellipsoid(u, v, w, (0.0, 0.0, 0.0), axes)


def spine_x(anatomy: Anatomy, z: Array) -> Array:
    """Lateral position of the spine at height z, mm (scoliosis)."""
    return (np.float32(anatomy.scoliosis_mm) * np.sin(z / np.float32(70.0))).astype(np.float32)


def mediastinum_depth(anatomy: Anatomy, x: Array, y: Array, z: Array) -> Array:
    """Depth inside everything between the lungs: slab, spine, heart and sac, aorta, hila, masses."""
    width = profile(z, _MEDIASTINUM_Z, _MEDIASTINUM_X)
    front = np.clip((y - np.float32(22.0)) / np.float32(30.0), 0, 1)
    depth = width * (1 - np.float32(0.72) * front) - np.abs(x - np.float32(1.0) + np.float32(4.0) * front)
    sx = x - spine_x(anatomy, z)
    spine = np.float32(25.0) - np.sqrt(sx * sx + (y + np.float32(62.0)) ** 2)
    depth = np.maximum(depth, spine)
    sac = np.float32(2.0 + anatomy.epicardial_fat_mm + anatomy.pericardium_mm)
    depth = np.maximum(depth, heart_depth(anatomy, x, y, z) + sac)
    out = np.float32(-20.0 - anatomy.unfolding_mm)
    wall = np.float32(anatomy.aorta_mm + 1.0)
    aorta = wall - np.sqrt((x - out) ** 2 + (y + np.float32(38.0)) ** 2)
    depth = np.maximum(depth, np.minimum(aorta, np.float32(62.0) - z))
    arch = (-14.0 - 0.6 * anatomy.unfolding_mm, -8.0, 50.0)
    depth = np.maximum(depth, ellipsoid(x, y, z, arch, (anatomy.aorta_mm + 8, 34.0, anatomy.aorta_mm + 3)))
    for side in (1.0, -1.0):
        depth = np.maximum(depth, ellipsoid(x, y, z, (side * 33.0, -8.0, 17.0), (14.0, 16.0, 20.0)))
    for mass in anatomy.masses:
        depth = np.maximum(depth, ellipsoid(x, y, z, mass.centre, mass.semi_axes))
    return depth


def lung_depth(anatomy: Anatomy, x: Array, y: Array, z: Array) -> Array:
    """Depth inside the nearer lung; the patient's right lung has x > 0."""
    depth = cage_depth(anatomy, x, y, z) - np.float32(1.0)
    depth = np.minimum(depth, -mediastinum_depth(anatomy, x, y, z))
    return np.minimum(depth, np.float32(0.75) * (z - diaphragm_z(anatomy, x, y)))


def oblique_fissure_z(x: Array, y: Array) -> Array:
    """Height of the oblique fissures over (x, y): from T4 behind to the front of the diaphragm, domed."""
    bend = (np.abs(x) - np.float32(58.0)) / np.float32(14.0)
    return np.float32(6.0) - np.float32(0.85) * y - bend * bend


def lobe_depth(lobe: str, x: Array, y: Array, z: Array) -> Array:
    """Depth inside the half-spaces that bound a lobe (not the lung's own surface).

    Args:
        lobe: One of `LOBES`.
        x: Canonical mm.
        y: Canonical mm.
        z: Canonical mm.
    """
    side = x if lobe.startswith("right") else -x
    above = np.float32(0.75) * (z - oblique_fissure_z(x, y))
    if lobe.endswith("lower lobe"):
        return np.minimum(side, -above)
    depth = np.minimum(side, above)
    if lobe == "right upper lobe":
        return np.minimum(depth, z - np.float32(4.0))
    if lobe == "right middle lobe":
        return np.minimum(depth, np.float32(4.0) - z)
    return depth
