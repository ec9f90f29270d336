"""A 3D ResNet of torchvision's video blocks, with slices where a video has frames.

Tran et al., "A closer look at spatiotemporal convolutions for action recognition", CVPR 2018, compare three
residual networks: 3D convolutions throughout (``r3d``), 3D ones in the first level and in-plane ones after it
(``mc3``), and each 3D one split into an in-plane and a through-plane one (``r2plus1d``). torchvision has their
blocks, and weights learnt on the videos of Kinetics-400.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torchvision.models.video import MC3_18_Weights, R2Plus1D_18_Weights, R3D_18_Weights
from torchvision.models.video.resnet import BasicBlock, Conv2Plus1D, Conv3DNoTemporal, Conv3DSimple

from text2ct.classifiers._head import PooledHead
from text2ct.classifiers.config import Settings
from text2ct.errors import UserError

Convolution = type[Conv3DSimple | Conv3DNoTemporal | Conv2Plus1D]

KINETICS_WIDTH, KINETICS_BLOCKS, KINETICS_COLOURS = 64, (2, 2, 2, 2), 3
"""The shape of the networks that torchvision has weights of."""

WEIGHTS = {"r3d": R3D_18_Weights, "mc3": MC3_18_Weights, "r2plus1d": R2Plus1D_18_Weights}
CONVOLUTIONS: dict[str, tuple[Convolution, Convolution]] = {
    "r3d": (Conv3DSimple, Conv3DSimple),
    "mc3": (Conv3DSimple, Conv3DNoTemporal),
    "r2plus1d": (Conv2Plus1D, Conv2Plus1D),
}
"""Convolutions of the first level, and of the others."""


class R3dConfig(Settings):
    """Options of ``r3d``; the published networks are width 64, blocks [2, 2, 2, 2], slice_stride 1."""

    style: Literal["r3d", "mc3", "r2plus1d"] = "r3d"
    width: Annotated[int, Field(ge=4, le=256)] = 16
    """Channels of the first level; each level has twice those of the one before."""
    blocks: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1, max_length=5)] = (1, 1, 1, 1)
    """Residual blocks of each level, at 1/2, 1/4, 1/8 .. of the input's grid."""
    slice_stride: Literal[1, 2] = 2
    """Slices per map of the stem. Published: 1, for 16 frames; a cubic grid would then cost twice as much."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    pretrained: bool = False
    """Start from torchvision's Kinetics-400 weights; an error where torchvision cannot get them."""


class R3d(nn.Module):
    """Stem, levels of residual blocks, maximum and mean pooling, one linear layer.

    Args:
        config: Options.
        channels: Input channels (HU windows), the colours of a frame.
        size: Grid (X, Y, Z); slices are axial. Each axis has at least 2^levels voxels.
        findings: Number of logits.
    """

    def __init__(self, config: R3dConfig, channels: int, size: tuple[int, int, int], findings: int) -> None:
        super().__init__()
        smallest = 2 ** len(config.blocks)
        if min(size) < smallest:
            raise ValueError(f"r3d of {len(config.blocks)} levels needs at least {smallest} voxels an axis")
        self.stem = _stem(config, channels)
        first, others = CONVOLUTIONS[config.style]
        inputs = config.width
        for level, blocks in enumerate(config.blocks):
            width = config.width * 2**level
            self.add_module(f"layer{level + 1}", _level(others if level else first, inputs, width, blocks))
            inputs = width
        self.levels = len(config.blocks)
        self.head = PooledHead(inputs, findings, config.dropout)
        _initialise(self)
        if config.pretrained:
            _load_kinetics(self, config, channels)

    def features(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, Z) in [0, 1] -> (B, features, z, x, y)."""
        frames = x.permute(0, 1, 4, 2, 3).contiguous(memory_format=torch.channels_last_3d)
        maps: Tensor = self.stem(frames)
        for level in range(1, self.levels + 1):
            maps = self.get_submodule(f"layer{level}")(maps)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, Z) in [0, 1] -> (B, findings) logits."""
        logits: Tensor = self.head(self.features(x))
        return logits


def _stem(config: R3dConfig, channels: int) -> nn.Sequential:
    """The stem of torchvision's networks for any width, number of channels and stride along slices."""
    width, stride = config.width, config.slice_stride

    def unit(inputs: int, outputs: int, kernel: tuple[int, int, int], strides: tuple[int, int, int]) -> list[nn.Module]:
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        convolution = nn.Conv3d(inputs, outputs, kernel, strides, padding, bias=False)
        return [convolution, nn.BatchNorm3d(outputs), nn.ReLU(inplace=True)]

    if config.style != "r2plus1d":
        return nn.Sequential(*unit(channels, width, (3, 7, 7), (stride, 2, 2)))
    middle = round(width * 45 / 64)  # published: 45 for a width of 64
    in_plane = unit(channels, middle, (1, 7, 7), (1, 2, 2))
    return nn.Sequential(*in_plane, *unit(middle, width, (3, 1, 1), (stride, 1, 1)))


def _level(convolution: Convolution, inputs: int, outputs: int, blocks: int) -> nn.Sequential:
    """Residual blocks, the first of which halves the grid where the width grows."""
    stride = 1 if inputs == outputs else 2
    shortcut = None
    if stride == 2:
        strides = convolution.get_downsample_stride(stride)
        shortcut = nn.Sequential(
            nn.Conv3d(inputs, outputs, kernel_size=1, stride=strides, bias=False), nn.BatchNorm3d(outputs)
        )
    first = BasicBlock(inputs, outputs, convolution, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs, convolution) for _ in range(blocks - 1)))


def _initialise(network: nn.Module) -> None:
    """He et al.'s initialisation, as torchvision's."""
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _load_kinetics(network: R3d, config: R3dConfig, channels: int) -> None:
    """Put torchvision's weights into all but the head.

    Raises:
        UserError: The network has another shape than theirs, or torchvision cannot get them.
    """
    shape = (config.width, config.blocks, channels)
    if shape != (KINETICS_WIDTH, KINETICS_BLOCKS, KINETICS_COLOURS):
        raise UserError(
            f"torchvision's Kinetics weights fit r3d with width={KINETICS_WIDTH} and blocks={list(KINETICS_BLOCKS)} "
            "only; set these options, or use pretrained=false"
        )
    try:
        weights = WEIGHTS[config.style].DEFAULT.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"torchvision cannot get pretrained weights of '{config.style}' ({type(error).__name__}); connect to the "
            "network, fill torch's hub cache, or use pretrained=false"
        ) from error
    body = {name: value for name, value in weights.items() if not name.startswith("fc.")}
    missing, unexpected = network.load_state_dict(body, strict=False)
    if unexpected or any(not name.startswith("head.") for name in missing):
        raise UserError(f"torchvision's weights of '{config.style}' do not fit this version; use pretrained=false")


def build(config: R3dConfig, channels: int, size: tuple[int, int, int], findings: int) -> R3d:
    """The network in the memory layout that its convolutions are fastest in."""
    return R3d(config, channels, size, findings).to(memory_format=torch.channels_last_3d)
