"""A 2.5D network: any timm backbone over axial slices, pooled by attention or by a transformer.

``attention`` is the gated attention of Ilse et al., "Attention-based deep multiple instance learning", ICML
2018, equation 9, with one set of weights for each finding: where a nodule is seen says nothing about where an
effusion is. ``transformer`` lets slices see each other first, by torch's encoder with norms before each part.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from text2ct.classifiers._timm import backbone
from text2ct.classifiers.config import Settings

HEADS = 4
"""Heads of the transformer's attention."""


class SlicesConfig(Settings):
    """Options of ``slices``."""

    backbone: str = "resnet10t"
    pretrained: bool = False
    """Start from timm's weights; an error where timm cannot get them."""
    every: Annotated[int, Field(ge=1, le=16)] = 2
    """Slices from one seen to the next; their neighbours enter as the average of the group."""
    hidden: Annotated[int, Field(ge=4, multiple_of=HEADS)] = 128
    """Features of a slice after the backbone, and units of the attention."""
    pooling: Literal["attention", "transformer"] = "attention"
    layers: Annotated[int, Field(ge=1)] = 2
    """Layers of the transformer."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2


class AttentionPooling(nn.Module):
    """Slices weighed by one gated attention per finding.

    Args:
        config: Options.
        findings: Number of logits.
    """

    def __init__(self, config: SlicesConfig, findings: int) -> None:
        super().__init__()
        self.attend = nn.Linear(config.hidden, config.hidden)
        self.gate = nn.Linear(config.hidden, config.hidden)
        self.score = nn.Linear(config.hidden, findings, bias=False)  # a bias would cancel in the softmax
        self.classify = nn.Linear(config.hidden, findings)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, S, hidden) features of the slices -> (B, findings) logits."""
        scores = self.score(torch.tanh(self.attend(tokens)) * torch.sigmoid(self.gate(tokens)))
        attention = scores.softmax(dim=1)
        # (B, S, F) weights of the slices x (B, S, F) logits of the slices, summed over the slices
        logits: Tensor = (attention * self.classify(tokens)).sum(dim=1)
        return logits


class TransformerPooling(nn.Module):
    """Slices that attend to each other, then their maximum and mean.

    Args:
        config: Options.
        findings: Number of logits.
    """

    def __init__(self, config: SlicesConfig, findings: int) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            config.hidden,
            HEADS,
            dim_feedforward=2 * config.hidden,
            dropout=config.dropout,
            batch_first=True,
            norm_first=True,  # trains without the long warm-up that norms after the sum need
        )
        norm = nn.LayerNorm(config.hidden)
        self.encoder = nn.TransformerEncoder(layer, config.layers, norm=norm, enable_nested_tensor=False)
        self.classify = nn.Linear(2 * config.hidden, findings)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, S, hidden) features of the slices -> (B, findings) logits."""
        seen = self.encoder(tokens)
        logits: Tensor = self.classify(torch.cat([seen.amax(dim=1), seen.mean(dim=1)], dim=1))
        return logits


class Slices(nn.Module):
    """Slices -> backbone -> max and average pooling in the slice -> pooling over slices -> logits.

    Args:
        config: Options.
        channels: Input channels (HU windows), the colours of a slice.
        size: Grid (X, Y, Z); slices are axial.
        findings: Number of logits.
    """

    def __init__(self, config: SlicesConfig, channels: int, size: tuple[int, int, int], findings: int) -> None:
        super().__init__()
        if size[2] < config.every:
            raise ValueError(f"slices with every={config.every} needs at least {config.every} slices")
        self.every = config.every
        self.count = size[2] // config.every
        self.backbone, depth = backbone(config.backbone, channels=channels, pretrained=config.pretrained)
        self.embed = nn.Sequential(nn.Linear(2 * depth, config.hidden), nn.ReLU(), nn.Dropout(config.dropout))
        self.position = nn.Parameter(0.02 * torch.randn(self.count, config.hidden))
        pooling = AttentionPooling if config.pooling == "attention" else TransformerPooling
        self.pooling = pooling(config, findings)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, Z) in [0, 1] -> (B, findings) logits."""
        batch, channels, size_x, size_y, _ = x.shape
        x = x[..., : self.count * self.every]
        x = x.reshape(batch, channels, size_x, size_y, self.count, self.every).mean(dim=-1)
        planes = x.permute(0, 4, 1, 2, 3).reshape(batch * self.count, channels, size_x, size_y)
        maps = self.backbone(planes.contiguous(memory_format=torch.channels_last))
        pooled = torch.cat([maps.amax(dim=(2, 3)), maps.mean(dim=(2, 3))], dim=1)
        logits: Tensor = self.pooling(self.embed(pooled).reshape(batch, self.count, -1) + self.position)
        return logits


def build(config: SlicesConfig, channels: int, size: tuple[int, int, int], findings: int) -> Slices:
    """The network for a grid."""
    return Slices(config, channels, size, findings)
