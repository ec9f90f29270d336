"""From a volume to a file: int16 HU with the true affine, whole or absent, the same bytes each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from text2ct.errors import UserError
from text2ct.files import atomic_path
from text2ct.volumes.lazy import copy_tiled
from text2ct.volumes.readers.itk import MARK_FIELD, quiet_itk
from text2ct.volumes.readers.stored import HU_MARK, LPS_TO_RAS
from text2ct.volumes.readers.zarr import write_array
from text2ct.volumes.volume import Volume

FORMATS = ("nii.gz", "nii", "mha", "zarr")
# NIfTI code for "scanner-based anatomical coordinates".
_SCANNER = 1
# ISA-L's: a quarter of the time of zlib's fastest level, in files within 3% of its size.
_GZIP_LEVEL = 2


def write(volume: Volume, path: Path | str) -> None:
    """Write a volume as ``.nii.gz``, ``.nii``, ``.mha`` or ``.zarr`` (a zip file of one Zarr array).

    Voxels are rounded to whole HU (int16). The header carries a mark that says HU, so that reading
    never has to guess. A volume gives the same bytes each time it is written.

    Raises:
        UserError: An unknown suffix, voxels that are not finite, an affine that the format cannot
            hold, or a place that cannot be written.
    """
    path = Path(path)
    kind = next((kind for kind in FORMATS if path.name.lower().endswith(f".{kind}")), None)
    if kind is None:
        raise UserError(f"cannot write {path}: use a name that ends in {', '.join('.' + k for k in FORMATS)}")
    if problem := format_problem(volume, kind):
        raise UserError(f"cannot write {path}: {problem}")
    voxels = _whole_hu(volume.hu)
    if voxels is None:
        raise UserError(f"cannot write {path}: the volume has NaN or infinite voxels")
    if kind == "mha":
        _write_mha(voxels, volume.affine, path)
        return
    if kind == "zarr":
        with atomic_path(path) as temporary:
            write_array(temporary, voxels, volume.affine)
        return
    content = _nifti_bytes(voxels, volume.affine)
    if kind == "nii.gz":
        from isal import igzip

        content = igzip.compress(content, _GZIP_LEVEL, mtime=0)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def format_problem(volume: Volume, kind: str) -> str:
    """Why a format (of `FORMATS`) cannot hold a volume's affine, in words; empty if it can."""
    if kind == "mha" and _is_sheared(volume.affine):
        return "MetaImage cannot hold a sheared affine (tilted gantry); use .nii.gz"
    return ""


def _whole_hu(hu: np.ndarray) -> np.ndarray | None:
    """(X, Y, Z) int16, plane by plane so that no second float volume is made; None if a voxel is not finite."""
    limits = np.iinfo(np.int16)
    voxels = np.empty(hu.shape, dtype="<i2")
    for plane, whole in zip(hu, voxels, strict=True):
        if not np.isfinite(plane).all():
            return None
        whole[...] = np.clip(np.rint(plane), limits.min, limits.max)
    return voxels


def _nifti_bytes(voxels: np.ndarray, affine: np.ndarray) -> bytes:
    import nibabel as nib

    header = nib.nifti1.Nifti1Header(endianness="<")
    header.set_data_shape(voxels.shape)
    header.set_data_dtype(np.int16)
    header.set_xyzt_units("mm")
    header.set_slope_inter(1.0, 0.0)
    header.set_sform(affine, code=_SCANNER)
    sheared = _is_sheared(affine)
    header.set_qform(affine, code=0 if sheared else _SCANNER, strip_shears=True)
    header["descrip"] = HU_MARK
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    by_plane = np.empty(voxels.shape[::-1], dtype="<i2")
    copy_tiled(voxels, by_plane.transpose(2, 1, 0))
    return b"".join([header.binaryblock, b"\0\0\0\0", by_plane.data])


def _write_mha(voxels: np.ndarray, affine: np.ndarray, path: Path) -> None:
    import SimpleITK as sitk

    lps = LPS_TO_RAS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = sitk.GetImageFromArray(voxels.transpose(2, 1, 0))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetMetaData(MARK_FIELD, HU_MARK)
    with atomic_path(path) as temporary, quiet_itk():
        try:
            sitk.WriteImage(image, str(temporary), useCompression=True)
        except RuntimeError as error:
            raise OSError(0, "MetaImage writer failed; is the disk full?") from error


def _is_sheared(affine: np.ndarray) -> bool:
    """Whether the voxel axes are not at right angles."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() > 1e-4)
