"""Cache, order of draws, augmentation."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SIZE, SPACING, toy_volume, write_nifti
from hypothesis import given, settings
from hypothesis import strategies as st

from text2ct.classifiers import VolumeCache
from text2ct.classifiers.augmentation import classical_augmentation
from text2ct.classifiers.cache import NODE_CACHE
from text2ct.classifiers.config import Preprocessing, WindowSetting
from text2ct.classifiers.dataset import DrawnVolumes, brought_forward, draw_order, make_table
from text2ct.classifiers.model import HuWindows
from text2ct.classifiers.rows import usable_rows
from text2ct.errors import UserError
from text2ct.files import sha256_file
from text2ct.volumes import WINDOWS, apply_window

GRID = Preprocessing(size=SIZE, spacing_mm=SPACING)


@pytest.fixture
def volume_path(tmp_path: Path) -> Path:
    path = tmp_path / "volume.nii.gz"
    write_nifti(path, toy_volume(np.random.default_rng(0), bright=True))
    return path


def test_the_entry_is_the_volume_on_its_own_grid(tmp_path: Path, volume_path: Path) -> None:
    grid = VolumeCache.load(VolumeCache(tmp_path / "cache", GRID).entry(volume_path))
    expected = toy_volume(np.random.default_rng(0), bright=True).clip(-1000, 1000)
    assert grid.dtype == np.int16
    np.testing.assert_allclose(grid, expected, atol=1)


def test_the_key_is_content_and_preprocessing_not_the_name(tmp_path: Path, volume_path: Path) -> None:
    cache = VolumeCache(tmp_path / "cache", GRID)
    copy = tmp_path / "elsewhere" / "other.nii.gz"
    copy.parent.mkdir()
    shutil.copy(volume_path, copy)
    assert cache.key(copy) == cache.key(volume_path)
    coarser = VolumeCache(tmp_path / "cache", GRID.model_copy(update={"spacing_mm": (6.0, 6.0, 6.0)}))
    assert coarser.key(volume_path) != cache.key(volume_path)


def test_a_changed_file_of_the_same_name_is_read_again(tmp_path: Path, volume_path: Path) -> None:
    cache = VolumeCache(tmp_path / "cache", GRID)
    first = cache.entry(volume_path)
    write_nifti(volume_path, toy_volume(np.random.default_rng(1), bright=False))
    second = cache.entry(volume_path)
    assert first != second
    assert VolumeCache.load(second).max() < 200 < VolumeCache.load(first).max()


@pytest.mark.parametrize("damage", [b"", b"half a file"], ids=["empty", "garbage"])
def test_a_damaged_entry_is_made_again(tmp_path: Path, volume_path: Path, damage: bytes) -> None:
    cache = VolumeCache(tmp_path / "cache", GRID)
    entry = cache.entry(volume_path)
    whole = entry.read_bytes()
    assert len(whole) == cache.bytes_per_volume()
    entry.write_bytes(damage)
    assert cache.entry(volume_path).read_bytes() == whole


def test_a_node_keeps_copies_of_its_own(tmp_path: Path, volume_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, near = VolumeCache(tmp_path / "cache", GRID), tmp_path / "near"
    entry = cache.entry(volume_path)
    expected = np.array(VolumeCache.load(entry))
    monkeypatch.setenv(NODE_CACHE, str(near))
    assert (VolumeCache.load(entry) == expected).all()
    (copy,) = near.rglob("*.npy")
    assert copy.read_bytes() == entry.read_bytes()
    copy.write_bytes(copy.read_bytes()[:100])
    assert (VolumeCache.load(entry) == expected).all(), "half a copy is made again"
    entry.write_bytes(b"x" * entry.stat().st_size)
    assert (VolumeCache.load(cache.entry(volume_path)) == expected).all(), "a damaged entry is no copy's source"
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv(NODE_CACHE, str(blocked))
    assert (VolumeCache.load(entry) == expected).all(), "without room for copies the entry itself is read"


def test_a_file_that_is_not_the_manifests_is_refused(tmp_path: Path, volume_path: Path) -> None:
    cache = VolumeCache(tmp_path / "cache", GRID)
    cache.entry(volume_path, sha256_file(volume_path))
    with pytest.raises(UserError, match="not the file that the manifest was made of"):
        cache.entry(volume_path, "0" * 64)


def test_all_missing_volumes_are_named_at_once(tmp_path: Path, workspace, manifest) -> None:
    for volume in manifest["volume"][:2]:
        (workspace.path / "real" / "volumes" / volume).unlink()
    with pytest.raises(UserError, match="2 of 12 training volumes") as caught:
        make_table(manifest, workspace, VolumeCache(tmp_path / "cache", GRID), "training")
    assert "row 1 (toy_0_a_1.nii.gz)" in caught.value.problems[0]
    assert len(caught.value.problems) == 2


def test_volumes_that_a_gate_rejected_are_not_trained_on(manifest, capsys) -> None:
    rows, _ = usable_rows(manifest)
    gate = [""] * len(manifest)
    gate[0], gate[1], gate[2] = "reject@g: label: not seen; geometry: no lungs", "accept@g", np.nan
    kept, without_label = usable_rows(manifest.assign(gate=gate))
    assert kept.index.tolist() == rows.index.tolist()[1:]
    assert without_label == 0
    assert "1 volumes left out: rejected by the gate" in capsys.readouterr().err


def test_windows_on_the_tensor_are_those_of_volumes() -> None:
    hu = torch.linspace(-1200, 1200, 64).reshape(1, 1, 4, 4, 4)
    settings = [WindowSetting(name=n, centre=w.centre, width=w.width) for n, w in WINDOWS.items()]
    channels = HuWindows(settings)(hu)
    for channel, name in enumerate(WINDOWS):
        np.testing.assert_allclose(channels[0, channel], apply_window(hu[0, 0].numpy(), name), atol=1e-6)


def test_unweighted_draws_take_every_row_equally_often() -> None:
    order = draw_order(5, 15, seed=0)
    assert np.bincount(order).tolist() == [3] * 5
    assert order.tolist() == draw_order(5, 15, seed=0).tolist()
    assert order.tolist() != draw_order(5, 15, seed=1).tolist()


ROW_WEIGHTS = st.lists(st.sampled_from([0.0, 1e-6, 1.0, 2.0, 1e6]) | st.floats(0, 9), min_size=1, max_size=30)


@settings(max_examples=200, deadline=None)
@given(ROW_WEIGHTS.filter(lambda weights: sum(weights) > 1e-300), st.integers(1, 400), st.integers(0, 2**40))
def test_weighted_draws_are_within_one_of_what_is_expected(weights: list[float], draws: int, seed: int) -> None:
    order = draw_order(len(weights), draws, seed, weights)
    counts = np.bincount(order, minlength=len(weights))
    expected = draws * np.array(weights) / sum(weights)
    assert len(order) == draws
    assert (np.abs(counts - expected) <= 1 + 1e-6).all()
    assert not counts[np.array(weights) == 0].any()
    assert order.tolist() == draw_order(len(weights), draws, seed, weights).tolist()


@given(st.integers(1, 20), st.integers(1, 100), st.floats(0.1, 10))
def test_equal_weights_draw_permutation_after_permutation(rows: int, draws: int, weight: float) -> None:
    order = draw_order(rows, draws, 0, [weight] * rows)
    for start in range(0, draws, rows):
        stretch = order[start : start + rows].tolist()
        assert len(set(stretch)) == len(stretch)


@given(st.integers(1, 20), st.integers(1, 200), st.floats(0.01, 1), st.integers(0, 2**20))
def test_rows_brought_forward_are_drawn_as_often_as_before(rows: int, draws: int, until: float, chosen: int) -> None:
    order = draw_order(rows, draws, 0)
    early = np.array([bool(chosen >> row & 1) for row in range(rows)])
    moved = brought_forward(order, early, until)
    for kind in (early, ~early):
        assert moved[kind[moved]].tolist() == order[kind[order]].tolist(), "each kind keeps its own order"
    alone = min(round((1 - until) * draws), int((~early[order]).sum()))
    assert not early[moved[draws - alone :]].any()
    share = early[order].sum() / max(1, draws - alone)
    before = np.cumsum(early[moved[: draws - alone]])
    assert (np.abs(before - share * np.arange(1, draws - alone + 1)) <= 1 + 1e-9).all(), "mixed evenly until then"


def test_weighted_draws_are_spread_evenly_and_at_random() -> None:
    weights = np.array([0.2, 1.0, 1.0, 5.0] * 10)
    orders = [draw_order(40, 360, seed, weights) for seed in range(300)]
    assert orders[0].tolist() != orders[1].tolist()
    tenths = np.array([[np.bincount(part, minlength=40) for part in np.split(order, 10)] for order in orders])
    expected = 36 * weights / weights.sum()
    assert np.abs(tenths - expected).max() <= 3, "no clumps"
    by_weight = tenths.reshape(300, 10, 10, 4).mean(axis=(0, 2))
    np.testing.assert_allclose(by_weight, np.tile(expected[:4], (10, 1)), atol=0.05)


def test_augmentation_depends_on_seed_and_draw_alone(tmp_path: Path, workspace, manifest) -> None:
    table = make_table(manifest, workspace, VolumeCache(tmp_path / "cache", GRID), "training")
    order = draw_order(len(manifest), 8, seed=0)
    settings = {"augment": classical_augmentation(SPACING), "seed": 5}
    whole = [DrawnVolumes(table, order, **settings)[i][0] for i in range(8)]
    torch.manual_seed(99)
    resumed = [DrawnVolumes(table, order, start=4, **settings)[i][0] for i in range(4)]
    for a, b in zip(whole[4:], resumed, strict=True):
        assert torch.equal(a, b)
    plain = DrawnVolumes(table, order)[0][0]
    assert any(not torch.equal(a, DrawnVolumes(table, order)[i][0]) for i, a in enumerate(whole))
    for volume in whole:
        assert volume.shape == plain.shape
        assert volume.dtype == torch.float32
        assert volume.min() >= -1000
        assert volume.max() <= 1000


def test_augmentation_keeps_sides() -> None:
    hu = torch.full((1, 64, 64, 64), -800.0)
    hu[:, 42:47, 30:34, 30:34] = 800.0
    augment = classical_augmentation((5.0, 5.0, 5.0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(20):
            moved = augment(hu)
            assert moved[:, 32:].max() > 0 > moved[:, :32].max()


def test_augmentation_leaves_soft_tissue_soft_tissue() -> None:
    hu = torch.full((1, 24, 24, 24), 40.0)
    augment = classical_augmentation((5.0, 5.0, 5.0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        levels = torch.stack([augment(hu)[:, 8:16, 8:16, 8:16].mean() for _ in range(40)])
    assert (levels - 40).abs().max() < 65
    assert levels.std() > 5
