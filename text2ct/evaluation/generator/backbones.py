"""Networks that describe slices, by name: the bundled one, a folder of another, or any of timm's."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from text2ct.errors import UserError
from text2ct.evaluation.slice_network import CONFIG, SliceNetwork
from text2ct.evaluation.slices import SliceEncoder

BUNDLED = "simulated"
_FOLDER = Path(__file__).parent / "slice-network"
_TIMM = "timm:"


def slice_encoder(name: str = BUNDLED, *, device: torch.device) -> SliceEncoder:
    """A network that describes slices, ready to be asked.

    Args:
        name: ``simulated`` (bundled, trained on simulated patients), the folder of a slice network, or ``timm:NAME``
            for a network of timm with its default pretrained weights, such as ``timm:resnet50``.
        device: Where it computes.

    Raises:
        UserError: There is no such network, or its weights cannot be had: random ones never stand in.
    """
    if name.startswith(_TIMM):
        return TimmEncoder(name.removeprefix(_TIMM)).to(device).eval().requires_grad_(False)
    folder = _FOLDER if name == BUNDLED else Path(name)
    if not (folder / CONFIG).is_file():
        raise UserError(
            f"'{name}' is no backbone: it is neither '{BUNDLED}' nor the folder of a slice network; timm's are named "
            f"as {_TIMM}resnet50"
        )
    return SliceNetwork.load(folder).to(device)


class TimmEncoder(nn.Module):
    """A timm network with pretrained weights and its own pooling; slices are resized and normalised for it.

    Args:
        architecture: Name of the network.
        pretrained: False for tests alone; the name then says "random".

    Raises:
        UserError: timm does not know it, or cannot get its weights.
    """

    channels = 3

    def __init__(self, architecture: str, *, pretrained: bool = True) -> None:
        from timm.data import resolve_model_data_config

        from text2ct.classifiers._timm import backbone

        super().__init__()
        self.network, _ = backbone(architecture, channels=self.channels, pretrained=pretrained, pooled=True)
        config = resolve_model_data_config(self.network)
        _, self.height, self.width = config["input_size"]
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(config[name]).reshape(1, -1, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor
        digest = hashlib.sha256()
        for key, value in sorted(self.network.state_dict().items()):
            digest.update(key.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        weights = "" if pretrained else "random, "
        self.name = f"{_TIMM}{architecture} ({weights}{self.height}x{self.width}, {digest.hexdigest()[:8]})"

    def forward(self, slices: Tensor) -> Tensor:
        """(n, 3, H, W) float32 in [0, 1] to (n, d) float32."""
        size = (self.height, self.width)
        resized = F.interpolate(slices, size=size, mode="bilinear", align_corners=False, antialias=True)
        features: Tensor = self.network((resized - self.mean) / self.std)
        return features
