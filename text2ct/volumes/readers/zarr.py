"""Zarr version 3, one array in one zip file: a cache that is read many times as fast as gzip.

A ``NAME.zarr`` is what ``zarr.open_array(zarr.storage.ZipStore("NAME.zarr", mode="r"))`` opens: (X, Y, Z) int16 HU,
with the affine among its attributes. One file and not a folder of chunks: it has a checksum, and is whole or absent.
It is written by the zarr library, and read without it: what that adds to a small volume is more than its unpacking.
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
# Data type and codecs of an array.
_KIND = ["int16", "bytes", "blosc"]
# Of a zip entry's own header, before its name.
_LOCAL_BYTES = 30
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
        """Read all chunks; what the archive claims must be possible, and every chunk must be there and whole."""
        if path.is_dir():
            raise ValueError("it is a folder; expected one zip file, as zarr.storage.ZipStore writes it")
        content = memoryview(path.read_bytes())
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
        shape, thickness, attributes = _claims(content, entries)
        affine = np.array(attributes.get(AFFINE, np.nan), dtype=np.float64)
        if affine.shape != (4, 4):
            raise ValueError(f"its attributes hold no '{AFFINE}' of 4 x 4 numbers, so its place is unknown")
        voxels = np.empty((-(-shape[0] // thickness) * thickness, *shape[1:]), dtype="<i2")
        for number, start in enumerate(range(0, shape[0], thickness)):
            _unpack(_part(content, entries[f"c/{number}/0/0"]), voxels[start : start + thickness])
        marked = str(attributes.get(MARK, "")).startswith(HU_MARK)
        return Stored(voxels=voxels[: shape[0]], affine=affine, marked_hu=marked)


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
        # On chest CT: a tenth larger than zstd's, and unpacked in less than half the time.
        compressors=BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle"),
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


def _claims(content: memoryview, entries: dict[str, zipfile.ZipInfo]) -> tuple[list[int], int, dict[str, Any]]:
    """Shape, planes of x in a chunk, and attributes; before any memory is taken for them.

    Raises:
        ValueError: It is no array as `write_array` makes them, claims more than it may, or lacks chunks.
    """
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
        raise ValueError("its zip file is compressed; expected one that only stores chunks")
    if _METADATA not in entries or entries[_METADATA].file_size > _MAX_METADATA_BYTES:
        raise ValueError(f"it holds no {_METADATA} of an array")
    metadata = json.loads(bytes(_part(content, entries[_METADATA])))
    if not isinstance(metadata, dict) or (metadata.get("zarr_format"), metadata.get("node_type")) != (3, "array"):
        raise ValueError("it is no array of Zarr version 3")
    kind = [metadata["data_type"], *(codec["name"] for codec in metadata["codecs"])]
    if kind != _KIND:
        raise ValueError(f"its data type and codecs are {', '.join(kind)}; expected {', '.join(_KIND)}")
    shape, chunk = metadata["shape"], metadata["chunk_grid"]["configuration"]["chunk_shape"]
    text, whole = " x ".join(map(str, shape)), " x ".join(map(str, chunk))
    if len(shape) != 3 or chunk[1:] != shape[1:] or not all(type(n) is int and n > 0 for n in [*shape, *chunk]):
        raise ValueError(f"its {text} voxels lie in chunks of {whole}; expected three axes, and whole planes of x")
    size = 2 * math.prod(shape)
    if size > MAX_BYTES or chunk[0] > shape[0]:
        raise ValueError(
            f"it claims {text} voxels in chunks of {whole}, {size / 2**30:.3g} GiB; "
            f"at most {MAX_BYTES // 2**30} are read"
        )
    expected = -(-shape[0] // chunk[0])
    held = sum(f"c/{number}/0/0" in entries for number in range(min(expected, len(entries))))
    if held != expected:
        raise ValueError(f"it holds {held} chunks of {expected}; it was not written to its end")
    attributes = metadata.get("attributes")
    return shape, chunk[0], attributes if isinstance(attributes, dict) else {}


def _part(content: memoryview, entry: zipfile.ZipInfo) -> memoryview:
    """The bytes of a stored entry, in place; its checksum is that of the zip, counted ten times as fast."""
    from isal import isal_zlib

    local = content[entry.header_offset : entry.header_offset + _LOCAL_BYTES]
    names = sum(int.from_bytes(local[at : at + 2], "little") for at in (26, 28))
    start = entry.header_offset + _LOCAL_BYTES + names
    part = content[start : start + entry.file_size]
    if len(part) != entry.file_size or isal_zlib.crc32(part) != entry.CRC:
        raise ValueError(f"its part {entry.filename} is damaged: its checksum is another")
    return part


def _unpack(chunk: memoryview, planes: npt.NDArray[np.int16]) -> None:
    """Unpack a Blosc chunk into its place, if that is what it holds."""
    from numcodecs import blosc

    claimed = int.from_bytes(chunk[4:8], "little"), int.from_bytes(chunk[12:16], "little")
    if claimed != (planes.nbytes, len(chunk)):
        raise ValueError(f"a chunk claims to be {claimed[0]} bytes; expected {planes.nbytes}")
    blosc.decompress(chunk, planes)
