from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from augment_fakes import make_frame
from hypothesis import given, settings
from hypothesis import strategies as st

from text2ct.augment import make_plan, read_plan
from text2ct.augment._calibrate import Aims, association_interval, choose_counts, volumes_needed
from text2ct.augment._label_sets import label_sets
from text2ct.augment._scans import NAMES, label_matrix, training_scans
from text2ct.errors import UserError
from text2ct.files import write_json
from text2ct.findings import FINDINGS
from text2ct.manifests.imbalance import detectable_auc_difference, irlbl

RARE = FINDINGS[0]


@given(
    seed=st.integers(0, 1000),
    target=st.floats(0.02, 0.6),
    without=st.floats(0.0, 0.6),
    unknown=st.sampled_from([0.0, 0.3]),
    max_ratio=st.sampled_from([0.2, 1.0, 3.0]),
    named=st.lists(st.sampled_from(FINDINGS), min_size=1, max_size=5, unique=True),
)
@settings(max_examples=15, deadline=None)
def test_totals_add_up_and_targets_are_reached_or_said(seed, target, without, unknown, max_ratio, named):
    frame = make_frame(n_train=40, seed=seed, unknown=unknown)
    scans = label_matrix(training_scans(frame))
    if target + without >= 1 or any(np.nansum(scans[:, NAMES.index(n)]) == 0 for n in named):
        with pytest.raises(UserError):
            make_plan(frame, findings=named, target_prevalence=target, without_share=without)
        return
    plan = make_plan(
        frame, findings=named, target_prevalence=target, without_share=without, max_ratio=max_ratio, seed=seed
    )
    assert plan.total == sum(item.count for item in plan.label_sets) <= max_ratio * 40
    known_sets = {tuple(np.nan_to_num(row, nan=-1)) for row in scans}
    for item in plan.label_sets:
        row = [1.0 if n in item.positive else -1.0 if n in item.unknown else 0.0 for n in NAMES]
        assert tuple(row) in known_sets, "label sets occur in the training scans"
        assert item.training_scans > 0
    for index, name in enumerate(FINDINGS):
        row = plan.findings[name]
        assert row.positive_scans == np.nansum(scans[:, index])
        assert row.added_with == sum(i.count for i in plan.label_sets if name in i.positive)
        unknown_added = sum(i.count for i in plan.label_sets if name in i.unknown)
        assert row.added_with + row.added_without + unknown_added == plan.total
        known = row.known_scans + row.added_with + row.added_without
        assert row.prevalence_after == pytest.approx((row.positive_scans + row.added_with) / known)
        if row.target:
            assert row.reached == (row.prevalence_after >= target - 1e-12)
            assert row.reached or any(note.startswith(name) for note in plan.notes)
            if plan.total:
                assert row.association_kept == (abs(row.source_label_association or 0) <= 0.1)
                assert row.association_kept or any("says more of these targets" in note for note in plan.notes)


def test_the_target_is_reached_with_enough_volumes_without_the_finding(frame):
    options = {"target_prevalence": 0.25, "without_share": 0.5, "max_ratio": 5, "max_association": 1}
    plan = make_plan(frame, findings=[RARE], **options)
    row = plan.findings[RARE]
    assert row.reached
    assert row.prevalence_before < 0.1
    assert row.prevalence_after >= 0.25
    assert row.added_without >= plan.total // 2
    assert row.added_with <= plan.total
    companions = [set(item.positive) for item in plan.label_sets if RARE in item.positive]
    assert any(len(found) > 1 for found in companions), "co-findings come along"


def test_only_training_scans_count_and_reconstructions_count_once(frame):
    held_out = frame["split"] != "train"
    altered = frame.copy()
    altered.loc[held_out, list(FINDINGS)] = 1.0
    again = frame[frame["split"] == "train"].assign(volume=lambda t: t["volume"].str.replace(".nii", "_2.nii"))
    assert make_plan(altered).label_sets == make_plan(frame).label_sets
    assert make_plan(pd.concat([frame, again], ignore_index=True)) == make_plan(frame)


def test_frequent_findings_and_a_balanced_table_need_nothing(frame):
    plan = make_plan(frame, findings=[FINDINGS[-1]], target_prevalence=0.1)
    assert plan.total == 0
    assert "show it already" in plan.notes[0]


def test_a_plan_is_replayed_stored_and_checked(frame, tmp_path):
    plan = make_plan(frame, seed=5)
    assert plan == make_plan(frame.sample(frac=1, random_state=1), seed=5)
    assert plan != make_plan(frame, seed=6)
    plan.write(tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json") == plan
    stored = plan.model_dump(mode="json") | {"totle": 3}
    stored["label_sets"][0]["positive"] = ["Effusion of nothing"]
    write_json(tmp_path / "plan.json", stored)
    with pytest.raises(UserError, match="totle"):
        read_plan(tmp_path / "plan.json")
    write_json(tmp_path / "plan.json", stored | {"version": 1})
    with pytest.raises(UserError, match="no plan of this version"):
        read_plan(tmp_path / "plan.json")
    stored.pop("totle")
    write_json(tmp_path / "plan.json", stored)
    with pytest.raises(UserError, match="Effusion of nothing"):
        read_plan(tmp_path / "plan.json")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"findings": ["Plural effusion"]}, "unknown finding 'Plural effusion'"),
        ({"findings": []}, "no finding is named"),
        ({"target_prevalence": 1.5}, "target prevalence is 1.5"),
        ({"target_prevalence": 0.5, "without_share": 0.5}, "cannot be reached"),
        ({"target_irlbl": 0.5}, "target IRLbl is 0.5"),
        ({"target_irlbl": 3, "target_prevalence": 0.2}, "exclude each other"),
        ({"max_ratio": 0}, "maximal ratio is 0"),
        ({"max_association": 0}, "maximal association is 0"),
        ({"expected_gain": 1.5}, "expected gain is 1.5"),
    ],
    ids=["unknown", "none", "target", "together", "irlbl", "both", "ratio", "association", "gain"],
)
def test_bad_settings_are_refused(frame, options, message):
    with pytest.raises(UserError, match=message):
        make_plan(frame, **options)


def test_a_finding_without_training_scan_is_refused_when_named_and_noted_otherwise(frame):
    frame.loc[frame["split"] == "train", RARE] = 0.0
    with pytest.raises(UserError, match=f"no training scan shows {RARE}"):
        make_plan(frame, findings=[RARE])
    assert any(RARE in note for note in make_plan(frame).notes)


def test_a_table_without_training_rows_is_refused(frame):
    with pytest.raises(UserError, match="no training rows"):
        make_plan(frame[frame["split"] == "test"])


def phi(present: int, real: int, with_: int, synthetic: int) -> float:
    source = np.repeat([0, 1], [real, synthetic])
    label = np.concatenate([np.arange(real) < present, np.arange(synthetic) < with_])
    return float(np.corrcoef(source, label)[0, 1])


@given(real=st.integers(20, 300), synthetic=st.integers(20, 300), share=st.floats(0.1, 0.9), limit=st.floats(0.02, 0.5))
@settings(max_examples=40, deadline=None)
def test_the_association_interval_is_where_phi_meets_its_limit(real, synthetic, share, limit):
    present = round(share * real)
    low, high = association_interval(
        np.array([present / real]), np.array([float(real)]), np.array([float(synthetic)]), limit
    )[:, 0]
    for with_ in range(1, synthetic):
        inside = low - 1e-9 <= with_ / synthetic <= high + 1e-9
        size = abs(phi(present, real, with_, synthetic))
        assert inside == (size <= limit + 1e-9) or size == pytest.approx(limit, abs=1e-6)


@pytest.mark.parametrize("association", [0.1, 1.0], ids=["for-association", "for-without"])
def test_the_fewest_volumes_are_those_of_the_formula(association):
    labels = np.zeros((2000, len(NAMES)))
    labels[:100, 0] = 1
    aims = Aims([0], 0.10, 0.5, association)
    volumes = volumes_needed(labels, aims)

    def met(n: int) -> bool:
        with_ = int(np.ceil(0.10 * (2000 + n) - 100 - 1e-9))
        return with_ <= 0.5 * n and phi(100, 2000, with_, n) <= association

    assert met(volumes)
    assert not met(int(0.95 * volumes))


def test_without_aims_to_meet_label_sets_are_asked_for_as_they_occur(frame):
    labels = label_matrix(training_scans(frame))
    sets = label_sets(labels, [], unseen=False)
    counts = choose_counts(labels, sets, Aims([], 0.5, 0.0, 1.0), 7 * len(labels), np.random.default_rng(0))
    assert counts.tolist() == (7 * sets.scans).tolist()


def test_looking_synthetic_says_little_of_any_label_where_volumes_suffice():
    frame = make_frame(n_train=300, seed=1)
    plan = make_plan(frame, target_prevalence=0.10, max_ratio=4, max_association=0.1)
    assert plan.targets
    for row in plan.findings.values():
        assert row.reached
        assert row.association_kept
        assert abs(row.source_label_association) <= 0.1
    assert not any("being synthetic says more" in note for note in plan.notes)
    free = make_plan(frame, target_prevalence=0.10, max_ratio=4, max_association=1)
    assert free.total < plan.total, "a small association costs volumes"


def test_companions_are_held_down_and_an_association_that_cannot_be_kept_is_said():
    frame = make_frame(n_train=200, seed=2)
    together = frame["split"].eq("train") & frame[RARE].eq(1)
    frame.loc[together, FINDINGS[5]] = 1.0
    frame.loc[~together & frame["split"].eq("train"), FINDINGS[5]] = 0.0
    plan = make_plan(frame, findings=[RARE], target_prevalence=0.15, max_ratio=0.5)
    assert plan.findings[RARE].reached
    assert plan.findings[FINDINGS[5]].added_with == plan.findings[RARE].added_with, "they only come together"
    assert any("these targets" in note and RARE in note for note in plan.notes)
    assert any("these companions" in note and FINDINGS[5] in note for note in plan.notes)


def test_unseen_label_sets_are_plausible_and_marked(frame):
    seen = {tuple(row) for row in label_matrix(training_scans(frame))}
    assert all(item.training_scans for item in make_plan(frame).label_sets)
    plan = make_plan(frame, unseen=True)
    unseen = [item for item in plan.label_sets if not item.training_scans]
    assert unseen
    for item in unseen:
        row = tuple(float(name in item.positive) for name in NAMES)
        assert row not in seen
        assert set(item.positive) & set(plan.targets)
        for first in item.positive:
            for second in item.positive:
                assert any(r[NAMES.index(first)] == r[NAMES.index(second)] == 1 for r in seen)
    assert all(row.reached for row in plan.findings.values())


def test_findings_that_the_pack_does_not_render_are_left_out_unless_named(frame, capsys):
    fidelity = {RARE: 0.5, FINDINGS[1]: 0.9}
    plan = make_plan(frame, fidelity=fidelity)
    assert RARE in make_plan(frame).targets
    assert RARE not in plan.targets
    assert FINDINGS[1] in plan.targets
    assert any(note.startswith(f"{RARE} is left out: the pack") for note in plan.notes)
    assert plan.findings[RARE].fidelity == 0.5
    assert not capsys.readouterr().err
    named = make_plan(frame, findings=[RARE], fidelity=fidelity)
    assert named.targets == (RARE,)
    assert "expect no gain" in capsys.readouterr().err


def test_what_the_test_scans_can_show_is_said(frame):
    rare = make_plan(frame, findings=[RARE], expected_gain=0.2)
    row = rare.findings[RARE]
    assert (rare.test_scans, row.test_positive_scans) == (12, int(frame.loc[frame["split"] == "test", RARE].sum()))
    assert row.detectable is False
    assert any("could not show a gain of 0.2" in note and RARE in note for note in rare.notes)
    many = make_frame(n_test=600, seed=3)
    row = make_plan(many, findings=[RARE], expected_gain=0.24).findings[RARE]
    assert row.detectable is True
    positive = int(many.loc[many["split"] == "test", RARE].sum())
    assert row.detectable_auc_difference == pytest.approx(detectable_auc_difference(positive, 600 - positive))
    blind = make_plan(frame[frame["split"] == "train"], findings=[RARE])
    assert blind.findings[RARE].detectable is None
    assert any("no test scans" in note for note in blind.notes)


def test_the_cost_follows_from_a_measured_volume(frame):
    plan = make_plan(frame)
    assert plan.cost is None
    cost = plan.with_cost("a-pack", (8, 8, 4), 9.0).cost
    assert cost.hours == pytest.approx(plan.total * 9 / 3600)
    assert cost.bytes == plan.total * 8 * 8 * 4 * 2
    assert plan.with_cost("a-pack", (8, 8, 4), None).cost.hours is None


@pytest.mark.parametrize("seed", [1, 3, 6])
def test_unknown_labels_cost_volumes_until_the_targets_associations_are_kept(seed):
    plan = make_plan(make_frame(n_train=200, seed=seed, unknown=0.3), max_ratio=30, seed=seed)
    assert plan.targets
    assert plan.total < 30 * 200
    for name in plan.targets:
        row = plan.findings[name]
        assert row.reached
        assert row.association_kept
        assert row.added_without >= 0.5 * (row.added_with + row.added_without)
    capped = make_plan(make_frame(n_train=200, seed=seed, unknown=0.3), max_ratio=1, seed=seed)
    (note,) = [note for note in capped.notes if "these targets" in note]
    assert float(note.split("; ")[1].split(" synthetic")[0]) > 1, "what is said to do is more than was planned"


@given(share=st.floats(0.2, 1.0))
@settings(max_examples=10, deadline=None)
def test_volumes_needed_rise_as_labels_are_known_less_often(share):
    labels = np.zeros((2000, len(NAMES)))
    labels[:100, 0] = 1
    aims = Aims([0], 0.10, 0.5, 0.1)
    fewer = np.concatenate([labels, np.full((round(2000 / share) - 2000, len(NAMES)), np.nan)])
    assert volumes_needed(fewer, aims) == pytest.approx(volumes_needed(labels, aims) / share, abs=1 / share + 1)


@pytest.mark.parametrize("ratio", [3.0, 5.0])
def test_a_target_irlbl_becomes_a_prevalence(ratio):
    frame = make_frame(n_train=200, seed=1)
    plan = make_plan(frame, target_irlbl=ratio, max_ratio=4)
    before = irlbl(training_scans(frame)[NAMES])
    assert plan.targets
    for name in plan.targets:
        row = plan.findings[name]
        assert row.irlbl_before == pytest.approx(before[name])
        assert row.irlbl_before > ratio >= row.irlbl_after - 1e-9
        assert row.reached
    commonest = max(row.prevalence_after for row in plan.findings.values())
    assert plan.target_prevalence >= commonest / ratio - 1e-9
    short = make_plan(frame, target_irlbl=ratio, max_ratio=0.02)
    assert any("IRLbl stays above" in note for note in short.notes)
