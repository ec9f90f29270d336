"""The end of the networks whose last features are 3D maps."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PooledHead(nn.Module):
    """Maximum and mean over the whole volume, dropout, one linear layer.

    The maximum keeps a calcification of a few voxels that the mean alone would lose.

    Args:
        features: Channels of the maps.
        findings: Number of logits.
        dropout: Share of the pooled features that is dropped in training.
    """

    def __init__(self, features: int, findings: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(2 * features, findings)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, features, x, y, z) -> (B, findings) logits."""
        pooled = torch.cat([maps.amax(dim=(2, 3, 4)), maps.mean(dim=(2, 3, 4))], dim=1)
        logits: Tensor = self.linear(self.dropout(pooled))
        return logits
