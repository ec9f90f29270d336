"""Kernel distance, precision, recall, density and coverage: laws and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics.pairwise import polynomial_kernel

from text2ct.errors import UserError
from text2ct.evaluation import neighbourhoods as module
from text2ct.evaluation.neighbourhoods import Share, kernel_distance, neighbourhoods

RNG = np.random.default_rng(7)
REAL, OTHER = RNG.normal(size=(60, 5)), RNG.normal(size=(50, 5))


def brute_force(real: np.ndarray, synthetic: np.ndarray) -> float:
    """Term by term, with scikit-learn's kernel of the same definition."""
    n, m = len(real), len(synthetic)
    xx, yy, xy = (polynomial_kernel(a, b) for a, b in ((real, real), (synthetic, synthetic), (real, synthetic)))
    within = [sum(k[i, j] for i in range(c) for j in range(c) if i != j) / (c * (c - 1)) for k, c in ((xx, n), (yy, m))]
    return float(sum(within) - 2 * xy.mean())


def test_the_kernel_distance_is_the_definition() -> None:
    assert kernel_distance(REAL, OTHER).value == pytest.approx(brute_force(REAL, OTHER), rel=1e-9)


def test_the_kernel_distance_is_symmetric_and_grows_with_a_shift() -> None:
    assert kernel_distance(REAL, OTHER).value == pytest.approx(kernel_distance(OTHER, REAL).value)
    values = [kernel_distance(REAL, OTHER + shift).value for shift in (0.0, 0.5, 1.0, 2.0)]
    assert values == sorted(values)


def test_the_jackknife_is_that_of_leaving_each_volume_out() -> None:
    found = kernel_distance(REAL[:8], OTHER[:6])
    left = [kernel_distance(np.delete(REAL[:8], i, axis=0), OTHER[:6]).value for i in range(8)]
    right = [kernel_distance(REAL[:8], np.delete(OTHER[:6], i, axis=0)).value for i in range(6)]
    deviation = np.sqrt(sum((len(one) - 1) * np.var(one) for one in (left, right)))
    assert found.ci is not None
    assert (found.ci[1] - found.ci[0]) / 2 == pytest.approx(1.959964 * deviation, rel=1e-6)


def test_groups_are_left_out_together() -> None:
    codes = np.array([0, 0, 0, 1, 2, 2, 3, 3]), np.array([0, 1, 1, 2, 2, 3])
    found = kernel_distance(REAL[:8], OTHER[:6], groups=codes)
    left = [kernel_distance(REAL[:8][codes[0] != g], OTHER[:6]).value for g in range(4)]
    right = [kernel_distance(REAL[:8], OTHER[:6][codes[1] != g]).value for g in range(4)]
    deviation = np.sqrt(sum((len(one) - 1) * np.var(one) for one in (left, right)))
    assert found.ci is not None
    assert (found.ci[1] - found.ci[0]) / 2 == pytest.approx(1.959964 * deviation, rel=1e-6)
    copies, code = np.repeat(OTHER[:10], 8, axis=0), np.repeat(np.arange(10), 8)
    alone, together = (neighbourhoods(REAL, copies, groups=g) for g in (None, (np.arange(60), code)))
    assert np.ptp(together.density.ci) > 2 * np.ptp(alone.density.ci)
    assert together.density.value == alone.density.value


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = kernel_distance(REAL, OTHER), neighbourhoods(REAL, OTHER)
    monkeypatch.setattr(module, "BLOCK", 7)
    assert kernel_distance(REAL, OTHER).value == pytest.approx(whole[0].value, rel=1e-9)
    assert kernel_distance(REAL, OTHER).ci == pytest.approx(whole[0].ci, rel=1e-9)
    assert neighbourhoods(REAL, OTHER) == whole[1]


def test_the_interval_of_equal_distributions_holds_zero_about_as_often_as_it_says() -> None:
    held = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        low, high = kernel_distance(rng.normal(size=(40, 4)), rng.normal(size=(40, 4))).ci or (1, 1)
        held += low <= 0 <= high
    assert held >= 88


def test_a_set_lies_within_itself() -> None:
    found = neighbourhoods(REAL, REAL, n_bootstrap=50)
    assert found.precision == found.recall == found.coverage == Share(1.0, (1.0, 1.0))
    # Of k + 1 volumes within each reach (itself among them) there are k + 1 counts of k.
    assert found.density.value == pytest.approx(6 / 5)


def test_each_share_is_a_count() -> None:
    found = neighbourhoods(REAL, OTHER, n_bootstrap=0)

    def reach(rows: np.ndarray, k: int) -> list[float]:
        return [sorted(np.linalg.norm(row - other) for other in rows)[k] for row in rows]

    def near(a: np.ndarray, b: np.ndarray, r: float) -> bool:
        return bool(np.linalg.norm(a - b) <= r)

    of_real, of_other, wide = reach(REAL, 3), reach(OTHER, 3), reach(REAL, 5)
    precision = np.mean([any(near(y, x, r) for x, r in zip(REAL, of_real, strict=True)) for y in OTHER])
    recall = np.mean([any(near(x, y, r) for y, r in zip(OTHER, of_other, strict=True)) for x in REAL])
    density = np.mean([sum(near(y, x, r) for x, r in zip(REAL, wide, strict=True)) / 5 for y in OTHER])
    coverage = np.mean([any(near(y, x, r) for y in OTHER) for x, r in zip(REAL, wide, strict=True)])
    assert [found.precision.value, found.recall.value, found.density.value, found.coverage.value] == pytest.approx(
        [precision, recall, density, coverage]
    )
    assert found.precision.ci is None


def test_volumes_that_are_all_alike_have_precision_without_recall() -> None:
    alike = REAL[:1] + 0.01 * RNG.normal(size=(60, 5))
    found = neighbourhoods(REAL, alike)
    assert found.precision.value == 1
    assert found.recall.value < 0.1
    assert found.coverage.value < 0.5
    varied = neighbourhoods(alike, REAL)
    assert varied.precision.value < 0.1, "the other way round, what is varied lies outside"


def test_what_is_far_away_has_neither() -> None:
    far = neighbourhoods(REAL, OTHER + 100)
    assert [far.precision.value, far.recall.value, far.density.value, far.coverage.value] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("real", "synthetic", "message"),
    [
        (REAL[:1], OTHER, "of 2 or more volumes"),
        (REAL, OTHER[:, :4], "of two backbones"),
        (REAL, np.full_like(OTHER, np.nan), "hold NaN"),
        (REAL, OTHER[0], "expected"),
    ],
    ids=["one", "backbones", "nan", "vector"],
)
def test_what_cannot_be_compared_is_refused(real: np.ndarray, synthetic: np.ndarray, message: str) -> None:
    for measure in (kernel_distance, neighbourhoods):
        with pytest.raises(UserError, match=message):
            measure(real, synthetic)


def test_few_volumes_have_no_neighbours() -> None:
    with pytest.raises(UserError, match="give 6 or more of each"):
        neighbourhoods(REAL[:5], OTHER)
    assert kernel_distance(REAL[:2], OTHER).ci is None
