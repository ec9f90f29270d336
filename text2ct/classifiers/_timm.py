"""2D backbones from timm."""

from __future__ import annotations

import difflib
import warnings
from typing import Any

import timm
import torch
from torch import nn

from text2ct.errors import UserError


def backbone(
    name: str,
    *,
    channels: int,
    pretrained: bool,
    output_stride: int | None = None,
    pooled: bool = False,
    instead: str = "use pretrained=false",
) -> tuple[nn.Module, int]:
    """A timm network without head and pooling: (N, channels, H, W) -> (N, features, h, w).

    Args:
        name: A timm architecture, such as ``resnet18``.
        channels: Input channels; timm adapts pretrained first layers to them.
        pretrained: Load timm's default weights. Nothing is replaced by random weights in silence.
        output_stride: Input voxels per feature; None: the network's own.
        pooled: Keep the network's own pooling: (N, channels, H, W) -> (N, features).
        instead: What the user may do where weights cannot be had.

    Returns:
        The network and its number of features.

    Raises:
        UserError: timm does not know the name, or cannot get the weights.
    """
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=5)
        raise UserError(f"timm has no backbone '{name}'" + (f"; near: {', '.join(near)}" if near else ""))
    options: dict[str, Any] = {} if output_stride is None else {"output_stride": output_stride}
    if not pooled:
        options["global_pool"] = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # timm and the hub warn about names they map themselves
            network: nn.Module = timm.create_model(
                name, pretrained=pretrained, in_chans=channels, num_classes=0, **options
            )
    except (OSError, RuntimeError, ValueError) as error:
        if not pretrained:
            raise UserError(f"timm cannot build '{name}' with {channels} input channels: {error}") from error
        raise UserError(
            f"timm cannot get pretrained weights of '{name}' ({type(error).__name__}); "
            f"connect to the network, fill the hub's cache, or {instead}"
        ) from error
    network = network.to(memory_format=torch.channels_last)  # the layout 2D convolutions are fastest in
    return network, int(getattr(network, "num_features"))  # noqa: B009 (torch types it as Tensor | Module)
