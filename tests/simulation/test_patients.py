from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from text2ct.errors import UserError
from text2ct.findings import FINDINGS
from text2ct.simulation.instance import SITES
from text2ct.simulation.labels import fitted
from text2ct.simulation.patients import (
    MAX_PATIENTS,
    MAX_SEED,
    ORACLE_PATIENTS,
    PACK_PATIENTS,
    TRANSIENT,
    draw_patient,
    generator,
    patient_number,
)

NONE = np.zeros(len(FINDINGS), bool)


def test_no_cohort_reaches_the_patients_of_the_pack():
    last = patient_number(MAX_SEED - 1, MAX_PATIENTS - 1)
    assert last < PACK_PATIENTS.start
    assert PACK_PATIENTS.stop <= ORACLE_PATIENTS.start
    assert int(float(ORACLE_PATIENTS.stop)) == ORACLE_PATIENTS.stop, "a table may hold numbers as float64"
    assert patient_number(0, 0) == 0
    assert patient_number(3, 7) == 3_000_007


@given(seed=st.integers(), index=st.integers())
def test_no_seed_and_no_index_give_a_patient_of_the_pack(seed: int, index: int):
    try:
        number = patient_number(seed, index)
    except UserError:
        assert not (0 <= seed < MAX_SEED and 0 <= index < MAX_PATIENTS)
    else:
        assert number not in PACK_PATIENTS
        assert number not in ORACLE_PATIENTS


@given(seed=st.integers(0, MAX_SEED - 1), index=st.integers(0, MAX_PATIENTS - 1))
def test_a_number_belongs_to_one_cohort(seed: int, index: int):
    assert divmod(patient_number(seed, index), MAX_PATIENTS) == (seed, index)
    assert patient_number(np.int32(seed), np.int32(index)) == patient_number(seed, index)


@pytest.mark.parametrize(("seed", "index"), [(-1, 0), (MAX_SEED, 0), (0, -1), (0, MAX_PATIENTS)])
def test_numbers_out_of_range_are_refused(seed: int, index: int):
    with pytest.raises(UserError, match="out of range"):
        patient_number(seed, index)


@pytest.mark.parametrize("number", [-1, ORACLE_PATIENTS.stop])
def test_there_is_no_such_patient(number: int):
    with pytest.raises(UserError, match="there is no patient"):
        draw_patient(number, labels=NONE)


def test_unknown_prevalence_and_wrong_labels_are_refused():
    with pytest.raises(UserError, match="unknown prevalence 'mimic'"):
        draw_patient(1, prevalence="mimic")
    with pytest.raises(UserError, match="expected one value for each of 18"):
        draw_patient(1, labels=np.zeros(17, bool))


def test_named_streams_are_independent_and_repeat():
    assert generator(5, "a").random() == generator(5, "a").random()
    draws = {generator(5, *stream).random() for stream in [("a",), ("b",), ("a", 0), ("a", 1), ()]}
    assert len(draws) == 5


def test_a_patient_repeats_and_a_finding_shifts_nothing_else():
    assert draw_patient(11) == draw_patient(11)
    labels = NONE.copy()
    labels[[2, 9]] = True
    plain, ill = draw_patient(11, labels=NONE), draw_patient(11, labels=labels)
    assert (plain.sex, plain.age, plain.habitus) == (ill.sex, ill.age, ill.habitus)
    for before, after in zip(plain.scans, ill.scans, strict=True):
        assert before.reconstructions == after.reconstructions
        assert (before.contrast, before.inspiration) == (after.contrast, after.inspiration)
        assert [item.finding for item in after.instances] == ["Cardiomegaly", "Lung nodule"]
    labels[0] = True
    more = draw_patient(11, labels=labels)
    assert more.scans[0].instances[1:] == ill.scans[0].instances


def test_a_finding_that_lasts_is_the_same_in_all_scans():
    labels = np.ones(len(FINDINGS), bool)
    several = [patient for patient in map(draw_patient, range(300)) if len(patient.scans) > 1]
    several += [draw_patient(patient.number, labels=labels) for patient in several]
    assert len(several) > 40
    changed = 0
    for patient in several:
        first, *later = ({item.finding: item for item in scan.instances} for scan in patient.scans)
        for scan in later:
            assert scan.keys() - TRANSIENT == first.keys() - TRANSIENT
            assert all(scan[name] == first[name] for name in scan.keys() - TRANSIENT)
            changed += sum(scan[name] != first[name] for name in scan.keys() & first.keys() & TRANSIENT)
    assert changed > 100


def test_patients_vary_as_a_cohort_does():
    patients = [draw_patient(n) for n in range(150)]
    scans = [scan for patient in patients for scan in patient.scans]
    assert 1.05 < len(scans) / len(patients) < 1.4
    assert 1.6 < np.mean([len(scan.reconstructions) for scan in scans]) < 2.2
    assert {patient.sex for patient in patients} == {"M", "F"}
    assert 18 <= min(p.age for p in patients) < 35 < 65 < max(p.age for p in patients) <= 96
    for scan in scans:
        order = [FINDINGS.index(item.finding) for item in scan.instances]
        assert order == sorted(set(order))
        kernels = [(r.kernel, r.slice_thickness_mm, r.noise_hu) for r in scan.reconstructions]
        assert len(set(kernels)) == len(kernels)


def test_scans_and_reconstructions_are_as_many_as_in_ct_rate():
    patients = [draw_patient(n) for n in range(2000)]
    scans = [scan for patient in patients for scan in patient.scans]
    for drawn, shares in (
        ([len(patient.scans) for patient in patients], fitted().scans_per_patient),
        ([len(scan.reconstructions) for scan in scans], fitted().reconstructions_per_scan),
    ):
        np.testing.assert_allclose(np.bincount(drawn, minlength=len(shares) + 1)[1:] / len(drawn), shares, atol=0.02)


def test_ages_and_sexes_are_those_of_ct_rate():
    patients = [draw_patient(n, labels=NONE) for n in range(2000)]
    probabilities, ages = fitted().age_quantiles[1:-1].T
    np.testing.assert_allclose(np.quantile([p.age for p in patients], probabilities), ages, atol=2.5)
    assert np.mean([p.sex == "M" for p in patients]) == pytest.approx(fitted().male_share, abs=0.03)


def test_every_finding_has_a_vocabulary_of_sites():
    assert tuple(SITES) == FINDINGS
