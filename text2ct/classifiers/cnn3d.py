"""A 3D CNN for small grids, made of MONAI blocks.

A plain strided CNN underfits at 64x64x64: small dense or lucent findings are averaged away. Here every
reduction is a maximum and an average pooling side by side, so that a calcification of a few voxels and a
slight diffuse change both survive, and so is the pooling over the whole volume before the linear layer.
"""

from __future__ import annotations

from typing import Annotated

import torch
from monai.networks.blocks import Convolution
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from text2ct.classifiers.config import Settings


class Cnn3dConfig(Settings):
    """Options of ``cnn3d``."""

    width: Annotated[int, Field(ge=4, le=256)] = 16
    """Channels after the stem; each level below doubles them."""
    blocks: Annotated[tuple[int, ...], Field(min_length=1, max_length=5)] = (1, 2, 2)
    """Convolutions at 1/4, 1/8, 1/16 .. of the input's grid."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1


class MaxAveragePool3d(nn.Module):
    """Maximum and average pooling by 2, concatenated: twice the channels, half of each axis."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, Z) -> (B, 2 C, X/2, Y/2, Z/2)."""
        return torch.cat([functional.max_pool3d(x, 2), functional.avg_pool3d(x, 2)], dim=1)


class Cnn3d(nn.Module):
    """Strided stem, levels of convolutions with max and average pooling, one linear layer.

    Args:
        config: Options.
        channels: Input channels.
        size: Grid (X, Y, Z); each axis at least 2^(levels + 1) voxels.
        findings: Number of logits.
    """

    def __init__(self, config: Cnn3dConfig, channels: int, size: tuple[int, int, int], findings: int) -> None:
        super().__init__()
        smallest = 2 ** (len(config.blocks) + 1)
        if min(size) < smallest:
            raise ValueError(
                f"cnn3d with {len(config.blocks)} levels needs a grid of at least {smallest} voxels an axis"
            )
        layers: list[nn.Module] = [_convolution(channels, config.width, strides=2)]
        width = config.width
        for blocks in config.blocks:
            layers.append(MaxAveragePool3d())
            width *= 2
            layers.extend(_convolution(width, width) for _ in range(blocks))
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(2 * width, findings)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, Z) in [0, 1] -> (B, findings) logits."""
        maps = self.features(x.contiguous(memory_format=torch.channels_last_3d))
        pooled = torch.cat([maps.amax(dim=(2, 3, 4)), maps.mean(dim=(2, 3, 4))], dim=1)
        logits: Tensor = self.head(self.dropout(pooled))
        return logits


def _convolution(inputs: int, outputs: int, strides: int = 1) -> nn.Module:
    return Convolution(
        3, inputs, outputs, strides=strides, kernel_size=3, act="RELU", norm="BATCH", bias=False
    )


def build(config: Cnn3dConfig, channels: int, size: tuple[int, int, int], findings: int) -> Cnn3d:
    """The network in the memory layout that its convolutions are fastest in."""
    return Cnn3d(config, channels, size, findings).to(memory_format=torch.channels_last_3d)
