"""Classical augmentation by torchio: small affine motions, noise, gamma. No mirror: sides are anatomy."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

HU_LOW, HU_SPAN = -1000.0, 2000.0
"""Gamma acts on intensities in [0, 1], over the range that the cache keeps."""


def classical_augmentation(spacing_mm: tuple[float, float, float]) -> Callable[[Tensor], Tensor]:
    """The augmentation of one volume, drawing from torch's global generator.

    Args:
        spacing_mm: Voxel size of the grid (x, y, z).

    Returns:
        (1, X, Y, Z) float32 HU -> (1, X, Y, Z) float32 HU, in [-1000, 1000].
    """
    import torchio

    affine = torch.diag(torch.tensor([*spacing_mm, 1.0], dtype=torch.float64)).numpy()
    transform = torchio.Compose(
        [
            # pose and habitus: 8% in size, 6 degrees, 15 mm; air where the patient ends
            torchio.RandomAffine(scales=0.08, degrees=6, translation=15, isotropic=False, default_pad_value=0.0, p=0.7),
            # reconstruction kernel and tube voltage: soft tissue moves by at most 20 HU
            torchio.RandomGamma(log_gamma=(-0.03, 0.03), p=0.3),
            # quantum noise of up to 20 HU
            torchio.RandomNoise(mean=0.0, std=(0.0, 0.01), p=0.5),
        ]
    )

    def augment(volume_hu: Tensor) -> Tensor:
        unit = (volume_hu - HU_LOW) / HU_SPAN
        moved = transform(torchio.ScalarImage(tensor=unit, affine=affine)).data
        return (moved.clamp(0.0, 1.0) * HU_SPAN + HU_LOW).float()

    return augment
