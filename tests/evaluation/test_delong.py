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


# Albumin, total protein, K-G score, and whether surgery helped: 43 of the patients with ovarian cancer of DeLong et
# al. 1988, without the six who lack a test, as printed with the example "Comparing Receiver Operating Characteristic
# Curves" of PROC LOGISTIC (SAS/STAT User's Guide), whose results stand in the test.
OVARIAN = """
3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0  1.6 5.6 5 1  3.8 5.7 5 1
3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1  4.3 7.0 4 1  3.6 6.7 4 0  2.3 4.4 6 1  4.2 7.6 4 0
4.0 6.6 6 0  3.5 5.8 6 1  3.8 6.8 7 1  3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1  3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1
4.3 6.5 4 1  3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0  3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1  3.5 6.2 5 1
2.9 5.7 9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1  3.3 5.7 6 1  3.7 6.9 5 1  3.6 6.6 5 1
"""


def test_equals_the_published_comparison_of_delongs_own_data() -> None:
    albumin, protein, kg, helped = np.array(OVARIAN.split(), dtype=float).reshape(-1, 4).T
    tests = {"albumin": albumin, "kg": -kg, "protein": protein}
    areas = {name: auc_variance(values, helped) for name, values in tests.items()}
    found = {name: (round(auc, 4), round(variance**0.5, 4)) for name, (auc, variance) in areas.items()}
    assert found == {"albumin": (0.7366, 0.0927), "kg": (0.7258, 0.1028), "protein": (0.6478, 0.1000)}
    for name, (difference, error, chi_square, p) in {
        "albumin": (0.0108, 0.0953, 0.0127, 0.9102),
        "protein": (-0.0780, 0.1046, 0.5554, 0.4561),
    }.items():
        test = delong_test(helped, tests["kg"], tests[name])
        assert test is not None
        assert test.z is not None
        assert (round(test.difference, 4), round(test.variance**0.5, 4)) == (difference, error)
        assert (round(test.z**2, 4), round(test.p or 0.0, 4)) == (chi_square, p)


def test_equals_the_published_error_of_hanley_and_mcneils_images() -> None:
    # 58 normal and 51 abnormal CT images on a scale of five: Table I of Radiology 1982, 143:29-36; DeLong's standard
    # error of it is printed in Stata's manual (roctab).
    ratings = np.repeat([1, 2, 3, 4, 5] * 2, [33, 6, 6, 11, 2, 3, 2, 2, 11, 33])
    auc, variance = auc_variance(ratings, np.arange(109) >= 58)
    assert (round(auc, 4), round(variance**0.5, 4)) == (0.8932, 0.0307)


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
