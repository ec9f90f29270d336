from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import pytest

from text2ct.errors import UserError
from text2ct.findings import FINDINGS
from text2ct.simulation import findings as models
from text2ct.simulation.instance import SIDES, SITES
from text2ct.simulation.patients import TRANSIENT, Patient, draw_patient, generator
from text2ct.simulation.render import render_ideal

SIZE, SPACING = (40, 40, 40), (8.0, 8.0, 8.0)
NUMBERS = (31, 32, 33)


def patient_with(number: int, *names: str) -> Patient:
    return draw_patient(number, labels=np.array([name in names for name in FINDINGS]))


@cache
def volume(number: int, *names: str) -> np.ndarray:
    return render_ideal(patient_with(number, *names), 0, SIZE, SPACING)


def lung_mask(hu: np.ndarray) -> np.ndarray:
    x = (np.arange(SIZE[0]) - (SIZE[0] - 1) / 2) * SPACING[0]
    y = (np.arange(SIZE[1]) - (SIZE[1] - 1) / 2) * SPACING[1]
    inside = (np.abs(x)[:, None, None] < 105) & (np.abs(y)[None, :, None] < 75)
    return inside & (hu < -500)


def test_the_registry_is_complete_and_in_order():
    assert tuple(models.REGISTRY) == FINDINGS


def test_an_unknown_finding_is_refused():
    with pytest.raises(UserError, match="no finding 'Pneumothorax'"):
        models.model("Pneumothorax")


@pytest.mark.parametrize("finding", FINDINGS)
def test_every_finding_draws_records_in_range(finding: str):
    person = patient_with(1)
    drawn = [models.draw(finding, generator(n, "test"), person) for n in range(60)]
    assert drawn[0] == models.draw(finding, generator(0, "test"), person)
    for item in drawn:
        assert item.finding == finding
        assert 0 <= item.severity <= 1
        assert item.site in SITES[finding]
        assert item.side in SIDES
        assert item.count >= 1
        assert item.size_mm is None or 5 <= item.size_mm <= 200
        if item.site.startswith(("right ", "left ")) and item.lobes():
            assert item.side == item.site.split()[0]
    assert len({item.severity for item in drawn}) > 10


@pytest.mark.parametrize("finding", FINDINGS)
def test_every_finding_is_seen_repeats_and_leaves_the_rest(finding: str):
    plain, ill = volume(31), volume(31, finding)
    assert ill.dtype == np.float32
    assert np.isfinite(ill).all()
    change = np.abs(ill - plain)
    assert (change > 80).sum() >= 4, "nothing to see"
    # Skin, table and air in front of the patient are no finding's business.
    assert (change > 1).mean() < 0.35
    again = render_ideal(patient_with(31, finding), 0, SIZE, SPACING)
    np.testing.assert_array_equal(ill, again)


@pytest.mark.parametrize("finding", ["Lung nodule", "Coronary artery wall calcification"])
def test_a_second_finding_does_not_redraw_the_first(finding: str):
    other = "Arterial wall calcification"
    alone, both, second = volume(32, finding), volume(32, finding, other), volume(32, other)
    plain = volume(32)
    untouched = second == plain
    assert untouched.mean() > 0.9
    np.testing.assert_array_equal(both[untouched], alone[untouched])


def test_a_finding_that_lasts_is_painted_alike_in_all_scans(monkeypatch: pytest.MonkeyPatch):
    patient = draw_patient(31, labels=np.ones(len(FINDINGS), bool))
    scan = patient.scans[0]
    twice = dataclasses.replace(patient, scans=(scan, dataclasses.replace(scan, letter="b", index=1)))
    drawn: dict[tuple[str, str], list[float]] = {}
    for name, model in models.REGISTRY.items():
        for step in ("prepare", "apply"):
            key = (name, step)

            def note(_, instance, rng: np.random.Generator, key: tuple[str, str] = key) -> None:
                drawn.setdefault(key, []).append(rng.random())

            monkeypatch.setattr(model, step, note)
    for index in (0, 1):
        render_ideal(twice, index, (24, 24, 24), (12.0, 12.0, 12.0))
    assert len(drawn) == 2 * len(FINDINGS)
    for (name, _), (first, second) in drawn.items():
        assert (first == second) == (name not in TRANSIENT), name


COARSE: tuple = ((30, 30, 30), (10.0, 10.0, 10.0))


@cache
def coarse(finding: str = "", site: str = "", side: str = "") -> np.ndarray:
    if not finding:
        return render_ideal(patient_with(34), 0, *COARSE)
    patient = patient_with(34, finding)
    scan = patient.scans[0]
    item = dataclasses.replace(scan.instances[0], site=site, side=side)
    ill = dataclasses.replace(patient, scans=(dataclasses.replace(scan, instances=(item,)),))
    return render_ideal(ill, 0, *COARSE)


@pytest.mark.parametrize("finding", FINDINGS)
def test_every_site_can_be_painted(finding: str):
    for site in SITES[finding]:
        side = site.split()[0] if site.startswith(("right", "left")) else "bilateral"
        change = np.abs(coarse(finding, site, side) - coarse())
        assert (change > 40).sum() >= 2, site


def test_a_finding_of_one_lobe_stays_on_its_side():
    for finding in ("Consolidation", "Lung opacity", "Bronchiectasis", "Lung nodule"):
        right = np.abs(coarse(finding, "right lower lobe", "right") - coarse())
        assert right[15:].sum() > 20 * right[:14].sum()
        left = np.abs(coarse(finding, "left lower lobe", "left") - coarse())
        assert left[:15].sum() > 20 * left[16:].sum()


def mean_change(finding: str, where) -> float:
    """Mean HU change over a region, where(hu of the healthy chest) -> mask."""
    return float(np.mean([(volume(n, finding) - volume(n))[where(volume(n))].mean() for n in NUMBERS]))


def test_emphysema_lowers_lung_and_diaphragm():
    assert mean_change("Emphysema", lung_mask) < -15
    lungs = [[lung_mask(volume(n, *names)).sum() for n in NUMBERS] for names in ((), ("Emphysema",))]
    assert np.mean(lungs[1]) > np.mean(lungs[0])


def test_pleural_effusion_fills_the_back_of_the_bases():
    def base(hu: np.ndarray) -> np.ndarray:
        mask = lung_mask(hu)
        mask[:, 18:] = False
        mask[:, :, 20:] = False
        return mask

    def front(hu: np.ndarray) -> np.ndarray:
        mask = lung_mask(hu)
        mask[:, :24] = False
        return mask

    assert mean_change("Pleural effusion", base) > 150
    assert abs(mean_change("Pleural effusion", front)) < 10


def cardiothoracic(hu: np.ndarray) -> float:
    """Width of the heart over the width of the chest in a slab through the ventricles."""
    slab = hu[:, 20:26, 13:19]
    lung = lung_mask(hu)[:, 20:26, 13:19].any(axis=(1, 2))
    heart = (slab > -50).mean(axis=(1, 2)) > 0.5
    inside = slice(int(lung.argmax()), len(lung) - int(lung[::-1].argmax()))
    return float(heart[inside].sum() / lung[inside].size)


def test_cardiomegaly_raises_the_cardiothoracic_ratio():
    plain = np.mean([cardiothoracic(volume(n)) for n in NUMBERS])
    large = np.mean([cardiothoracic(volume(n, "Cardiomegaly")) for n in NUMBERS])
    assert large > plain + 0.07


@pytest.mark.parametrize(
    ("finding", "low", "high"),
    [
        ("Consolidation", 10, 800),
        ("Lung opacity", 8, 300),
        ("Atelectasis", 8, 500),
        ("Lung nodule", 0.5, 100),
        ("Interlobular septal thickening", 8, 200),
        ("Mosaic attenuation pattern", 8, 150),
        ("Peribronchial thickening", 3, 150),
        ("Pulmonary fibrotic sequela", 3, 200),
    ],
)
def test_lung_disease_raises_lung_attenuation(finding: str, low: float, high: float):
    assert low < mean_change(finding, lung_mask) < high


@pytest.mark.parametrize(
    "finding", ["Medical material", "Arterial wall calcification", "Coronary artery wall calcification"]
)
def test_dense_findings_add_dense_voxels(finding: str):
    for number in NUMBERS:
        change = volume(number, finding) - volume(number)
        assert (change > 150).sum() >= 2
        assert change.min() > -120


@pytest.mark.parametrize(("finding", "low", "high"), [("Pericardial effusion", -20, 35), ("Lymphadenopathy", 10, 110)])
def test_soft_findings_have_their_attenuation(finding: str, low: float, high: float):
    for number in NUMBERS:
        change = volume(number, finding) - volume(number)
        new = volume(number, finding)[change > 60]
        # The rest is lung pushed aside, in part a voxel's width of mixed tissue.
        assert ((new > low) & (new < high)).sum() > 8


def test_a_hernia_holds_air_in_front_of_fluid():
    for number in NUMBERS:
        plain, ill = volume(number), volume(number, "Hiatal hernia")
        air = np.argwhere((ill < -500) & (plain > -150))
        assert len(air) > 3
        level = air[:, 1].min()
        behind = ill[air[:, 0], level - 2, air[:, 2]]
        assert np.median(behind) > -120, "fluid lies behind the air"


def test_bronchiectasis_shows_walls_and_wide_lumina():
    spread = [np.std((volume(n, "Bronchiectasis") - volume(n))[lung_mask(volume(n))]) for n in NUMBERS]
    assert min(spread) > 8
