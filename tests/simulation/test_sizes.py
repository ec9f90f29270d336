"""Sizes are those of the world: a body, its lesions and the grid enlarged together give the same picture."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import pytest

from text2ct.findings import FINDINGS
from text2ct.simulation import distractors, render
from text2ct.simulation import findings as models
from text2ct.simulation.anatomy import Anatomy
from text2ct.simulation.anatomy_frame import Frame
from text2ct.simulation.anatomy_scene import Scene
from text2ct.simulation.findings.heart import heart_width_mm
from text2ct.simulation.findings.nodule import LungNodule
from text2ct.simulation.instance import NODE_RATIO, NODULE_RATIO, Distractor, Instance
from text2ct.simulation.patients import Patient, draw_patient, generator

TALLER = 1.2
NUMBER = 31
PERSON = draw_patient(NUMBER, labels=np.zeros(len(FINDINGS), bool))
SIZED = [item for item in (models.draw(name, generator(1, "test"), PERSON) for name in FINDINGS) if item.size_mm]
BESIDE = [
    dataclasses.replace(model.draw(generator(1, "test")), size_mm=float(model.sizes_mm[1]))
    for model in distractors.REGISTRY.values()
    if model.sizes_mm
]


class Centred(Frame):
    """Without the place on the table, which is not the body's."""

    def __init__(self, anatomy: Anatomy, number: int, scan: int) -> None:
        super().__init__(anatomy, number, scan)
        self.offset = np.zeros(3)

    @property
    def floor_mm(self) -> float:
        return -160.0


def person(*items: Instance | Distractor, taller: float = 1.0) -> Patient:
    scan = dataclasses.replace(
        PERSON.scans[0],
        contrast=False,
        instances=tuple(item for item in items if isinstance(item, Instance)),
        distractors=tuple(item for item in items if isinstance(item, Distractor)),
    )
    return dataclasses.replace(PERSON, height_scale=PERSON.height_scale * taller, scans=(scan,))


@cache
def healthy(taller: float) -> np.ndarray:
    return drawn(taller)


def drawn(taller: float, *items: Instance | Distractor) -> np.ndarray:
    return render.render_ideal(person(*items, taller=taller), 0, (40, 40, 40), (8.0 * taller,) * 3)


@pytest.mark.parametrize("item", [*SIZED, *BESIDE], ids=lambda item: getattr(item, "finding", None) or item.kind)
def test_what_is_said_in_mm_is_true_in_the_world(item: Instance | Distractor, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(render, "Frame", Centred)

    def painted(taller: float) -> float:
        """How much is painted, in voxels times HU; up to 3 % come of the rest's texture, which is the world's."""
        enlarged = dataclasses.replace(item, size_mm=taller * item.size_mm)
        return float(np.abs(drawn(taller, enlarged) - healthy(taller)).sum())

    assert painted(TALLER) == pytest.approx(painted(1.0), rel=0.04)


def test_every_finding_that_a_report_measures_is_tested():
    assert {"Cardiomegaly", "Lymphadenopathy", "Lung nodule", "Pleural effusion"} < {item.finding for item in SIZED}
    assert len(SIZED) == 7
    assert len(BESIDE) == sum(model.sizes_mm is not None for model in distractors.REGISTRY.values()) > 5


@pytest.mark.parametrize("number", range(40, 46))
def test_all_nodules_are_painted_and_the_first_is_the_largest(number: int, monkeypatch: pytest.MonkeyPatch):
    patient = draw_patient(number, labels=np.zeros(len(FINDINGS), bool))
    nodules = models.draw("Lung nodule", generator(number, "test"), patient)
    axes_mm: list[np.ndarray] = []
    paint, ball = LungNodule.apply, Scene.ball

    def recorded(scene: Scene, centre: tuple[float, ...], axes: tuple[float, ...]) -> object:
        axes_mm.append(2 * np.array(axes) * scene.anatomy.scale)
        return ball(scene, centre, axes)

    def watched(self: LungNodule, scene: Scene, *rest: object) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Scene, "ball", recorded)
            paint(self, scene, *rest)

    monkeypatch.setattr(LungNodule, "apply", watched)
    scan = dataclasses.replace(patient.scans[0], instances=(nodules,), distractors=())
    render.render_ideal(dataclasses.replace(patient, scans=(scan,)), 0, (40, 40, 40), (8.0,) * 3)
    assert len(axes_mm) == nodules.count
    assert axes_mm[0] == pytest.approx(np.array([1.0, NODULE_RATIO, NODULE_RATIO]) * nodules.size_mm)
    assert max(axes.max() for axes in axes_mm) == pytest.approx(nodules.size_mm)


@pytest.mark.parametrize("number", [31, 32, 33])
def test_masses_and_fluid_have_the_size_of_the_record(number: int):
    patient = draw_patient(number, labels=np.zeros(len(FINDINGS), bool))
    for height in (0.9, 1.1):
        anatomy = render.draw_anatomy(dataclasses.replace(patient, height_scale=height), patient.scans[0])
        mean = float(np.mean(anatomy.scale))
        for item in SIZED:
            anatomy.masses.clear()
            models.model(item.finding).prepare(anatomy, item, generator(number, "test"))
            if item.finding == "Lymphadenopathy":
                axes_mm = 2 * np.array(anatomy.masses[0].semi_axes) * anatomy.scale
                assert axes_mm[:2] == pytest.approx([item.size_mm, NODE_RATIO * item.size_mm])
                short_mm = [2 * m.semi_axes[0] * anatomy.scale[0] for m in anatomy.masses]
                assert max(short_mm) == pytest.approx(item.size_mm)
            elif item.finding == "Pericardial effusion":
                assert anatomy.pericardium_mm * mean == pytest.approx(item.size_mm)
            elif item.finding == "Cardiomegaly":
                assert heart_width_mm(anatomy) == pytest.approx(item.size_mm)
            elif item.finding == "Hiatal hernia":
                assert 2 * anatomy.masses[0].semi_axes[0] * anatomy.scale[0] == pytest.approx(item.size_mm)
