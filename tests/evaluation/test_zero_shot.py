from __future__ import annotations

import numpy as np
import pytest

from text2ct.errors import UserError
from text2ct.evaluation.zero_shot import PHRASINGS, zero_shot, zero_shot_scores
from text2ct.findings import FINDINGS


def oracle(texts: list[str]) -> np.ndarray:
    """A finding is a direction; a text that denies it points the other way, and lengths are any."""
    rows = np.zeros((len(texts), len(FINDINGS)))
    for row, text in zip(rows, texts, strict=True):
        named = [i for i, name in enumerate(FINDINGS) if name.lower() in text.lower()]
        best = max(named, key=lambda i: len(FINDINGS[i]))
        row[best] = -2.0 if text.lower().startswith("no ") or " no " in text or " not " in text else 3.0
    return rows


def cohort(n: int = 80, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    labels = (np.random.default_rng(seed).random((n, len(FINDINGS))) < 0.4).astype(float)
    image = 2 * labels - 1
    return image / np.linalg.norm(image, axis=1, keepdims=True), labels


def test_an_oracle_is_right_and_its_opposite_wrong() -> None:
    image, labels = cohort()
    found = zero_shot(oracle, image, labels)
    assert found.macro_auc == found.macro_accuracy == found.macro_precision == 1
    assert set(found.auc.values()) == {1.0}
    assert found.scores.shape == (80, 18)
    inverted = zero_shot(lambda texts: -oracle(texts), image, labels)
    assert inverted.macro_auc == inverted.macro_accuracy == inverted.macro_precision == 0
    np.testing.assert_allclose(found.scores + inverted.scores, 1)


def test_texts_are_asked_once_with_every_phrasing() -> None:
    asked: list[list[str]] = []

    def encode(texts: list[str]) -> np.ndarray:
        asked.append(texts)
        return oracle(texts)

    zero_shot_scores(encode, cohort(3)[0])
    assert len(asked) == 1
    assert len(asked[0]) == len(FINDINGS) * len(PHRASINGS) * 2
    assert {"Pleural effusion.", "No pleural effusion.", "There is no pleural effusion."} <= set(asked[0])


def test_softmax_of_the_pair() -> None:
    text = np.array([[1.0, 0.0], [0.0, 1.0]])
    score = zero_shot_scores(
        lambda _: text, [[0.6, 0.8]], phrasings=[("{x}", "no {x}")], logit_scale=10, findings=["Emphysema"]
    )
    logits = np.exp(10 * np.array([0.6, 0.8]))
    assert score[0, 0] == pytest.approx(logits[0] / logits.sum())


def test_unknown_labels_are_left_out() -> None:
    image, labels = cohort()
    expected = zero_shot(oracle, image, labels)
    labels[::3] = np.nan
    labels[:, 4] = np.nan
    labels[:, 5] = np.where(np.isnan(labels[:, 5]), np.nan, 1)
    found = zero_shot(oracle, image, labels)
    assert found.auc[FINDINGS[4]] is found.accuracy[FINDINGS[4]] is found.precision[FINDINGS[4]] is None
    assert found.auc[FINDINGS[5]] is None
    assert found.macro_auc == expected.macro_auc == 1
    none = zero_shot(oracle, image, np.full_like(labels, np.nan))
    assert none.macro_auc is none.macro_accuracy is none.macro_precision is None


def test_chance_for_an_encoder_that_reads_nothing() -> None:
    image, labels = cohort()
    found = zero_shot(lambda texts: np.ones((len(texts), 18)), image, labels)
    assert found.macro_auc == 0.5


def test_refusals() -> None:
    image, labels = cohort(4)
    with pytest.raises(UserError, match=r"write \{x\}"):
        zero_shot(oracle, image, labels, phrasings=[("yes", "no {x}")])
    with pytest.raises(UserError, match="no phrasings"):
        zero_shot(oracle, image, labels, phrasings=[])
    with pytest.raises(UserError, match="logit_scale is 0"):
        zero_shot(oracle, image, labels, logit_scale=0)
    with pytest.raises(UserError, match="as wide as"):
        zero_shot(lambda texts: np.ones((len(texts), 3)), image, labels)
    with pytest.raises(UserError, match=r"expected \(4, 18\)"):
        zero_shot(oracle, image, labels[:2])
    with pytest.raises(UserError, match="L2 norm"):
        zero_shot(oracle, image * 3, labels)
