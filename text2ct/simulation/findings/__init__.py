"""One registry of the 18 findings: draw what a finding is, then apply it to the anatomy."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from text2ct.errors import UserError
from text2ct.findings import FINDINGS
from text2ct.simulation.findings.airways import Bronchiectasis, PeribronchialThickening
from text2ct.simulation.findings.atelectasis import Atelectasis
from text2ct.simulation.findings.base import FindingModel
from text2ct.simulation.findings.calcification import ArterialCalcification, CoronaryCalcification
from text2ct.simulation.findings.devices import MedicalMaterial
from text2ct.simulation.findings.effusion import PleuralEffusion
from text2ct.simulation.findings.emphysema import Emphysema
from text2ct.simulation.findings.fibrosis import FibroticSequela
from text2ct.simulation.findings.heart import Cardiomegaly, PericardialEffusion
from text2ct.simulation.findings.hernia import HiatalHernia
from text2ct.simulation.findings.interstitium import MosaicAttenuation, SeptalThickening
from text2ct.simulation.findings.nodes import Lymphadenopathy
from text2ct.simulation.findings.nodule import LungNodule
from text2ct.simulation.findings.opacity import Consolidation, LungOpacity
from text2ct.simulation.instance import Instance
from text2ct.simulation.patients import Patient

_MODELS: tuple[FindingModel, ...] = (
    MedicalMaterial(),
    ArterialCalcification(),
    Cardiomegaly(),
    PericardialEffusion(),
    CoronaryCalcification(),
    HiatalHernia(),
    Lymphadenopathy(),
    Emphysema(),
    Atelectasis(),
    LungNodule(),
    LungOpacity(),
    FibroticSequela(),
    PleuralEffusion(),
    MosaicAttenuation(),
    PeribronchialThickening(),
    Consolidation(),
    Bronchiectasis(),
    SeptalThickening(),
)
REGISTRY: dict[str, FindingModel] = {model.finding: model for model in _MODELS}


def model(finding: str) -> FindingModel:
    """The model of a finding.

    Raises:
        UserError: There is no such finding.
    """
    if finding not in REGISTRY:
        raise UserError(f"the simulator has no finding {finding!r}; it has: {', '.join(FINDINGS)}")
    return REGISTRY[finding]


def draw(finding: str, rng: np.random.Generator, patient: Patient) -> Instance:
    """Draw one instance of a finding by name."""
    return model(finding).draw(rng, patient)


def in_painting_order(instances: Iterable[Instance]) -> list[Instance]:
    """Instances sorted by stage, then by the findings' order."""
    return sorted(instances, key=lambda item: (model(item.finding).stage, FINDINGS.index(item.finding)))


__all__ = ["REGISTRY", "FindingModel", "draw", "in_painting_order", "model"]
