"""Laws of lazy volumes: whoever goes over planes sees what is in the whole."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from text2ct.volumes import FITS, LazyVolume, Volume, check, open_volume, read, to_grid
from text2ct.volumes.lazy import copy_tiled, slabs

GRIDS = [((9, 8, 7), (27.0, 30.0, 33.0)), ((40, 36, 44), (6.0, 7.0, 5.0)), ((9, 36, 16), (27.0, 7.0, 14.0))]
GRIDS += [((24, 8, 7), (10.0, 30.0, 30.0)), ((5, 40, 3), (10.0, 5.0, 3.0))]
GRIDS += [((3, 3, 90), (60.0, 70.0, 15.0)), ((4, 3, 2), (70.0, 80.0, 120.0))]  # all padding; few of the planes


@pytest.fixture(params=[1, 1000, 2**21], ids="{} voxels at a time".format)
def at_a_time(request, monkeypatch):
    monkeypatch.setattr(LazyVolume, "slab_voxels", request.param)
    return request.param


def layouts(voxels):
    """The same (X, Y, Z) numbers with each axis along memory, forwards and backwards."""
    for order in itertools.permutations(range(3)):
        turned = np.ascontiguousarray(voxels.transpose(order)).transpose(np.argsort(order))
        yield turned
        yield np.ascontiguousarray(turned[::-1, ::-1])[::-1, ::-1]


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_no_bit_depends_on_how_the_planes_are_cut(phantom, at_a_time, fit, grid):
    expected = to_grid(phantom, *grid, fit=fit)
    for stored in layouts(phantom.hu.astype(np.int16)):
        result = to_grid(LazyVolume(stored, phantom.affine), *grid, fit=fit)
        np.testing.assert_array_equal(result.hu, expected.hu)
        np.testing.assert_array_equal(result.affine, expected.affine)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_resize_is_twice_trilinear(phantom, at_a_time, grid):
    size, spacing_mm = grid
    middle = [
        max(1, round(n * own / mm)) for n, own, mm in zip(phantom.size, phantom.spacing_mm, spacing_mm, strict=True)
    ]
    expected = torch.from_numpy(phantom.hu.astype(np.float64))[None, None].clip(-1000, 1000)
    for shape in (middle, size):
        expected = torch.nn.functional.interpolate(expected, size=tuple(shape), mode="trilinear", align_corners=False)
    result = to_grid(LazyVolume(phantom.hu.astype(np.int16), phantom.affine), size, spacing_mm, "resize")
    np.testing.assert_allclose(result.hu, expected[0, 0].numpy(), atol=0.01)


def test_planes_sample_and_whole_agree(phantom, at_a_time):
    stored = (phantom.hu + 1024).astype(np.int16)
    stored[:2] = 0
    lazy = LazyVolume(stored, phantom.affine, 0.5, -1900.0, fill=True, intensity="as told", notes=("a note",))
    whole = lazy.load()
    expected = stored.astype(np.float32) * np.float32(0.5) + np.float32(-1900)
    expected[expected < -1200] = -1000
    np.testing.assert_array_equal(whole.hu, expected)
    assert (whole.intensity, whole.notes) == ("as told", ("a note",))
    assert (whole.size, whole.spacing_mm) == (lazy.size, lazy.spacing_mm)
    pieces = [lazy.planes(start, stop) for start, stop in slabs(lazy.size, lazy.slab_voxels)]
    np.testing.assert_array_equal(np.concatenate(pieces, axis=2), whole.hu)
    np.testing.assert_array_equal(lazy.sample(), whole.sample())


@pytest.mark.parametrize(
    "change",
    [
        lambda hu: hu,
        lambda hu: np.full_like(hu, 7),
        lambda hu: np.clip(hu, 0, 1),
        lambda hu: np.where(np.arange(16) == 9, -1000, hu),
        lambda hu: np.where(np.arange(16) < 9, -1000, hu),
        lambda hu: hu[:, :, [0, 1, 2, 3, 4, 5, 5, 5, 8, 9, 10, 11, 12, 13, 14, 15]],
        lambda hu: np.where(np.arange(16) == 9, np.nan, hu),
    ],
    ids=["sound", "constant", "no HU", "a flat slice", "flat slices", "repeated slices", "NaN"],
)
def test_checks_see_the_same(phantom, at_a_time, change):
    volume = replace(phantom, hu=change(phantom.hu).astype(np.float32))
    assert check(LazyVolume(volume.hu, volume.affine)) == check(volume)


def test_a_file_stays_as_stored(foreign, phantom):
    path = foreign("ct.nii.gz", lambda hu: np.where(np.arange(16) < 1, -2000, hu))
    lazy = open_volume(path)
    assert lazy.stored.dtype == np.int16
    assert lazy.fill
    volume = read(path)
    np.testing.assert_array_equal(lazy.load().hu, volume.hu)
    assert volume.hu.min() >= -1200
    assert "6.2% of voxels below -1200 are padding, set to -1000" in volume.intensity
    assert lazy.intensity == volume.intensity


def test_copies_between_layouts():
    voxels = np.arange(70 * 33 * 41, dtype=np.float32).reshape(70, 33, 41)
    for source, target in itertools.product(layouts(voxels), layouts(np.zeros_like(voxels))):
        copy_tiled(source, target)
        np.testing.assert_array_equal(target, voxels)


def test_slabs_cover_every_plane_once():
    for size, voxels in itertools.product([(3, 4, 1), (3, 4, 17)], [1, 30, 60, 10**9]):
        pieces = slabs(size, voxels)
        assert [plane for start, stop in pieces for plane in range(start, stop)] == list(range(size[2]))
        assert all((stop - start) * 12 <= max(voxels, 12) for start, stop in pieces)


def test_one_plane_volume_is_whole():
    volume = Volume(np.arange(12.0).reshape(3, 4, 1), np.eye(4))
    np.testing.assert_array_equal(LazyVolume(volume.hu, volume.affine).load().hu, volume.hu)
