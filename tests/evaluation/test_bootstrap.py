import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from text2ct.evaluation.bootstrap import (
    auc_samples,
    cluster_weights,
    interval,
    row_mean,
    weighted_auc,
    weighted_average_precision,
)


@pytest.mark.parametrize("decimals", [1, 2, 8], ids=["many-ties", "ties", "no-ties"])
def test_weighted_auc_equals_scikit_learn(decimals: int) -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(200).round(decimals)
    positive = rng.random(200) < 0.3
    weights = rng.integers(0, 4, size=(200, 7)).astype(float)
    expected = [roc_auc_score(positive, scores, sample_weight=column) for column in weights.T]
    np.testing.assert_allclose(weighted_auc(scores, positive, weights), expected, atol=1e-12)


def test_no_weight_on_a_class_is_undefined() -> None:
    weights = np.array([[0.0], [1.0], [1.0]])
    auc = weighted_auc(np.array([0.9, 0.1, 0.2]), np.array([True, False, False]), weights)
    assert np.isnan(auc).all()


def test_rows_of_a_patient_move_together() -> None:
    groups = np.array([0, 0, 1, 2, 2, 2])
    weights = cluster_weights(groups, 50, np.random.default_rng(1))
    assert (weights[0] == weights[1]).all()
    assert (weights[3] == weights[5]).all()
    assert (weights[[0, 2, 3]].sum(axis=0) == 3).all()


def test_clusters_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat(rng.random(100) < 0.4, 4)
    scores = np.repeat(rng.normal(size=100), 4) + truth
    labels = truth[:, None].astype(float)
    by_patient = cluster_weights(np.repeat(np.arange(100), 4), 500, rng)
    by_row = cluster_weights(np.arange(400), 500, rng)
    wide, narrow = (auc_samples(scores[:, None], labels, w).std() for w in (by_patient, by_row))
    assert wide > 1.6 * narrow  # four copies of each row: about twice


def test_means_skip_undefined() -> None:
    samples = np.array([[0.5, np.nan], [np.nan, np.nan], [0.5, 0.9]])
    np.testing.assert_allclose(row_mean(samples), [0.5, np.nan, 0.7])
    np.testing.assert_allclose(row_mean(samples, np.array([1.0, 3.0])), [0.5, np.nan, 0.8])


def test_interval_needs_enough_samples() -> None:
    assert interval(np.full(10, np.nan)) is None
    assert interval(np.array([0.5, np.nan, np.nan, np.nan])) is None
    assert interval(np.linspace(0, 1, 1001)) == pytest.approx([0.025, 0.975])


def test_full_size_bootstrap_is_fast() -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.random((3039, 18)), (rng.random((3039, 18)) < 0.2).astype(float)
    start = time.process_time()
    auc_samples(scores, labels, cluster_weights(np.arange(3039) // 3, 1000, rng))
    assert time.process_time() - start < 15


@settings(deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1, 8]), st.integers(2, 40))
def test_average_precision_equals_scikit_learns(seed: int, decimals: int, n: int) -> None:
    """With weights of one and with any weights, ties included."""
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.3
    positive[0] = True
    scores = rng.random(n).round(decimals)
    weights = np.column_stack([np.ones(n), rng.integers(0, 4, n), rng.random(n)])
    weights[0] = 1.0
    found = weighted_average_precision(scores, positive, weights)
    expected = [average_precision_score(positive, scores, sample_weight=weights[:, k]) for k in range(3)]
    np.testing.assert_allclose(found, expected)


def test_average_precision_without_positive_weight_is_undefined() -> None:
    positive = np.array([True, False, False])
    assert np.isnan(weighted_average_precision(np.arange(3.0), positive, np.array([[0.0], [1.0], [1.0]]))).all()
