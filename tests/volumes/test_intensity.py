"""CT-RATE's two generations, and everything that is neither."""

from __future__ import annotations

import numpy as np
import pytest

from text2ct.errors import UserError
from text2ct.volumes import read, write
from text2ct.volumes.intensity import decide, levels

INTERCEPTS = (-1024, -8192)


@pytest.mark.parametrize("intercept", INTERCEPTS)
def test_first_generation_takes_the_metadata(foreign, phantom, intercept):
    path = foreign(alter=lambda hu: hu - intercept)
    volume = read(path, slope=1, intercept=intercept)
    np.testing.assert_array_equal(volume.hu, phantom.hu)
    assert f"intercept {intercept} of the metadata applied" in volume.intensity
    assert "rejected HU as stored" in volume.intensity


@pytest.mark.parametrize("intercept", INTERCEPTS)
def test_second_generation_leaves_the_metadata_alone(foreign, phantom, intercept):
    volume = read(foreign("train_fixed/ct.nii.gz"), slope=1, intercept=intercept)
    np.testing.assert_array_equal(volume.hu, phantom.hu)
    assert volume.intensity.startswith("HU as stored")
    assert f"rejected slope 1 and intercept {intercept}" in volume.intensity


@pytest.mark.parametrize(("padding", "generation"), [(-8192, 2), (-3024, 2), (-2000, 1), (0, 1)])
def test_padding_becomes_air(foreign, phantom, padding, generation):
    def alter(hu):
        stored = hu + 8192 if padding == 0 else hu + 1024 if generation == 1 else hu.copy()
        stored[:3] = padding
        return stored

    volume = read(foreign(alter=alter), slope=1, intercept=-8192 if padding == 0 else -1024)
    assert (volume.hu[:3] == -1000).all()
    np.testing.assert_array_equal(volume.hu[3:], phantom.hu[3:])
    assert "are padding, set to -1000" in volume.intensity


@pytest.mark.parametrize("offset", [0, 1024, 8192], ids=["v2", "v1-1024", "v1-8192"])
@pytest.mark.parametrize("scale", [None, (1, -1024), (1, -8192), (1, 0), (1, -2048), (2, -1024)], ids=str)
@pytest.mark.parametrize("header", [(1, 0), (1, -1024), (1, -8192), (2, -1024)], ids=str)
@pytest.mark.parametrize("fill", [None, -32768, -8192, -3024, -2000, -1024, 0, 4095, 32767], ids=str)
def test_every_combination_is_right_or_refused(phantom, offset, scale, header, fill):
    stored = phantom.hu + offset
    if fill is not None:
        stored[:3] = fill
    # What must not be refused: HU as stored, or a right scale by either statement, round a body that lies in air.
    decidable = offset == 0 or (1, -offset) in (header, scale)
    # As HU the others fill the outside with tissue or metal.
    in_air = fill is None or fill - offset <= -1000
    for fixed in (False, True):
        if not (decidable and in_air):
            with pytest.raises(UserError, match="the voxels are not HU"):
                decide(stored, header_scale=header, metadata_scale=scale, fixed=fixed)
            continue
        decision = decide(stored, header_scale=header, metadata_scale=scale, fixed=fixed)
        np.testing.assert_array_equal(stored[3:] * decision.slope + decision.intercept, phantom.hu[3:])


@pytest.mark.parametrize("name", ["train/ct.nii", "train_fixed/ct.nii"])
@pytest.mark.parametrize("fill", [None, -8192, -3024, -2000])
@pytest.mark.parametrize(("offset", "header", "slope"), [(0, None, 1), (1024, None, 1), (1024, (1, -1024), 2)], ids=str)
def test_files_of_both_generations_in_either_folder(tmp_path, save_foreign, phantom, name, fill, offset, header, slope):
    hu = phantom.hu.copy()
    hu[:3] = -1000 if fill is None else fill
    stored = (hu + offset).astype("<i2")
    volume = read(save_foreign(tmp_path / name, stored, phantom.affine, header), slope=slope, intercept=-1024)
    np.testing.assert_allclose(volume.hu[3:], phantom.hu[3:], atol=1)
    assert (volume.hu[:3] == -1000).all()


@pytest.mark.parametrize(("fill", "stored"), [(0, 0), (4095, 0), (4095, 1024), (32767, 1024)])
def test_a_fill_that_is_not_air_is_refused_and_named(foreign, fill, stored):
    def alter(hu):
        hu = hu + stored
        hu[:3] = fill
        return hu

    with pytest.raises(UserError, match=f"of voxels are exactly {fill - stored}, a fill that is not air|above 3100"):
        read(foreign(alter=alter), slope=1, intercept=-stored)


def test_slope_is_applied(tmp_path, save_foreign, phantom):
    path = save_foreign(tmp_path / "ct.nii", ((phantom.hu + 1024) * 4).astype(np.int16), phantom.affine)
    np.testing.assert_array_equal(read(path, slope=0.25, intercept=-1024).hu, phantom.hu)


@pytest.mark.parametrize("metadata", [{}, {"slope": 1, "intercept": -1024}], ids=["alone", "with-metadata"])
def test_header_scale(tmp_path, save_foreign, phantom, metadata):
    stored = (phantom.hu + 1024).astype("<i2")
    volume = read(save_foreign(tmp_path / "ct.nii", stored, phantom.affine, (1, -1024)), **metadata)
    np.testing.assert_array_equal(volume.hu, phantom.hu)
    assert "scaled by the header (slope 1, intercept -1024)" in volume.intensity


def test_header_scale_that_lies_is_ignored_and_said(tmp_path, save_foreign, phantom):
    volume = read(save_foreign(tmp_path / "ct.nii", phantom.hu.astype("<i2"), phantom.affine, (1, -1024)))
    np.testing.assert_array_equal(volume.hu, phantom.hu)
    assert "HU as stored, the header's scale ignored" in volume.intensity


@pytest.mark.parametrize(
    ("alter", "metadata", "message"),
    [
        (lambda hu: hu + 1024, {}, "should be near -1024 but is missing; give the right metadata CSV"),
        (lambda hu: hu + 8192, {"intercept": -1024}, "should be near -8192 but says -1024"),
        (lambda hu: hu - 1024, {}, "intercept of -1024 seems to have been applied twice"),
        (lambda hu: (hu + 1024) // 900, {}, "as after normalisation"),
        (lambda hu: np.clip(hu / 16 + 70, 0, 255), {}, "as in an 8-bit picture"),
        (lambda hu: hu * 30, {}, "no known scale makes a chest CT of them"),
        (lambda hu: np.full_like(hu, -1000), {}, "a constant volume cannot be HU"),
    ],
)
def test_the_impossible_is_refused_with_the_evidence(foreign, alter, metadata, message):
    with pytest.raises(UserError, match=message) as caught:
        read(foreign(alter=alter), **metadata)
    assert "ct.nii.gz" in str(caught.value)


def test_no_finite_voxel():
    with pytest.raises(UserError, match="no voxel is a finite number"):
        decide(np.full((4, 4, 4), np.nan))


def test_two_readings_that_fit(phantom):
    near = decide(phantom.hu, metadata_scale=(1, 60))
    assert near.intercept == 0
    assert "air is nearest to -1000" in near.words
    assert "the folder says _fixed" in decide(phantom.hu, metadata_scale=(1, -5), fixed=True).words
    with pytest.raises(UserError, match="fit two readings"):
        decide(phantom.hu, metadata_scale=(1, -5))


def test_our_own_files_are_marked(tmp_path, phantom):
    from dataclasses import replace

    for suffix in ("nii.gz", "mha"):
        path = tmp_path / f"odd.{suffix}"
        write(replace(phantom, hu=np.full_like(phantom.hu, 30)), path)
        volume = read(path, slope=1, intercept=-1024)
        assert (volume.hu == 30).all()
        assert volume.intensity == "HU: the header's mark says so; the metadata's scale was not applied"


def test_levels_of_nothing_but_padding():
    seen = levels(np.full((3, 3, 3), -3024.0))
    assert seen.padding == 1
    assert not seen.plausible
