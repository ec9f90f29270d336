"""Files that would take all memory, crash a library, or reach elsewhere: each refused in words before it can."""

from __future__ import annotations

import gzip
import zlib

import nibabel as nib
import numpy as np
import pytest

from text2ct.errors import UserError
from text2ct.volumes import read

MHA = (
    "ObjectType = Image\nNDims = 3\nBinaryData = True\nElementSpacing = 2 2 2\nDimSize = 4 4 4\n"
    "ElementType = MET_SHORT\n"
)
NRRD = "NRRD0004\ntype: short\ndimension: 3\nsizes: 4 4 4\nspacings: 2 2 2\nendian: little\nencoding: raw\n"


def test_a_nifti_that_unpacks_to_more_than_it_claims_is_not_unpacked(foreign) -> None:
    path = foreign("ct.nii.gz")
    whole = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(whole + bytes(100), 1))
    read(path)  # something may follow the voxels
    path.write_bytes(gzip.compress(whole + bytes(2**27), 1))
    with pytest.raises(UserError, match=r"unpacks to more than the .* bytes that its header claims"):
        read(path)


@pytest.mark.parametrize("name", ["claims.nii", "claims.nii.gz"])
def test_a_nifti_that_claims_terabytes_is_refused(tmp_path, name: str) -> None:
    header = nib.nifti1.Nifti1Header()
    header["dim"], header["magic"], header["vox_offset"] = [3, 30000, 30000, 30000, 1, 1, 1, 1], b"n+1", 352
    content = bytes(header.binaryblock) + bytes(1000)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    with pytest.raises(UserError, match=r"should hold .* bytes of voxels"):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "header", "message"),
    [
        ("a.mha", MHA.replace("4 4 4", "30000 30000 30000") + "ElementDataFile = LOCAL", "claims 30000 x 30000"),
        ("a.mha", MHA.replace("NDims = 3", "NDims = 65536") + "ElementDataFile = LOCAL", "'65536' dimensions"),
        ("a.mha", "TransformMatrix = 1 0 0 0 1 0 0 -1e308 1\n" + MHA + "ElementDataFile = LOCAL", "number '-1e308'"),
        ("a.mhd", MHA + "ElementDataFile = a%09999999d.raw", "expected one file beside it"),
        ("a.mhd", MHA + "ElementDataFile = ../../secret.raw", "expected one file beside it"),
        ("a.mhd", MHA + "ElementDataFile = /etc/passwd", "expected one file beside it"),
        ("a.mhd", MHA + "ElementDataFile = LIST", "expected one file beside it"),
        ("a.mha", MHA + "Comment = " + "a" * 5000 + "\nElementDataFile = LOCAL", "more letters than any has"),
        ("a.nrrd", NRRD.replace("4 4 4", "1600 1600 1600"), "claims 1600 x 1600"),
        ("a.nrrd", NRRD.replace("spacings: 2", "spacings: " + "9" * 200), "the number '9999"),
        ("a.nrrd", NRRD.replace("type", "a" * 5000), "more letters than any has"),
        ("a.nhdr", NRRD + "data file: ../a.raw", "expected one file beside it"),
    ],
)
def test_a_header_that_would_crash_hang_or_leave_its_folder_is_refused(tmp_path, name, header, message) -> None:
    (tmp_path / name).write_bytes(header.encode() + b"\n\n" + bytes(128))
    with pytest.raises(UserError, match=message):
        read(tmp_path / name)


def test_an_mha_that_is_packed_well_is_read(phantom, tmp_path) -> None:
    """What deflate can do is not taken for a false claim."""
    packed = zlib.compress(np.full((64, 64, 64), -1000, "<i2").tobytes())
    size = f"CompressedData = True\nCompressedDataSize = {len(packed)}\n"
    header = size + MHA.replace("4 4 4", "64 64 64") + "ElementDataFile = LOCAL\n"
    (tmp_path / "a.mha").write_bytes(header.encode() + packed)
    with pytest.raises(UserError, match="constant volume"):  # it was read
        read(tmp_path / "a.mha")
