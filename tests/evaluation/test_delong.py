import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from text2ct.evaluation.delong import auc_variance, delong_test


def brute_force(positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """AUCs and their covariance straight from DeLong et al. 1988, equations 3 to 6, by double loops."""
    x, y = scores[:, positive], scores[:, ~positive]
    m, n = x.shape[1], y.shape[1]
    psi = (x[:, :, None] > y[:, None, :]) + 0.5 * (x[:, :, None] == y[:, None, :])
    theta = psi.mean(axis=(1, 2))
    s10, s01 = np.zeros((2, 2)), np.zeros((2, 2))
    for r in range(2):
        for s in range(2):
            for i in range(m):
                s10[r, s] += (psi[r, i].mean() - theta[r]) * (psi[s, i].mean() - theta[s]) / (m - 1)
            for j in range(n):
                s01[r, s] += (psi[r, :, j].mean() - theta[r]) * (psi[s, :, j].mean() - theta[s]) / (n - 1)
    return theta, s10 / m + s01 / n, psi


@pytest.mark.parametrize("decimals", [1, 8], ids=["ties", "no-ties"])
def test_equals_the_definition(decimals: int) -> None:
    rng = np.random.default_rng(3)
    positive = rng.random(50) < 0.4
    a = (rng.normal(size=50) + positive).round(decimals)
    b = (0.5 * a + rng.normal(size=50) + positive).round(decimals)
    theta, covariance, _ = brute_force(positive, np.array([a, b]))
    test = delong_test(positive, a, b)
    assert test is not None
    assert (test.auc_a, test.auc_b) == pytest.approx(tuple(theta))
    assert test.auc_a == pytest.approx(roc_auc_score(positive, a))
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    assert test.variance == pytest.approx(variance)
    assert test.p == pytest.approx(2 * norm.sf(abs(theta[1] - theta[0]) / variance**0.5))
    assert auc_variance(a, positive) == pytest.approx((theta[0], covariance[0, 0]))


def test_a_case_by_hand() -> None:
    # Positives 3, 1; negatives 2, 0: AUC 3/4; V10 = (1, 1/2), V01 = (1/2, 1), each with variance 1/8.
    auc, variance = auc_variance([3, 1, 2, 0], [1, 1, 0, 0])
    assert (auc, variance) == (0.75, 0.125)


def test_the_same_model_differs_by_nothing() -> None:
    scores, truth = np.random.default_rng(0).random(30), np.arange(30) % 3 == 0
    test = delong_test(truth, scores, scores)
    assert test is not None
    assert (test.difference, test.p) == (0.0, 1.0)


def test_several_trainings_average() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(80) < 0.5
    runs = rng.normal(size=(3, 80)) + truth
    test = delong_test(truth, runs, runs[0])
    assert test is not None
    assert test.auc_a == pytest.approx(np.mean([roc_auc_score(truth, run) for run in runs]))


def test_without_variance_there_is_no_test() -> None:
    assert delong_test([1, 0, 0], [1.0, 0.0, 0.5], [1.0, 0.0, 0.5]) is None
    perfect = delong_test([1, 1, 0, 0], [0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0])
    assert perfect is not None
    assert perfect.p is None
