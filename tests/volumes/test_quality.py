from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from text2ct.volumes import Volume, check, read


def with_spacing(volume, *spacing_mm):
    return replace(volume, affine=np.diag([*spacing_mm, 1.0]))


def edited(volume, edit):
    hu = volume.hu.copy()
    edit(hu)
    return replace(volume, hu=hu)


def test_a_good_volume_has_no_problem(phantom):
    assert check(phantom) == []


CASES = {
    "nan": (lambda v: edited(v, lambda hu: hu.__setitem__((0, 0, 0), np.nan)), "1 of 7680 voxels are NaN"),
    "infinite": (
        lambda v: edited(v, lambda hu: hu.__setitem__((0, 0), np.inf)),
        "16 of 7680 voxels are NaN or inf",
    ),
    "constant": (lambda v: replace(v, hu=np.zeros_like(v.hu)), "every voxel is 0: the volume is constant"),
    "two slices": (
        lambda v: replace(v, hu=v.hu[..., 7:9]),
        r"only 2 slice\(s\) along one axis \(24 x 20 x 2\)",
    ),
    "fine spacing": (lambda v: with_spacing(v, 0.01, 12, 14), "spacing of 0.01 x 12 x 14 mm is absurd"),
    "coarse spacing": (lambda v: with_spacing(v, 10, 12, 90), "spacing of 10 x 12 x 90 mm is absurd"),
    "tiny view": (lambda v: with_spacing(v, 1, 1, 1), "field of view of 24 x 20 x 16 mm is tiny"),
    "vast view": (
        lambda v: with_spacing(replace(v, hu=np.tile(v.hu, (5, 1, 1))), 18, 12, 14),
        "view of 2160 x 240 x 224 mm is absurd",
    ),
    "filled": (lambda v: edited(v, lambda hu: hu[:3].fill(0)), "12% of voxels are exactly 0, a fill that is not air"),
    "not HU": (lambda v: replace(v, hu=v.hu + 1024), "do not look like HU of a chest: 0.0% of voxels at air"),
    "flat inside": (
        lambda v: edited(v, lambda hu: hu[..., 6].fill(0)),
        r"1 axial slice\(s\) between others are flat",
    ),
    "mostly flat": (
        lambda v: edited(v, lambda hu: hu[..., 5:].fill(-1000)),
        "11 of 16 axial slices are flat",
    ),
    "repeated": (
        lambda v: replace(v, hu=np.repeat(v.hu[..., ::2], 2, axis=2)),
        "8 of 16 axial slices repeat",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), CASES.values(), ids=CASES)
def test_each_problem_is_named(phantom, spoil, message):
    problems = check(spoil(phantom))
    assert len(problems) == 1
    assert re.search(message, problems[0])


def test_all_problems_are_named_at_once():
    hu = np.zeros((2, 8, 8))
    hu[0] = 500
    problems = check(Volume(hu, np.diag([0.01, 5, 5, 1.0])))
    assert [len(problems) >= 3, "slice" in problems[0], "absurd" in problems[1]] == [True, True, True]


def test_padded_ends_are_no_problem(phantom):
    assert check(edited(phantom, lambda hu: hu[..., :4].fill(-1000))) == []


def test_the_three_real_volumes_are_fit_for_use(shared):
    for path in sorted((shared / "real/volumes").iterdir()):
        assert check(read(path)) == [], path.name
