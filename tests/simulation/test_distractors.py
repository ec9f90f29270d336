"""What lies beside the findings: painted where it is said, said as it is painted."""

from __future__ import annotations

import dataclasses
import re
from functools import cache

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from text2ct.errors import UserError
from text2ct.findings import FINDINGS
from text2ct.simulation import distractors
from text2ct.simulation import findings as models
from text2ct.simulation.anatomy import draw_anatomy
from text2ct.simulation.anatomy_frame import Frame
from text2ct.simulation.anatomy_organs import abdomen_depth, aorta, kidney_mm
from text2ct.simulation.anatomy_scene import Scene
from text2ct.simulation.anatomy_shape import ellipsoid
from text2ct.simulation.distractors import REGISTRY, abdomen
from text2ct.simulation.instance import Distractor
from text2ct.simulation.patients import Patient, draw_patient, generator, patient_number
from text2ct.simulation.render import render_ideal
from text2ct.simulation.text import compose, report
from text2ct.simulation.text.distractors import STATEMENTS
from text2ct.simulation.text.wording import REGIONS

DEFAULT: tuple = ((64, 64, 64), (5.0, 5.0, 5.0))
FINE: tuple = ((128, 128, 128), (2.5, 2.5, 2.5))
NUMBERS = (61, 62)

# Canonical mm: where each kind may be (|x| for those with a side), how far HU must change and how much tissue.
WHERE: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float], float, float]] = {
    "scoliosis": ((0, 180), (-140, 140), (-170, 180), 100, 50_000),
    "ectatic ascending aorta": ((-15, 60), (-15, 60), (-30, 90), 100, 1_000),
    "hepatosteatosis": ((-80, 130), (-100, 100), (-180, -40), 12, 300_000),
    "cholecystectomy": ((10, 60), (10, 75), (-170, -105), 30, 5_000),
    "hepatic cyst": ((-25, 105), (-50, 75), (-165, -70), 20, 100),
    "gallstone": ((10, 60), (10, 75), (-170, -105), 60, 100),
    "renal cyst": ((30, 90), (-75, -15), (-165, -85), 15, 200),
    "kidney stone": ((35, 70), (-70, -30), (-160, -105), 100, 60),
    "thyroid nodule": ((0, 50), (-30, 45), (90, 150), 20, 100),
    "lung air cyst": ((5, 125), (-95, 90), (-150, 60), 40, 60),
    "osteophytes": ((-15, 45), (-75, -25), (-185, 40), 100, 1_000),
    "vertebral haemangioma": ((-30, 30), (-85, -30), (-115, 80), 40, 100),
    "compact bone island": ((-30, 30), (-85, -30), (-115, 80), 80, 60),
    "old rib fracture": ((60, 150), (-75, 70), (-110, 60), 100, 300),
}
NAMED = {
    "scoliosis": "scoliosis",
    "ectatic ascending aorta": "ascending aorta",
    "hepatosteatosis": "steatosis|fatty",
    "cholecystectomy": "operated",
    "hepatic cyst": "(lesion|area|cyst).* liver|liver.* lesion",
    "gallstone": "(stone|calcul).* gallbladder",
    "renal cyst": "(lesion|cyst).* kidney|kidney.* cyst",
    "kidney stone": "(stone|calculus).* kidney",
    "thyroid nodule": "nodule.* thyroid|thyroid.* nodule",
    "lung air cyst": "air cyst",
    "osteophytes": "degenerative|osteophyt",
    "vertebral haemangioma": "hemangioma",
    "compact bone island": "bone island",
    "old rib fracture": "fracture.* rib|rib.* fracture",
}


def person(number: int, *items: Distractor) -> Patient:
    patient = draw_patient(number, labels=np.zeros(len(FINDINGS), bool))
    scan = dataclasses.replace(patient.scans[0], contrast=False, distractors=items)
    return dataclasses.replace(patient, scans=(scan,))


@cache
def healthy(number: int, grid: tuple) -> np.ndarray:
    return render_ideal(person(number), 0, *grid)


def drawn(kind: str, number: int = 0, side: str = "") -> Distractor:
    item = REGISTRY[kind].draw(generator(number, "test"))
    return dataclasses.replace(item, side=side or item.side)


def test_the_tables_of_these_tests_name_every_kind():
    assert set(WHERE) == set(NAMED) == set(REGISTRY)
    assert {model.region for model in REGISTRY.values()} <= set(REGIONS)
    with pytest.raises(UserError, match="no distractor 'pleural plaque'"):
        distractors.model("pleural plaque")


@pytest.mark.parametrize("kind", REGISTRY)
def test_a_kind_is_painted_where_it_belongs_and_repeats(kind: str):
    (x_low, x_high), y_range, z_range, change_hu, least_mm3 = WHERE[kind]
    for number in NUMBERS:
        for side in REGISTRY[kind].sides:
            patient = person(number, drawn(kind, number, side))
            grid = DEFAULT if least_mm3 > 20_000 else FINE
            hu = render_ideal(patient, 0, *grid)
            change = np.abs(hu - healthy(number, grid))
            changed = np.argwhere(change > change_hu)
            assert len(changed) * np.prod(grid[1]) > least_mm3
            world = (changed - (np.array(grid[0]) - 1) / 2) * np.array(grid[1])
            anatomy = draw_anatomy(patient, patient.scans[0])
            x, y, z = Frame(anatomy, number, 0).to_canonical(*world.T.astype(np.float32))
            x = x if len(REGISTRY[kind].sides) == 1 else x * (-1 if side == "left" else 1)
            inside = (x > x_low) & (x < x_high) if kind != "scoliosis" else np.full(len(x), True)
            inside &= (y > y_range[0]) & (y < y_range[1]) & (z > z_range[0]) & (z < z_range[1])
            assert inside.mean() > 0.95
    np.testing.assert_array_equal(hu, render_ideal(patient, 0, *grid))


@pytest.mark.parametrize("kind", REGISTRY)
def test_what_is_said_lies_in_the_default_field(kind: str, monkeypatch: pytest.MonkeyPatch):
    """In chests with their findings, of all sizes and depths of breath; renders nothing."""
    balls: list[tuple[tuple[float, ...], tuple[float, ...]]] = []

    def note(scene: Scene, centre: tuple[float, ...], semi_axes: tuple[float, ...]) -> tuple[tuple, np.ndarray]:
        balls.append((centre, semi_axes))
        return (slice(0, 0),) * 3, np.zeros((0, 0, 0), np.float32)

    monkeypatch.setattr(Scene, "ball", note)
    for index in range(200):
        patient = draw_patient(patient_number(8, index))
        for number, scan in enumerate(patient.scans):
            anatomy, frame = draw_anatomy(patient, scan), Frame(draw_anatomy(patient, scan), patient.number, number)
            item = drawn(kind, index)
            REGISTRY[kind].prepare(anatomy, item, generator(index, "test", kind))
            for one in models.in_painting_order(scan.instances):
                models.model(one.finding).prepare(anatomy, one, generator(index, "test", one.finding))
            balls.clear()
            REGISTRY[kind].apply(Scene(anatomy, frame, (8, 8, 8), (40.0, 40.0, 40.0)), item, generator(index, "apply"))
            # Spurs bridge several discs; the lowest may lie below, but three are changes enough.
            shown = balls[:3] if kind == "osteophytes" else balls
            for centre, semi_axes in shown:
                middle = frame.to_world(np.array([centre]))[0]
                assert (np.abs(middle) + np.array(semi_axes) * frame.scale < 160.0).all(), (index, centre)
    painted = kind not in ("scoliosis", "ectatic ascending aorta", "hepatosteatosis", "cholecystectomy")
    assert bool(balls) == painted


def test_stones_and_cysts_lie_in_kidneys_below_the_diaphragm():
    for index in range(200):
        patient = draw_patient(patient_number(9, index), labels=np.zeros(len(FINDINGS), bool))
        anatomy = draw_anatomy(patient, patient.scans[0])
        scene = Scene(anatomy, Frame(anatomy, patient.number, 0), (8, 8, 8), (40.0, 40.0, 40.0))
        for side, sign in (("right", 1.0), ("left", -1.0)):
            for kind, from_pole in ((abdomen.KidneyStone, -11.0), (abdomen.RenalCyst, -5.0)):
                at = abdomen.in_kidney(scene, Distractor(kind.kind, side), (0.0, 0.0, from_pole), 6.0)
                point = np.array(at, np.float32)[:, None]
                assert ellipsoid(*point, *kidney_mm(scene.frame, sign))[0] > 2.0
                assert abdomen_depth(anatomy, *point)[0] > 2.0


def test_a_diameter_is_that_of_the_record():
    for kind, water in (("compact bone island", 1000.0), ("hepatic cyst", 8.0)):
        item = dataclasses.replace(drawn(kind), side="right" if kind == "hepatic cyst" else "", size_mm=14.0)
        for number in NUMBERS:
            change = np.abs(render_ideal(person(number, item), 0, *FINE) - healthy(number, FINE))
            volume = float((change > 0.5 * change.max()).sum()) * float(np.prod(FINE[1]))
            assert (6 * volume / np.pi) ** (1 / 3) == pytest.approx(14.0, abs=2.5), water


def test_scoliosis_bends_to_its_side():
    for side, sign in (("right", 1), ("left", -1)):
        anatomy = draw_anatomy(person(61), person(61).scans[0])
        REGISTRY["scoliosis"].prepare(anatomy, Distractor("scoliosis", side), generator(1, "test"))
        assert sign * anatomy.scoliosis_mm > 7


@pytest.mark.parametrize("number", [*NUMBERS, 63])
def test_an_ectatic_ascending_aorta_has_the_width_of_its_record(number: int):
    """Measured as the largest disc that fits into the enhanced blood of an axial slice."""
    size, step = 96, 1.5

    def measured(*items: Distractor) -> float:
        patient = person(number, *items)
        patient = dataclasses.replace(patient, scans=(dataclasses.replace(patient.scans[0], contrast=True),))
        anatomy = draw_anatomy(patient, patient.scans[0])
        # Above the pulmonary trunk, where nothing but the thin wall of the superior vena cava touches it.
        centre = Frame(anatomy, number, 0).to_world(aorta(anatomy)[0][2:3])[0]
        i, j, k = np.rint(centre / step + (size - 1) / 2).astype(int)
        blood = render_ideal(patient, 0, (size,) * 3, (step,) * 3)[:, :, k] > anatomy.blood_hu / 2
        return 2 * step * float(distance_transform_edt(blood)[i - 4 : i + 5, j - 4 : j + 5].max())

    scale = draw_anatomy(person(number), person(number).scans[0]).scale[:2]
    # The record's is that of the widest part, of which this level has 1.15 / 1.2; a disc fits the narrower axis.
    share = 1.15 / 1.2 * min(scale) / np.mean(scale)
    assert measured() < 30
    for width in (40.0, 44.0):
        item = Distractor("ectatic ascending aorta", "", size_mm=width)
        assert measured(item) == pytest.approx(share * width, abs=1.2)


def test_callus_osteophytes_and_islands_touch_bone():
    for kind in ("old rib fracture", "osteophytes", "compact bone island"):
        plain, ill = healthy(61, FINE), render_ideal(person(61, drawn(kind, 3)), 0, *FINE)
        new = ill - plain > 60
        assert plain[new].max() > 200, kind


@pytest.mark.parametrize("kind", REGISTRY)
def test_what_is_painted_is_said_with_its_side_and_size(kind: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("text2ct.simulation.text.slips.REPORT_RATE", 0.0)
    for number in range(40):
        item = drawn(kind, number)
        text = report(person(number, item), person(number, item).scans[0]).findings
        said = [part for part in re.split(r"(?<=[a-z)0-9])[.;]\s", text) if re.search(NAMED[kind], part, re.IGNORECASE)]
        if item.size_mm is not None:
            shown = (f"{item.size_mm:g} mm", f"{item.size_mm / 10:g} cm")
            said = [part for part in said if any(size in part for size in shown)]
        if item.side:
            said = [part for part in said if re.search(rf"\b{item.side}", part)]
        assert said, text


def test_a_patient_keeps_distractors_and_findings_leave_them():
    patients = [draw_patient(patient_number(5, index)) for index in range(200)]
    for patient in patients:
        assert len({scan.distractors for scan in patient.scans}) == 1
        bare = draw_patient(patient.number, labels=np.zeros(len(FINDINGS), bool))
        assert bare.scans[0].distractors == patient.scans[0].distractors
    kinds = {item.kind for patient in patients for item in patient.scans[0].distractors}
    assert len(kinds) > 10
    for patient in patients:
        names = [item.kind for item in patient.scans[0].distractors]
        assert names == [kind for kind in REGISTRY if kind in names]
        assert not {"gallstone", "cholecystectomy"} <= set(names)


def test_distractors_are_as_frequent_as_reports_have_them():
    painted = [len(draw_patient(patient_number(6, index)).scans[0].distractors) for index in range(1500)]
    weights = sum(model.weight for model in REGISTRY.values()), sum(item.weight for item in STATEMENTS)
    # 1.15 statements a report, divided by weight.
    assert np.mean(painted) == pytest.approx(1.15 * distractors.PAINTED_SHARE, abs=0.06)
    assert weights[0] / sum(weights) == pytest.approx(distractors.PAINTED_SHARE, abs=0.02)


def test_no_normal_statement_denies_a_distractor():
    deny = {
        "hepatosteatosis": r"liver.* natural|liver.* normal",
        "scoliosis": r"alignment|ones? .*(natural|normal)",
        "thyroid nodule": r"thyroid gland is (natural|of normal)|No mass .*thyroid",
        "ectatic ascending aorta": r"(T|t)horacic aorta is of|vascular structures .*(normal|natural)",
        "old rib fracture": r"Bone structures .*(natural|normal)",
    }
    for kind, words in deny.items():
        for number in range(60):
            text = report(person(number, drawn(kind, number)), person(number, drawn(kind, number)).scans[0]).findings
            for part in text.split(". "):
                assert not re.search(words, part), part


def test_composed_reports_say_a_patients_distractors():
    said = 0
    for seed in range(150):
        text = compose(np.zeros(18), np.random.default_rng(seed)).text
        said += bool(re.search("steatosis|atty |scoliosis|steophyt|egenerative|cyst|fracture seq|calcul", text))
    assert 20 < said < 110
