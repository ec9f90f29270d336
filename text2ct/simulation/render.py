"""From a patient record to a CT volume."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from text2ct.errors import UserError
from text2ct.simulation import distractors
from text2ct.simulation import findings as models
from text2ct.simulation.acquisition import acquire, move, streak, table
from text2ct.simulation.anatomy import Array, draw_anatomy
from text2ct.simulation.anatomy_frame import PERIOD_MM, Frame
from text2ct.simulation.anatomy_paint import BACK_FAT, BACK_MM, paint
from text2ct.simulation.anatomy_scene import Scene
from text2ct.simulation.anatomy_trees import grow_trees
from text2ct.simulation.patients import Patient, finding_generator, generator

MIN_FIELD_MM = 120.0  # a smaller field misses most of the chest
MAX_SPACING_MM = 12.0  # coarser voxels hide nodules
HU_FLOOR, HU_CEILING = -1000.0, 1500.0


def render(
    patient: Patient,
    scan: int = 0,
    reconstruction: int = 0,
    size: tuple[int, int, int] = (64, 64, 64),
    spacing_mm: tuple[float, float, float] = (5.0, 5.0, 5.0),
) -> Array:
    """Render one reconstruction.

    Args:
        patient: From `draw_patient`.
        scan: Index into ``patient.scans``.
        reconstruction: Index into the scan's reconstructions.
        size: Voxels along x, y, z.
        spacing_mm: Voxel spacing; the grid is centred on the isocentre, another grid shows the same anatomy.

    Returns:
        ``(X, Y, Z)`` float32 HU in [-1000, 1500], RAS order: x to the patient's right.

    Raises:
        UserError: No such scan or reconstruction, or a grid on which the findings cannot be seen.
    """
    ideal = render_ideal(patient, scan, size, spacing_mm)
    reconstructions = patient.scans[scan].reconstructions
    if not 0 <= reconstruction < len(reconstructions):
        raise UserError(f"scan {scan} has {len(reconstructions)} reconstructions; there is no {reconstruction}")
    noise = generator(patient.number, "noise", scan)
    measured = streak(move(ideal, spacing_mm, patient.scans[scan].motion_mm), spacing_mm)
    hu = acquire(measured, spacing_mm, reconstructions[reconstruction], noise)
    return np.clip(hu, HU_FLOOR, HU_CEILING, out=hu)


def render_ideal(
    patient: Patient, scan: int, size: tuple[int, int, int], spacing_mm: tuple[float, float, float]
) -> Array:
    """The scan before the scanner: no noise, no blur but the voxel's own. Arguments as for `render`."""
    if not 0 <= scan < len(patient.scans):
        raise UserError(f"patient {patient.number} has {len(patient.scans)} scans; there is no number {scan}")
    check_grid(size, spacing_mm)
    record = patient.scans[scan]
    anatomy = draw_anatomy(patient, record)
    # Vessels grow in the healthy chest, so that a finding never redraws them.
    trees = grow_trees(anatomy, generator(patient.number, "trees"))
    frame = Frame(anatomy, patient.number, scan)
    for item in record.distractors:
        distractors.model(item.kind).prepare(anatomy, item, generator(patient.number, "distractor", item.kind))
    instances = models.in_painting_order(record.instances)
    for instance in instances:
        stream = finding_generator(patient.number, "apply", scan, instance.finding)
        models.model(instance.finding).prepare(anatomy, instance, stream)
    scene = Scene(anatomy, frame, size, spacing_mm)
    x, y = scene.world[0][:, None, None], scene.world[1][None, :, None]
    back = float(frame.offset[1]) - (BACK_MM + BACK_FAT * anatomy.fat_mm) * float(frame.scale[1]) - 2.0
    scene.mix(np.broadcast_to(table(x, y, back), size), -250.0)
    paint(scene, patient.number, trees)
    # Before the findings, which come to lie in the chest that the patient has: fluid fills an air cyst's lobe.
    for item in record.distractors:
        distractors.model(item.kind).apply(scene, item, generator(patient.number, "distractor", item.kind))
    for instance in instances:
        stream = finding_generator(patient.number, "apply", scan, instance.finding)
        models.model(instance.finding).apply(scene, instance, stream)
    return scene.hu


def check_grid(size: Sequence[int], spacing_mm: Sequence[float]) -> None:
    """Refuse a grid on which a chest and its findings cannot be seen.

    Raises:
        UserError: All axes that are too small, too coarse or absurdly large.
    """
    problems = []
    if len(size) != 3 or len(spacing_mm) != 3:
        raise UserError(f"a grid needs three sizes and three spacings, not {size} and {spacing_mm}")
    for axis, n, s in zip("xyz", size, spacing_mm, strict=True):
        if not 0.1 <= s <= MAX_SPACING_MM:
            problems.append(f"{axis}: spacing {s} mm is outside 0.1 to {MAX_SPACING_MM} mm")
        elif n * s < MIN_FIELD_MM:
            problems.append(f"{axis}: {n} voxels of {s} mm cover {n * s:g} mm; at least {MIN_FIELD_MM:g} mm needed")
        elif n * s > 2 * PERIOD_MM:
            problems.append(f"{axis}: {n} voxels of {s} mm cover {n * s:g} mm; at most {2 * PERIOD_MM:g} mm")
    if problems:
        raise UserError("the grid is too small or coarse to show a chest; try 64 voxels of 5 mm", problems)
