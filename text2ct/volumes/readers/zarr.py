"""Zarr version 3, one array in one zip file: the cache that is read faster than gzip can be unpacked.

A ``NAME.zarr`` is what ``zarr.open_array(zarr.storage.ZipStore("NAME.zarr", mode="r"))`` opens: (X, Y, Z) int16 HU,
with the affine among its attributes. One file and not a folder of chunks: it has a checksum, and is whole or absent.
"""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from text2ct.volumes.readers.stored import HU_MARK, Stored

# Names of the attributes.
AFFINE, MARK = "affine_ras_mm", "intensity_unit"
# Voxels of a chunk, which is whole planes of x: few chunks are found fast, several keep several cores busy.
_CHUNK_VOXELS = 2**21
# What an archive claims is compared with this before memory is taken; the largest chest CT has a tenth of it.
MAX_BYTES = 2**32
_METADATA, _MAX_METADATA_BYTES = "zarr.json", 2**20
# Their claims are bounded by the format itself, at 2 GiB a chunk.
_CODECS = ["bytes", "blosc"]
# A zip file knows no time before this; a fixed one gives a volume the same bytes each time.
_TIME = (1980, 1, 1, 0, 0, 0)


class Zarr:
    """``.zarr``: one array in a zip file."""

    name = "Zarr"
    looks_like = ".zarr, one zip file"

    def accepts(self, path: Path) -> bool:
        """Whether the name ends in ``.zarr``; a folder of that name is refused when it is read."""
        return path.name.lower().endswith(".zarr")

    def load(self, path: Path) -> Stored:
        """Read all chunks; what the archive claims must be possible, and every chunk must be there."""
        import zarr
        from zarr.storage import ZipStore

        if path.is_dir():
            raise ValueError("it is a folder; expected one zip file, as zarr.storage.ZipStore writes it")
        attributes = _checked_attributes(path)
        affine = np.array(attributes.get(AFFINE, np.nan), dtype=np.float64)
        if affine.shape != (4, 4):
            raise ValueError(f"its attributes hold no '{AFFINE}' of 4 x 4 numbers, so its place is unknown")
        with ZipStore(path, mode="r") as store:
            voxels = np.asarray(zarr.open_array(store, mode="r", zarr_format=3)[...])
        return Stored(voxels=voxels, affine=affine, marked_hu=str(attributes.get(MARK, "")).startswith(HU_MARK))


def write_array(path: Path, voxels: npt.NDArray[np.int16], affine: npt.NDArray[np.float64]) -> None:
    """Write voxels as an array in a zip file, the same bytes each time.

    Args:
        path: The file.
        voxels: (X, Y, Z) whole HU.
        affine: (4, 4), from voxel index to RAS+ world coordinates in mm.
    """
    import zarr
    from zarr.codecs import BloscCodec

    entries: dict[str, Any] = {}
    x, y, z = voxels.shape
    array = zarr.create_array(
        entries,
        shape=voxels.shape,
        dtype="int16",
        chunks=(min(x, max(1, _CHUNK_VOXELS // (y * z))), y, z),
        # Twice the size of a slow compression would save 1%; noise does not compress.
        compressors=BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle"),
        filters=None,
        fill_value=0,
        dimension_names=("x", "y", "z"),
        attributes={AFFINE: affine.tolist(), MARK: HU_MARK},
        zarr_format=3,
        config={"write_empty_chunks": True},
    )
    array[...] = voxels
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(entries):
            archive.writestr(zipfile.ZipInfo(name, _TIME), entries[name].to_bytes())


def _checked_attributes(path: Path) -> dict[str, Any]:
    """The attributes of an archive whose claims are possible.

    Nothing is unpacked to a disk, so names do no harm; sizes could.

    Raises:
        ValueError: It is no array that this package reads, claims more than it may, or lacks chunks.
    """
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("its zip file is compressed; expected one that only stores chunks")
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError("its parts claim to be larger than the file")
        if _METADATA not in archive.namelist() or archive.getinfo(_METADATA).file_size > _MAX_METADATA_BYTES:
            raise ValueError(f"it holds no {_METADATA} of an array")
        metadata = json.loads(archive.read(_METADATA))
    if not isinstance(metadata, dict) or (metadata.get("zarr_format"), metadata.get("node_type")) != (3, "array"):
        raise ValueError("it is no array of Zarr version 3")
    codecs = [codec["name"] for codec in metadata["codecs"]]
    if codecs != _CODECS:
        raise ValueError(f"its codecs are {', '.join(codecs)}; expected {', '.join(_CODECS)}")
    shape, chunk = metadata["shape"], metadata["chunk_grid"]["configuration"]["chunk_shape"]
    counts = [*shape, *chunk]
    if len(shape) != len(chunk) or not all(type(n) is int and n > 0 for n in counts):
        raise ValueError(f"its shape is {shape} in chunks of {chunk}; expected whole numbers above 0")
    size = math.prod(shape) * np.dtype(metadata["data_type"]).itemsize
    if size > MAX_BYTES or any(c > n for c, n in zip(chunk, shape, strict=True)):
        text = " x ".join(map(str, shape))
        raise ValueError(f"it claims {text} voxels, {size / 2**30:.3g} GiB; at most {MAX_BYTES / 2**30:g} GiB are read")
    expected = math.prod(-(-n // c) for n, c in zip(shape, chunk, strict=True))
    held = len({entry.filename for entry in entries if entry.filename.startswith("c/")})
    if held != expected:
        raise ValueError(f"it holds {held} chunks of {expected}; it was not written to its end")
    attributes = metadata.get("attributes")
    return attributes if isinstance(attributes, dict) else {}
