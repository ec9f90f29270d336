"""Networks that describe slices, by name: the bundled one, a folder of another, any of timm's, RadImageNet's."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from text2ct.errors import UserError
from text2ct.evaluation.slice_network import CONFIG, SliceNetwork
from text2ct.evaluation.slices import COLOUR, SliceEncoder

BUNDLED = "simulated"
_FOLDER = Path(__file__).parent / "slice-network"
_TIMM, _RADIMAGENET, _SQUEEZENET = "timm:", "radimagenet:", "squeezenet:"
_BLUE_FIRST = (0.406, 0.456, 0.485)
"""ImageNet's means as MONAI's 2.5D FID of the MAISI tutorial subtracts them."""


def slice_encoder(name: str = BUNDLED, *, device: torch.device) -> SliceEncoder:
    """A network that describes slices, ready to be asked.

    Args:
        name: ``simulated`` (bundled, trained on simulated patients), the folder of a slice network, ``timm:NAME``
            for a network of timm with its default pretrained weights, such as ``timm:resnet50``,
            ``radimagenet:FILE`` for RadImageNet's ResNet-50, or ``squeezenet:FILE`` for torchvision's SqueezeNet 1.1.
        device: Where it computes.

    Raises:
        UserError: There is no such network, or its weights cannot be had: random ones never stand in.
    """
    if name.startswith(_TIMM):
        return TimmEncoder(name.removeprefix(_TIMM)).to(device).eval().requires_grad_(False)
    if name.startswith(_RADIMAGENET):
        return RadImageNet(Path(name.removeprefix(_RADIMAGENET))).to(device).eval().requires_grad_(False)
    if name.startswith(_SQUEEZENET):
        return SqueezeNet(Path(name.removeprefix(_SQUEEZENET))).to(device).eval().requires_grad_(False)
    folder = _FOLDER if name == BUNDLED else Path(name)
    if not (folder / CONFIG).is_file():
        raise UserError(
            f"'{name}' is no backbone: it is neither '{BUNDLED}' nor the folder of a slice network; timm's are named "
            f"as {_TIMM}resnet50, RadImageNet's ResNet-50 as {_RADIMAGENET}FILE, SqueezeNet 1.1 as {_SQUEEZENET}FILE"
        )
    return SliceNetwork.load(folder).to(device)


def plain_view(encoder: SliceEncoder) -> str:
    """The grey scale of distances that name no window: the encoder's own, or else by its number of channels."""
    return getattr(encoder, "view", "colour" if encoder.channels == len(COLOUR) else "full_range")


class TimmEncoder(nn.Module):
    """A timm network with pretrained weights and its own pooling; slices are resized and normalised for it.

    Args:
        architecture: Name of the network.
        pretrained: False for tests alone; the name then says "random".

    Raises:
        UserError: timm does not know it, or cannot get its weights.
    """

    channels = 3
    view = "full_range"

    def __init__(self, architecture: str, *, pretrained: bool = True) -> None:
        from timm.data import resolve_model_data_config

        from text2ct.classifiers._timm import backbone

        super().__init__()
        self.network, _ = backbone(
            architecture, channels=self.channels, pretrained=pretrained, pooled=True, instead="name another --backbone"
        )
        config = resolve_model_data_config(self.network)
        _, self.height, self.width = config["input_size"]
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(config[name]).reshape(1, -1, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor
        weights = "" if pretrained else "random, "
        digest = weights_digest(self.network.state_dict())
        self.name = f"{_TIMM}{architecture} ({weights}{self.height}x{self.width}, {digest})"

    def forward(self, slices: Tensor) -> Tensor:
        """(n, 3, H, W) float32 in [0, 1] to (n, d) float32."""
        size = (self.height, self.width)
        resized = F.interpolate(slices, size=size, mode="bilinear", align_corners=False, antialias=True)
        features: Tensor = self.network((resized - self.mean) / self.std)
        return features


class _WithoutMeans(nn.Module):
    """Grey slices in three channels, less ImageNet's means."""

    channels = 3
    view = "full_range"

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(_BLUE_FIRST).reshape(1, -1, 1, 1), persistent=False)
        self.mean: Tensor


class RadImageNet(_WithoutMeans):
    """RadImageNet's ResNet-50 (Mei et al. 2022, Radiology: Artificial Intelligence 4:e210315), from a local file.

    Slices keep their size; the ImageNet means are subtracted and features averaged over positions, as MONAI's 2.5D FID
    of the MAISI tutorial does, whose order of channels (blue first) means nothing for grey slices but for the means.
    Scaling by each volume's own least and greatest value is left to the grey scale here, which is fixed in HU.

    Args:
        path: ``.pt`` or ``.pth`` with the state of a torchvision ResNet-50, or with its children numbered behind
            ``backbone.``, as RadImageNet's authors publish it; read with ``weights_only=True``.

    Raises:
        UserError: The file is missing, damaged or of another network.
    """

    def __init__(self, path: Path) -> None:
        from torchvision.models import resnet50

        super().__init__()
        whole = resnet50(weights=None)
        names = [name for name, _ in whole.named_children() if name not in ("avgpool", "fc")]
        self.body = nn.Sequential(*(getattr(whole, name) for name in names))
        fill(self.body, numbered(read_state(path), names), path, "a ResNet-50")
        self.name = f"RadImageNet ResNet-50 ({weights_digest(self.body.state_dict())})"

    def forward(self, slices: Tensor) -> Tensor:
        """(n, 3, H, W) float32 in [0, 1] to (n, 2048) float32."""
        features: Tensor = self.body(slices - self.mean).mean(dim=(-2, -1))
        return features


class SqueezeNet(_WithoutMeans):
    """torchvision's SqueezeNet 1.1 trained on ImageNet, from a local file: what the VLM3D challenge's scorer uses.

    Slices keep their size and ImageNet's means are subtracted, as for :class:`RadImageNet`; features are the 1,000
    outputs, averaged over positions by the network itself.

    Args:
        path: The state as torchvision publishes it; read with ``weights_only=True``.

    Raises:
        UserError: The file is missing, damaged or of another network.
    """

    def __init__(self, path: Path) -> None:
        from torchvision.models import squeezenet1_1

        super().__init__()
        self.network = squeezenet1_1(weights=None)
        fill(self.network, read_state(path), path, "a SqueezeNet 1.1")
        self.name = f"SqueezeNet 1.1 ({weights_digest(self.network.state_dict())})"

    def forward(self, slices: Tensor) -> Tensor:
        """(n, 3, H, W) float32 in [0, 1] to (n, 1000) float32."""
        features: Tensor = self.network(slices - self.mean)
        return features


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, without what wraps them; no code from the file is run.

    Raises:
        UserError: The file is missing or damaged, or holds no table of tensors.
    """
    from pickle import UnpicklingError

    if not path.is_file():
        raise UserError(f"{path} does not exist; give the file of the pretrained weights")
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, UnpicklingError, ValueError, KeyError) as error:
        raise UserError(f"{path} cannot be read as weights: {str(error).splitlines()[0]}") from error
    content = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{path} holds no table of tensors; expected the weights of a network")
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def numbered(state: Mapping[str, Tensor], names: list[str]) -> dict[str, Tensor]:
    """Names of a whole network's state turned into those of the sequence of its children."""
    place = {name: str(number) for number, name in enumerate(names)}
    found = {}
    for name, value in state.items():
        first, _, rest = name.removeprefix("backbone.").partition(".")
        found[f"{place.get(first, first)}.{rest}"] = value
    return {name: value for name, value in found.items() if name.split(".")[0].isdigit()}


def fill(network: nn.Module, state: Mapping[str, Tensor], path: Path, what: str) -> None:
    """Load a state that must fit.

    Raises:
        UserError: All that does not.
    """
    from text2ct.diffusion.weights import fit_problems, not_finite, shapes

    problems = fit_problems(shapes(dict(state)), shapes(network.state_dict()), path.name)
    problems += [f"{name}: not finite" for name in not_finite(dict(state))]
    if problems:
        raise UserError(f"{path} is not the weights of {what}", problems)
    network.load_state_dict(dict(state))


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """The first 8 digits of a SHA-256 over names and values."""
    digest = hashlib.sha256()
    for key, value in sorted(state.items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:8]
