from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from augment_fakes import make_frame
from hypothesis import given, settings
from hypothesis import strategies as st

from text2ct.augment import make_plan, read_plan
from text2ct.augment._scans import NAMES, label_matrix, training_scans
from text2ct.errors import UserError
from text2ct.files import write_json
from text2ct.findings import FINDINGS

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
        assert item.drawn_for == "" or item.drawn_for in item.positive
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


def test_the_target_is_reached_with_enough_volumes_without_the_finding(frame):
    plan = make_plan(frame, findings=[RARE], target_prevalence=0.25, without_share=0.5, max_ratio=5)
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
    assert make_plan(altered) == make_plan(frame)
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
        ({"max_ratio": 0}, "maximal ratio is 0"),
    ],
    ids=["unknown", "none", "target", "together", "ratio"],
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
