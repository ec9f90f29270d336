"""A pack from simulated patients, in stages that resume."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from tiny_build import CONFIG

from text2ct.diffusion import Pack, generate, verify_pack
from text2ct.diffusion.build import (
    TRAINED_ON,
    build_pack,
    build_pack_of_cases,
    estimate_build,
    is_trained_on,
)
from text2ct.diffusion.build_config import pack_info
from text2ct.diffusion.ctvit import CTViT, CTViTConfig
from text2ct.diffusion.info import Sampling
from text2ct.diffusion.training.cases import Cases
from text2ct.diffusion.vae import LinearBlocksConfig
from text2ct.errors import UserError
from text2ct.files import read_json, write_json
from text2ct.simulation.patients import FIRST_JUDGED, PACK_PATIENTS


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Pack]:
    folder = tmp_path_factory.mktemp("build")
    return folder, build_pack(folder / "work", folder / "pack", CONFIG, device="cpu")


def test_the_pack_is_whole_and_generates(built: tuple[Path, Pack]) -> None:
    folder, pack = built
    assert verify_pack(folder / "pack").name == "tiny-32"
    assert pack.info.trained_on[0].first == PACK_PATIENTS.start
    assert pack.info.trained_on[0].last == PACK_PATIENTS.start + 23
    volumes = generate(pack, ["Pleural effusion."], [0], device="cpu", batch_size=1)
    assert volumes.shape == (1, 32, 32, 32)


def test_the_same_call_goes_on_and_trains_nothing_again(built: tuple[Path, Pack]) -> None:
    folder, pack = built
    last = folder / "work" / "diffusion" / "last.ckpt"
    before = last.stat().st_mtime_ns
    again = build_pack(folder / "work", folder / "pack", CONFIG, device="cpu")
    assert again.sha256 == pack.sha256
    assert last.stat().st_mtime_ns == before


def test_a_folder_from_before_builds_had_a_start_goes_on(built: tuple[Path, Pack], tmp_path: Path) -> None:
    folder, pack = built
    shutil.copytree(folder / "work", tmp_path / "work")
    record = tmp_path / "work" / "build.json"
    write_json(record, {key: value for key, value in read_json(record).items() if key not in ("start", "notes")})
    assert build_pack(tmp_path / "work", tmp_path / "pack", CONFIG, device="cpu").sha256 == pack.sha256


def test_other_defaults_go_on(built: tuple[Path, Pack]) -> None:
    """How a pack samples changes no training, so it may be decided afterwards."""
    folder, pack = built
    other = CONFIG.model_copy(update={"defaults": Sampling(steps=1, guidance_scale=2.0, solver="heun")})
    changed = build_pack(folder / "work", folder / "resampled", other, device="cpu")
    assert changed.info.files == pack.info.files
    assert changed.info.defaults == other.defaults


def test_another_configuration_does_not_go_on(built: tuple[Path, Pack]) -> None:
    folder, _ = built
    other = CONFIG.model_copy(update={"text_length": 32})
    with pytest.raises(UserError, match="begun with another configuration"):
        build_pack(folder / "work", folder / "other", other, device="cpu")


def test_stages_of_other_cases_are_refused_and_named(built: tuple[Path, Pack], tmp_path: Path) -> None:
    """A folder from before that record says what its 3D CLIP and its latents learnt from."""
    work = tmp_path / "work"
    shutil.copytree(built[0] / "work", work)
    record = work / "cases" / "chunk-00000" / "cases.json"
    texts = read_json(record)
    texts[0]["impression"] += " As another simulator says."
    write_json(record, texts)
    named = re.escape("remove tokenizer.json, vae, clip, encoded, diffusion there")
    with pytest.raises(UserError, match=named):
        build_pack(work, tmp_path / "pack", CONFIG, device="cpu")
    (work / TRAINED_ON).unlink()
    with pytest.raises(UserError, match=named):
        build_pack(work, tmp_path / "pack", CONFIG, device="cpu")
    shutil.rmtree(work / "clip")
    (work / "encoded" / "encoded.json").unlink()
    assert is_trained_on(work, Cases(work / "cases")), "what says nothing counts as of the present cases"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"first_patient": 5}, "not all reserved for packs"),
        ({"first_patient": FIRST_JUDGED - 3}, "only judge and measure"),
        ({"first_patient": PACK_PATIENTS.start - 1}, "not all reserved for packs"),
    ],
    ids=["cohort", "judged", "border"],
)
def test_only_reserved_patients_train(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_pack(tmp_path / "work", tmp_path / "pack", CONFIG.model_copy(update=change), device="cpu")
    assert not list(tmp_path.iterdir())


def test_parts_that_do_not_fit_are_refused_before_anything_is_rendered(tmp_path: Path) -> None:
    """As a grid that is changed alone."""
    other = CONFIG.model_copy(update={"grid": (64, 64, 64), "vocab_size": 10**6})
    for build in (lambda: build_pack(tmp_path / "work", tmp_path / "pack", other), lambda: estimate_build(other)):
        with pytest.raises(UserError, match=r"would not fit(.|\n)*latents are(.|\n)*image_size is(.|\n)*vocab_size is"):
            build()
    assert not list(tmp_path.iterdir())


def test_cases_of_another_grid_train_nothing(cases: Cases, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"have \(16, 16, 16\) voxels(.|\n)*write them on the pack's grid"):
        build_pack_of_cases(cases, (), tmp_path / "work", tmp_path / "pack", CONFIG, device="cpu")
    assert not list(tmp_path.iterdir())


def test_an_estimate_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    would = estimate_build(CONFIG)
    assert would["cases"] == 24
    assert would["seconds"] > 0
    assert would["bytes"] > 24 * 32**3
    assert not list(tmp_path.iterdir())


def test_an_estimate_says_which_times_are_unknown(capfd: pytest.CaptureFixture[str]) -> None:
    assert estimate_build(CONFIG)["not_counted"] == ["clip", "diffusion"]
    assert "clip and diffusion has no limit of minutes" in " ".join(capfd.readouterr().err.split())
    limited = CONFIG.model_copy(update={"train_clip": CONFIG.train_clip.model_copy(update={"minutes": 10})})
    would = estimate_build(limited, more_minutes=5)
    assert would["not_counted"] == ["diffusion"]
    assert 900 < would["seconds"] < 1000


def test_a_pack_says_what_its_configuration_says() -> None:
    other = CONFIG.model_copy(update={"patients": 7, "grid": (32, 32, 64), "defaults": Sampling(steps=3)})
    info = pack_info(other, scale_factor=0.25)
    assert (info.grid, info.spacing_mm, info.defaults) == (other.grid, other.spacing_mm, other.defaults)
    assert (info.trained_on[0].first, info.trained_on[0].last) == (PACK_PATIENTS.start, PACK_PATIENTS.start + 6)
    assert info.latent_scale_factor == 0.25


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 0}, "greater than or equal to 1"),
        ({"channels": 2}, "2 channels need as many windows"),
        ({"channels": 2, "windows": ((0.0, 1.0),)}, "not one rising range within"),
        ({"windows": ((-1.0, 1.0),)}, "not one rising range within"),
        ({"windows": ((0.5, 0.5),)}, "not one rising range within"),
    ],
    ids=["none", "no-windows", "too-few", "outside", "empty"],
)
def test_each_channel_of_the_ct_tower_needs_its_window(change: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CTViTConfig(**change)


def test_blocks_that_decode_have_a_middle_one() -> None:
    with pytest.raises(ValidationError, match="2 blocks have no middle one; it must be odd"):
        LinearBlocksConfig(decoder_kernel=2)


@torch.inference_mode()
def test_the_ct_tower_sees_what_lies_in_its_windows() -> None:
    """Intensities outside of every window are cut to its border; one window of [0, 1] changes nothing."""
    torch.manual_seed(0)
    sizes = CONFIG.clip.vision.model_dump()
    plain, whole = (CTViT(CTViTConfig(**sizes | {"windows": windows})) for windows in ((), ((0.0, 1.0),)))
    whole.load_state_dict(plain.state_dict())
    volume = torch.rand(1, 1, *CONFIG.clip.vision.image_size)
    torch.testing.assert_close(whole.tokens(volume), plain.tokens(volume))
    two = CTViT(CTViTConfig(**sizes | {"channels": 2, "windows": ((0.2, 0.4), (0.3, 0.6))}))
    torch.testing.assert_close(two.tokens(volume), two.tokens(volume.clamp(0.2, 0.6)))
    assert not torch.allclose(two.tokens(volume), two.tokens(volume.clamp(0.2, 0.5)))
