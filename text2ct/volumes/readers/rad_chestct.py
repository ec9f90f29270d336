"""Volumes of RAD-ChestCT: NumPy archives that hold voxels and nothing else."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from text2ct.errors import UserError
from text2ct.volumes.readers.stored import Stored

_KEY = "ct"
SPACING_MM = 0.8
# 0.8 mm times this is longer than any patient.
_MAX_EXTENT = 2048
# Deflate packs at most 1032 bytes into one.
_MAX_PACKING = 1032
_NOTE = (
    f"the file holds voxels alone: {SPACING_MM} mm voxels and the axes inferior, posterior, left are assumed, as the "
    "data set RAD-ChestCT is published; the centre is put at 0, 0, 0"
)


class RadChestCT:
    """``.npz`` with one array ``ct``: (slices, rows, columns) int16 HU, clipped to [-1000, 1000].

    The data set's own preprocessing (Draelos et al. 2021, Medical Image Analysis 67, appendix A.2;
    ``preprocess_volumes.py`` of github.com/rachellea/ct-volume-preprocessing) applies the rescale tags, refuses
    series that are not axial, sorts slices from superior to inferior, resamples to 0.8 mm along each axis, clips,
    rounds to int16 and saves (slices, rows, columns). Its table of lung boxes names the ends of the axes: ``sup``
    to ``inf``, ``ant`` to ``pos``, ``rig`` to ``lef``. The archive keeps none of this, so it is assumed, and a note
    of the volume says so.
    """

    name = "RAD-ChestCT"
    looks_like = ".npz with an array 'ct'"

    def accepts(self, path: Path) -> bool:
        """Whether the name ends in ``.npz``."""
        return path.name.lower().endswith(".npz") and not path.is_dir()

    def load(self, path: Path) -> Stored:
        """Read the array; what its header claims is checked before memory is taken, and nothing is unpickled."""
        with zipfile.ZipFile(path) as archive:
            member = f"{_KEY}.npy"
            if member not in archive.namelist():
                names = ", ".join(name.removesuffix(".npy") for name in archive.namelist()[:6])
                raise UserError(f"{path} has no array '{_KEY}', as RAD-ChestCT's volumes do; it has {names or 'none'}")
            info = archive.getinfo(member)
            with archive.open(info) as stream:
                _check_claims(path, stream, info)
            with archive.open(info) as stream:
                voxels = np.lib.format.read_array(stream, allow_pickle=False)
        return Stored(voxels=voxels, affine=_affine(voxels.shape), notes=(_NOTE,))


def _check_claims(path: Path, stream: IO[bytes], info: zipfile.ZipInfo) -> None:
    """Refuse a header whose shape and type do not fit the bytes of the file, or no patient."""
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(stream)
    text = " x ".join(map(str, shape))
    if dtype.kind not in "iuf":
        raise UserError(f"{path} holds '{_KEY}' of type {dtype}; expected one number each")
    if len(shape) != 3 or max(shape) > _MAX_EXTENT:
        raise UserError(
            f"{path} holds '{_KEY}' of {text or 'no'} voxels; expected a 3D volume of at most {_MAX_EXTENT}"
        )
    claimed = math.prod(shape) * dtype.itemsize
    if claimed != info.file_size - stream.tell() or info.file_size > _MAX_PACKING * info.compress_size:
        raise UserError(f"{path} is damaged: its header claims {text} voxels, which do not fit its bytes")


def _affine(shape: tuple[int, ...]) -> np.ndarray:
    """(4, 4) from (slice, row, column) to RAS+ mm: towards inferior, posterior, left, about the centre."""
    affine = np.zeros((4, 4))
    affine[2, 0] = affine[1, 1] = affine[0, 2] = -SPACING_MM
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    affine[3, 3] = 1.0
    return affine
