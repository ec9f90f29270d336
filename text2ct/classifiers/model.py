"""A network with its HU windows: from voxels in HU to logits of the 18 findings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from text2ct.classifiers.config import RunConfig, Settings, WindowSetting
from text2ct.classifiers.registry import ClassifierSpec, find
from text2ct.console import info
from text2ct.errors import UserError
from text2ct.findings import FINDINGS


class HuWindows(nn.Module):
    """HU windows as channels, computed on the tensor's device.

    Args:
        windows: The windows, in channel order.
    """

    low_hu: Tensor
    width_hu: Tensor

    def __init__(self, windows: Sequence[WindowSetting]) -> None:
        super().__init__()
        low = torch.tensor([w.centre - w.width / 2 for w in windows]).view(1, -1, 1, 1, 1)
        width = torch.tensor([w.width for w in windows]).view(1, -1, 1, 1, 1)
        self.register_buffer("low_hu", low, persistent=False)
        self.register_buffer("width_hu", width, persistent=False)

    def forward(self, volume_hu: Tensor) -> Tensor:
        """(B, 1, X, Y, Z) HU, any dtype -> (B, windows, X, Y, Z) float32 in [0, 1]."""
        return ((volume_hu.float() - self.low_hu) / self.width_hu).clamp_(0.0, 1.0)


class Classifier(nn.Module):
    """A registered network behind its windows, for one grid.

    Args:
        network: (B, windows, X, Y, Z) in [0, 1] -> (B, 18) logits.
        windows: The input channels.
        size: The grid (X, Y, Z); every other is refused.
    """

    def __init__(self, network: nn.Module, windows: Sequence[WindowSetting], size: tuple[int, int, int]) -> None:
        super().__init__()
        self.windows = HuWindows(windows)
        self.network = network
        self.size = size

    def forward(self, volume_hu: Tensor) -> Tensor:
        """(B, 1, X, Y, Z) int16 or float HU -> (B, 18) float32 logits.

        Raises:
            UserError: The grid is not the classifier's.
        """
        if volume_hu.ndim != 5 or volume_hu.shape[1] != 1 or tuple(volume_hu.shape[2:]) != self.size:
            raise UserError(
                f"the classifier was made for volumes (B, 1, {', '.join(map(str, self.size))}) "
                f"and got {tuple(volume_hu.shape)}; bring them to its grid first"
            )
        logits: Tensor = self.network(self.windows(volume_hu)).float()
        return logits


def build_classifier(config: RunConfig, *, initial: bool) -> Classifier:
    """Build the classifier of a run.

    Args:
        config: The run's configuration.
        initial: Draw initial weights by the training seed (and load pretrained ones where the options
            say so); otherwise weights are to be loaded from the run.

    Raises:
        UserError: Unknown name or options, or a grid that the network cannot take.
    """
    spec = find(config.classifier)
    options = spec.config.of(f"the options of classifier '{spec.name}'", config.options)
    if not initial and getattr(options, "pretrained", False):
        options = options.model_copy(update={"pretrained": False})
    size = config.preprocessing.size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.training.seed)
        network = build_network(spec, options, len(config.windows), size)
    if initial and hasattr(options, "pretrained"):
        info(f"{spec.name} starts from {'pretrained' if options.pretrained else 'random'} weights")
    return Classifier(network, config.windows, size)


def check_grid(spec: ClassifierSpec, options: Settings, size: tuple[int, int, int]) -> None:
    """Build a classifier without memory or weights, to learn before any volume is read whether it can be.

    Raises:
        UserError: The network cannot take the grid.
    """
    if hasattr(options, "pretrained"):
        options = options.model_copy(update={"pretrained": False})
    with torch.device("meta"):
        build_network(spec, options, len(spec.windows), size)


def build_network(spec: ClassifierSpec, options: Settings, channels: int, size: tuple[int, int, int]) -> nn.Module:
    """The network of a registry entry for the 18 findings.

    Raises:
        UserError: The network cannot take the grid.
    """
    try:
        return spec.build(options, channels, size, len(FINDINGS))
    except ValueError as error:
        raise UserError(f"grid {'x'.join(map(str, size))} does not serve: {error}") from error
