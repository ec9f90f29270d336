"""A 3D CNN for small grids, made of MONAI blocks.

A plain strided CNN underfits at 64x64x64: small dense or lucent findings are averaged away. Here every
reduction is a maximum and an average pooling side by side, so that a calcification of a few voxels and a
slight diffuse change both survive; so is the pooling over the whole volume before the linear layer. The
stem goes to a quarter of the grid at once, where a convolution is 64 times cheaper than at the full grid,
and hands on the extremes and means of the windows themselves beside what it learns.
"""

from __future__ import annotations

from typing import Annotated

import torch
from monai.networks.blocks import Convolution
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from text2ct.classifiers._head import PooledHead
from text2ct.classifiers.config import Settings


class Cnn3dConfig(Settings):
    """Options of ``cnn3d``."""

    stem: Annotated[int, Field(ge=1, le=128)] = 8
    """Learned channels of the stem."""
    width: Annotated[int, Field(ge=4, le=256)] = 24
    """Channels of the first level; each level has twice those of the one before."""
    blocks: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1, max_length=5)] = (1, 1, 1)
    """Convolutions of each level, at 1/4, 1/8, 1/16 .. of the input's grid."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1


class MaxAveragePool3d(nn.Module):
    """Maximum and average pooling by 2, concatenated: twice the channels, half of each axis."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, Z) -> (B, 2 C, X/2, Y/2, Z/2)."""
        return torch.cat([functional.max_pool3d(x, 2), functional.avg_pool3d(x, 2)], dim=1)


def _block_max(x: Tensor, size: int) -> Tensor:
    """Maximum over blocks of ``size`` voxels, as ``max_pool3d`` gives it.

    One axis after the other: on one core 2 ms for 8 volumes of 3 channels at 64^3, where ``max_pool3d`` takes 12.
    """
    for axis in (2, 3, 4):
        whole = x.shape[axis] // size * size
        x = x.narrow(axis, 0, whole).unflatten(axis, (-1, size)).amax(axis + 1)
    return x


class Stem(nn.Module):
    """To a quarter of each axis: learned 2x2x2 features pooled, and pooled windows as they are.

    Args:
        channels: Input channels.
        learned: Learned features; the output has ``2 * learned + 3 * channels`` channels.
    """

    def __init__(self, channels: int, learned: int) -> None:
        super().__init__()
        self.convolution = nn.Conv3d(channels, learned, kernel_size=2, stride=2)
        self.pool = MaxAveragePool3d()
        self.out_channels = 2 * learned + 3 * channels
        self.norm = nn.BatchNorm3d(self.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, Z) -> (B, out_channels, X/4, Y/4, Z/4)."""
        half = functional.avg_pool3d(x, 2)
        windows = [
            _block_max(x, 4),  # the densest voxel: calcification, metal
            -_block_max(-half, 2),  # the darkest 2x2x2 block, above the noise: emphysema, gas
            functional.avg_pool3d(half, 2),
        ]
        learned = self.pool(functional.relu(self.convolution(x)))
        maps: Tensor = self.norm(torch.cat([learned, *windows], dim=1))
        return maps


class Cnn3d(nn.Module):
    """Stem, levels of convolutions with max and average pooling between them, one linear layer.

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
            raise ValueError(f"cnn3d of {len(config.blocks)} levels needs at least {smallest} voxels an axis")
        stem = Stem(channels, config.stem)
        layers: list[nn.Module] = [stem]
        inputs = stem.out_channels
        for level, blocks in enumerate(config.blocks):
            if level > 0:
                layers.append(MaxAveragePool3d())
                inputs *= 2
            width = config.width * 2**level
            for _ in range(blocks):
                layers.append(_convolution(inputs, width))
                inputs = width
        self.features = nn.Sequential(*layers)
        self.head = PooledHead(inputs, findings, config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, Z) in [0, 1] -> (B, findings) logits."""
        # pooling is fastest with the channels first, convolutions with the channels last
        stem, levels = self.features[0], self.features[1:]
        maps = stem(x.contiguous()).contiguous(memory_format=torch.channels_last_3d)
        logits: Tensor = self.head(levels(maps))
        return logits


def _convolution(inputs: int, outputs: int) -> nn.Module:
    return Convolution(3, inputs, outputs, kernel_size=3, act="RELU", norm="BATCH", bias=False)


def build(config: Cnn3dConfig, channels: int, size: tuple[int, int, int], findings: int) -> Cnn3d:
    """The network in the memory layout that its convolutions are fastest in."""
    return Cnn3d(config, channels, size, findings).to(memory_format=torch.channels_last_3d)
