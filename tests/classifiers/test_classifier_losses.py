from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from text2ct.classifiers.config import Training
from text2ct.classifiers.losses import TrainingLoss, asymmetric, masked_bce, positive_weights
from text2ct.classifiers.metrics import scan_auc
from text2ct.findings import FINDINGS

NAN = float("nan")


def test_an_unknown_label_has_exactly_no_gradient_and_no_effect() -> None:
    labels = torch.tensor([[1.0, NAN], [0.0, 1.0]])
    logits = torch.tensor([[0.3, 1e6], [-1.0, 2.0]], requires_grad=True)
    loss = masked_bce(logits, labels)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[0, 1] == 0.0
    assert (logits.grad[~torch.isnan(labels)] != 0).all()
    known = functional.binary_cross_entropy_with_logits(torch.tensor([0.3, -1.0, 2.0]), torch.tensor([1.0, 0.0, 1.0]))
    torch.testing.assert_close(loss.detach(), known)


def test_a_batch_of_unknown_labels_is_zero_with_a_zero_gradient() -> None:
    logits = torch.ones(2, 3, requires_grad=True)
    loss = masked_bce(logits, torch.full((2, 3), NAN))
    loss.backward()
    assert loss == 0
    assert torch.equal(logits.grad, torch.zeros(2, 3))


def test_positive_weights_are_negatives_per_positive_within_the_cap() -> None:
    labels = np.array([[1, 1, 1, 0, NAN], [0, 0, 1, 0, NAN], [0, NAN, 1, 0, 1]] + [[0, 0, 1, 0, NAN]] * 20)
    np.testing.assert_allclose(positive_weights(labels, cap=10), [10, 10, 1, 1, 1])
    np.testing.assert_allclose(positive_weights(labels[:3], cap=10), [2, 1, 1, 1, 1])


def recipe(**changes: object) -> Training:
    return Training(learning_rate=1e-3, validate_every=1, **changes)  # type: ignore[arg-type]


def test_class_weights_scale_the_positives_only() -> None:
    labels = np.array([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    weighted = TrainingLoss(recipe(class_weights=True), labels)
    loss = weighted(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), known=2)
    assert float(loss) == pytest.approx((3 + 1) * np.log(2) / 2)


def test_the_plain_recipe_is_the_masked_cross_entropy() -> None:
    labels = torch.tensor([[1.0, NAN], [0.0, 1.0]])
    logits = torch.tensor([[0.3, 1e6], [-1.0, 2.0]])
    loss = TrainingLoss(recipe(), labels.numpy())(logits, labels, known=3)
    torch.testing.assert_close(loss, masked_bce(logits, labels))


@given(st.lists(st.tuples(st.floats(-30, 30), st.sampled_from([0.0, 1.0])), min_size=1, max_size=20))
def test_without_exponents_and_margin_the_asymmetric_loss_is_the_cross_entropy(pairs: list) -> None:
    logits, labels = (torch.tensor(column, dtype=torch.float64) for column in zip(*pairs, strict=True))
    expected = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    torch.testing.assert_close(asymmetric(logits, labels, 0, 0, 0.0), expected)


@given(st.floats(-30, 30), st.integers(0, 4), st.integers(0, 4), st.floats(0.01, 0.5))
def test_the_asymmetric_loss_is_the_papers_formula(logit: float, positive: int, negative: int, margin: float) -> None:
    p = 1 / (1 + math.exp(-logit))
    p_m = max(p - margin, 0)
    logits = torch.full((2,), logit, dtype=torch.float64)
    losses = asymmetric(logits, torch.tensor([1.0, 0.0]), positive, negative, margin)
    expected = [-((1 - p) ** positive) * math.log(p), -(p_m**negative) * math.log(1 - p_m)]
    np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-6, atol=1e-9)


def test_an_easy_negative_costs_nothing_and_a_certain_mistake_stays_finite() -> None:
    logits = torch.tensor([-4.0, 1e4, -1e4], requires_grad=True)  # the first is a probability of 0.018
    losses = asymmetric(logits, torch.tensor([0.0, 0.0, 1.0]), 0, 4, 0.05)
    losses.sum().backward()
    assert losses[0] == 0
    assert logits.grad is not None
    assert logits.grad[0] == 0
    assert torch.isfinite(losses).all()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("loss", ["bce", "asymmetric"])
def test_an_unknown_label_has_exactly_no_gradient_in_any_recipe(loss: str) -> None:
    labels = torch.tensor([[1.0, NAN], [0.0, 1.0]])
    logits = torch.tensor([[0.3, 1e6], [1.0, 2.0]], requires_grad=True)
    TrainingLoss(recipe(loss=loss, class_weights=True), labels.numpy())(logits, labels, known=3).backward()
    assert logits.grad is not None
    assert logits.grad[0, 1] == 0.0
    assert (logits.grad[~torch.isnan(labels)] != 0).all()


def test_auc_is_over_scans_with_the_mean_of_their_reconstructions() -> None:
    labels = np.full((6, 18), NAN)
    labels[:, 0] = [1, 1, 0, 0, 0, 1]
    labels[:, 1] = 1
    labels[:, 2] = [NAN, 1, 0, NAN, NAN, NAN]
    scores = np.zeros((6, 18))
    scores[:, 0] = [0.9, 0.1, 0.6, 0.3, 0.2, 0.8]
    scores[:, 2] = [0.0, 0.9, 0.5, 0.1, 0.9, 0.9]
    scans = np.array(["a", "a", "b", "b", "c", "d"], dtype=object)
    auc = scan_auc(scores, labels, scans)
    assert auc.by_finding == {FINDINGS[0]: 1.0, FINDINGS[2]: 1.0}
    assert FINDINGS[1] in auc.undefined
    assert len(auc.undefined) == 16
    assert auc.macro == 1.0


def test_without_a_defined_finding_there_is_no_auc() -> None:
    auc = scan_auc(np.zeros((2, 18)), np.ones((2, 18)), np.array(["a", "b"], dtype=object))
    assert np.isnan(auc.macro)
    assert auc.undefined == FINDINGS
