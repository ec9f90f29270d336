"""Laws of `to_grid`: the world stays where it is, whatever the grid."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from text2ct.errors import UserError
from text2ct.volumes import FITS, Volume, read, to_grid

FINE = {"size": (40, 36, 44), "spacing_mm": (6.0, 7.0, 5.0)}
COARSE = {"size": (9, 8, 7), "spacing_mm": (27.0, 30.0, 33.0)}


def centre_of_mass(volume):
    """World coordinates of the centre of what stands out from air."""
    weight = volume.hu.astype(np.float64) + 1000
    index = [
        (np.arange(n) * weight.sum(axis=tuple({0, 1, 2} - {a}))).sum() / weight.sum()
        for a, n in enumerate(weight.shape)
    ]
    return volume.affine[:3, :3] @ index + volume.affine[:3, 3]


def blob(size=(30, 28, 26), spacing_mm=(8.0, 9.0, 10.0), at=(12.3, 15.1, 11.7)):
    """Air with one smooth lump, well inside."""
    index = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), axis=-1)
    hu = -1000 + 1500 * np.exp(-(((index - at) / 2.5) ** 2).sum(axis=-1) / 2)
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = (5, -70, 900)
    return Volume(hu, affine)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("grid", [FINE, COARSE], ids=["finer", "coarser"])
@pytest.mark.parametrize("degrees", [0, 25])
def test_a_landmark_keeps_its_world_coordinates(fit, grid, degrees, rotated):
    source = rotated(blob(), degrees)
    result = to_grid(source, **grid, fit=fit)
    assert result.size == grid["size"]
    tolerance_mm = 0.02 * max(result.spacing_mm) if fit == "crop-pad" else 0.1 * max(result.spacing_mm)
    np.testing.assert_allclose(centre_of_mass(result), centre_of_mass(source), atol=tolerance_mm)
    np.testing.assert_allclose(result.centre_mm, source.centre_mm, atol=1e-9)
    assert result.obliquity_deg == pytest.approx(degrees)


@given(
    size=st.tuples(*[st.integers(1, 40)] * 3),
    spacing=st.tuples(*[st.floats(0.7, 40)] * 3),
    fit=st.sampled_from(FITS),
)
@settings(max_examples=40, deadline=None)
def test_any_grid_is_finite_inside_the_range_and_centred(size, spacing, fit):
    source = blob((7, 9, 11), at=(3, 4, 5))
    result = to_grid(source, size, spacing, fit)
    assert result.size == size
    assert result.hu.dtype == np.float32
    assert np.isfinite(result.hu).all()
    assert result.hu.min() >= -1000.01
    assert result.hu.max() <= 1000.01
    np.testing.assert_allclose(result.centre_mm, source.centre_mm, atol=1e-6)
    if fit == "crop-pad":
        assert result.spacing_mm == pytest.approx(spacing)
    else:
        extent = np.array(source.size) * source.spacing_mm
        assert result.spacing_mm == pytest.approx(tuple(extent / size))


@pytest.mark.parametrize("fit", FITS)
def test_its_own_grid_changes_nothing(fit, phantom):
    result = to_grid(phantom, phantom.size, phantom.spacing_mm, fit)
    np.testing.assert_allclose(result.hu, np.clip(phantom.hu, -1000, 1000), atol=1e-3)
    np.testing.assert_allclose(result.affine, phantom.affine, atol=1e-9)


@pytest.mark.parametrize("fit", FITS)
def test_flips_commute(fit, phantom):
    flipped = replace(phantom, hu=phantom.hu[::-1, :, ::-1])
    for grid in (FINE, COARSE):
        straight = to_grid(phantom, **grid, fit=fit).hu
        np.testing.assert_allclose(to_grid(flipped, **grid, fit=fit).hu[::-1, :, ::-1], straight, atol=0.01)


def test_padding_lies_outside_the_volume_and_nowhere_else(phantom):
    inside = replace(phantom, hu=np.full_like(phantom.hu, 50))
    result = to_grid(inside, (64, 30, 20), (5.0, 5.0, 20.0), pad_hu=-777)
    index = np.stack(np.meshgrid(*map(np.arange, result.size), indexing="ij"), axis=-1)
    world = index @ result.affine[:3, :3].T + result.affine[:3, 3]
    back = (world - phantom.affine[:3, 3]) @ np.linalg.inv(phantom.affine[:3, :3]).T
    outside = ((back < -0.5) | (back > np.array(phantom.size) - 0.5)).any(axis=-1)
    assert 0 < outside.mean() < 1
    np.testing.assert_allclose(result.hu, np.where(outside, -777, 50), atol=1e-3)


def test_downsampling_does_not_alias():
    stripes = np.full((60, 12, 12), -500, np.float32)
    stripes[::2] = 500
    result = to_grid(Volume(stripes, np.diag([2, 20, 20, 1.0])), (15, 12, 12), (8.0, 20.0, 20.0))
    assert np.abs(result.hu[1:-1]).max() < 1


def test_metal_and_padding_do_not_bleed(phantom):
    hu = np.full_like(phantom.hu, 0)
    hu[5, 5, 5], hu[9, 9, 9] = 30000, -8192
    result = to_grid(replace(phantom, hu=hu), **COARSE)
    assert -200 < result.hu[result.hu > -1000].min() <= result.hu.max() < 200


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": (64, 0, 64)}, "grid of size .* is impossible"),
        ({"spacing_mm": (5, -1, 5)}, "voxel spacing of .* is impossible"),
        ({"spacing_mm": (5, float("nan"), 5)}, "voxel spacing of .* is impossible"),
        ({"fit": "squeeze"}, "no fit 'squeeze'; use crop-pad or resize"),
    ],
)
def test_impossible_grids(phantom, arguments, message):
    with pytest.raises(UserError, match=message):
        to_grid(phantom, **arguments)


@pytest.mark.parametrize("variant", ["a", "c"])
def test_resize_is_the_released_one(shared, variant):
    folder = shared / "parity/preprocess" / variant
    config = json.loads((folder / "config.json").read_text("utf-8"))
    expected = np.load(folder / "expected.npz")
    volume = read(folder / "input.nii.gz")
    step = 2 if config["oriented_saved"] != "full" else 1
    oriented = volume.hu.transpose(2, 1, 0)
    np.testing.assert_array_equal(oriented[::step, ::step, ::step], expected["oriented_zyx_f32"])
    result = to_grid(volume, (512, 512, 128), (0.75, 0.75, 3.0), "resize")
    z, y, x = expected["probe_index_zyx"].astype(int).T
    np.testing.assert_allclose(result.hu[x, y, z], expected["probe_float"], atol=0.02)
    assert np.abs(np.rint(result.hu[x, y, z]) - expected["probe_int16"]).max() <= 1
    # The released code stamps 0.75 x 0.75 x 3.0 mm and loses origin and rotation; ours is the true affine.
    extent = np.array(volume.size) * volume.spacing_mm
    assert result.spacing_mm == pytest.approx(tuple(extent / (512, 512, 128)))
    assert result.obliquity_deg == pytest.approx(7 if variant == "c" else 0, abs=0.01)
