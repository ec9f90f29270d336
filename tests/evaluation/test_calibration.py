from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from text2ct.evaluation.alignment import Cases
from text2ct.evaluation.benchmark.calibration import bins, calibration, temperature


def draw(n: int, sharpness: float, seed: int = 0) -> Cases:
    """Scans whose true probabilities are those of the scores, made too sharp or too soft."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1, 1.5, (n, 18))
    labels = (rng.random((n, 18)) < expit(logits)).astype(float)
    labels[::7, 3] = np.nan
    return Cases(expit(logits * sharpness), labels, np.arange(n), n)


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_sharpness(sharpness: float) -> None:
    found = calibration([draw(1500, sharpness)], [draw(1500, sharpness, 1)])
    assert found["temperature"] == pytest.approx(sharpness, rel=0.05)
    assert found["ece"] < 0.02
    assert found["ece_before"] > found["ece"] - 0.002
    if sharpness != 1.0:
        assert found["ece_before"] > 3 * found["ece"]


def test_errors_are_means_over_trainings() -> None:
    parts = [calibration([draw(200, s)], [draw(200, s, 1)]) for s in (1.0, 2.0)]
    both = calibration([draw(200, 1.0), draw(200, 2.0)], [draw(200, 1.0, 1), draw(200, 2.0, 1)])
    for key in ("temperature", "ece", "ece_before"):
        assert both[key] == pytest.approx(np.mean([part[key] for part in parts]))
    known = int((~np.isnan(draw(200, 1.0).labels)).sum())
    assert sum(row["count"] for row in both["bins"]) == 2 * known


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_bins_are_a_partition_in_order(pairs: list[tuple[float, bool]]) -> None:
    probabilities, labels = (np.array(part, dtype=float) for part in zip(*pairs, strict=True))
    table = bins(probabilities, labels)
    counts = [row["count"] for row in table]
    assert sum(counts) == len(pairs)
    assert max(counts) - min(counts) <= 1
    assert sum(row["count"] * row["observed"] for row in table) == pytest.approx(labels.sum())
    assert sum(row["count"] * row["predicted"] for row in table) == pytest.approx(probabilities.sum())
    assert all(a["predicted"] <= b["predicted"] + 1e-12 for a, b in pairwise(table))


def test_labels_of_one_kind_give_a_bounded_temperature() -> None:
    assert 0 < temperature(np.array([1.0, 2.0]), np.array([1.0, 1.0])) < 1
