from __future__ import annotations

import numpy as np
import pytest

from text2ct.errors import UserError
from text2ct.evaluation.memorisation import Neighbour, TrainingVolumes, block_means, find_memorised, shifted_rms
from text2ct.evaluation.similarity import SETTINGS

from .volumes import stand_in, stand_ins

# A shift by a voxel leaves just what MS-SSIM needs.
SIZE = SETTINGS.smallest_axis + 2


def in_air(volume: np.ndarray) -> np.ndarray:
    """Only a ball of the volume, in air, where noise is clipped to one side."""
    axis = np.arange(volume.shape[0]) - (volume.shape[0] - 1) / 2
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2)
    return np.where(radius < 0.4 * volume.shape[0], volume, -1000).astype(np.int16)


TRAINING = [in_air(volume) for volume in stand_ins(0, 60, SIZE)]
HELD_OUT = [in_air(volume) for volume in stand_ins(100, 12, SIZE)]


def noisy(volume: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 10, volume.shape)
    return np.clip(np.rint(volume + noise), -1000, 1000).astype(np.int16)


def moved(volume: np.ndarray) -> np.ndarray:
    return np.roll(volume, (1, -1, 1), axis=(0, 1, 2))


COPIES = {
    "copy": lambda volume: volume,
    "noise": noisy,
    "shift": moved,
    "noise-and-shift": lambda volume: noisy(moved(volume)),
}


@pytest.fixture(scope="module")
def training() -> TrainingVolumes:
    return TrainingVolumes(TRAINING)


@pytest.mark.parametrize("kind", COPIES)
def test_copies_are_caught(training: TrainingVolumes, kind: str) -> None:
    synthetic = [in_air(stand_in(200, SIZE)), COPIES[kind](TRAINING[7]), in_air(stand_in(201, SIZE))]
    found = find_memorised(iter(synthetic), training, HELD_OUT)
    assert found.indices == (1,)
    assert (found.n, found.memorised, found.n_training) == (3, 1, 60)
    assert found.neighbours[1].index == 7
    assert found.distances_hu[1] < 12 < found.threshold_hu
    assert found.ratios[1] < 0.2 < found.ratios[0]
    # Of copies that are not moved back it is 0.86, of copies moved the wrong way 0.58.
    assert found.ms_ssim[1] > 0.99
    np.testing.assert_array_equal(np.isnan(found.ms_ssim), [True, False, True])


def test_a_similarity_needs_a_grid_that_is_large_enough_once_moved() -> None:
    small = TRAINING[0][1:-1, 1:-1, 1:-1]
    volumes = TrainingVolumes([small, TRAINING[1][1:-1, 1:-1, 1:-1]])
    assert volumes.similarity(small, Neighbour(0, 0.0, 1.0, (0, 0, 0))) == 1
    for shift in ((1, 0, 0), (0, -1, 0), (0, 0, 1)):
        assert np.isnan(volumes.similarity(small, Neighbour(0, 0.0, 1.0, shift)))


def test_the_shift_is_found() -> None:
    distance, shift = shifted_rms(moved(TRAINING[0]), TRAINING[0])
    assert (distance, shift) == (0.0, (-1, 1, -1))
    assert shifted_rms(moved(TRAINING[0]), TRAINING[0], 0)[0] > 20
    assert shifted_rms(TRAINING[0], TRAINING[0], 2) == (0.0, (0, 0, 0))


def test_held_out_volumes_are_not_flagged(training: TrainingVolumes) -> None:
    found = find_memorised(HELD_OUT, training, HELD_OUT)
    assert found.memorised == 0
    assert found.false_positive_rate == pytest.approx(1 / 13)
    assert found.threshold_hu == pytest.approx(0.5 * found.held_out_distances_hu.min())
    new = find_memorised([in_air(volume) for volume in stand_ins(300, 60, SIZE)], training, HELD_OUT)
    assert new.memorised == 0


def test_the_threshold_is_the_stated_quantile(training: TrainingVolumes) -> None:
    found = find_memorised(HELD_OUT, training, HELD_OUT, quantile=0.5, margin=1.0)
    assert found.threshold_hu == np.sort(found.held_out_distances_hu)[5]
    assert found.memorised == 5
    assert found.false_positive_rate == pytest.approx(6 / 13)


def test_another_embedding_adds_candidates() -> None:
    # Block means are blinded here by a candidate list that a second embedding has to complete.
    asked = []

    def embed(volume: np.ndarray) -> np.ndarray:
        asked.append(volume.shape)
        return volume[::4, ::4, ::4].astype(np.float32)

    volumes = TrainingVolumes(TRAINING, embed=embed, candidates=2)
    assert volumes.nearest(noisy(TRAINING[3])).index == 3
    assert len(asked) == 61


def test_two_training_volumes_of_a_patient() -> None:
    found = TrainingVolumes([*TRAINING, noisy(TRAINING[4])]).nearest(TRAINING[4])
    assert (found.index, found.distance_hu) == (4, 0)
    assert TrainingVolumes([TRAINING[4], TRAINING[4]]).nearest(TRAINING[4]).ratio == 1
    assert TrainingVolumes(TRAINING[:1]).nearest(TRAINING[4]).ratio == 0  # no second neighbour


@pytest.mark.parametrize("size", [16, 28, 64, 8])
def test_block_means_keep_the_mean(size: int) -> None:
    volume = stand_in(0, size)
    means = block_means(volume)
    assert means.shape == (min(16, size) ** 3,)
    if size % 16 == 0:
        parts = volume.reshape(16, size // 16, 16, size // 16, 16, size // 16)
        np.testing.assert_allclose(means, parts.mean((1, 3, 5)).ravel(), atol=1e-3)


def test_refusals(training: TrainingVolumes) -> None:
    with pytest.raises(UserError, match="no training volume"):
        TrainingVolumes([])
    with pytest.raises(UserError, match="no synthetic volume"):
        find_memorised([], training, HELD_OUT)
    with pytest.raises(UserError, match="no held-out real volume"):
        find_memorised(HELD_OUT, training, [])
    with pytest.raises(UserError, match="held-out volume 1 is training volume 5"):
        find_memorised(HELD_OUT, training, [HELD_OUT[0], TRAINING[5]])
    with pytest.raises(UserError, match=r"synthetic volume 0 has shape \(16"):
        find_memorised([stand_in(0, 16)], training, HELD_OUT)
    with pytest.raises(UserError, match="training volume 1 has shape"):
        TrainingVolumes([TRAINING[0], stand_in(0, 16)])
    with pytest.raises(UserError, match="candidates is 1"):
        TrainingVolumes(TRAINING, candidates=1)
    with pytest.raises(UserError, match="max_shift 15 leaves nothing"):
        TrainingVolumes(TRAINING, max_shift=SIZE // 2)
    with pytest.raises(UserError, match="margin 2"):
        find_memorised(HELD_OUT, training, HELD_OUT, margin=2)
