import json

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from text2ct.errors import UserError
from text2ct.evaluation import choose_thresholds, crg, score
from text2ct.evaluation.alignment import align
from text2ct.findings import FINDINGS

from .conftest import make_tables

KEYS = (
    *(
        "volumes",
        "scans",
        "macro_auc",
        "macro_auc_ci",
        "weighted_auc",
        "macro_precision",
        "weighted_precision",
    ),
    *("macro_average_precision", "macro_f1", "crg", "findings"),
)


def test_numbers_equal_scikit_learn() -> None:
    predictions, labels = make_tables(n=200, seed=4)
    result = score(predictions, labels, n_bootstrap=0)
    cases = align(predictions, labels)
    y, p = cases.labels, cases.scores
    decided = (p >= 0.5).astype(int)
    expected = {
        "macro_auc": metrics.roc_auc_score(y, p, average="macro"),
        "weighted_auc": metrics.roc_auc_score(y, p, average="weighted"),
        "macro_average_precision": metrics.average_precision_score(y, p, average="macro"),
        "macro_precision": metrics.precision_score(y, decided, average="macro"),
        "weighted_precision": metrics.precision_score(y, decided, average="weighted"),
        "macro_f1": metrics.f1_score(y, decided, average="macro"),
    }
    assert {name: result[name] for name in expected} == pytest.approx(expected)
    aucs = metrics.roc_auc_score(y, p, average=None)
    assert [result["findings"][name]["auc"] for name in FINDINGS] == pytest.approx(list(aucs))


def test_keys_are_plain_json_and_repeatable(tables: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    result = score(*tables, n_bootstrap=100)
    assert list(result)[: len(KEYS)] == list(KEYS)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert score(*tables, n_bootstrap=100) == result
    low, high = result["macro_auc_ci"]
    assert low < result["macro_auc"] < high
    assert score(*tables, n_bootstrap=100, seed=1)["macro_auc_ci"] != result["macro_auc_ci"]


def test_undefined_is_null_with_a_reason(tables: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    predictions, labels = tables
    labels = labels.assign(Emphysema=0.0, Atelectasis=1.0, Consolidation=np.nan, Cardiomegaly=0.0)
    labels.loc[0:1, "Cardiomegaly"] = 1.0  # one positive scan: absent from a third of the samples
    result = score(predictions, labels, n_bootstrap=200)
    reasons = {"Emphysema": "no positive", "Atelectasis": "no negative", "Consolidation": "unknown for every"}
    for name, reason in reasons.items():
        entry = result["findings"][name]
        assert entry["auc"] is entry["auc_ci"] is entry["average_precision"] is None
        assert reason in entry["reason"]
    others = [entry["auc"] for name, entry in result["findings"].items() if name not in reasons]
    assert result["macro_auc"] == pytest.approx(np.mean(others))
    assert result["findings_scored"] == 15
    nothing = score(predictions, labels.assign(**dict.fromkeys(FINDINGS, np.nan)), n_bootstrap=20)
    assert nothing["macro_auc"] is nothing["macro_auc_ci"] is nothing["crg"] is nothing["macro_f1"] is None
    assert "no finding" in nothing["reason"]
    json.dumps(nothing, allow_nan=False)


def test_unknown_labels_leave_their_finding_only(tables: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    predictions, labels = (table.copy() for table in tables)
    labels.loc[10:29, "Lung nodule"] = np.nan
    entry = score(predictions, labels, n_bootstrap=0)["findings"]["Lung nodule"]
    rest = align(predictions, labels)
    known = ~np.isnan(rest.labels[:, FINDINGS.index("Lung nodule")])
    assert (entry["unknown"], entry["positive"] + entry["negative"]) == (10, 20)
    column = FINDINGS.index("Lung nodule")
    expected = metrics.roc_auc_score(rest.labels[known, column], rest.scores[known, column])
    assert entry["auc"] == pytest.approx(expected)


def test_never_predicted_is_said(tables: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    result = score(*tables, n_bootstrap=0, thresholds={"Emphysema": 1.0})
    entry = result["findings"]["Emphysema"]
    assert entry["precision"] is None
    assert "never predicted" in entry["reason"]
    assert entry["f1"] == 0.0
    with pytest.raises(UserError, match="unknown findings: Emphysem"):
        score(*tables, thresholds={"Emphysem": 0.5})


def test_interval_covers() -> None:
    """The interval of a known AUC covers it about as often as it says."""
    truth = 0.7602  # P(N(1, 2) > 0): scores of strength 1 and noise 1
    covered = 0
    for seed in range(25):
        predictions, labels = make_tables(n=240, seed=100 + seed)
        low, high = score(predictions, labels, n_bootstrap=100)["macro_auc_ci"]
        covered += low <= truth <= high
    assert covered >= 20


class TestCrg:
    labels = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, np.nan]], dtype=float)

    def test_perfect_and_trivial(self) -> None:
        assert crg(self.labels, np.nan_to_num(self.labels)) == pytest.approx(1.0)
        assert crg(self.labels, np.ones((3, 4))) == pytest.approx(1 / 3)
        assert crg(self.labels, np.zeros((3, 4))) == pytest.approx(1 / 3)

    def test_by_hand(self) -> None:
        # T = 11, A = 3, w = 8/6; TP 2, FN 1, FP 1: s = 4/3 - 1 = 1/3; s_max = 4; CRG = 4 / (8 - 1/3).
        predicted = np.array([[1, 0, 0, 1], [1, 0, 0, 0], [0, 0, 0, 1]])
        assert crg(self.labels, predicted) == pytest.approx(4 / (8 - 1 / 3))

    def test_undefined(self) -> None:
        assert crg(np.zeros((2, 2)), np.zeros((2, 2))) is None
        assert crg(np.ones((2, 2)), np.ones((2, 2))) is None


def test_thresholds_maximise_f1_on_the_given_patients() -> None:
    predictions, labels = make_tables(n=200, seed=8)
    chosen = choose_thresholds(predictions, labels)
    tuned = score(predictions, labels, n_bootstrap=0, thresholds=chosen)
    for value in (0.3, 0.5, 0.7):
        fixed = score(predictions, labels, n_bootstrap=0, thresholds=value)
        for name in FINDINGS:
            assert tuned["findings"][name]["f1"] >= fixed["findings"][name]["f1"] - 1e-12
    assert choose_thresholds(predictions, labels.assign(Emphysema=0.0))["Emphysema"] == 0.5
    constant = choose_thresholds(predictions.assign(Emphysema=0.25), labels)["Emphysema"]
    assert 0 < constant <= 0.25
