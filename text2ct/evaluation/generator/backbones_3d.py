"""Networks that describe whole volumes, by name: a 3D CLIP, a classifier's run, MedicalNet's ResNets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from text2ct.classifiers.config import Preprocessing
from text2ct.errors import UserError
from text2ct.evaluation.generator.backbones import fill, read_state, weights_digest
from text2ct.evaluation.generator.scorers import Scorer

CLIP = "clip"
_CLASSIFIER, _MEDICALNET = "classifier:", "medicalnet:"
# Blocks of each stage by depth, as published; MONAI builds the networks.
_STAGES = {
    10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}  # fmt: skip
_BOTTLENECK_FROM = 50


class VolumeEncoder(Protocol):
    """Describes a volume by one row of features.

    Attributes:
        name: Which network and which weights; stands in every result, and decides what is kept on disk.
        grid: What it reads; None for the grid on which the sets are compared.
    """

    name: str
    grid: Preprocessing | None

    def __call__(self, volume_hu: NDArray[np.int16]) -> tuple[NDArray[np.float32], ...]:
        """(X, Y, Z) HU to (d,) features, alone in a tuple."""
        ...


def volume_encoder(name: str, *, scorer: Scorer | None, device: torch.device) -> VolumeEncoder:
    """A network that describes volumes, ready to be asked.

    Args:
        name: ``clip`` (the 3D CLIP ``scorer``), ``classifier:RUN`` (a run's features before its last layer) or
            ``medicalnet:FILE`` (a ResNet of MedicalNet, its depth known by its weights) or ``medicalnet:DEPTH`` for its
            published weights from the hub.
        scorer: For ``clip``.
        device: Where it computes.

    Raises:
        UserError: There is no such network, or its weights cannot be had: random ones never stand in.
    """
    if name == CLIP:
        if scorer is None:
            raise UserError("the 3D backbone 'clip' needs a pack with a 3D CLIP; name one with --clip")
        return ClipVolumes(scorer)
    if name.startswith(_CLASSIFIER):
        return ClassifierFeatures(Path(name.removeprefix(_CLASSIFIER)), device)
    if name.startswith(_MEDICALNET):
        return MedicalNet(name.removeprefix(_MEDICALNET), device)
    raise UserError(
        f"'{name}' is no 3D backbone; use {CLIP}, {_CLASSIFIER}RUN, {_MEDICALNET}FILE, or {_MEDICALNET}50 for the hub's"
    )


class ClipVolumes:
    """The vision tower of a 3D CLIP: unit vectors, the same that ``alignment`` uses."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self.name = scorer.identity
        self.grid: Preprocessing | None = scorer.grid

    def __call__(self, volume_hu: NDArray[np.int16]) -> tuple[NDArray[np.float32], ...]:
        """(X, Y, Z) HU to (d,)."""
        return (self._scorer.volumes([volume_hu])[0],)


class ClassifierFeatures:
    """What a trained classifier's last linear layer is given.

    Args:
        run: A finished run.
        device: Where it computes.

    Raises:
        UserError: As :func:`text2ct.classifiers.runs.load_classifier`.
    """

    def __init__(self, run: Path, device: torch.device) -> None:
        from text2ct.classifiers.runs import load_classifier

        classifier, config = load_classifier(run)
        assert config.model is not None
        self._network, self._device = classifier.to(device).eval().requires_grad_(False), device
        self.name = f"{config.classifier} {config.model.sha256[:8]}, features before the last layer"
        self.grid: Preprocessing | None = config.preprocessing
        self._seen: list[Tensor] = []
        last = [module for module in self._network.modules() if isinstance(module, nn.Linear)][-1]
        last.register_forward_pre_hook(self._see)

    def _see(self, _: nn.Module, given: tuple[Tensor, ...]) -> None:
        self._seen.append(given[0])

    @torch.inference_mode()
    def __call__(self, volume_hu: NDArray[np.int16]) -> tuple[NDArray[np.float32], ...]:
        """(X, Y, Z) HU on the run's grid to (d,)."""
        self._seen.clear()
        self._network(torch.from_numpy(np.array(volume_hu))[None, None].to(self._device))
        return (self._seen[0].flatten(end_dim=-2).mean(dim=0).float().cpu().numpy(),)


class MedicalNet:
    """A 3D ResNet of MedicalNet (Chen et al. 2019, "Med3D", arXiv 1904.00625), built by MONAI, averaged over positions.

    Volumes are scaled to mean 0 and deviation 1, as MedicalNet was trained; all voxels count, air too.

    Args:
        weights: A file as its authors publish it, or a depth (10 to 200) to take from the hub.
        device: Where it computes.

    Raises:
        UserError: The weights are missing, damaged or of no such network.
    """

    def __init__(self, weights: str, device: torch.device) -> None:
        state = _from_hub(int(weights)) if weights.isdigit() else read_state(Path(weights))
        state = {name.removeprefix("module."): value for name, value in state.items()}
        state = {name: value for name, value in state.items() if not name.startswith(("conv_seg", "fc."))}
        depth, network = _resnet(state, weights)
        fill(network, state, Path(weights), f"a MedicalNet ResNet-{depth}")
        self._network, self._device = network.to(device).eval().requires_grad_(False), device
        self.name = f"MedicalNet ResNet-{depth} ({weights_digest(state)})"
        self.grid: Preprocessing | None = None

    @torch.inference_mode()
    def __call__(self, volume_hu: NDArray[np.int16]) -> tuple[NDArray[np.float32], ...]:
        """(X, Y, Z) HU to (d,)."""
        volume = torch.from_numpy(np.asarray(volume_hu, dtype=np.float32)).to(self._device)
        scaled = (volume - volume.mean()) / (volume.std() + 1e-5)
        features: Any = self._network(scaled[None, None])
        return (features[0].float().cpu().numpy(),)


def _resnet(state: Mapping[str, Tensor], weights: str) -> tuple[int, nn.Module]:
    from monai.networks import nets
    from monai.networks.nets.resnet import get_medicalnet_pretrained_resnet_args

    blocks = [
        len({name.split(".")[1] for name in state if name.startswith(f"layer{stage}.")}) for stage in (1, 2, 3, 4)
    ]
    deep = any(name.startswith("layer1.0.conv3") for name in state)
    depths = [d for d, stages in _STAGES.items() if list(stages) == blocks and (d >= _BOTTLENECK_FROM) == deep]
    if not depths:
        raise UserError(f"{weights} holds no ResNet of MedicalNet: its stages have {blocks} blocks")
    bias, shortcut = get_medicalnet_pretrained_resnet_args(depths[0])
    build = getattr(nets, f"resnet{depths[0]}")
    network = build(
        spatial_dims=3, n_input_channels=1, feed_forward=False, shortcut_type=shortcut, bias_downsample=bias
    )
    return depths[0], network


def _from_hub(depth: int) -> Mapping[str, Tensor]:
    from monai.networks.nets.resnet import get_pretrained_resnet_medicalnet

    if depth not in _STAGES:
        raise UserError(f"MedicalNet has no ResNet-{depth}; choose from {', '.join(map(str, _STAGES))}")
    try:
        found: Mapping[str, Tensor] = get_pretrained_resnet_medicalnet(depth, device="cpu", datasets23=True)
    except Exception as error:  # the hub's, the network's or the disk's: any of many kinds
        raise UserError(
            f"MedicalNet's ResNet-{depth} cannot be had from the hub ({str(error).splitlines()[0]}); download it "
            "elsewhere and give the file: medicalnet:FILE"
        ) from error
    return found
