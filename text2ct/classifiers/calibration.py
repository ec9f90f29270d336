"""Probabilities that mean what they say: one temperature, fitted on validation volumes."""

from __future__ import annotations

import math

from scipy.optimize import minimize_scalar
from torch import Tensor

from text2ct.classifiers.losses import masked_bce

LARGEST = 20.0
"""Bounds of a temperature are 1/20 and 20: separable validation labels would ask for 0, random ones for infinity."""


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature of Guo et al., "On calibration of modern neural networks", ICML 2017, section 4.2.

    Minimises the binary cross-entropy of ``logits / temperature`` over the known labels of all findings. A
    temperature above 1 makes an overconfident network humbler; the order of the volumes stays.

    Args:
        logits: (n, F) float, of volumes that the network was not trained on.
        labels: (n, F) float, 0, 1 or NaN; NaN is unknown.

    Returns:
        The temperature, in [1/20, 20]; 1 where no other is better.
    """

    def cost(log_temperature: float) -> float:
        return float(masked_bce(logits.double() / math.exp(log_temperature), labels.double()))

    bound = math.log(LARGEST)
    found = minimize_scalar(cost, bounds=(-bound, bound), method="bounded", options={"xatol": 1e-4})
    return math.exp(found.x) if found.fun < cost(0.0) else 1.0
