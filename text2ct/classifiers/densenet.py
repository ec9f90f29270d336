"""A 3D DenseNet: every layer of a block sees the features of all layers before it (Huang et al., CVPR 2017).

The network is MONAI's. Published, its stem goes to a quarter of the grid at once (a convolution of stride 2,
then a maximum pooling of stride 2), which is meant for volumes of 256 voxels an axis; at 64 the pooling is left
out by default, so that the blocks work at 1/2, 1/4 and 1/8 of the grid.
"""

from __future__ import annotations

from typing import Annotated

import torch
from monai.networks.nets.densenet import DenseNet
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from text2ct.classifiers._head import PooledHead
from text2ct.classifiers.config import Settings


class DenseNetConfig(Settings):
    """Options of ``densenet``; DenseNet-121 is features 64, growth 32, blocks [6, 12, 24, 16], stem_pool true."""

    features: Annotated[int, Field(ge=4)] = 16
    """Channels of the stem."""
    growth: Annotated[int, Field(ge=2)] = 8
    """Channels that each layer adds."""
    blocks: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1, max_length=5)] = (2, 4, 6)
    """Layers of each block; between two blocks the grid and the channels are halved."""
    stem_pool: bool = False
    """Halve the grid once more before the first block."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1


class DenseNet3d(nn.Module):
    """MONAI's features, pooled by maximum and mean, one linear layer.

    Args:
        config: Options.
        channels: Input channels.
        size: Grid (X, Y, Z); each axis at least 2^blocks voxels, twice that with ``stem_pool``.
        findings: Number of logits.
    """

    def __init__(self, config: DenseNetConfig, channels: int, size: tuple[int, int, int], findings: int) -> None:
        super().__init__()
        smallest = 2 ** (len(config.blocks) + config.stem_pool)
        if min(size) < smallest:
            raise ValueError(f"densenet of {len(config.blocks)} blocks needs at least {smallest} voxels an axis")
        network = DenseNet(
            spatial_dims=3,
            in_channels=channels,
            out_channels=findings,
            init_features=config.features,
            growth_rate=config.growth,
            block_config=config.blocks,
        )
        self.features = network.features
        if not config.stem_pool:
            self.features.pool0 = nn.Identity()
        linear = network.class_layers[-1]
        assert isinstance(linear, nn.Linear)
        self.head = PooledHead(linear.in_features, findings, config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, Z) in [0, 1] -> (B, findings) logits."""
        maps = self.features(x.contiguous(memory_format=torch.channels_last_3d))
        logits: Tensor = self.head(functional.relu(maps))
        return logits


def build(config: DenseNetConfig, channels: int, size: tuple[int, int, int], findings: int) -> DenseNet3d:
    """The network in the memory layout that its convolutions are fastest in."""
    return DenseNet3d(config, channels, size, findings).to(memory_format=torch.channels_last_3d)
