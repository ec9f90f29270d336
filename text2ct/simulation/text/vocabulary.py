"""Every wording in one place, keyed by the names of the 18 findings."""

from __future__ import annotations

from text2ct.simulation.text import (
    airways,
    devices,
    distractors,
    esophagus,
    heart,
    lungs,
    nodes,
    nodules,
    parenchyma,
    pleura,
    scars,
    vessels,
)
from text2ct.simulation.text.wording import Joint, Normal, Wording

WORDINGS: dict[str, Wording] = {
    **devices.WORDINGS,
    **vessels.WORDINGS,
    **heart.WORDINGS,
    **esophagus.WORDINGS,
    **nodes.WORDINGS,
    **parenchyma.WORDINGS,
    **scars.WORDINGS,
    **nodules.WORDINGS,
    **pleura.WORDINGS,
    **airways.WORDINGS,
}
JOINTS: tuple[Joint, ...] = (
    *vessels.JOINTS,
    *heart.JOINTS,
    *airways.JOINTS,
    *parenchyma.JOINTS,
    *scars.JOINTS,
    *pleura.JOINTS,
)
NORMALS: tuple[Normal, ...] = (
    *airways.NORMALS,
    *vessels.NORMALS,
    *heart.NORMALS,
    *esophagus.NORMALS,
    *nodes.NORMALS,
    *lungs.NORMALS,
    *pleura.NORMALS,
    *distractors.NORMALS,
)
