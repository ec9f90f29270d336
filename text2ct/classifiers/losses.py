"""Losses that know that unknown is not negative."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from text2ct.classifiers.config import Training


def masked_bce(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean binary cross-entropy over the known labels of a batch.

    Args:
        logits: (B, F) float.
        labels: (B, F) float, 0, 1 or NaN; NaN is unknown and has exactly no gradient.

    Returns:
        Scalar; 0 with a zero gradient where nothing is known.
    """
    known = ~torch.isnan(labels)
    total: Tensor = functional.binary_cross_entropy_with_logits(logits[known], labels[known], reduction="sum")
    return total / max(1, int(known.sum()))


def asymmetric(logits: Tensor, labels: Tensor, gamma_positive: int, gamma_negative: int, margin: float) -> Tensor:
    """The asymmetric loss of Ridnik et al., ICCV 2021 (arXiv 2009.14119), equations 4 to 6.

    With p the probability and p_m = max(p - margin, 0), a positive costs -(1 - p)^gamma_positive log p, and a
    negative -p_m^gamma_negative log(1 - p_m): easy negatives, the bulk of a rare finding's labels, weigh little,
    and those under the margin nothing. With both exponents and the margin 0 it is the binary cross-entropy.

    Args:
        logits: (n,) float.
        labels: (n,) float, 0 or 1.
        gamma_positive: Focusing exponent of positives, >= 0.
        gamma_negative: Focusing exponent of negatives, >= 0.
        margin: Probability under which a negative costs nothing, in [0, 1).

    Returns:
        (n,) loss of each label, >= 0.
    """
    probability = torch.sigmoid(logits)
    shifted = (probability - margin).clamp(min=0)
    # log(1 - p_m); without a margin 1 - p can underflow, with one it is never under the margin
    negative = torch.log1p(-shifted) if margin > 0 else functional.logsigmoid(-logits)
    of_positive = -((1 - probability) ** gamma_positive) * functional.logsigmoid(logits)
    return torch.where(labels == 1, of_positive, -(shifted**gamma_negative) * negative)


class TrainingLoss(nn.Module):
    """The loss that a recipe asks for.

    Args:
        settings: The recipe.
        labels: (n, F) float training labels, 0, 1 or NaN, of which class weights are computed.
    """

    positive_weights: Tensor

    def __init__(self, settings: Training, labels: np.ndarray) -> None:
        super().__init__()
        self.settings = settings
        weights = positive_weights(labels, settings.positive_weight_cap)
        if not settings.class_weights:
            weights = np.ones_like(weights)
        self.register_buffer("positive_weights", torch.from_numpy(weights), persistent=False)

    def forward(self, logits: Tensor, labels: Tensor, known: int) -> Tensor:
        """Sum of the losses of the known labels of a batch, over ``known``.

        Args:
            logits: (B, F) float.
            labels: (B, F) float, 0, 1 or NaN; NaN is unknown and has exactly no gradient.
            known: What the sum is divided by: the known labels of all batches whose gradients are added up.

        Returns:
            Scalar; 0 with a zero gradient where nothing is known.
        """
        settings, is_known = self.settings, ~torch.isnan(labels)
        truth, scores = labels[is_known], logits[is_known]
        if settings.loss == "asymmetric":
            losses = asymmetric(
                scores, truth, settings.gamma_positive, settings.gamma_negative, settings.probability_margin
            )
        else:
            losses = functional.binary_cross_entropy_with_logits(scores, truth, reduction="none")
        weights = torch.where(truth == 1, self.positive_weights.expand_as(labels)[is_known], 1.0)
        return (weights * losses).sum() / max(1, known)


def positive_weights(labels: np.ndarray, cap: float) -> np.ndarray:
    """Negatives per positive of each finding, between 1/``cap`` and ``cap``.

    Args:
        labels: (n, F) float, 0, 1 or NaN.
        cap: Largest weight, >= 1.

    Returns:
        (F,) float32; 1 for a finding of which a class does not occur.
    """
    positive = np.nansum(labels == 1, axis=0).astype(float)
    negative = np.nansum(labels == 0, axis=0).astype(float)
    defined = (positive > 0) & (negative > 0)
    ratio = np.divide(negative, positive, out=np.ones_like(positive), where=defined)
    return np.clip(ratio, 1 / cap, cap).astype(np.float32)
