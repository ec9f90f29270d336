"""CT-Net: a 2D ResNet over triplets of slices, then 3D convolutions over all triplets at once.

Draelos et al., "Machine-learning-based multiple abnormality prediction with large-scale chest computed
tomography volumes", Medical Image Analysis 67 (2021), figure 4 and section 3.2: adjacent axial slices are
the colour channels of a ResNet-18; its (triplets, 512, h, w) features are one volume with triplets as
channels, reduced by three 3D convolutions and classified by three linear layers.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from text2ct.classifiers._timm import backbone
from text2ct.classifiers.config import Settings


class CtNetConfig(Settings):
    """Options of ``ctnet``."""

    backbone: str = "resnet18"
    pretrained: bool = False
    """Start from timm's ImageNet weights; an error where timm cannot get them."""
    output_stride: Literal[8, 16, 32] = 16
    """Voxels per feature in a slice. Published: 32, for slices of 420x420; smaller grids need finer maps."""
    channels: tuple[int, int, int] = (64, 32, 16)
    hidden: tuple[int, int] = (128, 64)
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5


class CtNet(nn.Module):
    """CT-Net for any grid.

    With maps under 8 voxels wide the first two reducing convolutions are padded in the slice's plane, as
    unpadded ones would use them up; from 8 on they are as published.

    Args:
        config: Options.
        channels: Input channels (HU windows); a triplet of slices gives ``3 * channels`` planes.
        size: Grid (X, Y, Z); slices are axial.
        findings: Number of logits.
    """

    def __init__(self, config: CtNetConfig, channels: int, size: tuple[int, int, int], findings: int) -> None:
        super().__init__()
        self.triplets = -(-size[2] // 3)
        self.backbone, depth = backbone(
            config.backbone,
            channels=3 * channels,
            pretrained=config.pretrained,
            output_stride=config.output_stride,
        )
        wide = min(size[:2]) // config.output_stride >= 8
        pad = (0, 0, 0) if wide else (0, 1, 1)
        a, b, c = config.channels
        self.reduce = nn.Sequential(
            nn.Conv3d(self.triplets, a, kernel_size=3, stride=(3, 1, 1), padding=pad),
            nn.ReLU(),
            nn.Conv3d(a, b, kernel_size=3, stride=(3, 1, 1), padding=pad),
            nn.ReLU(),
            nn.Conv3d(b, c, kernel_size=(3, 2, 2), stride=(3, 2, 2)),
            nn.ReLU(),
            nn.Flatten(),
        )
        plane = tuple(-(-axis // config.output_stride) for axis in size[:2])
        if min(plane) < 2:
            raise ValueError(f"ctnet needs slices of at least {config.output_stride + 1} voxels an axis")
        self.flat = c * _reduced(depth, plane, wide)
        self.classify = nn.Sequential(
            nn.Linear(self.flat, config.hidden[0]),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden[0], config.hidden[1]),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden[1], findings),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, Z) in [0, 1] -> (B, findings) logits."""
        batch, channels, size_x, size_y, size_z = x.shape
        x = functional.pad(x, (0, 3 * self.triplets - size_z))
        x = x.reshape(batch, channels, size_x, size_y, self.triplets, 3)
        triplets = x.permute(0, 4, 1, 5, 2, 3).reshape(batch * self.triplets, 3 * channels, size_x, size_y)
        maps = self.backbone(triplets.contiguous(memory_format=torch.channels_last))
        volume = maps.reshape(batch, self.triplets, *maps.shape[1:])
        logits: Tensor = self.classify(self.reduce(volume))
        return logits


def _reduced(features: int, plane: tuple[int, ...], wide: bool) -> int:
    """Voxels of one channel after the three reducing convolutions."""
    depth = features
    for _ in range(3):
        depth = (depth - 3) // 3 + 1
    across = [(axis - 4 if wide else axis) // 2 for axis in plane]
    return depth * across[0] * across[1]


def build(config: CtNetConfig, channels: int, size: tuple[int, int, int], findings: int) -> CtNet:
    """The network for a grid."""
    return CtNet(config, channels, size, findings)
