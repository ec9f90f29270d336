from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from text2ct.errors import UserError
from text2ct.findings import FINDINGS
from text2ct.simulation.acquisition import METAL_HU, acquire, move, noise_at, streak
from text2ct.simulation.instance import Instance
from text2ct.simulation.patients import Acquisition, Patient, draw_patient
from text2ct.simulation.render import render, render_ideal
from text2ct.volumes import Volume, to_grid

SMALL: dict = {"size": (40, 40, 40), "spacing_mm": (8.0, 8.0, 8.0)}
SOFT = Acquisition("soft", 8.0, 1.0)
SHARP = Acquisition("sharp", 20.0, 1.0)


def person(number: int = 41, *reconstructions: Acquisition, **changes: object) -> Patient:
    patient = draw_patient(number, labels=np.zeros(len(FINDINGS), bool))
    scan = dataclasses.replace(patient.scans[0], reconstructions=reconstructions or (SOFT,), **changes)
    return dataclasses.replace(patient, scans=(scan,))


def test_a_volume_is_float32_in_range_and_repeats():
    hu = render(person(), **SMALL)
    assert hu.dtype == np.float32
    assert hu.shape == (40, 40, 40)
    assert hu.min() == -1000
    assert 150 < hu.max() <= 1500
    np.testing.assert_array_equal(hu, render(person(), **SMALL))
    assert not np.array_equal(hu, render(person(42), **SMALL))


def test_the_chest_lies_the_right_way():
    hu = render(person(), **SMALL)
    soft = (hu > 0) & (hu < 140)
    low = soft[:, :, 2:9]
    assert low[20:, 12:30].mean() > low[:20, 12:30].mean(), "the liver belongs to the right, at high x"
    heart = soft[8:32, 21:27, 13:19].mean(axis=(1, 2))
    assert heart[:12].sum() > heart[12:].sum(), "the heart belongs to the left"
    bone = hu > 250
    assert bone[:, :16].sum() > bone[:, 24:].sum(), "the spine belongs to the back, at low y"
    assert (hu[:, :, 30:36] < -600).mean() > 0.1, "lungs reach up to the top"


def test_attenuation_is_that_of_tissue():
    hu = render_ideal(person(contrast=False), 0, **SMALL)
    body = hu[8:32, 8:32, 8:32]
    lung = body[(body < -500) & (body > -990)]
    assert -900 < np.median(lung) < -780
    fat = body[(body > -150) & (body < -60)]
    assert len(fat) > 300
    soft = body[(body > 20) & (body < 80)]
    assert len(soft) > 1000


@pytest.mark.parametrize("number", [41, 43])
def test_another_grid_shows_the_same_anatomy(number: int):
    coarse = render_ideal(person(number), 0, (40, 40, 40), (8.0, 8.0, 8.0))
    fine = render_ideal(person(number), 0, (80, 80, 80), (4.0, 4.0, 4.0))
    down = fine.reshape(40, 2, 40, 2, 40, 2).mean(axis=(1, 3, 5))
    assert np.corrcoef(coarse.ravel(), down.ravel())[0, 1] > 0.99
    assert abs(float(coarse.mean() - down.mean())) < 8


def test_a_smaller_field_is_a_cut_out():
    wide = render_ideal(person(), 0, (40, 40, 40), (8.0, 8.0, 8.0))
    narrow = render_ideal(person(), 0, (24, 24, 24), (8.0, 8.0, 8.0))
    np.testing.assert_allclose(narrow, wide[8:32, 8:32, 8:32], atol=15)


def test_reconstructions_differ_in_acquisition_only():
    quiet = [dataclasses.replace(one, noise_hu=1e-3) for one in (SOFT, SHARP)]
    patient = person(41, SOFT, SHARP, *quiet)
    grid = {"size": (64, 64, 64), "spacing_mm": (2.5, 2.5, 2.5)}
    soft, sharp, soft_quiet, sharp_quiet = (render(patient, reconstruction=k, **grid) for k in range(4))
    assert np.corrcoef(soft.ravel(), sharp.ravel())[0, 1] > 0.98
    assert (sharp - sharp_quiet).std() > 1.5 * (soft - soft_quiet).std()


def test_a_coarse_grid_is_a_fine_one_resampled():
    """Edges are as soft as resampling leaves them; a voxel's box alone would be sharper."""
    patient = person(41, Acquisition("soft", 1e-3, 1.0))
    size, fine = (48, 48, 48), 1.5
    affine = np.diag([fine, fine, fine, 1.0])
    affine[:3, 3] = -(4 * 48 - 1) / 2 * fine
    drawn = Volume(render(patient, 0, 0, (192, 192, 192), (fine,) * 3), affine)

    def sharpness(hu: np.ndarray) -> float:
        energy = np.abs(np.fft.fftn(hu - hu.mean())) ** 2
        frequency = np.sqrt(sum(f**2 for f in np.meshgrid(*(np.fft.fftfreq(48),) * 3, indexing="ij")))
        return float(energy[frequency > 0.3].sum() / energy.sum())

    wanted = sharpness(to_grid(drawn, size, (6.0,) * 3).hu)
    assert sharpness(render(patient, 0, 0, size, (6.0,) * 3)) == pytest.approx(wanted, rel=0.25)
    assert sharpness(render_ideal(patient, 0, size, (6.0,) * 3)) > 1.5 * wanted


def test_thick_slices_blur_along_z_only():
    hu = np.zeros((24, 24, 24), np.float32)
    hu[12, 12, 12] = 1000.0
    quiet = Acquisition("sharp", 1e-3, 6.0)
    out = acquire(hu, (1.0, 1.0, 1.0), quiet, np.random.default_rng(0))
    assert out[12, 12, 14] > 5 * out[12, 14, 12]
    assert out.sum() == pytest.approx(1000.0, rel=0.01)


def noise(spacing_mm: float, size: int, acquisition: Acquisition, seed: int = 0) -> np.ndarray:
    """Of a scan of soft tissue throughout."""
    flat = np.full((size,) * 3, 50.0, np.float32)
    return acquire(flat, (spacing_mm,) * 3, acquisition, np.random.default_rng(seed)) - 50


def block_means(values: np.ndarray, *blocks: int) -> np.ndarray:
    shape = [part for n, block in zip(values.shape, blocks, strict=True) for part in (n // block, block)]
    return values.reshape(shape).mean(axis=(1, 3, 5))


@pytest.mark.parametrize("scan", [SOFT, SHARP, Acquisition("soft", 8.0, 3.0)], ids=["soft", "sharp", "thick"])
def test_noise_of_a_coarse_grid_is_that_of_a_fine_one_averaged(scan: Acquisition):
    """The deviation of a grid comes from an integral over frequencies; here voxels of 1 mm are averaged instead.

    The tolerance of 15 % is for what differs between integral and grid (a fine grid lacks the noise beyond its own
    highest frequency, and is blurred by a little more than its voxels); up to 8 % were found.
    """
    fine = noise(1.0, 120, scan)
    for step in (2, 3, 5):
        coarse = noise(float(step), 120 // step, scan, seed=1)
        assert coarse.std() == pytest.approx(block_means(fine, step, step, step).std(), rel=0.15), step


def test_coarser_voxels_average_noise_away():
    """What is said of a scan is its noise at 1.5 mm, and each axis averages on its own."""
    for scan, level in ((SOFT, 8.0), (SHARP, 20.0)):
        assert noise_at((1.5, 1.5, 1.5), scan) == pytest.approx(level)
        assert noise(1.5, 32, scan).std() == pytest.approx(level, rel=1e-3)
    fine = noise(1.5, 96, SOFT)
    for blocks in ((2, 1, 1), (1, 2, 1), (1, 1, 2), (2, 2, 2), (4, 4, 4)):
        spacing = tuple(1.5 * block for block in blocks)
        # 2 % at twice the spacing, 5 % at four times.
        assert noise_at(spacing, SOFT) == pytest.approx(block_means(fine, *blocks).std(), rel=0.08), blocks


@pytest.mark.parametrize("step", [3.0, 5.0, 6.0, 8.0])
@pytest.mark.parametrize("one", [SOFT, SHARP, Acquisition("soft", 8.0, 5.0)], ids=["soft", "sharp", "thick"])
def test_noise_power_counts_frequencies_of_both_signs(step: float, one: Acquisition):
    """Against the whole spectrum of filtered white noise, averaged over voxels; half of it gives 1 to 11 % more."""
    f = np.fft.fftfreq(80, 0.75)
    fx, fy, fz = np.meshgrid(f, f, f, indexing="ij")
    in_plane, along_z = {"soft": 1.1, "sharp": 0.55}[one.kernel], one.slice_thickness_mm / 2.355
    radial = np.hypot(fx, fy)
    density = (radial + 0.01) * np.exp(-4 * np.pi**2 * ((in_plane * radial) ** 2 + (along_z * fz) ** 2))

    def power(edge: float) -> float:
        return float((density * (np.sinc(fx * edge) * np.sinc(fy * edge) * np.sinc(fz * edge)) ** 2).sum())

    wanted = one.noise_hu * np.sqrt(power(step) / power(1.5))
    assert noise_at((step,) * 3, one) == pytest.approx(wanted, rel=0.01)


def test_streaks_are_dark_and_bright_and_only_in_slices_with_metal():
    wires = Instance("Medical material", 0.5, "", "spinal fixation")
    ideal = render_ideal(person(instances=(wires,)), 0, (64, 64, 64), (5.0, 5.0, 5.0))
    streaked = streak(ideal, (5.0, 5.0, 5.0))
    metal = (ideal > METAL_HU).any(axis=(0, 1))
    assert 5 < metal.sum() < 32
    changed = np.abs(streaked - ideal).max(axis=(0, 1)) > 0
    np.testing.assert_array_equal(changed, metal)
    error = (streaked - ideal)[ideal < METAL_HU]
    assert error.min() < -150
    assert error.max() > 40
    np.testing.assert_array_equal(streaked, streak(ideal, (5.0, 5.0, 5.0)))
    plain = render_ideal(person(), 0, **SMALL)
    assert streak(plain, (8.0, 8.0, 8.0)) is plain


def test_a_dark_band_joins_two_pieces_of_metal():
    def error(*columns: int) -> np.ndarray:
        hu = np.full((64, 64, 1), 40.0, np.float32)
        for column in columns:
            hu[column : column + 2, 31:33] = 3000.0
        return streak(hu, (5.0, 5.0, 5.0)) - hu

    # A ray through both falls short by more than the sum of what each takes from it.
    both, alone = error(20, 42), error(20) + error(42)
    assert (both - alone)[30:34, 31:33].max() < -20
    assert both[30:34, 31:33].max() < -20


def test_motion_blurs_diaphragm_and_heart_and_spares_apex_and_back():
    patient = person(41, SOFT, SHARP, motion_mm=4.0)
    ideal = render_ideal(patient, 0, (64, 64, 64), (5.0, 5.0, 5.0))
    moved = move(ideal, (5.0, 5.0, 5.0), 4.0)
    change = np.abs(moved - ideal)
    assert change[:, :, 45:].max() == 0
    assert change[:, :19].max() == 0
    assert change[20:44, 30:44, 12:24].mean() > 5
    assert move(ideal, (5.0, 5.0, 5.0), 0.0) is ideal
    still = dataclasses.replace(patient, scans=(dataclasses.replace(patient.scans[0], motion_mm=0.0),))
    # Both reconstructions carry the same motion: their difference is that of a scan at rest.
    effects = [render(patient, reconstruction=k, **SMALL) - render(still, reconstruction=k, **SMALL) for k in (0, 1)]
    assert np.corrcoef(effects[0].ravel(), effects[1].ravel())[0, 1] > 0.9


def test_a_tenth_of_scans_moves():
    scans = [scan for number in range(800) for scan in draw_patient(number, labels=np.zeros(18, bool)).scans]
    moved = np.array([scan.motion_mm for scan in scans])
    assert 0.07 < (moved > 0).mean() < 0.13
    assert moved[moved > 0].min() >= 1
    assert moved.max() <= 4


def test_bone_has_a_dense_tail():
    """At 5 mm the densest twentieth is 500 HU and more: cortex, as in real chests; the bulk is trabecular."""
    for number in (41, 43):
        hu = render(person(number, contrast=False, distractors=()))
        bone = hu[ndimage.binary_erosion(hu > -500, iterations=2) & (hu > 200)]
        median, dense, densest = np.percentile(bone, [50, 95, 99.5])
        assert 240 < median < 340
        assert 450 < dense < 650
        assert 600 < densest < 900


def test_contrast_brightens_blood():
    plain = render_ideal(person(contrast=False), 0, **SMALL)
    enhanced = render_ideal(person(contrast=True), 0, **SMALL)
    heart = (slice(14, 24), slice(20, 26), slice(13, 19))
    assert enhanced[heart].mean() > plain[heart].mean() + 40


@pytest.mark.parametrize(
    ("size", "spacing", "match"),
    [
        ((8, 8, 8), (5.0, 5.0, 5.0), "cover 40 mm; at least 120 mm"),
        ((64, 64, 64), (20.0, 5.0, 5.0), "x: spacing 20.0 mm is outside"),
        ((512, 64, 64), (5.0, 5.0, 5.0), "at most 768 mm"),
        ((64, 64), (5.0, 5.0), "three sizes"),
    ],
)
def test_impossible_grids_are_refused(size: tuple, spacing: tuple, match: str):
    with pytest.raises(UserError, match=match):
        render(person(), size=size, spacing_mm=spacing)


def test_missing_scans_and_reconstructions_are_refused():
    with pytest.raises(UserError, match="has 1 scans; there is no number 1"):
        render(person(), scan=1, **SMALL)
    with pytest.raises(UserError, match="there is no 2"):
        render(person(), reconstruction=2, **SMALL)
