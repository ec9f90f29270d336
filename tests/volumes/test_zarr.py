"""What a `.zarr` file may claim, and what it keeps."""

from __future__ import annotations

import itertools
import json
import zipfile

import numpy as np
import pytest

from text2ct.errors import UserError
from text2ct.suffixes import VOLUME_SUFFIXES, without_suffix
from text2ct.volumes import FORMATS, Volume, find_volumes, preprocess, read, write
from text2ct.volumes.readers import READERS, zarr


@pytest.fixture
def written(phantom, tmp_path):
    write(phantom, tmp_path / "ct.zarr")
    return tmp_path / "ct.zarr"


def rewrite(path, change, leave_out=(), compression=zipfile.ZIP_STORED):
    """The archive with other metadata, or without some of its parts."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist() if name not in leave_out}
    if "zarr.json" in parts:
        metadata = json.loads(parts["zarr.json"])
        change(metadata)
        parts["zarr.json"] = json.dumps(metadata).encode()
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path


def test_the_affine_and_the_mark_are_exact(phantom, tmp_path):
    affine = phantom.affine @ np.diag([1 / 3, 0.1, 1.7, 1])
    affine[1, 2] = 0.2  # a tilted gantry
    low = np.full((8, 8, 8), -3000.0)
    low[2:5] = 40
    write(Volume(low, affine), tmp_path / "ct.zarr")
    volume = read(tmp_path / "ct.zarr")
    np.testing.assert_array_equal(volume.affine, affine)
    np.testing.assert_array_equal(volume.hu, low)
    assert volume.intensity == "HU: the header's mark says so"


def test_many_chunks(phantom, tmp_path, monkeypatch):
    monkeypatch.setattr(zarr, "_CHUNK_VOXELS", 1000)
    write(phantom, tmp_path / "ct.zarr")
    with zipfile.ZipFile(tmp_path / "ct.zarr") as archive:
        assert len(archive.namelist()) == 1 + 8
    np.testing.assert_array_equal(read(tmp_path / "ct.zarr").hu, phantom.hu)
    with pytest.raises(UserError, match="it holds 7 chunks of 8"):
        read(rewrite(tmp_path / "ct.zarr", lambda metadata: None, leave_out=["c/3/0/0"]))


def claim(shape, chunk=None):
    def change(metadata):
        metadata["shape"] = shape
        metadata["chunk_grid"]["configuration"]["chunk_shape"] = chunk or shape

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            claim([10**6, 10**6, 10**6]),
            "1000000 x 1000000 x 1000000 voxels in chunks of .*, 1.86e[+]09 GiB; at most 4",
        ),
        (claim([24, 20, 16], [10**9, 20, 16]), "it claims 24 x 20 x 16 voxels in chunks of 1000000000"),
        (claim([24, 20, -16]), "24 x 20 x -16 voxels .* expected three axes"),
        (claim([24, 20, 16], [24, 20]), "expected three axes"),
        (claim([24, 20, 16], [24, 10, 16]), "and whole planes of x"),
        (claim([2**31 - 1, 1, 1], [1, 1, 1]), "holds 1 chunks of 2147483647"),
        (claim([24, 20, 15]), "a chunk claims to be 15360 bytes; expected 14400"),
        (lambda metadata: metadata.update(data_type="r8000000000000"), "data type and codecs are r8000000000000"),
        (lambda metadata: metadata.update(zarr_format=2), "no array of Zarr version 3"),
        (lambda metadata: metadata.update(node_type="group"), "no array of Zarr version 3"),
        (lambda metadata: metadata["codecs"].pop(), "codecs are int16, bytes; expected int16, bytes, blosc"),
        (lambda metadata: metadata.pop("codecs"), "as Zarr"),
        (lambda metadata: metadata.pop("attributes"), "no 'affine_ras_mm' of 4 x 4 numbers"),
        (lambda metadata: metadata["attributes"].update(affine_ras_mm="x"), "as Zarr"),
    ],
    ids=itertools.count(),
)
def test_impossible_claims_are_refused(written, change, message):
    with pytest.raises(UserError, match=f"cannot read .*ct.zarr as Zarr: .*{message.removeprefix('as Zarr')}"):
        read(rewrite(written, change))


def test_archives_that_are_none(written, tmp_path):
    with pytest.raises(UserError, match="its zip file is compressed"):
        read(rewrite(written, lambda metadata: None, compression=zipfile.ZIP_DEFLATED))
    with pytest.raises(UserError, match=r"it holds no zarr\.json"):
        read(rewrite(written, lambda metadata: None, leave_out=["zarr.json"]))
    (tmp_path / "text.zarr").write_text("no archive")
    with pytest.raises(UserError, match="File is not a zip file"):
        read(tmp_path / "text.zarr")
    (tmp_path / "empty.zarr").touch()
    with pytest.raises(UserError, match="it is empty"):
        read(tmp_path / "empty.zarr")
    (tmp_path / "folder.zarr").mkdir()
    with pytest.raises(UserError, match="it is a folder; expected one zip file"):
        read(tmp_path / "folder.zarr")


def test_a_changed_byte_is_found(written):
    with zipfile.ZipFile(written) as archive:
        chunk = archive.getinfo("c/0/0/0")
    content = bytearray(written.read_bytes())
    content[chunk.header_offset + 100] ^= 1
    written.write_bytes(content)
    with pytest.raises(UserError, match=r"ct\.zarr as Zarr: its part c/0/0/0 is damaged"):
        read(written)


def test_names_outside_the_archive_are_never_written(written, tmp_path):
    with zipfile.ZipFile(written, "a") as archive:
        archive.writestr("../outside", b"x")
    before = sorted(tmp_path.parent.rglob("*"))
    read(written)
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_a_chunk_that_lies_about_its_size_is_refused(written):
    with zipfile.ZipFile(written) as archive:
        parts = {name: bytearray(archive.read(name)) for name in archive.namelist()}
    parts["c/0/0/0"][4:8] = (2**31 - 1).to_bytes(4, "little")
    with zipfile.ZipFile(written, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, bytes(content))
    with pytest.raises(UserError, match="a chunk claims to be 2147483647 bytes; expected 15360"):
        read(written)


@pytest.mark.parametrize("format", FORMATS)
def test_a_format_changes_no_voxel(foreign, tmp_path, format):
    foreign("in/ct.nii.gz")
    grid = {"size": (12, 10, 9), "spacing_mm": (24.0, 24.0, 26.0)}
    made = preprocess([tmp_path / "in"], tmp_path / format, format=format, **grid)
    usual = preprocess([tmp_path / "in"], tmp_path / "usual", **grid)
    (path,), (other,) = made.manifest["path"], usual.manifest["path"]
    assert path == f"volumes/local/ct.{format}"
    np.testing.assert_array_equal(read(tmp_path / format / path).hu, read(tmp_path / "usual" / other).hu)
    assert preprocess([tmp_path / "in"], tmp_path / format, format=format, **grid).resumed == 1
    assert find_volumes([tmp_path / format]) == [tmp_path / format / path]


def test_one_list_of_suffixes():
    assert all(f".{format}" in VOLUME_SUFFIXES for format in FORMATS)
    every = (*VOLUME_SUFFIXES, ".npz")
    known = {suffix for reader in READERS.values() for suffix in every if suffix in reader.looks_like}
    assert known == set(every)
    assert {without_suffix(f"a.b{suffix}") for suffix in VOLUME_SUFFIXES} == {"a.b"}
    assert [name for name in map(without_suffix, ("A.NII.GZ", "b.zarr.txt", ".zarr"))] == ["A", "b.zarr.txt", ""]
