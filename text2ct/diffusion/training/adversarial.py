"""What judges an autoencoder beside the distance: a patch discriminator and a perceptual network.

As MAISI trains (arXiv 2409.11169): least-squares adversarial loss on patches (Isola et al. 2017, arXiv
1611.07004), and distances between the features of a network that has seen medical images.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError

import torch
from monai.losses.adversarial_loss import PatchAdversarialLoss
from monai.losses.perceptual import PerceptualLoss, PerceptualNetworkType
from monai.networks.nets.patchgan_discriminator import PatchDiscriminator
from monai.networks.nets.resnet import resnet10
from torch import Tensor, nn

from text2ct.diffusion.training.config import VaeTraining
from text2ct.errors import UserError

# MAISI looks at every fifth slice where the network is one of slices.
SLICES = 0.2
KERNEL = 4
_criterion = PatchAdversarialLoss(criterion="least_squares")


def adversarial_loss(said: Tensor, is_real: bool) -> Tensor:
    """Squared distance of what the discriminator said from what it should have said."""
    loss = _criterion(said.float(), target_is_real=is_real, for_discriminator=True)
    assert isinstance(loss, Tensor)
    return loss


def make_discriminator(config: VaeTraining) -> PatchDiscriminator:
    """MONAI's patch discriminator, without batch statistics.

    Raises:
        UserError: The patch is too small for its layers.
    """
    edge = config.patch // 2
    for layer in range(config.discriminator_layers):
        edge = edge - 1 if layer == config.discriminator_layers - 1 else edge // 2
    if edge < 2:
        raise UserError(
            f"a patch of {config.patch} voxels is too small for a discriminator of {config.discriminator_layers} "
            "layers; choose a larger patch or fewer discriminator_layers"
        )
    return PatchDiscriminator(
        spatial_dims=3,
        in_channels=1,
        channels=config.discriminator_channels,
        num_layers_d=config.discriminator_layers,
        kernel_size=KERNEL,
        norm="INSTANCE",
    )


def perceptual_network(name: str) -> nn.Module | None:
    """A frozen loss of (reconstruction, target), (B, 1, X, Y, Z) each, or None for ``none``.

    Args:
        name: ``none``; a network of MONAI's ``PerceptualLoss``, whose weights torch downloads or finds in its
            cache (``TORCH_HOME``); or a file with MedicalNet's ResNet-10 weights.

    Raises:
        UserError: No such network or file, or its weights cannot be had.
    """
    if name == "none":
        return None
    if name not in list(PerceptualNetworkType):
        return MedicalNetDistance(Path(name)).eval().requires_grad_(False)
    is_3d = name.startswith("medicalnet")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torchvision and torch.hub, on their own calls
            loss: nn.Module = PerceptualLoss(
                spatial_dims=3, network_type=name, is_fake_3d=not is_3d, fake_3d_ratio=SLICES
            )
    except (OSError, RuntimeError, ImportError, ValueError) as error:
        raise UserError(
            f"the weights of the perceptual network '{name}' cannot be downloaded ({error}); fill torch's cache "
            "(TORCH_HOME) on a machine that can, give a file of MedicalNet's ResNet-10 weights, or use 'none'"
        ) from error
    return loss.eval().requires_grad_(False)


class MedicalNetDistance(nn.Module):
    """Squared distance between the channel-normalised feature maps of MedicalNet's ResNet-10.

    Chen et al. 2019 (arXiv 1904.00625) for the network, Zhang et al. 2018 (arXiv 1801.03924) for the distance.

    Args:
        path: A checkpoint as published (``state_dict`` with names under ``module.``), or a plain state dict.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.network = resnet10(
            spatial_dims=3, n_input_channels=1, feed_forward=False, shortcut_type="B", bias_downsample=False
        )
        names = ", ".join(["none", *PerceptualNetworkType])
        if not path.is_file():
            raise UserError(f"'{path}' is neither a perceptual network nor a file; the networks are {names}")
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            state = state.get("state_dict", state)
            self.network.load_state_dict({key.removeprefix("module."): value for key, value in state.items()})
        except (RuntimeError, AttributeError, OSError, ValueError, UnpicklingError) as error:
            raise UserError(f"{path} does not hold the weights of MedicalNet's ResNet-10: {error}") from error

    def features(self, x: Tensor) -> list[Tensor]:
        """The maps of the four levels, from volumes brought to mean 0 and deviation 1."""
        network = self.network
        axes = (1, 2, 3, 4)
        x = (x - x.mean(axes, keepdim=True)) / (x.std(axes, keepdim=True) + 1e-6)
        x = network.maxpool(network.act(network.bn1(network.conv1(x))))
        maps = []
        levels: tuple[Callable[[Tensor], Tensor], ...] = (
            network.layer1,
            network.layer2,
            network.layer3,
            network.layer4,
        )
        for level in levels:
            x = level(x)
            maps.append(nn.functional.normalize(x, dim=1))
        return maps

    def forward(self, reconstruction: Tensor, target: Tensor) -> Tensor:
        """Mean over levels and positions of the squared distance."""
        pairs = zip(self.features(reconstruction), self.features(target), strict=True)
        return torch.stack([(a - b).square().sum(dim=1).mean() for a, b in pairs]).mean()
