"""RAD-ChestCT's archives: what is assumed is said, and no claim of a file is believed before it is checked."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from text2ct.errors import UserError
from text2ct.volumes import read

from .test_files import write_rad_chestct


@pytest.fixture
def archive(tmp_path, phantom):
    return write_rad_chestct(phantom, tmp_path / "trn00001.npz")


def _with_member(path, content, name="ct.npy"):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return path


def _npy(array):
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def test_what_the_file_does_not_hold_is_said(archive):
    volume = read(archive)
    (note,) = volume.notes
    assert "0.8 mm voxels and the axes inferior, posterior, left are assumed" in note
    assert volume.spacing_mm == pytest.approx((0.8, 0.8, 0.8))
    np.testing.assert_allclose(volume.centre_mm, 0, atol=1e-9)
    assert volume.intensity.startswith("HU as stored")


def test_clipped_voxels_are_hu(tmp_path, phantom):
    """Air is one value after the data set's clipping, which is no reason to doubt the rest."""
    from dataclasses import replace

    clipped = np.clip(np.where(phantom.hu < -900, -1000, phantom.hu), -1000, 1000)
    volume = read(write_rad_chestct(replace(phantom, hu=clipped), tmp_path / "val00001.npz"))
    np.testing.assert_array_equal(volume.hu, clipped)


def test_other_archives_are_told_what_they_lack(tmp_path, phantom):
    np.savez(tmp_path / "features.npz", mean=np.zeros(3), cov=np.zeros(3))
    with pytest.raises(UserError, match=r"features\.npz has no array 'ct', .* it has mean, cov"):
        read(tmp_path / "features.npz")


def test_nothing_is_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("it was unpickled",))

    path = _with_member(tmp_path / "a.npz", _npy(np.array([Trap()], dtype=object)))
    with pytest.raises(UserError, match="of type object; expected one number each"):
        read(path)


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((30000, 30000, 30000), "of at most 2048"),
        ((2000, 2000, 2000), "claims 2000 x 2000 x 2000 voxels, which do not fit its bytes"),
        ((24, 20), "of 24 x 20 voxels; expected a 3D volume"),
        ((), "of no voxels; expected a 3D volume"),
    ],
)
def test_a_claim_beyond_the_bytes_takes_no_memory(tmp_path, shape, says):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<i2", "fortran_order": False, "shape": shape})
    with pytest.raises(UserError, match=says):
        read(_with_member(tmp_path / "a.npz", header.getvalue() + bytes(64)))


def test_a_directory_that_lies_about_sizes_is_damaged(archive):
    """The central directory claims more than deflate can unpack."""
    content = bytearray(archive.read_bytes())
    entry = content.rfind(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = (3 * 10**9).to_bytes(4, "little")
    archive.write_bytes(content)
    with pytest.raises(UserError, match=archive.name):
        read(archive)


def test_a_flipped_bit_is_found(archive):
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    archive.write_bytes(content)
    with pytest.raises(UserError, match=archive.name):
        read(archive)
