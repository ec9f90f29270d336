from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from text2ct.errors import UserError
from text2ct.volumes import WINDOWS, Volume, Window, apply_window, hu_to_unit, unit_to_hu


def test_geometry(phantom):
    assert phantom.size == (24, 20, 16)
    assert phantom.spacing_mm == (10.0, 12.0, 14.0)
    assert phantom.obliquity_deg == 0
    corners = phantom.affine[:3, 3], phantom.affine[:3, :3] @ [23, 19, 15] + phantom.affine[:3, 3]
    np.testing.assert_allclose(phantom.centre_mm, np.mean(corners, axis=0))


@pytest.mark.parametrize(
    ("shape", "affine", "message"),
    [
        ((4, 4), np.eye(4), "expected three axes"),
        ((4, 4, 0), np.eye(4), "expected three axes"),
        ((4, 4, 4), np.eye(3), r"is not \(4, 4\)"),
        ((4, 4, 4), np.full((4, 4), np.nan), "NaN"),
        ((4, 4, 4), np.diag([1.0, 1.0, 0.0, 1.0]), "zero voxel spacing"),
        ((4, 4, 4), np.ones((4, 4)), "singular"),
    ],
)
def test_impossible_volumes_are_refused(shape, affine, message):
    with pytest.raises(ValueError, match=message):
        Volume(np.zeros(shape), affine)


@given(st.floats(-1000, 1000, width=32))
def test_unit_round_trip(hu):
    assert unit_to_hu(hu_to_unit(np.array([hu])))[0] == pytest.approx(hu, abs=2e-4)


def test_unit_range():
    assert hu_to_unit(np.array([-9000, -1000, 0, 1000, 9000])).tolist() == [0, 0, 0.5, 1, 1]
    assert unit_to_hu(np.array([-1, 0, 0.5, 1, 2])).tolist() == [-1000, -1000, 0, 1000, 1000]


@pytest.mark.parametrize("name", sorted(WINDOWS))
def test_windows_are_monotone_and_span_zero_to_one(name):
    window = WINDOWS[name]
    hu = np.arange(-2000, 4000, dtype=np.float32)
    grey = apply_window(hu, name)
    assert grey.dtype == np.float32
    assert (np.diff(grey) >= 0).all()
    assert grey[hu <= window.low_hu].max() == 0
    assert grey[hu >= window.high_hu].min() == 1
    assert apply_window(np.array([window.centre]), window)[0] == pytest.approx(0.5)


def test_unknown_window():
    with pytest.raises(UserError, match="no window 'brain'; use one of lung, soft_tissue, bone, vessel"):
        apply_window(np.zeros(1), "brain")
    with pytest.raises(ValueError, match="width is 0"):
        Window(centre=0, width=0)
