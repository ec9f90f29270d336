"""The distance of infinitely many volumes: less biased than that of few."""

from __future__ import annotations

import numpy as np
import pytest

from text2ct.errors import UserError
from text2ct.evaluation.fid_infinity import fid_infinity
from text2ct.evaluation.fidelity import fid_between
from text2ct.evaluation.slices import SliceStatistics

SLICES, DIMENSION = 6, 4


def statistics(features: np.ndarray) -> SliceStatistics:
    """Of (n, slices, d) features, the same in each plane."""
    origin = np.zeros(features.shape[2])
    products = np.einsum("nsd,nse->nde", features, features)
    return SliceStatistics(
        (origin,) * 3, (features.sum(axis=1),) * 3, (products,) * 3, (features.shape[1],) * 3,
        (SLICES,) * 3, "features", "colour", 1,
    )  # fmt: skip


def volumes(n: int, seed: int, shift: float = 0.0) -> SliceStatistics:
    """Volumes whose slices are alike, as slices are."""
    rng = np.random.default_rng(seed)
    each = rng.normal(size=(n, 1, DIMENSION)) + 0.3 * rng.normal(size=(n, SLICES, DIMENSION))
    return statistics(each + shift)


def test_it_is_nearer_to_the_truth_than_the_distance_of_few_volumes() -> None:
    """Of one distribution the truth is 0; few volumes say more, and say less the more they are."""
    plain, without_bias = [], []
    for seed in range(12):
        pair = volumes(40, 2 * seed), volumes(40, 2 * seed + 1)
        plain.append(fid_between(*pair, n_bootstrap=0).mean)
        without_bias.append(fid_infinity(*pair).value)
    assert np.mean(plain) > 0.1
    assert abs(np.mean(without_bias)) < 0.5 * np.mean(plain)


def test_a_shift_stays() -> None:
    """A distance that is no bias, 4 dimensions shifted by 2, is not extrapolated away."""
    found = fid_infinity(volumes(200, 0), volumes(200, 1, shift=2.0))
    assert found.value == pytest.approx(16, rel=0.1)


def test_it_says_what_it_rests_on() -> None:
    found = fid_infinity(volumes(30, 0), volumes(20, 1), points=5, seed=3)
    assert found.volumes == (10, 12, 15, 18, 20)
    assert len(found.distances) == 5
    assert found == fid_infinity(volumes(30, 0), volumes(20, 1), points=5, seed=3)
    line = found.value + found.slope / np.array(found.volumes)
    assert np.sum((line - found.distances) * 1.0) == pytest.approx(0, abs=1e-9), "least squares with an intercept"


def test_few_volumes_extrapolate_nothing() -> None:
    with pytest.raises(UserError, match="too few to extrapolate; give 8"):
        fid_infinity(volumes(7, 0), volumes(20, 1))
    with pytest.raises(UserError, match="3 or more"):
        fid_infinity(volumes(20, 0), volumes(20, 1), points=2)


def test_the_interval_holds_the_value_and_narrows_with_volumes() -> None:
    widths = []
    for n in (24, 240):
        found = fid_infinity(volumes(n, 0), volumes(n, 1, shift=1.0), n_bootstrap=40)
        assert found.ci is not None
        assert found.ci[0] <= found.value <= found.ci[1]
        widths.append(found.ci[1] - found.ci[0])
    assert widths[1] < 0.6 * widths[0]
