"""The scanner: slice profile, kernel, correlated noise, table.

Kernel and noise share one modulation transfer function: white noise filtered like the image, with the ramp
of filtered back projection, so that noise power falls towards zero frequency (Kijewski & Judy 1987, Phys Med
Biol 32:565).
"""

from __future__ import annotations

import numpy as np
from scipy.fft import irfftn, rfftn

from text2ct.simulation.anatomy import Array
from text2ct.simulation.patients import Acquisition

_RESOLUTION_MM = {"soft": 1.1, "sharp": 0.55}  # standard deviation of the in-plane point spread


def acquire(
    hu: Array, spacing_mm: tuple[float, float, float], acquisition: Acquisition, rng: np.random.Generator
) -> Array:
    """Blur an ideal volume and add noise.

    Args:
        hu: ``(X, Y, Z)`` float32 HU.
        spacing_mm: Voxel spacing.
        acquisition: Kernel, noise, slice thickness.
        rng: The scan's noise stream; reconstructions of a scan share it.

    Returns:
        ``(X, Y, Z)`` float32 HU, not clipped.
    """
    shape = hu.shape
    sigma_xy = _RESOLUTION_MM[acquisition.kernel]
    # Full width at half maximum to standard deviation; a voxel's own width is in the painting already.
    sigma_z = max((acquisition.slice_thickness_mm / 2.355) ** 2 - (spacing_mm[2] / 3.46) ** 2, 0.0) ** 0.5
    fx, fy, fz = (
        np.fft.fftfreq(shape[0], spacing_mm[0]).astype(np.float32),
        np.fft.fftfreq(shape[1], spacing_mm[1]).astype(np.float32),
        np.fft.rfftfreq(shape[2], spacing_mm[2]).astype(np.float32),
    )
    radial2 = fx[:, None] ** 2 + fy[None, :] ** 2
    mtf_xy = np.exp(np.float32(-2 * np.pi**2 * sigma_xy**2) * radial2)
    mtf_z = np.exp(np.float32(-2 * np.pi**2 * sigma_z**2) * fz**2)
    mtf = mtf_xy[:, :, None] * mtf_z
    # Filtering is periodic: a blur of a few mm mixes opposite faces of the field over less than two voxels.
    white = rfftn(rng.standard_normal(shape, dtype=np.float32), workers=1)
    power = np.sqrt(radial2)
    power /= power.max()
    texture = irfftn(white * (mtf * (np.float32(0.25) + power[:, :, None])), s=shape, workers=1)
    texture *= np.float32(acquisition.noise_hu) / texture.std()
    if 2 * sigma_xy > 0.5 * spacing_mm[0] or sigma_z > 0.3 * spacing_mm[2]:
        hu = irfftn(rfftn(hu, workers=1) * mtf, s=shape, workers=1)
    # Photon statistics: less noise in air than in the body.
    return np.asarray(hu + texture * (np.float32(0.55) + np.float32(0.45) * np.clip(hu / 1000 + 1, 0, 1)), np.float32)


def table(x_mm: Array, y_mm: Array, surface_mm: float) -> Array:
    """Fraction of each voxel in the shell of the table, world mm; its curved top touches ``surface_mm``."""
    top = np.float32(surface_mm) + np.float32(0.0006) * x_mm**2
    depth = np.float32(1.6) - np.minimum(np.abs(y_mm - top), np.abs(y_mm - top + np.float32(26.0)))
    return np.clip(depth / np.float32(4.0) + np.float32(0.5), 0, 1) * (np.abs(x_mm) < 215)
