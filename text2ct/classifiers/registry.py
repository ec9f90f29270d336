"""The classifiers by name. The command line and the test battery read this table and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from text2ct.classifiers import cnn3d, ctnet, densenet, r3d, slices
from text2ct.classifiers.config import Settings
from text2ct.errors import UserError


@dataclass(frozen=True)
class ClassifierSpec:
    """One entry of :data:`CLASSIFIERS`.

    Args:
        name: What users type.
        summary: One line for help texts.
        config: Type of its options.
        build: ``(options, channels, size, findings) -> network``, which maps (B, C, X, Y, Z) in [0, 1] to
            (B, findings) logits; a ValueError says why a grid does not serve.
        windows: HU windows that are its input channels, by name.
        learning_rate: Peak learning rate of AdamW.
        weight_decay: Weight decay of AdamW.
    """

    name: str
    summary: str
    config: type[Settings]
    build: Callable[[Any, int, tuple[int, int, int], int], nn.Module]
    windows: tuple[str, ...] = ("lung", "soft_tissue", "bone")
    learning_rate: float = 1e-3
    weight_decay: float = 0.01


CLASSIFIERS: dict[str, ClassifierSpec] = {
    spec.name: spec
    for spec in (
        ClassifierSpec(
            "cnn3d",
            "3D CNN with max and average pooling, for small grids",
            cnn3d.Cnn3dConfig,
            cnn3d.build,
            learning_rate=3e-3,
        ),
        ClassifierSpec(
            "ctnet",
            "CT-Net: 2D ResNet-18 on slice triplets, then 3D convolutions (Draelos et al. 2021)",
            ctnet.CtNetConfig,
            ctnet.build,
            learning_rate=5e-4,
        ),
        ClassifierSpec(
            "slices",
            "2.5D: a timm backbone over slices, pooled by attention or by a transformer",
            slices.SlicesConfig,
            slices.build,
            learning_rate=1e-3,
        ),
        ClassifierSpec(
            "r3d",
            "3D ResNet of torchvision's video blocks: r3d, mc3 or r2plus1d (Tran et al. 2018)",
            r3d.R3dConfig,
            r3d.build,
            learning_rate=3e-3,
        ),
        ClassifierSpec(
            "densenet",
            "3D DenseNet of MONAI (Huang et al. 2017)",
            densenet.DenseNetConfig,
            densenet.build,
            learning_rate=3e-3,
        ),
    )
}


def find(name: str) -> ClassifierSpec:
    """The entry of a name.

    Raises:
        UserError: There is none.
    """
    if name not in CLASSIFIERS:
        raise UserError(f"unknown classifier '{name}'; use one of {', '.join(CLASSIFIERS)}")
    return CLASSIFIERS[name]
