import numpy as np
import pytest

from text2ct.errors import UserError
from text2ct.evaluation.similarity import SETTINGS, SsimSettings, diversity, ms_ssim

from .volumes import stand_in, stand_ins


def test_a_volume_is_like_itself() -> None:
    volume = stand_in(0)
    assert ms_ssim(volume, volume) == pytest.approx(1, abs=1e-6)
    air = np.full((28, 28, 28), -1000, dtype=np.int16)
    assert ms_ssim(air, air) == pytest.approx(1, abs=1e-6)


def test_symmetric_and_falls_with_noise() -> None:
    volume = stand_in(0)
    noise = np.random.default_rng(0).normal(size=volume.shape)
    noisy = [np.clip(volume + scale * noise, -1000, 1000) for scale in (10, 50, 200)]
    values = [ms_ssim(volume, other) for other in noisy]
    assert values == sorted(values, reverse=True)
    assert ms_ssim(noisy[1], volume) == pytest.approx(values[1], abs=1e-6)
    assert values[-1] > ms_ssim(volume, stand_in(1))


def test_defaults_serve_the_bundled_grid() -> None:
    assert sum(SETTINGS.weights) == pytest.approx(1)
    assert SETTINGS.smallest_axis <= 32
    with pytest.raises(UserError, match="each axis needs 28 voxels"):
        ms_ssim(stand_in(0, 27), stand_in(1, 27))
    assert ms_ssim(stand_in(0, 20), stand_in(0, 20), settings=SsimSettings(kernel_size=5)) == pytest.approx(1, abs=1e-6)


def test_a_group_of_near_copies_is_less_diverse() -> None:
    rng = np.random.default_rng(0)
    base = stand_in(0)
    alike = [np.clip(base + rng.normal(0, 40, base.shape), -1000, 1000) for _ in range(6)]
    narrow, wide = diversity(iter(alike), pairs=10), diversity(stand_ins(0, 6), pairs=10)
    assert narrow.ms_ssim > wide.ms_ssim
    assert (wide.n, wide.pairs, wide.settings) == (6, 10, SETTINGS)
    assert wide.ci is not None
    assert wide.ci[0] <= wide.ms_ssim <= wide.ci[1]
    assert wide == diversity(stand_ins(0, 6), pairs=10)
    assert diversity(stand_ins(0, 3), pairs=100, n_bootstrap=0).pairs == 3


def test_refusals() -> None:
    with pytest.raises(UserError, match="has 1 volumes; give 2"):
        diversity([stand_in(0)])
    with pytest.raises(UserError, match="pairs is 0"):
        diversity(stand_ins(0, 2), pairs=0)
    with pytest.raises(UserError, match=r"second volume has shape \(30"):
        ms_ssim(stand_in(0), stand_in(0, 30))
    with pytest.raises(UserError, match="clip volumes"):
        ms_ssim(stand_in(0), stand_in(0) * 3)
