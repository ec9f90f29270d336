from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from text2ct.errors import UserError
from text2ct.findings import FINDINGS
from text2ct.manifests import assign_splits, by_scan, ct_rate_split_by_name, split_by_patient

FRACTIONS = {"train": 0.6, "validation": 0.15, "test": 0.25}


def table(patients: list[int], seed: int = 0, rate: float = 0.3) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame((rng.random((len(patients), len(FINDINGS))) < rate).astype(float), columns=list(FINDINGS))
    frame["dataset"] = "D"
    frame["patient"] = [f"p{patient}" for patient in patients]
    frame["scan"] = [f"p{patient}_{row // 2}" for row, patient in enumerate(patients)]
    return frame


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=80), st.integers(0, 5))
def test_no_patient_across_splits_and_every_row_has_one(patients, seed):
    frame = table(patients, seed)
    split = split_by_patient(frame, FRACTIONS, seed)
    assert len(split) == len(frame)
    assert set(split) <= set(FRACTIONS)
    assert not pd.DataFrame({"p": frame["patient"], "s": split}).drop_duplicates().duplicated("p").any()
    shuffled = frame.sample(frac=1, random_state=1)
    pd.testing.assert_series_equal(split_by_patient(shuffled, FRACTIONS, seed).sort_index(), split)


def test_equal_spellings_in_two_data_sets_are_two_patients():
    frame = pd.concat([table([1]), *[table([1]).assign(dataset=f"D{n}") for n in range(19)]], ignore_index=True)
    assert split_by_patient(frame, {"train": 0.5, "test": 0.5}, 0).value_counts().to_dict() == {
        "train": 10,
        "test": 10,
    }


def test_findings_are_spread_alike():
    frame = table(list(range(1000)), rate=0.04)
    split = split_by_patient(frame, FRACTIONS, 0)
    for name, fraction in FRACTIONS.items():
        inside = frame[split == name]
        assert len(inside) == 1000 * fraction
        share = inside[list(FINDINGS)].sum() / frame[list(FINDINGS)].sum()
        assert (share - fraction).abs().max() < 0.05


def test_a_single_split_and_none():
    assert set(split_by_patient(table([1, 2]), {"test": 1.0, "train": 0.0}, 0)) == {"test"}
    assert split_by_patient(table([]), FRACTIONS, 0).empty


@pytest.mark.parametrize("fractions", [{}, {"train": 0.5}, {"train": 1.5, "test": -0.5}])
def test_fractions_must_sum_to_one(fractions):
    with pytest.raises(UserError, match="sum to 1"):
        split_by_patient(table([1]), fractions, 0)


def test_an_unknown_split():
    with pytest.raises(UserError, match="unknown split: valid"):
        split_by_patient(table([1]), {"valid": 1.0}, 0)


def test_patients_with_a_split_keep_it():
    frame = table([1, 1, 2, 3, 4]).assign(split=["test", "", "train", "", ""])
    done = assign_splits(frame, {"validation": 1.0})
    assert list(done["split"]) == ["test", "test", "train", "validation", "validation"]
    assert list(frame["split"]) == ["test", "", "train", "", ""]


def test_the_quarter_by_name_depends_on_the_patient_alone():
    patients = pd.Series([f"valid_{n}" for n in range(1, 1305)])
    split = ct_rate_split_by_name(patients, pd.Series("valid", index=patients.index))
    assert 0.22 < (split == "validation").mean() < 0.28
    few = ct_rate_split_by_name(patients[5:9], pd.Series("valid", index=patients[5:9].index))
    pd.testing.assert_series_equal(few, split[5:9])
    assert ct_rate_split_by_name(pd.Series(["train_1", "x"]), pd.Series(["train", ""])).tolist() == [
        "train",
        "",
    ]


LABEL = st.sampled_from([0.0, 1.0, np.nan])


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), LABEL), min_size=1, max_size=12))
def test_a_scan_is_positive_if_any_reconstruction_is_and_unknown_only_if_all_are(drawn):
    frame = table([0] * len(drawn))
    frame["scan"], frame["Emphysema"] = zip(*drawn, strict=True)
    scans, disagreeing = by_scan(frame)
    assert list(scans["scan"]) == list(dict.fromkeys(frame["scan"]))
    for scan, value in zip(scans["scan"], scans["Emphysema"], strict=True):
        labels = [label for name, label in drawn if name == scan]
        known = [label for label in labels if not np.isnan(label)]
        assert value == max(known) if known else np.isnan(value)
    expected = {scan for scan, _ in drawn if {0.0, 1.0} <= {label for name, label in drawn if name == scan}}
    others = frame.drop(columns="Emphysema").groupby("scan")[[f for f in FINDINGS if f != "Emphysema"]]
    expected |= set((others.max() > others.min()).any(axis=1).loc[lambda torn: torn].index)
    assert set(disagreeing) == expected


def test_disagreeing_scans_of_several_data_sets_are_told_apart():
    frame = pd.concat([table([1, 1], seed=3), table([1, 1], seed=3).assign(dataset="E")], ignore_index=True)
    scans, disagreeing = by_scan(frame)
    assert len(scans) == 2
    assert disagreeing == ["D/p1_0", "E/p1_0"]
