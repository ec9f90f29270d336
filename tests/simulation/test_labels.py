"""Labels: drawn marginals and co-occurrence are the fitted ones, and those of the real table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from text2ct.errors import UserError
from text2ct.findings import FINDINGS
from text2ct.simulation.labels import draw_age, draw_labels, draw_sex, fitted

REAL = Path(__file__).resolve().parents[3] / "shared" / "real" / "ct_rate" / "validation_label_matrix.csv"
DRAWS = 20_000


@pytest.fixture(scope="module")
def population() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    ages = np.array([draw_age(rng) for _ in range(DRAWS)])
    sexes = np.array([draw_sex(rng) for _ in range(DRAWS)])
    labels = np.array([draw_labels(rng, age, sex) for age, sex in zip(ages, sexes, strict=True)])
    return labels, ages, sexes


def test_correlation_is_positive_definite():
    numbers = fitted()
    assert numbers.correlation.shape == (18, 18)
    np.testing.assert_allclose(np.diag(numbers.correlation), 1.0, atol=1e-3)
    np.testing.assert_allclose(numbers.correlation, numbers.correlation.T)
    assert np.linalg.eigvalsh(numbers.correlation).min() > 0


def test_marginals_are_the_fitted_ones(population):
    labels, _, _ = population
    np.testing.assert_allclose(labels.mean(axis=0), fitted().prevalence, atol=0.015)


def test_cooccurrence_is_the_fitted_one(population):
    labels = population[0].astype(float)
    np.testing.assert_allclose(labels.T @ labels / DRAWS, fitted().joint, atol=0.02)


@pytest.mark.skipif(not REAL.is_file(), reason="the real label table is not on this machine")
def test_fitted_numbers_are_those_of_the_real_table():
    real = pd.read_csv(REAL)[list(FINDINGS)].to_numpy(dtype=float)
    np.testing.assert_allclose(real.mean(axis=0), fitted().prevalence, atol=1e-4)
    np.testing.assert_allclose(real.T @ real / len(real), fitted().joint, atol=1e-4)


def test_old_patients_have_more_calcification(population):
    labels, ages, _ = population
    coronary = labels[:, FINDINGS.index("Coronary artery wall calcification")]
    assert coronary[ages > 65].mean() > 2 * coronary[ages < 40].mean()


def test_ages_and_sexes_follow_the_population(population):
    _, ages, sexes = population
    assert ages.min() >= 18
    assert ages.max() <= 96
    assert abs(np.median(ages) - 46) <= 1.5
    assert abs((sexes == "M").mean() - fitted().male_share) < 0.015


def test_a_seed_decides_the_labels():
    first, again = (draw_labels(np.random.default_rng(7), 60, "F") for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert first.dtype == bool


def test_unknown_sex_is_refused():
    with pytest.raises(UserError, match="expected 'M' or 'F'"):
        draw_labels(np.random.default_rng(0), 50, "X")
