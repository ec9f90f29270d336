from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from text2ct.evaluation.alignment import Cases
from text2ct.evaluation.benchmark.calibration import bins, calibration, uncalibrated
from text2ct.findings import FINDINGS

FIELDS = list(FINDINGS)


def said(n: int, sharpness: float, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Probabilities of volumes that are ``sharpness`` times too sharp in their logits, and the labels."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1, 1.5, (n, 18))
    labels = (rng.random((n, 18)) < expit(logits)).astype(float)
    labels[::7, 3] = np.nan
    return pd.DataFrame(expit(logits * sharpness), columns=FIELDS), labels


def as_cases(table: pd.DataFrame, labels: np.ndarray) -> Cases:
    return Cases(table[FIELDS].to_numpy(), labels, np.arange(len(labels)), len(labels))


@given(st.floats(0.3, 4), st.integers(0, 100))
@settings(deadline=None, max_examples=20)
def test_a_temperature_is_undone(temperature: float, seed: int) -> None:
    raw, _ = said(20, 2.0, seed)
    given_out, _ = said(20, 2.0 / temperature, seed)
    pd.testing.assert_frame_equal(uncalibrated(given_out, temperature), raw, rtol=0, atol=1e-3)


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_error_before_is_that_of_the_network(sharpness: float) -> None:
    table, labels = said(1500, 1.0)
    raw = uncalibrated(table, sharpness)
    found = calibration([as_cases(raw, labels)], [as_cases(table, labels)], [sharpness])
    assert found["temperature"] == sharpness
    assert found["ece"] < 0.02
    assert found["ece_before"] == pytest.approx(found["ece"]) or found["ece_before"] > 3 * found["ece"]


def test_errors_are_means_over_trainings() -> None:
    one, two = (as_cases(*said(200, sharpness)) for sharpness in (1.0, 2.0))
    parts = [calibration([two], [one], [2.0]), calibration([one], [two], [1.0])]
    both = calibration([two, one], [one, two], [2.0, 1.0])
    for key in ("temperature", "ece", "ece_before"):
        assert both[key] == pytest.approx(np.mean([part[key] for part in parts]))
    assert sum(row["count"] for row in both["bins"]) == 2 * int((~np.isnan(one.labels)).sum())


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
