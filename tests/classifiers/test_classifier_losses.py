from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from text2ct.classifiers.losses import masked_bce, positive_weights
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


def test_class_weights_scale_the_positives_only() -> None:
    logits, weights = torch.zeros(1, 2), torch.tensor([3.0, 3.0])
    loss = masked_bce(logits, torch.tensor([[1.0, 0.0]]), weights)
    assert float(loss) == pytest.approx((3 + 1) * np.log(2) / 2)


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
