"""A build that goes on from an earlier pack: its encoders are kept, its network is trained on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_build import CONFIG
from typer.testing import CliRunner

from text2ct.cli import app
from text2ct.diffusion import Pack
from text2ct.diffusion.build import build_pack, run_summary
from text2ct.diffusion.build_config import BuildConfig, StartPack, check_start
from text2ct.diffusion.training import DiffusionTraining
from text2ct.errors import UserError
from text2ct.evaluation.model_card import _making
from text2ct.files import write_json


def _going_on(pack: Pack, **training: object) -> BuildConfig:
    settings = DiffusionTraining(**{"steps": 2, "batch_size": 2, "loss": "l2"} | training)
    return CONFIG.model_copy(update={"version": "2", "start": StartPack.of(pack), "train_diffusion": settings})


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    folder = tmp_path_factory.mktemp("first")
    return build_pack(folder / "work", folder / "pack", CONFIG, device="cpu")


def _differences(one: torch.nn.Module, other: torch.nn.Module) -> float:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return max(float((a.float() - b.float()).abs().max()) for a, b in pairs if a.numel())


def test_the_encoders_are_kept_and_the_network_is_trained_on(first: Pack, tmp_path: Path) -> None:
    config = _going_on(first, learning_rate=1e-2)
    work = tmp_path / "work"
    pack = build_pack(work, tmp_path / "pack", config, device="cpu", start=first)
    assert _differences(pack.vae, first.vae) == _differences(pack.clip, first.clip) == 0
    told = [one.tokenizer.encode(["Pleural effusion."], 32).tolist() for one in (pack, first)]
    assert told[0] == told[1]
    assert _differences(pack.unet, first.unet) > 1e-3
    assert pack.info.latent_scale_factor == first.info.latent_scale_factor
    assert pack.info.trained_on == first.info.trained_on
    assert run_summary(work / "clip") == {}, "its 3D CLIP was not trained here"
    again = build_pack(work, tmp_path / "pack", config, device="cpu", start=first)
    assert again.sha256 == pack.sha256
    with pytest.raises(UserError, match="begun with another configuration"):
        build_pack(work, tmp_path / "scratch", CONFIG, device="cpu")


def test_it_begins_at_the_weights_of_the_pack(first: Pack, tmp_path: Path) -> None:
    """A learning rate that moves nothing leaves them as they are."""
    config = _going_on(first, learning_rate=1e-30)
    pack = build_pack(tmp_path / "work", tmp_path / "pack", config, device="cpu", start=first)
    assert _differences(pack.unet, first.unet) == 0


def test_a_pack_that_does_not_fit_is_refused_before_anything_is_rendered(first: Pack, tmp_path: Path) -> None:
    config = _going_on(first)
    namesake = config.model_copy(update={"version": first.info.version})
    for given, start, message in (
        (config, None, "goes on from tiny-32 .* name that pack with --start"),
        (CONFIG, first, "another pack than the one that was given"),
        (namesake, first, "give it a name or a version of its own"),
    ):
        with pytest.raises(UserError, match=message):
            build_pack(tmp_path / "work", tmp_path / "pack", given, device="cpu", start=start)
    other = config.model_copy(
        update={
            "unet": config.unet.model_copy(update={"components": 4}),
            "spacing_mm": (9.0, 9.0, 9.0),
            "patients": 23,
        }
    )
    with pytest.raises(UserError, match=r"its unet has another(.|\n)*its spacing_mm is(.|\n)*from other patients"):
        check_start(other, first)
    assert not list(tmp_path.iterdir())


def test_the_command_takes_a_pack_and_refuses_one_of_another_kind(first: Pack, tmp_path: Path) -> None:
    settings = CONFIG.model_dump(mode="json", exclude={"start"}) | {"name": "longer"}
    write_json(tmp_path / "settings.json", settings)
    words = ["core", "pack", "--out", str(tmp_path / "pack"), "--start", str(first.path), "--dry-run", "--json"]
    accepted = CliRunner().invoke(app, [*words, "--config", str(tmp_path / "settings.json")])
    assert accepted.exit_code == 0
    assert json.loads(accepted.stdout)["not_counted"] == ["diffusion"], "its 3D CLIP is not trained"
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 2
    assert "cannot go on from 'tiny-32'" in refused.stderr
    assert not (tmp_path / "pack").exists()


def test_the_card_says_what_was_gone_on_from(first: Pack) -> None:
    config = _going_on(first).model_copy(update={"notes": ("Cases joined as they were rendered.",)})
    card = "\n".join(_making(config.model_dump(mode="json"), {"clip": {}, "diffusion": run_of(7)}))
    assert f"tiny-32 {first.info.version} (SHA-256 {first.sha256[:12]}…)" in card
    assert "Cases joined as they were rendered." in card
    assert "| diffusion | 7 |" in card
    assert "| clip |" not in card


def run_of(steps: int) -> dict[str, object]:
    return {"steps": steps, "minutes": 1.0, "device": "CPU"}
