import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from text2ct.errors import UserError
from text2ct.evaluation import compare, holm
from text2ct.findings import FINDINGS
from text2ct.tables import auc_table

from .conftest import make_tables

RARE = ("Pericardial effusion", "Bronchiectasis")


def trainings(n: int, strength: float = 1.0, first: int = 0, size: int = 240) -> list[pd.DataFrame]:
    return [make_tables(size, seed=5, strength=strength, training=first + k)[0] for k in range(n)]


@pytest.fixture(scope="module")
def labels() -> pd.DataFrame:
    return make_tables(240, seed=5)[1]


@pytest.fixture(scope="module")
def result(labels: pd.DataFrame) -> dict:
    arms = {
        "real": trainings(3),
        "real+synthetic@0.5": trainings(3, 2.0, 10),
        "synthetic": trainings(2, 0.2, 20),
    }
    return compare(arms, labels, underrepresented=RARE, n_bootstrap=200)


def test_clear_differences_are_found(result: dict) -> None:
    gain, harm = result["comparisons"]
    assert (gain["arm"], gain["against"], gain["verdict"]) == ("real+synthetic@0.5", "real", "gain")
    assert harm["verdict"] == "harm"
    assert gain["ci"][0] > 0 > harm["ci"][1]
    assert gain["delta_macro_auc"] == pytest.approx(
        result["arms"]["real+synthetic@0.5"]["macro_auc"] - result["arms"]["real"]["macro_auc"]
    )
    entry = gain["findings"]["Emphysema"]
    assert entry["p_adjusted"] >= entry["p"]
    assert set(entry) >= {"delta_auc", "ci", "p_adjusted", "verdict", "p_delong"}
    rare = np.mean([gain["findings"][name]["delta_auc"] for name in RARE])
    assert gain["delta_underrepresented_auc"] == pytest.approx(rare)


def test_result_is_plain_json(result: dict) -> None:
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert list(result["arms"]) == ["real", "real+synthetic@0.5", "synthetic"]
    assert [len(arm["per_seed"]) for arm in result["arms"].values()] == [3, 3, 2]
    assert result["test"]["volumes"] == 240
    assert set(result["test"]["positive"]) == set(FINDINGS)
    assert auc_table(result).row_count == 3


def test_an_arm_against_itself_differs_by_nothing(labels: pd.DataFrame) -> None:
    runs = trainings(2)
    entry = compare({"a": runs, "b": runs}, labels, n_bootstrap=50)["comparisons"][0]
    assert entry["delta_macro_auc"] == 0.0
    assert entry["ci"][0] <= 0.0 <= entry["ci"][1]
    assert {row["verdict"] for row in entry["findings"].values()} == {"no evidence"}


def test_one_training_gives_no_verdict(labels: pd.DataFrame) -> None:
    result = compare({"a": trainings(1), "b": trainings(1, 3.0, 9)}, labels, n_bootstrap=50)
    entry = result["comparisons"][0]
    assert entry["delta_macro_auc"] > 0.1
    assert entry["verdict"] == "no evidence"
    assert {row["verdict"] for row in entry["findings"].values()} == {"no evidence"}
    assert "one training per arm" in result["notes"][-1]


def test_seeds_of_training_widen_the_interval(labels: pd.DataFrame) -> None:
    rng = np.random.default_rng(0)

    def spread(scale: float) -> float:
        runs = [make_tables(240, seed=5, strength=1 + scale * x, training=1)[0] for x in rng.normal(size=4)]
        low, high = compare({"a": runs}, labels, n_bootstrap=100)["arms"]["a"]["ci"]
        return high - low

    assert spread(0.8) > 1.5 * spread(0.0)


def test_undefined_finding_has_no_test(labels: pd.DataFrame) -> None:
    entry = compare({"a": trainings(2), "b": trainings(2, 1.5, 5)}, labels.assign(Emphysema=0.0), n_bootstrap=50)[
        "comparisons"
    ][0]["findings"]["Emphysema"]
    assert entry["delta_auc"] is entry["ci"] is entry["p_adjusted"] is entry["p_delong"] is None
    assert entry["verdict"] == "no evidence"
    assert "too few" in entry["reason"]


def test_same_training_data_gives_no_verdict_more_often_than_promised() -> None:
    """Two arms of two trainings that differ by luck only, as much of it as real trainings show."""
    alarms = dict.fromkeys(["finding", "macro", "average precision of a finding", "macro average precision"], 0)
    for repetition in range(20):
        rng = np.random.default_rng(repetition)
        luck = 1 + 0.15 * rng.normal(size=(4, len(FINDINGS)))
        tables = [make_tables(100, seed=repetition, strength=luck[k], noise=0.8, training=k) for k in range(4)]
        runs = [table for table, _ in tables]
        entry = compare({"a": runs[:2], "b": runs[2:]}, tables[0][1], n_bootstrap=60)["comparisons"][0]
        rows = entry["findings"].values()
        alarms["finding"] += any(row["verdict"] != "no evidence" for row in rows)
        alarms["macro"] += entry["verdict"] != "no evidence"
        alarms["average precision of a finding"] += any(
            row["average_precision_verdict"] != "no evidence" for row in rows
        )
        alarms["macro average precision"] += entry["average_precision_verdict"] != "no evidence"
    assert max(alarms.values()) <= 3, alarms


def test_average_precision_and_the_weighted_auc_stand_beside(result: dict) -> None:
    gain, harm = result["comparisons"]
    arms = result["arms"]
    for key, delta in (
        ("macro_average_precision", "delta_macro_average_precision"),
        ("weighted_auc", "delta_weighted_auc"),
    ):
        difference = arms["real+synthetic@0.5"][key] - arms["real"][key]
        assert gain[delta] == pytest.approx(difference)
    assert (gain["average_precision_verdict"], harm["average_precision_verdict"]) == ("gain", "harm")
    assert gain["average_precision_ci"][0] > 0 > harm["average_precision_ci"][1]
    entry = gain["findings"]["Emphysema"]
    difference = [arms[name]["findings"]["Emphysema"]["average_precision"] for name in ("real+synthetic@0.5", "real")]
    assert entry["delta_average_precision"] == pytest.approx(difference[0] - difference[1])
    assert 0 <= entry["average_precision_p_adjusted"] <= 1
    positives = np.array([result["test"]["positive"][name] for name in FINDINGS])
    areas = np.array([arms["real"]["findings"][name]["auc"] for name in FINDINGS])
    assert arms["real"]["weighted_auc"] == pytest.approx(np.average(areas, weights=positives))


def test_what_cannot_be_compared(labels: pd.DataFrame) -> None:
    with pytest.raises(UserError, match="unknown: c"):
        compare({"a": trainings(1)}, labels, pairs=[("a", "c")])
    with pytest.raises(UserError, match="at least one training"):
        compare({"a": []}, labels)
    with pytest.raises(UserError, match="unknown: effusion"):
        compare({"a": trainings(1)}, labels, underrepresented=["effusion"])


def test_holm_by_hand() -> None:
    # Sorted 0.005, 0.01, 0.03, 0.04: times 4, 3, 2, 1, then never falling.
    adjusted = holm([0.01, 0.04, np.nan, 0.03, 0.005])
    np.testing.assert_allclose(adjusted, [0.03, 0.06, np.nan, 0.06, 0.02])
    assert holm([]).shape == (0,)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), max_size=20))
def test_holm_laws(p: list[float]) -> None:
    adjusted = holm(p)
    assert ((adjusted >= np.array(p) - 1e-12) & (adjusted <= 1)).all()
    order = np.argsort(p, kind="stable")
    assert (np.diff(adjusted[order]) >= 0).all()


def test_intervals_stay_where_an_area_and_a_difference_can_be() -> None:
    few = [make_tables(12, strength=4.0, noise=3.0, training=k) for k in range(4)]
    labels = few[0][1]
    result = compare({"a": [t[0] for t in few[:2]], "b": [t[0] for t in few[2:]]}, labels, n_bootstrap=60)
    areas = [arm[key] for arm in result["arms"].values() for key in ("ci", "underrepresented_ci")]
    areas += [entry["ci"] for arm in result["arms"].values() for entry in arm["findings"].values()]
    assert all(0.0 <= low <= high <= 1.0 for low, high in filter(None, areas))
    comparison = result["comparisons"][0]
    spans = [comparison["ci"], *(entry["ci"] for entry in comparison["findings"].values())]
    assert all(-1.0 <= low <= high <= 1.0 for low, high in filter(None, spans))
    assert min(low for low, _ in filter(None, spans)) == -1.0, "a case where it matters"
