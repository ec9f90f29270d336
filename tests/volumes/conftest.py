from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from text2ct.volumes import Volume

SHARED = Path(__file__).resolve().parents[3] / "shared"


def _make_phantom(
    size: tuple[int, int, int] = (24, 20, 16), spacing_mm: tuple[float, float, float] = (10.0, 12.0, 14.0)
) -> Volume:
    """A body of soft tissue in air, with fat, two lungs, a spine, and noise; no symmetry in any axis."""
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in size], indexing="ij")
    hu = np.full(size, -1000.0)
    hu[(x / 0.95) ** 2 + (y / 0.8) ** 2 < 1] = -100
    hu[(x / 0.85) ** 2 + (y / 0.7) ** 2 < 1] = 45
    for side, width in ((-0.42, 0.32), (0.42, 0.27)):
        hu[((x - side) / width) ** 2 + (y / 0.45) ** 2 + ((z - 0.1) / 0.9) ** 2 < 1] = -820
    hu[(x**2 + (y + 0.5) ** 2) < 0.03] = 600
    hu += np.random.default_rng(0).normal(0, 12, size)
    hu = np.rint(np.clip(hu, -1024, 1500))
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = (-120.0, 35.0, -300.0)
    return Volume(hu.astype(np.float32), affine)


def _rotated(volume: Volume, degrees: float) -> Volume:
    """The same voxels, turned about the z axis."""
    angle = np.radians(degrees)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return Volume(volume.hu, turn @ volume.affine)


def _save_foreign(path: Path, voxels: np.ndarray, affine: np.ndarray, scale: tuple[float, float] | None = None) -> Path:
    """A NIfTI file as other software writes it: without this package's mark."""
    import nibabel as nib

    path.parent.mkdir(parents=True, exist_ok=True)
    if scale is None:
        nib.save(nib.Nifti1Image(voxels, affine), path)
        return path
    header = nib.Nifti1Header()
    header.set_data_shape(voxels.shape)
    header.set_data_dtype(voxels.dtype)
    header.set_sform(affine, code=1)
    header.set_slope_inter(*scale)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    path.write_bytes(header.binaryblock + b"\0\0\0\0" + voxels.tobytes(order="F"))
    return path


@pytest.fixture(scope="session")
def phantom() -> Volume:
    return _make_phantom()


@pytest.fixture(scope="session")
def make_phantom() -> Callable[..., Volume]:
    return _make_phantom


@pytest.fixture(scope="session")
def rotated() -> Callable[[Volume, float], Volume]:
    return _rotated


@pytest.fixture(scope="session")
def save_foreign() -> Callable[..., Path]:
    return _save_foreign


@pytest.fixture
def foreign(tmp_path: Path, phantom: Volume) -> Callable[..., Path]:
    """Write the phantom, changed by ``alter``, as foreign int16 NIfTI."""

    def write(name: str = "ct.nii.gz", alter: Callable[[np.ndarray], np.ndarray] = np.asarray) -> Path:
        return _save_foreign(tmp_path / name, alter(phantom.hu).astype(np.int16), phantom.affine)

    return write


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("real volumes and parity fixtures are not beside this repository")
    return SHARED
