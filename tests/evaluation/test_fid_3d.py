"""Fréchet distance of rows and of whole volumes' features: laws, and the same as from moments."""

from __future__ import annotations

import numpy as np
import pytest

from text2ct.errors import UserError
from text2ct.evaluation.fid_3d import fid_3d
from text2ct.evaluation.frechet import frechet_distance, frechet_of_rows

RNG = np.random.default_rng(3)


def from_moments(a: np.ndarray, b: np.ndarray) -> float:
    moments = [part for rows in (a, b) for part in (rows.mean(axis=0), np.cov(rows, rowvar=False))]
    return frechet_distance(*moments)


@pytest.mark.parametrize(("n", "m", "d"), [(40, 30, 5), (10, 12, 60), (10, 80, 20), (80, 10, 20)])
def test_rows_and_moments_say_the_same(n: int, m: int, d: int) -> None:
    a, b = RNG.normal(size=(n, d)), RNG.normal(1, 2, size=(m, d))
    assert frechet_of_rows(a, b) == pytest.approx(from_moments(a, b), rel=1e-6)
    counts = RNG.integers(0, 4, n).astype(float)
    repeated = np.repeat(a, counts.astype(int), axis=0)
    assert frechet_of_rows(a, b, counts) == pytest.approx(from_moments(repeated, b), rel=1e-6)


@pytest.mark.parametrize("d", [4, 100])
def test_laws(d: int) -> None:
    a, b = RNG.normal(size=(30, d)), RNG.normal(size=(30, d))
    assert fid_3d(a, a, n_bootstrap=0).value == pytest.approx(0, abs=1e-6)
    assert fid_3d(a, b).value == pytest.approx(fid_3d(b, a).value)
    noisy = [fid_3d(a, b + noise * RNG.normal(size=b.shape), n_bootstrap=0).value for noise in (0.0, 1.0, 2.0)]
    assert noisy == sorted(noisy)
    found = fid_3d(a, b, n_bootstrap=50)
    assert found == fid_3d(a, b, n_bootstrap=50)
    assert found.ci is not None
    assert found.ci[0] <= found.value <= found.ci[1]
    assert found.rank_deficient == (d == 100)


def test_other_real_volumes_lie_at_the_floor() -> None:
    ratios = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        ratios.append(fid_3d(rng.normal(size=(60, 8)), rng.normal(size=(60, 8)), n_bootstrap=0, seed=seed).ratio)
    assert np.mean(ratios) == pytest.approx(1, abs=0.15)


def test_volumes_of_one_prompt_are_drawn_together() -> None:
    """Ten copies of each row tell no more than the rows do."""
    a, b = RNG.normal(size=(200, 3)), RNG.normal(size=(8, 3))
    copies, codes = np.repeat(b, 10, axis=0), np.repeat(np.arange(8), 10)
    alone = fid_3d(a, copies, n_bootstrap=200)
    together = fid_3d(a, copies, groups=(np.arange(200), codes), n_bootstrap=200)
    assert together.value == alone.value
    assert np.diff(together.ci)[0] > 2 * np.diff(alone.ci)[0]


def test_few_volumes() -> None:
    assert fid_3d(RNG.normal(size=(3, 2)), RNG.normal(size=(3, 2)), n_bootstrap=0).floor is None
    with pytest.raises(UserError, match="of 2 or more volumes"):
        fid_3d(np.zeros((1, 2)), np.zeros((3, 2)))
