from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from text2ct.errors import UserError
from text2ct.evaluation.fidelity import fid_2p5d, fid_between, fid_floor, fid_views
from text2ct.evaluation.frechet import frechet_distance
from text2ct.evaluation.generator.backbones import slice_encoder
from text2ct.evaluation.slices import PLANES, VIEWS, grey_channels, slice_statistics, slices_of
from text2ct.volumes.windows import WINDOWS

from .volumes import stand_in, stand_ins


class Moments:
    """Mean, deviation and a few pooled values of each channel, brought to ``d`` by a fixed matrix."""

    def __init__(self, channels: int = 3, d: int = 5) -> None:
        self.channels = channels
        self.name = f"moments-{d}"
        self.matrix = torch.randn(6 * channels, d, generator=torch.Generator().manual_seed(0))

    def __call__(self, slices: Tensor) -> Tensor:
        assert slices.dtype == torch.float32
        assert 0 <= slices.min() <= slices.max() <= 1
        pooled = torch.nn.functional.adaptive_avg_pool2d(slices, 2).flatten(1)
        return torch.cat([slices.mean((2, 3)), slices.std((2, 3)), pooled], dim=1) @ self.matrix


def test_closed_form_of_gaussians() -> None:
    # Commuting covariances: the distance is |m|^2 + sum (sqrt a - sqrt b)^2.
    a, b, mean = np.array([1.0, 4.0, 9.0]), np.array([4.0, 1.0, 0.0]), np.array([1.0, 2.0, -2.0])
    expected = 9 + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    assert frechet_distance(np.zeros(3), np.diag(a), mean, np.diag(b)) == pytest.approx(expected, abs=1e-10)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turned = frechet_distance(np.zeros(3), turn @ np.diag(a) @ turn.T, turn @ mean, turn @ np.diag(b) @ turn.T)
    assert turned == pytest.approx(expected, abs=1e-10)


def test_distance_of_samples_equals_monai() -> None:
    from monai.metrics.fid import get_fid_score

    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(500, 8)), rng.normal(0.3, 1.5, size=(400, 8))
    ours = frechet_distance(a.mean(0), np.cov(a.T), b.mean(0), np.cov(b.T))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # MONAI calls SciPy's sqrtm as of old
        theirs = float(get_fid_score(torch.from_numpy(a), torch.from_numpy(b)))
    assert ours == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize("plane", PLANES)
def test_slices_lie_as_radiologists_see_them(plane: str) -> None:
    x, y, z = np.meshgrid(np.arange(3.0), np.arange(4.0), np.arange(5.0), indexing="ij")
    first = slices_of(np.stack([x, y, z]), plane)[0]
    n = {"axial": 5, "coronal": 4, "sagittal": 3}[plane]
    assert len(slices_of(np.stack([x, y, z]), plane)) == n
    down, right = {"axial": (1, 0), "coronal": (2, 0), "sagittal": (2, 1)}[plane]
    assert (np.diff(first[down], axis=0) == -1).all()  # posterior or feet below
    assert (np.diff(first[right], axis=1) == -1).all()  # patient's left, or posterior, on the right
    assert slices_of(np.stack([x, y, z]), plane, every=2).shape[0] == len(range(1, n, 2))


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_has_its_channels(view: str) -> None:
    grey = grey_channels(stand_in(0), view, 3)
    assert grey.shape == (3, 28, 28, 28)
    assert grey.dtype == np.float32
    assert 0 <= grey.min() < grey.max() <= 1


@pytest.mark.parametrize("d", [5, 40], ids=["few-features", "more-features-than-slices"])
def test_a_set_has_no_distance_from_itself(d: int) -> None:
    volumes = stand_ins(0, 3)
    fid = fid_2p5d(volumes, iter(volumes), Moments(d=d), n_bootstrap=20)
    assert fid.mean == pytest.approx(0, abs=1e-9)
    assert fid.ci is not None
    assert fid.ci[0] <= fid.mean <= fid.ci[1]
    assert (fid.n_real, fid.n_synthetic, fid.slices, fid.backbone) == (3, 3, (28, 28, 28), f"moments-{d}")


def test_both_kinds_of_sums_are_numpys_covariance() -> None:
    volumes = stand_ins(0, 4)
    weights = np.array([2.0, 0.0, 1.0, 1.0])
    for encoder in (Moments(d=5), Moments(d=40)):
        statistics = slice_statistics(volumes, encoder)["colour"]
        drawn = [volumes[i] for i in (0, 0, 2, 3)]
        for plane, name in enumerate(PLANES):
            cut = np.concatenate([slices_of(grey_channels(v, "colour", 3), name) for v in drawn])
            features = encoder(torch.from_numpy(np.ascontiguousarray(cut))).double().numpy()
            mean, covariance = statistics.gaussian(plane, weights)
            np.testing.assert_allclose(mean, features.mean(0), atol=1e-5)
            np.testing.assert_allclose(covariance, np.cov(features.T), atol=1e-5)


def test_symmetric_and_grows_with_a_shift() -> None:
    real = stand_ins(0, 4)
    shifted = [[np.clip(volume + hu, -1000, 1000) for volume in stand_ins(10, 4)] for hu in (0, 100, 200, 400)]
    fids = [fid_2p5d(real, other, Moments(), view="full_range", n_bootstrap=0).mean for other in shifted]
    assert fids == sorted(fids)
    back = fid_2p5d(shifted[2], real, Moments(), view="full_range", n_bootstrap=0).mean
    assert back == pytest.approx(fids[2], rel=1e-9)


def test_interval_holds_the_estimate_and_is_replayed() -> None:
    real, synthetic = stand_ins(0, 6), stand_ins(20, 5)
    first = fid_2p5d(real, synthetic, Moments(), n_bootstrap=50, seed=0)
    assert first.ci is not None
    assert first.ci[0] < first.mean < first.ci[1]
    assert first == fid_2p5d(real, synthetic, Moments(), n_bootstrap=50, seed=0)
    assert first.ci != fid_2p5d(real, synthetic, Moments(), n_bootstrap=50, seed=1).ci
    assert first.mean == pytest.approx(np.mean([first.axial, first.coronal, first.sagittal]))


def test_few_slices_are_reported() -> None:
    volumes = stand_ins(0, 2)
    assert fid_2p5d(volumes, volumes, Moments(d=40), every=8, n_bootstrap=0).rank_deficient == PLANES
    assert fid_2p5d(volumes, volumes, Moments(d=40), n_bootstrap=0).rank_deficient == ()


def test_windows_see_what_lies_in_them() -> None:
    real = stand_ins(0, 4)
    # Bright voxels squeezed: nothing changes in lung, everything in bone.
    synthetic = [np.where(volume > 250, 250 + (volume - 250) // 2, volume).astype(np.int16) for volume in real]
    fids = fid_views(real, iter(synthetic), Moments(channels=1), n_bootstrap=0)
    assert tuple(fids) == tuple(WINDOWS)
    assert fids["lung"].mean < 1e-3 * fids["bone"].mean
    alone = fid_2p5d(real, synthetic, Moments(channels=1), view="bone", n_bootstrap=0)
    assert alone == fids["bone"]


def test_floor_falls_with_more_volumes() -> None:
    statistics = slice_statistics(stand_ins(0, 24, size=16), Moments())["colour"]
    few, many = (fid_floor(statistics, n_each=n, divisions=5) for n in (2, 12))
    assert few.mean > many.mean > 0
    assert many.range[0] <= many.mean <= many.range[1]
    assert fid_floor(statistics) == fid_floor(statistics)
    with pytest.raises(UserError, match="no two disjoint parts of 13"):
        fid_floor(statistics, n_each=13)


def test_refusals() -> None:
    volumes = stand_ins(0, 2, size=16)
    with pytest.raises(UserError, match="there is no synthetic volume to measure"):
        fid_2p5d(volumes, [], Moments())
    with pytest.raises(UserError, match=r"1 synthetic volume; .* needs 2 or more"):
        fid_2p5d(volumes, volumes[:1], Moments())
    with pytest.raises(UserError, match=r"real volume 1 has shape \(17, 17, 17\)"):
        fid_2p5d([volumes[0], stand_in(1, 17)], volumes, Moments())
    with pytest.raises(UserError, match="grid"):
        fid_2p5d(volumes, stand_ins(0, 2, 17), Moments())
    with pytest.raises(UserError, match="clip volumes"):
        fid_2p5d(volumes, [volumes[0] * 2, volumes[1]], Moments())
    with pytest.raises(UserError, match="as after normalisation"):
        fid_2p5d(volumes, [np.random.default_rng(0).random((16, 16, 16))] * 2, Moments())
    with pytest.raises(UserError, match="NaN or infinite voxels"):
        fid_2p5d(volumes, [np.full((16, 16, 16), np.nan)] * 2, Moments())
    with pytest.raises(UserError, match="there is no view 'brain'"):
        fid_2p5d(volumes, volumes, Moments(), view="brain")
    with pytest.raises(UserError, match="the encoder reads 1"):
        fid_2p5d(volumes, volumes, Moments(channels=1), view="colour")
    with pytest.raises(UserError, match="every is 0"):
        fid_2p5d(volumes, volumes, Moments(), every=0)
    with pytest.raises(UserError, match="none in some plane"):
        fid_2p5d(volumes, volumes, Moments(), every=40)
    one, other = (slice_statistics(volumes, Moments(d=d))["colour"] for d in (5, 6))
    with pytest.raises(UserError, match="backbone: moments-5 and moments-6"):
        fid_between(one, other)


def test_it_grows_with_noise_and_with_blur() -> None:
    """On the bundled network: whatever is done to every volume, more of it is farther away."""
    network = slice_encoder(device=torch.device("cpu"))
    real = stand_ins(0, 12, 32)
    rng = np.random.default_rng(0)
    noise = [rng.normal(size=volume.shape) for volume in real]

    def distance(made: list[np.ndarray]) -> float:
        clipped = [np.clip(one, -1000, 1000).astype(np.float32) for one in made]
        return fid_2p5d(real, clipped, network, n_bootstrap=0).mean

    noisy = [distance([v + hu * n for v, n in zip(real, noise, strict=True)]) for hu in (0, 60, 120, 240)]
    blurred = [distance([gaussian_filter(v.astype(np.float32), sigma) for v in real]) for sigma in (0, 1, 2, 4)]
    assert noisy == sorted(noisy)
    assert blurred == sorted(blurred)
    assert noisy[0] == pytest.approx(0, abs=1e-6)


def test_two_halves_of_one_set_lie_at_the_floor() -> None:
    network = slice_encoder(device=torch.device("cpu"))
    volumes = stand_ins(0, 24, 16)
    whole = slice_statistics(volumes, network)["colour"]
    floor = fid_floor(whole, divisions=20, seed=1)
    halves = fid_between(whole.subset(range(0, 24, 2)), whole.subset(range(1, 24, 2)), n_bootstrap=0)
    assert floor.range[0] * 0.9 <= halves.mean <= floor.range[1] * 1.1
