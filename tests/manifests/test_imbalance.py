from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from text2ct.evaluation.delong import delong_test
from text2ct.manifests.imbalance import (
    auc_variance,
    cooccurrence,
    cvir,
    detectable_auc_difference,
    irlbl,
    mean_ir,
    scumble,
)

# 8, 4 and 2 positives of 10 samples: IRLbl 1, 2 and 4, by hand from the papers' equations.
LABELS = pd.DataFrame(
    {
        "A": [1, 1, 1, 1, 1, 1, 1, 1, 0, 0],
        "B": [1, 1, 1, 0, 0, 0, 0, 0, 1, 0],
        "C": [1, 0, 0, 0, 0, 0, 0, 0, 1, 0],
    },
    dtype=float,
)


def test_measures_by_hand():
    assert irlbl(LABELS).tolist() == [1, 2, 4]
    assert mean_ir(LABELS) == pytest.approx(7 / 3)
    spread = math.sqrt(sum((ratio - 7 / 3) ** 2 for ratio in (1, 2, 4)) / 2)
    assert cvir(LABELS) == pytest.approx(spread / (7 / 3))
    all_three = 1 - 8 ** (1 / 3) / (7 / 3)
    a_and_b = 1 - math.sqrt(2) / 1.5
    b_and_c = 1 - math.sqrt(8) / 3
    assert scumble(LABELS) == pytest.approx((all_three + 2 * a_and_b + b_and_c) / 10)


def test_cooccurrence_counts():
    counts = cooccurrence(LABELS)
    assert np.diag(counts).tolist() == [8, 4, 2]
    assert counts.loc["A", "B"] == counts.loc["B", "A"] == 3


def test_unknown_is_left_out_and_not_negative():
    labels = LABELS.copy()
    labels.loc[labels["B"] == 0, "B"] = np.nan
    assert irlbl(labels).tolist() == [1.25, 1, 5]


def test_without_positives_nothing_is_made_up():
    none = pd.DataFrame({"A": [0.0, 0.0], "B": [0.0, np.nan]})
    assert irlbl(none).isna().all()
    assert math.isnan(mean_ir(none))
    assert math.isnan(cvir(none))
    assert scumble(none) == 0
    assert math.isnan(scumble(none.head(0)))
    one = LABELS.assign(D=0.0)
    assert irlbl(one)["D"] == math.inf
    assert mean_ir(one) == pytest.approx(mean_ir(LABELS))
    assert scumble(one) == pytest.approx(scumble(LABELS))


def test_hanley_and_mcneil_1982():
    # The example of the paper: area 0.893 with 51 abnormal and 58 normal cases has a standard error of 0.032.
    assert math.sqrt(auc_variance(0.893, 51, 58)) == pytest.approx(0.032, abs=1e-3)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_the_detectable_difference_solves_its_equation(correlation):
    from scipy.stats import norm

    delta = detectable_auc_difference(80, 700, correlation=correlation)
    base, better = auc_variance(0.75, 80, 700), auc_variance(0.75 + delta, 80, 700)
    same = 2 * base * (1 - correlation)
    other = base + better - 2 * correlation * math.sqrt(base * better)
    assert delta == pytest.approx(norm.ppf(0.975) * math.sqrt(same) + norm.ppf(0.8) * math.sqrt(other), abs=1e-6)


@pytest.mark.parametrize(("share", "least", "most"), [(1.0, 0.75, 1.0), (0.5, 0.0, 0.5)])
def test_a_paired_comparison_detects_its_difference_and_not_half_of_it(share, least, most):
    """Binormal scores of two models on the same cases, judged by DeLong's test."""
    rng, n_pos, n_neg, shared = np.random.default_rng(0), 60, 400, 0.55
    areas = (0.75, 0.75 + share * detectable_auc_difference(n_pos, n_neg))
    shifts = [math.sqrt(2) * NormalDist().inv_cdf(area) for area in areas]
    positive = np.arange(n_pos + n_neg) < n_pos
    found = 0
    for _ in range(200):
        common = math.sqrt(shared) * rng.normal(size=positive.shape)
        own = math.sqrt(1 - shared) * rng.normal(size=(2, *positive.shape))
        test = delong_test(positive, *(common + one + shift * positive for one, shift in zip(own, shifts, strict=True)))
        found += test is not None and test.p is not None and test.p < 0.05
    assert least < found / 200 < most


@pytest.mark.parametrize("counts", [(0, 10), (10, 0), (1, 2)])
def test_what_cannot_be_detected_is_nan(counts):
    assert math.isnan(detectable_auc_difference(*counts))


@given(st.integers(40, 500), st.integers(40, 5000))
def test_more_cases_detect_less(n_pos, n_neg):
    assert detectable_auc_difference(2 * n_pos, n_neg) < detectable_auc_difference(n_pos, n_neg)
    assert detectable_auc_difference(n_pos, n_neg, power=0.9) > detectable_auc_difference(n_pos, n_neg)
