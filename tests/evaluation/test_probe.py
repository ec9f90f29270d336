from __future__ import annotations

import numpy as np
import pytest

from text2ct.errors import UserError
from text2ct.evaluation.probe import STRENGTHS, linear_probe

NAMES = ("first", "second", "third")


def rows(n: int, seed: int, noise: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, 3)) < 0.4).astype(float)
    mixing = np.random.default_rng(99).normal(size=(3, 8))
    return 50 + 10 * (labels @ mixing + noise * rng.normal(size=(n, 8))), labels


def test_separable_findings_are_read() -> None:
    found = linear_probe(*rows(80, 0), *rows(60, 1), findings=NAMES)
    assert found.macro_auc == pytest.approx(1)
    assert set(found.auc) == set(NAMES)
    assert set(found.strength.values()) <= set(STRENGTHS)
    assert (found.n_train, found.n_test, found.scores.shape) == (80, 60, (60, 3))


def test_noise_is_chance() -> None:
    features, labels = rows(150, 0)
    test_features, test_labels = rows(400, 1)
    rng = np.random.default_rng(5)
    found = linear_probe(rng.normal(size=features.shape), labels, rng.normal(size=test_features.shape), test_labels,
                         findings=NAMES)  # fmt: skip
    assert found.macro_auc == pytest.approx(0.5, abs=0.1)


def test_test_rows_decide_nothing() -> None:
    train, (features, labels) = rows(60, 0, 2.0), rows(40, 1, 2.0)
    whole = linear_probe(*train, features, labels, findings=NAMES)
    half = linear_probe(*train, features[:20], labels[:20], findings=NAMES)
    np.testing.assert_array_equal(whole.scores[:20], half.scores)
    assert whole.strength == half.strength


def test_unknown_and_single_class_findings() -> None:
    features, labels = rows(60, 0)
    test_features, test_labels = rows(40, 1)
    labels[::4, 0] = np.nan  # fewer rows
    test_labels[::4, 0] = np.nan
    labels[:, 1] = 0  # nothing to learn
    test_labels[:, 2] = 1  # nothing to tell apart
    found = linear_probe(features, labels, test_features, test_labels, findings=NAMES)
    assert found.auc["first"] == found.macro_auc == pytest.approx(1)
    assert found.auc["second"] is found.auc["third"] is None
    assert found.reasons == {
        "second": "0 of 60 known training rows are positive; 2 of each needed",
        "third": "the test rows have one class only",
    }
    assert np.isnan(found.scores[:, 1]).all()
    none = linear_probe(features, np.full_like(labels, np.nan), test_features, test_labels, findings=NAMES)
    assert none.macro_auc is None


def test_refusals() -> None:
    features, labels = rows(20, 0)
    with pytest.raises(UserError, match="8 columns, test features 7"):
        linear_probe(features, labels, features[:, :7], labels, findings=NAMES)
    with pytest.raises(UserError, match=r"train_labels has shape \(19, 3\)"):
        linear_probe(features, labels[:19], features, labels, findings=NAMES)
    with pytest.raises(UserError, match="test_labels holds 5"):
        linear_probe(features, labels, features, labels * 5, findings=NAMES)
    with pytest.raises(UserError, match="one or more rows"):
        linear_probe(features[:0], labels[:0], features, labels, findings=NAMES)
    with pytest.raises(UserError, match="NaN or infinite"):
        linear_probe(features * np.nan, labels, features, labels, findings=NAMES)
