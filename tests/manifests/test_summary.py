from __future__ import annotations

import json
import math

import pandas as pd
import pytest

from text2ct.errors import UserError
from text2ct.findings import FINDINGS
from text2ct.manifests import COLUMNS, UnderrepresentedRule, read, summarise, validate

from .conftest import ct_rate_names, label_rows


@pytest.fixture
def frame(tmp_path):
    table = label_rows(ct_rate_names("train", 30) + ct_rate_names("valid", 20)).astype("object")
    table["Emphysema"] = ""
    table["Hiatal hernia"] = 0
    table["Cardiomegaly"] = [1, *[0] * (len(table) - 1)]
    table.to_csv(tmp_path / "labels.csv", index=False)
    return read(tmp_path / "labels.csv")


def test_totals(frame):
    summary = summarise(frame)
    assert summary.volumes == len(frame)
    assert summary.scans == frame["scan"].nunique()
    assert summary.patients == 50
    for unit in ("volumes", "scans", "patients"):
        assert sum(sizes[unit] for sizes in summary.splits.values()) == getattr(summary, unit)
    for name in FINDINGS:
        numbers = summary.findings[name]
        assert numbers.positive_volumes >= numbers.positive_scans >= numbers.positive_patients
        assert summary.cooccurrence.loc[name, name] == numbers.positive_scans


def test_a_reconstruction_is_no_sample_and_disagreement_is_told(frame):
    summary = summarise(frame)
    assert summary.findings["Cardiomegaly"].positive_scans == 1
    assert summary.findings["Cardiomegaly"].prevalence == 1 / summary.scans
    assert summary.disagreeing_scans == ["train_1_a"]


def test_unknown_findings_have_no_numbers_and_absent_ones_are_underrepresented(frame):
    summary = summarise(frame)
    unknown, absent = summary.findings["Emphysema"], summary.findings["Hiatal hernia"]
    assert math.isnan(unknown.prevalence)
    assert not unknown.underrepresented
    assert (absent.prevalence, absent.irlbl, absent.underrepresented) == (0, math.inf, True)
    assert len(absent.reasons) == 3
    assert summary.underrepresented[:2] == ["Hiatal hernia", "Cardiomegaly"]


def test_the_json_is_json(frame):
    result = summarise(frame).to_json()
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["findings"]["Emphysema"]["prevalence"] is None
    assert {"positive_scans", "prevalence", "irlbl", "underrepresented", "detectable_auc_difference"} <= set(
        result["findings"]["Lung nodule"]
    )


@pytest.mark.parametrize(
    ("rule", "sentence", "expected"),
    [
        (UnderrepresentedRule(), "IRLbl > MeanIR or prevalence < 10% or fewer than 1 positive scans", 2),
        (UnderrepresentedRule(None, None, False, 0), "never", 0),
        (
            UnderrepresentedRule(max_prevalence=0.99, use_irlbl=False, min_positive_scans=0),
            "prevalence < 99%",
            17,
        ),
        (UnderrepresentedRule(None, 3.0, min_positive_scans=0), "IRLbl > 3", 2),
    ],
)
def test_the_rule_is_stated_and_adjustable(frame, rule, sentence, expected):
    summary = summarise(frame, rule=rule)
    assert summary.rule == sentence
    assert len(summary.underrepresented) == expected


def test_reasons_do_not_round_a_number_onto_its_limit():
    rule = UnderrepresentedRule(max_prevalence=0.125, use_irlbl=False)
    assert str(rule).startswith("prevalence < 12.5% or ")
    assert rule.reasons(1, 0.1249, 2.0, 3.0) == ("prevalence 12.49% is below 12.5%",)


def test_impossible_rules_and_nothing_to_report():
    with pytest.raises(UserError, match="max_prevalence is 10"):
        UnderrepresentedRule(max_prevalence=10)
    for ratio in (0.5, math.nan):
        with pytest.raises(UserError, match="never below 1"):
            UnderrepresentedRule(max_irlbl=ratio)
    with pytest.raises(UserError, match="no rows"):
        summarise(validate(pd.DataFrame(columns=list(COLUMNS)), "nothing"))
