from __future__ import annotations

import numpy as np
import pytest

from text2ct.errors import UserError
from text2ct.evaluation.retrieval import clip_score, findings_overlap, report_to_volume_recall, volume_to_volume_map


def unit(n: int, d: int = 16, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(n, d))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def random_labels(n: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random((n, 18)) < 0.25).astype(float)


def test_perfect_recall_and_its_chance() -> None:
    rows = unit(40)
    found = report_to_volume_recall(rows, rows, ks=(1, 5, 100))
    assert found.at == {1: 1.0, 5: 1.0, 100: 1.0}
    assert found.chance == {1: 1 / 40, 5: 5 / 40, 100: 1.0}


def test_unrelated_embeddings_reach_chance() -> None:
    found = report_to_volume_recall(unit(1000), unit(1000, seed=1))
    for k, chance in found.chance.items():
        assert found.at[k] == pytest.approx(chance, abs=4 * np.sqrt(chance / 1000))


def test_collapsed_embeddings_are_chance_not_perfect() -> None:
    rows = np.repeat(unit(1), 50, axis=0)
    found = report_to_volume_recall(rows, rows)
    assert found.at == pytest.approx(found.chance)


def test_recall_counts_ranks() -> None:
    image = np.eye(4)
    text = np.array([[0.6, 0.8, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0.8, 0, 0, 0.6]])  # rows 0 and 3: second place
    assert report_to_volume_recall(text, image, ks=(1, 2)).at == {1: 0.5, 2: 1.0}


def test_overlap_is_intersection_over_union() -> None:
    a = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [1, np.nan, 0, 1]])
    b = np.array([[1, 0, 1, 0], [1, 1, np.nan, np.nan]])
    np.testing.assert_allclose(findings_overlap(a, b), [[1 / 3, 1], [0, 0], [1 / 3, 1]])
    np.testing.assert_allclose(findings_overlap(a, b), findings_overlap(b, a).T)


def test_volumes_placed_by_their_findings() -> None:
    labels = np.repeat(np.eye(18)[:6], 5, axis=0)
    image = np.repeat(unit(6), 5, axis=0)
    found = volume_to_volume_map(image, labels, ks=(1, 4, 29))
    assert found.at[1] == found.at[4] == 1
    assert found.at[29] == pytest.approx(found.chance[29]) == pytest.approx(4 / 29)
    assert (found.queries, found.gallery) == (30, 29)


def test_unrelated_volumes_reach_the_exact_chance() -> None:
    labels = random_labels(300)
    rng = np.random.default_rng(2)
    values = [volume_to_volume_map(unit(300, seed=int(s)), labels).at[5] for s in rng.integers(0, 10**6, 10)]
    assert np.mean(values) == pytest.approx(volume_to_volume_map(unit(300), labels).chance[5], abs=0.01)


def test_released_protocol_counts_the_query_itself() -> None:
    labels = random_labels(60)
    labels[:15] = 0
    image = unit(60)
    released = volume_to_volume_map(image, labels, ks=(1,), protocol="released")
    assert released.at[1] == pytest.approx((labels.sum(axis=1) > 0).mean())
    assert released.queries == 60
    assert volume_to_volume_map(image, labels, ks=(1,)).at[1] < released.at[1]
    order = np.random.default_rng(0).permutation(60)
    again = volume_to_volume_map(image[order], labels[order], protocol="released")
    assert again.at == pytest.approx(volume_to_volume_map(image, labels, protocol="released").at)


def test_clip_score() -> None:
    assert clip_score(unit(9), unit(9)) == pytest.approx(100)
    assert clip_score(unit(9), -unit(9)) == 0
    assert clip_score(np.eye(2), np.array([[0.6, 0.8], [0, 1]])) == pytest.approx(80)


def test_refusals() -> None:
    with pytest.raises(UserError, match="divide each row by its L2 norm"):
        clip_score(unit(3) * 2, unit(3))
    with pytest.raises(UserError, match=r"\(3, 16\) and \(4, 16\)"):
        report_to_volume_recall(unit(3), unit(4))
    with pytest.raises(UserError, match="give 2 or more"):
        report_to_volume_recall(unit(1), unit(1))
    with pytest.raises(UserError, match="one or more rows"):
        clip_score(np.zeros((0, 4)), np.zeros((0, 4)))
    with pytest.raises(UserError, match="whole numbers from 1"):
        report_to_volume_recall(unit(3), unit(3), ks=(0,))
    with pytest.raises(UserError, match=r"expected \(3, 18\)"):
        volume_to_volume_map(unit(3), random_labels(4))
    with pytest.raises(UserError, match="0 of 3 volumes have a finding"):
        volume_to_volume_map(unit(3), np.zeros((3, 18)))
    with pytest.raises(UserError, match="holds 2; expected 0, 1 or NaN"):
        volume_to_volume_map(unit(3), random_labels(3) + 1)
    with pytest.raises(UserError, match="NaN or infinite"):
        clip_score(np.full((2, 2), np.nan), unit(2, 2))
