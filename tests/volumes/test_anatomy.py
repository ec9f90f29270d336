"""Chests pass, whatever is wrong with them; what is none is flagged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from text2ct.findings import FINDINGS
from text2ct.simulation import draw_patient, patient_number
from text2ct.simulation.render import render
from text2ct.volumes import Volume, read
from text2ct.volumes.anatomy import not_a_chest


def grid(size: tuple[int, int, int], spacing_mm: float) -> list[np.ndarray]:
    """World coordinates in mm, the origin in the middle."""
    return np.meshgrid(*[(np.arange(n) - (n - 1) / 2) * spacing_mm for n in size], indexing="ij")


def noisy(hu: np.ndarray, spacing_mm: float) -> Volume:
    noise = np.random.default_rng(0).normal(0, 20, hu.shape)
    return Volume((hu + noise).astype(np.float32), np.diag([*[spacing_mm] * 3, 1.0]))


def make_head(size: tuple[int, int, int] = (60, 60, 50), spacing_mm: float = 4.0) -> Volume:
    """A skull with brain and a sinus, in air."""
    x, y, z = grid(size, spacing_mm)
    depth = (x / 78) ** 2 + (y / 95) ** 2 + (z / 90) ** 2
    hu = np.select([depth < 0.84, depth < 0.93, depth < 1], [35.0, 900.0, 40.0], -1000.0)
    hu[x**2 + (y - 70) ** 2 + (z + 40) ** 2 < 15**2] = -980
    return noisy(hu, spacing_mm)


def make_pelvis(spacing_mm: float = 5.0) -> Volume:
    """Soft tissue with two hips and 0.8 litres of bowel gas."""
    x, y, z = grid((70, 56, 50), spacing_mm)
    hu = np.where((x / 165) ** 2 + (y / 110) ** 2 < 1, 20.0, -1000.0)
    hu[(np.abs(x) - 90) ** 2 + y**2 + z**2 < 35**2] = 600
    hu[(x - 20) ** 2 + (y - 40) ** 2 < 35**2] = -995
    return noisy(hu, spacing_mm)


def make_person(number: int = 0, labels: np.ndarray | None = None) -> Volume:
    """A simulated chest with 9 cm more below it."""
    person = draw_patient(patient_number(5, number), labels=labels)
    return Volume(render(person, size=(64, 64, 100)), np.diag([5.0, 5.0, 5.0, 1.0]))


@pytest.fixture(scope="module")
def person() -> Volume:
    return make_person()


def test_a_chest_passes_at_any_spacing(person, phantom):
    assert not_a_chest(person) == ""
    assert not_a_chest(phantom) == ""
    fine = Volume(np.repeat(np.repeat(person.hu, 3, 0), 3, 1), np.diag([5 / 3, 5 / 3, 5, 1.0]))
    assert not_a_chest(fine) == ""


@pytest.mark.parametrize("finding", ["Pleural effusion", "Consolidation", "Emphysema", "Atelectasis"])
def test_chests_with_much_amiss_pass(finding):
    labels = np.array([name == finding for name in FINDINGS])
    for number in range(3):
        assert not_a_chest(make_person(number, labels)) == ""


@pytest.mark.parametrize("side", [0, 1])
def test_one_lung_without_air_passes(person, side):
    hu = person.hu.copy()
    half = hu[:32] if side == 0 else hu[32:]
    half[(half < -300) & (half > -960)] = 20
    assert not_a_chest(replace(person, hu=hu)) == ""


def test_a_crop_that_cuts_the_lungs_open_passes(person):
    assert not_a_chest(replace(person, hu=person.hu[14:34, 22:44, 50:80])) == ""


@pytest.mark.parametrize(("top", "words"), [(16, "0.00 litres of lung in 8 cm"), (40, "bases of the lungs")])
def test_an_abdomen_is_flagged(person, top, words):
    said = not_a_chest(replace(person, hu=person.hu[..., :top]))
    assert said.startswith("no chest: ")
    assert words in said


@pytest.mark.parametrize("spacing_mm", [4.0, 1.6])
def test_a_head_is_flagged_as_one(spacing_mm):
    size = tuple(round(extent / spacing_mm) for extent in (240, 240, 200))
    assert not_a_chest(make_head(size, spacing_mm)).endswith("by its size and bone a head")


def test_a_pelvis_and_nothing_at_all_are_flagged(person):
    assert not_a_chest(make_pelvis()).startswith("no chest: 0.0")
    assert not_a_chest(replace(person, hu=np.full((20, 20, 20), -1000.0))) == "no chest: it holds no body"


def test_the_real_chests_pass(shared):
    for path in sorted((shared / "real/volumes").iterdir()):
        assert not_a_chest(read(path)) == "", path.name
