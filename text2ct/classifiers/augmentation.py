"""Strong classical augmentation: pose, size, field of view, sharpness, intensities, noise.

The kinds are nnU-Net's (Isensee et al., Nature Methods 2021, 18:203-211) with torchio's transforms. They come more
often than there, but in ranges that fit a chest CT: patients lie on their backs, and HU are calibrated. There is no
mirror, since sides are anatomy, and no elastic deformation: it takes torchio 120 ms of a core for a volume of 64^3, six
times all else together.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

HU_LOW, HU_SPAN = -1000.0, 2000.0
"""Gamma and noise act on intensities in [0, 1], over the range that the cache keeps."""

# Field of view: apices, bases or shoulders are missing in many a scan. A tenth of the axis is 32 mm of 320 mm.
_CROP_P, _CROP_SHARE = 0.3, 0.1
# Tube voltage, calibration and beam hardening: 5% about water is 45 HU in lung, and 20 HU is half of what tells blood
# from fluid.
_INTENSITY_P, _CONTRAST, _BRIGHTNESS_HU = 0.5, 0.05, 20.0


def classical_augmentation(spacing_mm: tuple[float, float, float]) -> Callable[[Tensor], Tensor]:
    """The augmentation of one volume, drawing from torch's global generator.

    Args:
        spacing_mm: Voxel size of the grid (x, y, z).

    Returns:
        (1, X, Y, Z) float32 HU -> (1, X, Y, Z) float32 HU, in [-1000, 1000].
    """
    import torchio

    voxel_mm = min(spacing_mm)
    affine = torch.diag(torch.tensor([*spacing_mm, 1.0], dtype=torch.float64)).numpy()
    transform = torchio.Compose(
        [
            # Habitus and pose: adults' chests differ by a fifth in every measure, an arm that cannot be raised or a
            # scoliosis turns a chest by 15 degrees, and tables are centred to about 25 mm; air where the patient ends.
            torchio.RandomAffine(
                scales=(0.85, 1.2), degrees=15, translation=25, isotropic=False, default_pad_value=0.0, p=0.8
            ),
            # Softer kernels, of up to a voxel as in nnU-Net, or slices up to three times as thick.
            torchio.OneOf(
                {
                    torchio.RandomBlur(std=(0.5 * voxel_mm, voxel_mm)): 1,
                    torchio.RandomAnisotropy(axes=(2,), downsampling=(1.5, 3.0)): 1,
                },
                p=0.3,
            ),
            # Contrast medium and other tube voltages bend the scale: soft tissue moves by at most 35 HU.
            torchio.RandomGamma(log_gamma=(-0.05, 0.05), p=0.3),
            # Quantum noise of up to 50 HU, that of a low-dose scan with thin slices.
            torchio.RandomNoise(mean=0.0, std=(0.0, 0.025), p=0.5),
        ]
    )

    def augment(volume_hu: Tensor) -> Tensor:
        unit = ((_rescaled(volume_hu) - HU_LOW) / HU_SPAN).clamp(0.0, 1.0)
        moved = transform(torchio.ScalarImage(tensor=_cropped(unit), affine=affine)).data
        return (moved.clamp(0.0, 1.0) * HU_SPAN + HU_LOW).float()

    return augment


def _rescaled(volume_hu: Tensor) -> Tensor:
    """Contrast about water and brightness."""
    chance, contrast, brightness = torch.rand(3).tolist()
    if chance >= _INTENSITY_P:
        return volume_hu
    return volume_hu * (1.0 + _CONTRAST * (2.0 * contrast - 1.0)) + _BRIGHTNESS_HU * (2.0 * brightness - 1.0)


def _cropped(unit: Tensor) -> Tensor:
    """A smaller field of view, air around it: each face moves in by a random share of its axis."""
    chance, *shares = torch.rand(7).tolist()
    if chance >= _CROP_P:
        return unit
    low = [round(_CROP_SHARE * share * size) for share, size in zip(shares[:3], unit.shape[1:], strict=True)]
    high = [size - round(_CROP_SHARE * share * size) for share, size in zip(shares[3:], unit.shape[1:], strict=True)]
    inside = (slice(None), *(slice(a, b) for a, b in zip(low, high, strict=True)))
    cropped = torch.zeros_like(unit)
    cropped[inside] = unit[inside]
    return cropped
