"""One registry of what is seen beside the 18 findings: drawn, painted and said from one record."""

from __future__ import annotations

import numpy as np

from text2ct.errors import UserError
from text2ct.simulation.distractors.abdomen import (
    Cholecystectomy,
    Gallstone,
    HepaticCyst,
    Hepatosteatosis,
    KidneyStone,
    RenalCyst,
)
from text2ct.simulation.distractors.base import DistractorModel
from text2ct.simulation.distractors.bones import (
    BoneIsland,
    Haemangioma,
    Osteophytes,
    RibFracture,
    Scoliosis,
)
from text2ct.simulation.distractors.chest import AirCyst, EctaticAorta, ThyroidNodule
from text2ct.simulation.instance import Distractor
from text2ct.simulation.patients import Patient

_MODELS: tuple[DistractorModel, ...] = (
    Scoliosis(),
    EctaticAorta(),
    Hepatosteatosis(),
    Cholecystectomy(),
    HepaticCyst(),
    Gallstone(),
    RenalCyst(),
    KidneyStone(),
    ThyroidNodule(),
    AirCyst(),
    Osteophytes(),
    Haemangioma(),
    BoneIsland(),
    RibFracture(),
)
REGISTRY: dict[str, DistractorModel] = {model.kind: model for model in _MODELS}
_EXCLUDES = ({"gallstone", "cholecystectomy"}, {"vertebral haemangioma", "compact bone island"})

# A report makes 0 to 3 statements beside the findings; two in three of them can be seen in the image.
NUMBER_SHARES = (0.3, 0.35, 0.25, 0.1)
PAINTED_SHARE = 0.66


def draw(rng: np.random.Generator, patient: Patient) -> tuple[Distractor, ...]:
    """Draw what is seen beside the findings, in the order of `REGISTRY`; ``patient.scans`` may be empty."""
    number = int(rng.binomial(rng.choice(len(NUMBER_SHARES), p=NUMBER_SHARES), PAINTED_SHARE))
    weights = np.array([item.chance(patient) for item in _MODELS])
    chosen: list[str] = []
    for index in rng.choice(len(_MODELS), size=len(_MODELS), replace=False, p=weights / weights.sum()):
        kind = _MODELS[int(index)].kind
        if len(chosen) < number and not any(kind in pair and pair & set(chosen) for pair in _EXCLUDES):
            chosen.append(kind)
    return tuple(item.draw(rng) for item in _MODELS if item.kind in chosen)


def model(kind: str) -> DistractorModel:
    """The model of a kind.

    Raises:
        UserError: There is no such kind.
    """
    if kind not in REGISTRY:
        raise UserError(f"the simulator has no distractor {kind!r}; it has: {', '.join(REGISTRY)}")
    return REGISTRY[kind]


__all__ = ["NUMBER_SHARES", "PAINTED_SHARE", "REGISTRY", "DistractorModel", "draw", "model"]
