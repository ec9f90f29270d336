"""Group norm that is right where activations are large and far from zero."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Sampled along each axis for a first guess of a group's mean.
SAMPLES = 8


def guess_of_mean(x: Tensor, groups: int) -> Tensor:
    """A guess of each group's mean from some of its voxels, as something to subtract before group norm.

    For channels-last tensors torch's CPU kernel sums values and their squares in float32, so the variance of a
    group whose mean is much larger than its deviation is lost, and the network answers with nonsense. Group norm
    does not depend on what is subtracted.

    Args:
        x: (n, C, ...) of any floating type.
        groups: Number of groups.

    Returns:
        (n, C, 1, ...) float32 (float64 for float64), equal within a group, without a gradient.
    """
    sampled = x.detach()
    for axis, size in enumerate(x.shape[2:], start=2):
        sampled = sampled.unfold(axis, 1, max(1, size // SAMPLES)).squeeze(-1)
    kind = torch.promote_types(x.dtype, torch.float32)
    guess = sampled.to(kind).reshape(len(x), groups, -1).mean(dim=2)
    return guess.repeat_interleave(x.shape[1] // groups, dim=1).reshape(*x.shape[:2], *[1] * (x.ndim - 2))


class GroupNorm(nn.GroupNorm):
    """Torch's group norm, of centred activations on the CPU; the result and the parameters are the same."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, ...) to the same shape and type."""
        if x.device.type != "cpu":
            return super().forward(x)
        shifted = x - guess_of_mean(x, self.num_groups)
        return F.group_norm(shifted, self.num_groups, self.weight, self.bias, self.eps).to(x.dtype)
