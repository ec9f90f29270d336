"""The scanner: motion, streaks of metal, slice profile, kernel, correlated noise, table.

Kernel and noise share one modulation transfer function: white noise filtered like the image, with the ramp
of filtered back projection, so that noise power falls towards zero frequency (Kijewski & Judy 1987, Phys Med
Biol 32:565). The noise is a property of the scan, not of the grid: coarser voxels average more of it away.
"""

from __future__ import annotations

import numpy as np
from scipy.fft import irfft, irfftn, rfft, rfftn

from text2ct.simulation.anatomy import Array
from text2ct.simulation.patients import Acquisition

# A coarse grid is a fine scan resampled, which blurs by this share of a voxel more than a box does (standard
# deviation): found by resampling 1.25 mm renderings to 5 mm, and what a real chest at 4 mm shows.
_APERTURE = 0.36
_NOISE_GRID_MM = (1.5, 1.5, 1.5)  # the voxels that `Acquisition.noise_hu` speaks of
_FINE, _FINE_MM = 160, 0.5  # the lattice on which noise power is integrated; 80 mm hold what 8 mm voxels correlate
METAL_HU = 1500.0  # denser is metal, in part or, from 3000 HU on, wholly; bone and plaques stay below
_ANGLES = 96  # enough that the fan of single rays stays below the streaks
_HARDENING_MM = 10.0  # metal on a ray from which on its projection falls short in proportion
_METAL_EXCESS = 10.0  # attenuation that goes missing there, as a multiple of water's; titanium has 14 times it
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
    shape = (hu.shape[0], hu.shape[1], hu.shape[2])
    aperture = [_APERTURE * step for step in spacing_mm]
    sigma_xy = float(np.hypot(_RESOLUTION_MM[acquisition.kernel], (aperture[0] + aperture[1]) / 2))
    # Full width at half maximum to standard deviation; a voxel's own width is in the painting already.
    sigma_z = max((acquisition.slice_thickness_mm / 2.355) ** 2 - (spacing_mm[2] / 3.46) ** 2, 0.0) ** 0.5
    sigma_z = float(np.hypot(sigma_z, aperture[2]))
    mtf, ramp = _transfer(shape, spacing_mm, sigma_xy, sigma_z)
    # Filtering is periodic: a blur of a few mm mixes opposite faces of the field over less than two voxels.
    white = rfftn(rng.standard_normal(shape, dtype=np.float32), workers=1)
    texture = irfftn(white * (mtf * ramp), s=shape, workers=1)
    texture *= np.float32(noise_at(spacing_mm, acquisition) / texture.std())
    hu = irfftn(rfftn(hu, workers=1) * mtf, s=shape, workers=1)
    # Photon statistics: less noise in air than in the body.
    return np.asarray(hu + texture * (np.float32(0.55) + np.float32(0.45) * np.clip(hu / 1000 + 1, 0, 1)), np.float32)


def noise_at(spacing_mm: tuple[float, float, float], acquisition: Acquisition) -> float:
    """Deviation of the noise in soft tissue on a grid, HU; ``noise_hu`` is that of 1.5 mm voxels.

    White noise of a fixed density is filtered by kernel, ramp and the average over a voxel, and what is left of
    its power is compared with what voxels of 1.5 mm leave.
    """
    # Frequencies of both signs on every axis, up to where the kernel leaves nothing; the power is that of the plane
    # times that of z.
    f = np.fft.fftfreq(_FINE, _FINE_MM).astype(np.float32)
    mtf_xy, ramp = _transfer_xy(f, f, _RESOLUTION_MM[acquisition.kernel])
    mtf_z = _transfer_z(f, acquisition.slice_thickness_mm / 2.355)

    def power(spacing: tuple[float, float, float]) -> float:
        x, y, z = (np.sinc(f * step) for step in spacing)
        plane = np.square(mtf_xy * ramp * x[:, None] * y).sum()
        return float(plane * np.square(mtf_z * z).sum())

    return acquisition.noise_hu * float(np.sqrt(power(spacing_mm) / power(_NOISE_GRID_MM)))


def _transfer(
    shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], sigma_xy: float, sigma_z: float
) -> tuple[Array, Array]:
    """Modulation transfer ``(X, Y, Z // 2 + 1)`` of kernel and slice profile, and the ramp's amplitude, (X, Y, 1)."""
    fx, fy, fz = (
        np.fft.fftfreq(shape[0], spacing_mm[0]).astype(np.float32),
        np.fft.fftfreq(shape[1], spacing_mm[1]).astype(np.float32),
        np.fft.rfftfreq(shape[2], spacing_mm[2]).astype(np.float32),
    )
    mtf_xy, ramp = _transfer_xy(fx, fy, sigma_xy)
    return mtf_xy[:, :, None] * _transfer_z(fz, sigma_z), ramp[:, :, None]


def _transfer_xy(fx: Array, fy: Array, sigma: float) -> tuple[Array, Array]:
    """Modulation transfer (X, Y) of the kernel, and the ramp's amplitude, at frequencies in cycles per mm."""
    radial2 = fx[:, None] ** 2 + fy[None, :] ** 2
    # Power rises with frequency; interpolation between views leaves a little at zero.
    ramp = np.sqrt(np.sqrt(radial2) + np.float32(0.01))
    return np.exp(np.float32(-2 * np.pi**2 * sigma**2) * radial2), ramp


def _transfer_z(fz: Array, sigma: float) -> Array:
    """Modulation transfer (Z,) of the slice profile, at frequencies in cycles per mm."""
    return np.asarray(np.exp(np.float32(-2 * np.pi**2 * sigma**2) * fz**2), np.float32)


def move(hu: Array, spacing_mm: tuple[float, float, float], motion_mm: float) -> Array:
    """Blur what moved during the scan: the mean of two moments, apart near diaphragm and heart only.

    Args:
        hu: ``(X, Y, Z)`` float32 HU.
        spacing_mm: Voxel spacing.
        motion_mm: How far it moved along z, mm; 0.4 of it along y.

    Returns:
        ``(X, Y, Z)`` float32 HU; ``hu`` itself without motion.
    """
    if motion_mm <= 0:
        return hu
    y, z = (((np.arange(n) - (n - 1) / 2) * s) for n, s in zip(hu.shape[1:], spacing_mm[1:], strict=True))
    # World mm: the apices and the back, with spine and table, lie still.
    share = np.clip((50.0 - z) / 60.0, 0, 1) * np.clip((y + 60.0) / 50.0, 0, 1)[:, None]
    moved = _shifted(_shifted(hu, 2, motion_mm / spacing_mm[2]), 1, 0.4 * motion_mm / spacing_mm[1])
    moved -= hu
    moved *= (0.5 * share).astype(np.float32)
    return np.add(moved, hu, out=moved)


def _shifted(hu: Array, axis: int, voxels: float) -> Array:
    """The volume displaced by a positive number of voxels along an axis, linear in between, edges repeated."""
    whole, part = divmod(voxels, 1.0)
    last = hu.shape[axis] - 1
    at = np.arange(last + 1) + int(whole)
    near, far = (hu.take(np.minimum(at + k, last), axis) for k in (0, 1))
    far -= near
    far *= np.float32(part)
    return np.add(near, far, out=near)


def streak(hu: Array, spacing_mm: tuple[float, float, float]) -> Array:
    """Add the streaks of metal, in the axial slices that hold any.

    Beam hardening and photon starvation make the projection of metal fall short, the more so the longer the ray's
    way through it (De Man et al. 1999, IEEE Trans Nucl Sci 46:691). What falls short is back-projected.

    Args:
        hu: ``(X, Y, Z)`` float32 HU.
        spacing_mm: Voxel spacing.

    Returns:
        ``(X, Y, Z)`` float32 HU; ``hu`` itself without metal.
    """
    slices = np.flatnonzero(hu.max(axis=(0, 1)) > METAL_HU)
    if len(slices) == 0:
        return hu
    metal = np.clip((hu[:, :, slices] - METAL_HU) / METAL_HU, 0, 1)
    nx, ny, nz = metal.shape
    dx, dy, _ = spacing_mm
    x, y = ((np.arange(n) - (n - 1) / 2) * s for n, s in ((nx, dx), (ny, dy)))
    i, j, k = np.nonzero(metal)
    area = metal[i, j, k].astype(np.float64) * dx * dy
    pitch = max(min(dx, dy), 3.0)
    half = int(np.hypot(nx * dx, ny * dy) / 2 / pitch) + 2
    bins = 2 * half + 1
    turns = [(np.cos(t), np.sin(t)) for t in np.arange(_ANGLES) * np.pi / _ANGLES]
    paths = np.empty((_ANGLES, bins, nz))  # metal on each ray, mm
    for row, (c, s) in enumerate(turns):
        at = (x[i] * c + y[j] * s) / pitch + half
        low = np.floor(at).astype(np.int64)
        cells = np.concatenate([low, low + 1]) * nz + np.concatenate([k, k])
        shares = np.concatenate([(low + 1 - at) * area, (at - low) * area])
        paths[row] = np.bincount(cells, shares, minlength=bins * nz).reshape(bins, nz) / pitch
    missing = paths * paths / (paths + _HARDENING_MM)
    frequency = np.fft.rfftfreq(2 * bins, pitch)
    ramp = frequency * (0.5 + 0.5 * np.cos(2 * np.pi * frequency * pitch))
    filtered = irfft(rfft(missing, 2 * bins, axis=1, workers=1) * ramp[:, None], 2 * bins, axis=1, workers=1)
    filtered = filtered[:, :bins].astype(np.float32)
    error = np.zeros((nx * ny, nz), np.float32)
    for row, (c, s) in zip(filtered, turns, strict=True):
        at = ((x[:, None] * c + y * s) / pitch + half).ravel()
        low = at.astype(np.int64)
        part = (at - low).astype(np.float32)[:, None]
        error += row[low] * (1 - part) + row[low + 1] * part
    error *= np.float32(-1000.0 * _METAL_EXCESS * np.pi / _ANGLES)
    out = hu.copy()
    out[:, :, slices] += error.reshape(metal.shape) * (1 - metal)  # metal itself is beyond the scale
    return out


def table(x_mm: Array, y_mm: Array, surface_mm: float) -> Array:
    """Fraction of each voxel in the shell of the table, world mm; its curved top touches ``surface_mm``."""
    top = np.float32(surface_mm) + np.float32(0.0006) * x_mm**2
    depth = np.float32(1.6) - np.minimum(np.abs(y_mm - top), np.abs(y_mm - top + np.float32(26.0)))
    return np.clip(depth / np.float32(4.0) + np.float32(0.5), 0, 1) * (np.abs(x_mm) < 215)
