"""Binary cross-entropy that knows that unknown is not negative."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


def masked_bce(logits: Tensor, labels: Tensor, positive_weights: Tensor | None = None) -> Tensor:
    """Mean binary cross-entropy over the known labels of a batch.

    Args:
        logits: (B, F) float.
        labels: (B, F) float, 0, 1 or NaN; NaN is unknown and has exactly no gradient.
        positive_weights: (F,) float, factor of a positive's loss; None: 1.

    Returns:
        Scalar; 0 with a zero gradient where nothing is known.
    """
    known = ~torch.isnan(labels)
    if not bool(known.any()):
        return logits.sum() * 0.0
    weights = None if positive_weights is None else positive_weights.expand_as(logits)[known]
    return functional.binary_cross_entropy_with_logits(logits[known], labels[known], pos_weight=weights)


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
