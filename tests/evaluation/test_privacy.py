"""What distances say of a set's privacy: copies are seen, strangers are not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.metrics import roc_auc_score

from text2ct.errors import UserError
from text2ct.evaluation.privacy import Privacy, privacy

RNG = np.random.default_rng(3)
TRAINING, HELD_OUT = RNG.normal(size=(80, 6)), RNG.normal(size=(70, 6))


def of(synthetic: np.ndarray, **settings: int) -> Privacy:
    return privacy(synthetic, TRAINING, HELD_OUT, **settings)


def test_copies_are_no_secret() -> None:
    found = of(TRAINING[:60] + 1e-6 * RNG.normal(size=(60, 6)))
    assert found.nearest_ratio < 1e-4
    assert found.authenticity == 0
    assert found.membership_auc > 0.8
    assert found.membership_auc_ci is not None
    assert found.membership_auc_ci[0] > 0.7


def test_strangers_look_like_held_out_patients() -> None:
    found = of(RNG.normal(size=(90, 6)))
    assert abs(found.nearest_ratio - found.nearest_ratio_held_out) < 0.1
    assert abs(found.authenticity - found.authenticity_held_out) < 0.2
    low, high = found.membership_auc_ci or (1, 1)
    assert low < 0.5 < high


def test_the_attack_is_an_auc() -> None:
    synthetic = RNG.normal(size=(30, 6))
    near = [-cdist(synthetic, patients).min(axis=0) for patients in (TRAINING, HELD_OUT)]
    member = np.repeat([1, 0], [len(TRAINING), len(HELD_OUT)])
    found = of(synthetic, n_bootstrap=0)
    assert found.membership_auc == pytest.approx(roc_auc_score(member, np.concatenate(near)))
    assert found.membership_auc_ci is None


def test_authenticity_counts_who_is_nearer_than_the_neighbour_is() -> None:
    """Two training patients at 0 and 1: their distance is 1, so what lies within 1 of its nearest is no stranger."""
    training, synthetic, held_out = (np.array(v)[:, None] for v in ([0.0, 1.0], [0.4, 3.0, -2.0], [5.0]))
    found = privacy(synthetic, training, held_out)
    assert found.authenticity == pytest.approx(2 / 3)
    assert found.nearest_ratio == pytest.approx(np.median([0.4 / 0.6, 2 / 3, 2 / 3]))


def test_training_volumes_that_are_equal_are_each_others_neighbours() -> None:
    """A patient who is there twice is at no distance from its copy: nothing is nearer to it than that."""
    found = privacy(TRAINING[:1] + 0.1, np.concatenate([TRAINING[:1], TRAINING[:1], HELD_OUT[:5]]), HELD_OUT[5:])
    assert found.authenticity == 1
    assert found.nearest_ratio == 1


def test_it_is_what_all_pairs_say() -> None:
    synthetic = RNG.normal(size=(40, 6))
    found = of(synthetic)
    distances, inside = cdist(synthetic, TRAINING), cdist(TRAINING, TRAINING)
    np.fill_diagonal(inside, np.inf)
    nearest = np.sort(distances, axis=1)
    assert found.nearest_ratio == pytest.approx(np.median(nearest[:, 0] / nearest[:, 1]))
    own = inside.min(axis=1)[distances.argmin(axis=1)]
    assert found.authenticity == pytest.approx(np.mean(nearest[:, 0] > own))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (((3, 5), (4, 6), (5, 5)), "of one width"),
        (((3, 5), (1, 5), (5, 5)), "2 or more"),
        (((0, 5), (4, 5), (5, 5)), "one row or more"),
    ],
)
def test_what_does_not_belong_together_is_refused(sizes: tuple, message: str) -> None:
    with pytest.raises(UserError, match=message):
        privacy(*(np.ones(size) for size in sizes))
    with pytest.raises(UserError, match="NaN or infinite"):
        privacy(np.full((3, 5), np.nan), np.ones((4, 5)), np.ones((5, 5)))
