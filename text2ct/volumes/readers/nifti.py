"""NIfTI through nibabel."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from text2ct.volumes.readers.stored import HU_MARK, Stored

# The first number of a header, in either byte order, is its own length.
_HEADER_BYTES = 348
# Unpacked at a time: it stays in the processor's cache until it is put in its place.
_PIECE_BYTES = 2**20
# So much may follow the voxels; a file that unpacks to more than its header says would fill the memory.
_BEHIND_BYTES = 2**26


class Nifti:
    """``.nii`` and ``.nii.gz``: affine from sform, else qform, else the voxel sizes."""

    name = "NIfTI"
    looks_like = ".nii, .nii.gz"

    def accepts(self, path: Path) -> bool:
        """Whether the name ends in ``.nii`` or ``.nii.gz``."""
        return path.name.lower().endswith((".nii", ".nii.gz")) and not path.is_dir()

    def load(self, path: Path) -> Stored:
        """Read stored voxels, without the header's scale, and the header."""
        import nibabel as nib

        content = _unpack(path) if path.suffix.lower() == ".gz" else path.read_bytes()
        _refuse_other_formats(content)
        # nibabel mends impossible voxel sizes (0 becomes 1, -2 becomes 2) and goes on; here they are refused.
        zooms, slope, intercept = _unmended(content)
        with _quiet_nibabel():
            image = nib.nifti1.Nifti1Image.from_bytes(_before_voxels(content))
        header = image.header
        proxy: Any = image.dataobj
        problems = []
        if not (np.isfinite(zooms) & (zooms > 0)).all():
            problems.append(f"its header's voxel sizes are {_mm(zooms)}; expected three numbers above 0")
        if np.isinf([slope, intercept]).any():
            problems.append(f"its header's slope is {slope:g} and intercept {intercept:g}")
        notes = []
        if not header["qform_code"] and not header["sform_code"]:
            notes.append("the header gives no orientation (qform and sform codes are 0); LAS is assumed")
        affine = np.array(image.affine, dtype=np.float64)
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        if np.isfinite(spacing).all() and not np.allclose(spacing, zooms, rtol=0.01, atol=1e-3):
            notes.append(
                f"the header's voxel sizes ({_mm(zooms)}) disagree with its affine ({_mm(spacing)}), which is used"
            )
        return Stored(
            voxels=_voxels(content, proxy),
            affine=affine,
            slope=float(proxy.slope),
            intercept=float(proxy.inter),
            marked_hu=header["descrip"].item().decode("latin-1").startswith(HU_MARK),
            notes=tuple(notes),
            problems=tuple(problems),
        )


def _unpack(path: Path) -> bytearray:
    """The contents of a gzip file, all of it: its checksum stands at the end."""
    from isal import igzip, isal_zlib

    content, most = bytearray(), 0
    try:
        with igzip.open(path) as stream:
            while piece := stream.read(_PIECE_BYTES):
                content += piece
                _refuse_other_formats(content)
                most = most or _claim(content) + _BEHIND_BYTES
                if len(content) > most:
                    raise ValueError(f"it unpacks to more than the {most - _BEHIND_BYTES} bytes that its header claims")
    except isal_zlib.error as error:  # type: ignore[misc]  # its stub takes the class for an instance
        raise zlib.error(str(error)) from error
    return content


def _claim(content: bytearray) -> int:
    """Bytes of header and voxels that the header, in either byte order, speaks of."""
    import nibabel as nib

    header = nib.nifti1.Nifti1Header(bytes(content[:_HEADER_BYTES]), check=False)
    count, *extents = (max(0, int(n)) for n in header["dim"])
    before = float(header["vox_offset"])
    return math.prod(extents[:count]) * int(header["bitpix"]) // 8 + (int(before) if 0 < before < 2**31 else 0)


def _refuse_other_formats(content: bytes | bytearray) -> None:
    length = content[:4]
    if content and _HEADER_BYTES not in (int.from_bytes(length, "little"), int.from_bytes(length, "big")):
        raise ValueError("its contents are not NIfTI-1; is its name's ending the right one?")


def _before_voxels(content: bytes | bytearray) -> bytes:
    """The header and its extensions; everything if the header does not say where the voxels begin."""
    import nibabel as nib

    start = float(nib.nifti1.Nifti1Header(content[:_HEADER_BYTES], check=False)["vox_offset"])
    return bytes(memoryview(content)[: int(start)] if _HEADER_BYTES <= start <= len(content) else content)


def _voxels(content: bytes | bytearray, proxy: Any) -> np.ndarray:
    """The stored numbers in place, without a copy."""
    wanted = math.prod(proxy.shape) * proxy.dtype.itemsize
    if len(content) - proxy.offset < wanted:
        held = max(0, len(content) - proxy.offset)
        raise ValueError(f"it should hold {wanted} bytes of voxels and holds {held}; could the file be damaged?")
    return np.ndarray(proxy.shape, proxy.dtype, buffer=content, offset=proxy.offset, order="F")


@contextmanager
def _quiet_nibabel() -> Iterator[None]:
    """Keep nibabel from printing what it mends; that is checked and worded here."""
    from nibabel.imageglobals import logger

    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before


def _unmended(content: bytes | bytearray) -> tuple[np.ndarray, float, float]:
    """Voxel sizes (3,) in mm, slope and intercept as they stand in the file."""
    import nibabel as nib

    header = nib.nifti1.Nifti1Header(content[:_HEADER_BYTES], check=False)
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    used = min(max(int(header["dim"][0]), 0), 3)
    zooms = np.ones(3)
    zooms[:used] = header["pixdim"][1 : 1 + used]
    return zooms, slope, intercept


def _mm(values: np.ndarray) -> str:
    return " x ".join(f"{value:g}" for value in values) + " mm"
