"""The tests of the gate by themselves, as laws on small volumes."""

from __future__ import annotations

import numpy as np
import pytest
from gate_fakes import AFFINE, SIZE, SPACING, again, chest
from hypothesis import given, settings
from hypothesis import strategies as st

from text2ct.augment.gate import geometry, intensity, label, memorised
from text2ct.augment.gate.base import bounded
from text2ct.augment.gate.config import GateConfig, read_config
from text2ct.errors import UserError
from text2ct.evaluation.memorisation import TrainingVolumes
from text2ct.files import write_json
from text2ct.findings import FINDINGS
from text2ct.volumes import Volume

ALL = len(FINDINGS)


def failing(scores) -> list[str]:
    return [score.reason for score in scores if not score.passed]


# --- label

REJECTING = label.LabelSettings(max_doubts=0)


@given(
    seed=st.integers(0, 10**6),
    n=st.integers(12, 60),
    share=st.floats(0.1, 1),
    quantile=st.floats(0.5, 1),
    whole=st.floats(0, 1),
)
@settings(max_examples=25, deadline=None)
def test_the_set_shares_of_real_scans_pass(seed: int, n: int, share: float, quantile: float, whole: float) -> None:
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, ALL)) < 0.5).astype(float)
    labels[:5], labels[5:10] = 1, 0
    probabilities = np.clip(0.3 * labels + rng.random((n, ALL)) * 0.7, 0, 1)
    shares = {"pass_share": share, "negative_quantile": quantile, "real_pass_share": whole}
    limits = label.LabelSettings(**shares, min_auc=0, max_p=1, max_doubts=0)
    found = label.calibrate(probabilities, labels, limits)
    verdicts = np.array(
        [[s.passed for s in label.judge(p, t, found, limits, {})] for p, t in zip(probabilities, labels, strict=True)]
    )
    assert verdicts.all(axis=1).mean() >= whole - 1e-9, "of all findings together, too"
    for column, name in enumerate(FINDINGS):
        positive = labels[:, column] == 1
        assert verdicts[positive, column].mean() >= share - 1e-9
        assert verdicts[~positive, column].mean() >= quantile - 1e-9
        assert found[name].present <= found[name].absent, "no probability can fail on both sides"


def test_findings_that_the_classifier_does_not_know_reject_nothing() -> None:
    rng = np.random.default_rng(0)
    labels = (np.arange(40)[:, None] < 20).repeat(ALL, axis=1).astype(float)
    probabilities = 0.5 * labels + 0.4 * rng.random(labels.shape)
    labels[2:20, 0] = np.nan  # two positives are left
    probabilities[:, 1] = np.tile([0.2, 0.8], 20)  # no better than chance
    labels[20:, 2] = np.nan  # positives alone
    labels[3:20, 3] = np.nan  # three positives, one of them below nearly all negatives
    probabilities[:3, 3], probabilities[20:, 3] = [0.01, 0.5, 0.5], np.linspace(0, 0.38, 20)
    found = label.calibrate(probabilities, labels, label.LabelSettings())
    assert [found[name].not_judged.split(",")[0] for name in FINDINGS[:4]] == [
        "2 positive validation scans",
        "validation AUC 0.500",
        "no negative validation scan",
        "validation AUC 0.683 may be luck (p = 0.17)",
    ]
    assert all(one.auc == 1 and not one.not_judged for one in list(found.values())[4:])
    for asked in (0.0, 1.0):
        scores = label.judge(np.full(ALL, 1 - asked), np.full(ALL, asked), found, REJECTING, {})
        assert [score.passed for score in scores] == [True] * 4 + [False] * (ALL - 4)
    nothing = label.judge(np.zeros(ALL), np.full(ALL, np.nan), found, REJECTING, {})
    assert not failing(nothing), "unknown is not negative"


def test_a_label_in_doubt_is_unknown_and_the_volume_stays() -> None:
    limit = label.FindingThreshold(present=0.5, absent=0.6, positives=9, negatives=9, auc=0.9)
    blind = limit.model_copy(update={"present": None, "absent": None, "not_judged": "validation AUC 0.500"})
    found = {**dict.fromkeys(FINDINGS, limit), FINDINGS[0]: blind, FINDINGS[1]: blind}
    asked = np.zeros(ALL)
    asked[[0, 2, 3]] = 1
    seen = np.where(np.arange(ALL) == 5, 0.9, np.where(asked == 1, 0.9, 0.1))
    scores = label.judge(seen, asked, found, label.LabelSettings(), {FINDINGS[0]: 0.7, FINDINGS[1]: 0.9})
    assert not failing(scores)
    assert [score.name for score in scores if score.unknown] == [FINDINGS[0], FINDINGS[5]]
    assert "keeps 70% of it" in scores[0].note
    assert "is seen and was not asked for" in scores[5].note
    assert len(failing(label.judge(seen, asked, found, REJECTING, {}))) == 1
    faint = label.judge(np.where(asked == 1, 0.1, seen), asked, found, label.LabelSettings(), {})
    assert len(failing(faint)) == 2, "what was asked for must be seen"
    crowded = label.judge(np.where(np.arange(ALL) < 9, 0.9, seen), asked, found, label.LabelSettings(), {})
    assert len(failing(crowded)) == 5, "too many doubts"
    assert not any(score.unknown for score in crowded)


# --- geometry


def lungs_of(hu: np.ndarray) -> list[str]:
    return failing(geometry.lungs(geometry.anatomy(hu), SPACING, geometry.GeometrySettings()))


def test_a_chest_has_two_lungs_of_the_size_that_was_drawn() -> None:
    for patient in range(5):
        found = geometry.anatomy(chest(patient))
        assert lungs_of(chest(patient)) == []
        assert not found.lungs[chest(patient) > -300].any()
        drawn = (chest(patient) < -500) & found.body
        assert (found.lungs & drawn).sum() == drawn.sum()


def test_vanished_lungs_are_seen_and_named() -> None:
    whole = chest(3)
    right = whole.copy()
    right[SIZE[0] // 2 :] = np.where(right[SIZE[0] // 2 :] < -500, 30, right[SIZE[0] // 2 :])
    right[-2:] = -1000
    assert any("no aerated lung on the right" in reason for reason in lungs_of(right))
    assert not any("left" in reason for reason in lungs_of(right))
    torn = whole.copy()
    torn[:, SIZE[1] // 2 :] = -1000  # the front is gone, so the lungs are open to the air outside
    assert any("impossible volume of aerated lung" in reason for reason in lungs_of(torn))
    assert len(lungs_of(np.full(SIZE, -1000.0))) == 3


def test_a_field_of_view_must_hold_a_chest() -> None:
    limits = geometry.GeometrySettings()
    assert failing(geometry.field_of_view(Volume(chest(0), AFFINE), limits)) == []
    near = failing(geometry.field_of_view(Volume(chest(0), np.diag([5.0, 12.0, 12.0, 1.0])), limits))
    assert near == ["field of view too small for a chest (120 is below 200)"]
    absurd = failing(geometry.field_of_view(Volume(chest(0), np.diag([30.0, 30.0, 30.0, 1.0])), limits))
    assert any("absurd" in reason for reason in absurd)


# --- intensity


def histogram(hu: np.ndarray) -> np.ndarray:
    return intensity.histogram(hu, geometry.anatomy(hu).body)


def test_the_histogram_is_that_of_the_body_whatever_surrounds_it() -> None:
    hu = chest(1)
    padded = np.pad(hu, ((3, 3), (2, 2), (0, 0)), constant_values=-1000)
    np.testing.assert_allclose(histogram(padded), histogram(hu))
    assert histogram(hu).sum() == pytest.approx(1)
    assert not histogram(np.full(SIZE, -1000.0)).any()


@given(bins=st.integers(0, 10))
@settings(max_examples=11, deadline=None)
def test_the_distance_is_the_hu_by_which_voxels_move(bins: int) -> None:
    shares = np.zeros(100)
    shares[20:25] = 0.2
    assert intensity.distance_hu(shares, np.roll(shares, bins)) == pytest.approx(20 * bins)


def test_real_volumes_pass_and_a_shifted_scale_does_not() -> None:
    known, new = [histogram(chest(i)) for i in range(12)], [histogram(chest(i)) for i in range(20, 32)]
    limits = intensity.calibrate(known, new, intensity.IntensitySettings())
    assert not any(failing(intensity.judge(one, limits)) for one in new)
    moved = chest(40) + np.where(chest(40) > -500, 150, 0)
    assert "unlike the real one" in failing(intensity.judge(histogram(moved), limits))[0]
    assert failing(intensity.judge(np.zeros(100), limits)), "no body is no chest"
    with pytest.raises(UserError, match="needs real training and validation volumes"):
        intensity.calibrate(known, [], intensity.IntensitySettings())


def spoil(how: str) -> np.ndarray:
    hu = chest(2)
    if how == "NaN":
        hu[3, 3, 3] = np.nan
    if how == "flat":
        hu[..., 10] = 0
    if how == "repeat":
        hu[..., 8:14] = hu[..., 8:9]
    return hu


@pytest.mark.parametrize("how", ["NaN", "flat", "repeat"])
def test_damaged_voxels_are_named(how: str) -> None:
    assert how in failing(intensity.broken(Volume(spoil(how), AFFINE)))[0]
    assert failing(intensity.broken(Volume(chest(2), AFFINE))) == []


# --- memorised

TRAINING = [chest(i) for i in range(20)]
STRANGERS = [chest(i) for i in range(100, 112)]
PAIRS = {"reconstructions": [(hu, again(hu, seed=3)) for hu in TRAINING], "repeat scans": []}


@pytest.fixture(scope="module")
def search() -> TrainingVolumes:
    return TrainingVolumes(TRAINING)


@pytest.fixture(scope="module")
def limits(search: TrainingVolumes) -> memorised.MemorisedThreshold:
    return memorised.calibrate(search, STRANGERS, PAIRS, memorised.MemorisedSettings())


def judged(hu, search, limits, embed=None):
    names = [f"toy/{i}" for i in range(len(TRAINING))]
    return memorised.judge(hu, search, TRAINING, names, limits, embed)


def test_the_threshold_lies_between_one_patient_and_two(limits: memorised.MemorisedThreshold) -> None:
    assert 0 < limits.same_patient_hu < limits.distance_hu < limits.strangers_hu
    assert limits.distance_hu == pytest.approx((limits.same_patient_hu + limits.strangers_hu) / 2)
    assert limits.caught == {"reconstructions": 1.0}
    assert (limits.strangers, limits.false_positive_rate) == (12, pytest.approx(1 / 13))


@pytest.mark.parametrize("noise_hu", [0, 6, 20])
@pytest.mark.parametrize("shift", [0, 1, -1])
def test_a_planted_copy_is_caught(search, limits, noise_hu: float, shift: int) -> None:
    scores, copy = judged(again(TRAINING[7], 5, noise_hu, shift), search, limits)
    assert copy is not None
    assert copy.index == 7
    assert "copy of toy/7" in failing(scores)[0]
    assert scores[1].value > 0.99, "aligned, it correlates"


def test_another_patient_is_no_copy(search, limits) -> None:
    for patient in range(200, 210):
        scores, copy = judged(chest(patient), search, limits, embed=lambda hu: np.array([1.0, 0.0]))
        assert copy is None
        assert not failing(scores)
        assert scores[2].value == 1.0


def test_without_pairs_half_the_distance_of_strangers_is_the_threshold(search) -> None:
    alone = memorised.calibrate(search, STRANGERS, {}, memorised.MemorisedSettings())
    assert alone.distance_hu == pytest.approx(alone.strangers_hu / 2)


def test_repeat_scans_as_far_apart_as_strangers_set_no_threshold(search, limits) -> None:
    """They used to raise it to the nearest stranger, so that patients nearer than that one were called copies."""
    far = PAIRS | {"repeat scans": [(TRAINING[0], TRAINING[1])]}
    repeated = memorised.calibrate(search, STRANGERS, far, memorised.MemorisedSettings())
    assert repeated.distance_hu == limits.distance_hu < repeated.strangers_hu
    assert repeated.caught == {"reconstructions": 1.0, "repeat scans": 0.0}
    told = memorised.notes(repeated)
    assert "repeat scans of one patient lie as far apart" in told[0]
    assert "as many as 8% of new patients" in told[1]
    assert memorised.notes(repeated.model_copy(update={"pairs_hu": {}, "false_positive_rate": 0.001})) == []


def test_repeat_scans_set_the_threshold_beside_reconstructions(search, limits) -> None:
    pairs = PAIRS | {"repeat scans": [(hu, again(hu, seed=4, noise_hu=20)) for hu in TRAINING]}
    both = memorised.calibrate(search, STRANGERS, pairs, memorised.MemorisedSettings())
    assert limits.same_patient_hu < both.same_patient_hu < both.distance_hu < both.strangers_hu
    assert both.caught == {"reconstructions": 1.0, "repeat scans": 1.0}


def test_what_is_no_number_passes_no_bound() -> None:
    spoilt = bounded("label", "x", float("nan"), low=0.5, what="x is not seen")
    assert failing([spoilt]) == ["x is not seen (there is no number)"]
    limit = label.FindingThreshold(present=0.5, absent=0.5, positives=9, negatives=9, auc=1)
    found, nothing = dict.fromkeys(FINDINGS, limit), np.full(ALL, np.nan)
    assert len(failing(label.judge(nothing, np.ones(ALL), found, REJECTING, {}))) == ALL
    assert not failing(label.judge(nothing, nothing, found, REJECTING, {})), "nothing was asked"


def test_real_data_that_cannot_calibrate_is_refused(search) -> None:
    with pytest.raises(UserError, match="how near validation patients come"):
        memorised.calibrate(search, [], PAIRS, memorised.MemorisedSettings())
    with pytest.raises(UserError, match="training volume under another name"):
        memorised.calibrate(search, [TRAINING[3]], PAIRS, memorised.MemorisedSettings())


# --- configuration


def test_settings_that_do_not_exist_are_refused_by_name(tmp_path) -> None:
    swapped = {"geometry": {"lung_ml": [10000, 700]}}  # it would reject every volume
    write_json(tmp_path / "c.json", {"label": {"pass_share": 1.5}, "geometri": {}, "tests": []} | swapped)
    with pytest.raises(UserError, match="mend these settings") as error:
        read_config(tmp_path / "c.json")
    assert all(name in str(error.value) for name in ("label.pass_share", "geometri:", "tests", "geometry.lung_ml"))
    write_json(tmp_path / "c.json", {"label": {"min_auc": 0.7}})
    assert read_config(tmp_path / "c.json").label.min_auc == 0.7
    assert read_config(None) == GateConfig()
