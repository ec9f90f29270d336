from __future__ import annotations

import numpy as np
import pytest

from text2ct.findings import FINDINGS
from text2ct.simulation.anatomy import Anatomy, draw_anatomy
from text2ct.simulation.anatomy_frame import Frame, spline_weights
from text2ct.simulation.anatomy_scene import Scene
from text2ct.simulation.anatomy_shape import ellipsoid, lobe_depth, lung_depth
from text2ct.simulation.anatomy_trees import Tree, grow, grow_trees
from text2ct.simulation.instance import LOBES
from text2ct.simulation.patients import draw_patient, generator

PATIENT = draw_patient(21, labels=np.zeros(len(FINDINGS), bool))


@pytest.fixture
def anatomy() -> Anatomy:
    return draw_anatomy(PATIENT, PATIENT.scans[0])


@pytest.fixture
def scene(anatomy: Anatomy) -> Scene:
    return Scene(anatomy, Frame(anatomy, PATIENT.number, 0), (32, 32, 32), (10.0, 10.0, 10.0))


def test_world_and_canonical_are_inverse(anatomy: Anatomy):
    frame = Frame(anatomy, PATIENT.number, 0)
    points = np.random.default_rng(0).uniform(-120, 120, (50, 3))
    world = frame.to_world(points).astype(np.float32)
    back = np.stack(frame.to_canonical(world[:, 0], world[:, 1], world[:, 2]), axis=1)
    assert np.abs(back - points).max() < 0.5


def test_spline_weights_sum_to_one():
    weights = spline_weights(np.linspace(-200, 200, 40), 12.0, 32)
    np.testing.assert_allclose(weights.sum(1), 1.0, rtol=1e-5)


def test_depth_of_a_sphere_is_its_distance():
    x = np.array([0.0, 5.0, 12.0], np.float32)
    zero = np.zeros(3, np.float32)
    np.testing.assert_allclose(ellipsoid(x, zero, zero, (0, 0, 0), (10, 10, 10)), [10, 5, -2], atol=0.01)


def test_a_splat_keeps_its_volume(scene: Scene):
    tree = Tree(np.array([[-40.0, 0.0, 0.0]]), np.array([[40.0, 10.0, 20.0]]), np.array([3.0]))
    volume_mm3 = float(scene.splat(*tree.points(2.0)).sum()) * 1000.0 / float(np.prod(scene.frame.scale))
    length = np.linalg.norm(tree.end - tree.start)
    assert volume_mm3 == pytest.approx(np.pi * 9.0 * length, rel=1e-3)


def test_a_tube_has_about_its_volume(scene: Scene):
    cover = scene.tube(np.array([[-50.0, 0.0, 0.0], [50.0, 0.0, 0.0]]), 20.0)
    volume_mm3 = float(cover.sum()) * 1000.0 / float(np.prod(scene.frame.scale))
    assert volume_mm3 == pytest.approx(np.pi * 400 * 100 + 4 / 3 * np.pi * 8000, rel=0.1)


def test_noise_is_the_same_field_on_two_grids(anatomy: Anatomy):
    frame = Frame(anatomy, PATIENT.number, 0)
    coarse = Scene(anatomy, frame, (16, 16, 16), (12.0, 12.0, 12.0)).noise(np.random.default_rng(3), 40.0)
    fine = Scene(anatomy, frame, (48, 48, 48), (4.0, 4.0, 4.0)).noise(np.random.default_rng(3), 40.0)
    np.testing.assert_allclose(coarse, fine[1::3, 1::3, 1::3], atol=1e-4)
    assert 0.7 < fine.std() < 1.3


def test_trees_taper_and_stay_in_the_lungs(anatomy: Anatomy):
    trees = grow_trees(anatomy, generator(PATIENT.number, "trees"))
    assert set(trees) == {"arteries", "veins", "airways"}
    x, y, z = trees["arteries"].end.astype(np.float32).T
    assert (lung_depth(anatomy, x, y, z) > 0).all()
    assert trees["arteries"].radius.max() > 3 * trees["arteries"].radius.min()


def test_murray_holds_at_a_fork():
    tree = grow(np.zeros(3), np.array([[10.0, 0, 0], [20.0, 5, 0], [20.0, -5, 0]]), 0.1, leaf_mm=1.0)
    # The trunk feeds its own tip and the two twigs.
    assert tree.radius[0] ** 2.7 == pytest.approx(3.0)


def test_lobes_share_out_each_lung(anatomy: Anatomy):
    x, y, z = np.random.default_rng(1).uniform(-100, 100, (3, 3000)).astype(np.float32)
    inside = np.sum([lobe_depth(name, x, y, z) > 0 for name in LOBES], axis=0)
    assert (inside == 1).mean() > 0.999


def test_sites_lie_in_their_lobe_and_apart(scene: Scene):
    assert len(scene.sites(np.random.default_rng(2), ("right middle lobe",), 6, 5.0, 150.0)) == 6
    found = scene.sites(np.random.default_rng(2), ("left lower lobe",), 5, 5.0, 15.0)
    assert 2 <= len(found) <= 5
    assert (found[:, 0] < 0).all()
    gaps = np.linalg.norm(found[:, None] - found[None], axis=2)[np.triu_indices(len(found), 1)]
    assert (gaps >= 15.0).all()


def test_age_size_and_contrast_show_in_the_anatomy():
    people = [draw_patient(n, labels=np.zeros(18, bool)) for n in range(200)]
    drawn = [draw_anatomy(p, p.scans[0]) for p in people]
    old = np.array([p.age > 60 for p in people])
    aorta = np.array([a.aorta_mm for a in drawn])
    bone = np.array([a.bone_hu for a in drawn])
    assert aorta[old].mean() > aorta[~old].mean()
    assert bone[old].mean() < bone[~old].mean()
    enhanced = np.array([a.contrast for a in drawn])
    blood = np.array([a.blood_hu for a in drawn])
    assert blood[enhanced].min() > 140 > 60 > blood[~enhanced].max()
