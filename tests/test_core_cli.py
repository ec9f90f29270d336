"""``core train-*``: fine-tuning, objectives, several devices; on a few simulated patients and a tiny pack."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from text2ct import manifests, workflow
from text2ct.cli import app
from text2ct.diffusion import Pack, init_pack, load_pack
from text2ct.diffusion.build_config import BuildConfig
from text2ct.diffusion.gaussian import GaussianUnet
from text2ct.diffusion.pack import save_pack
from text2ct.diffusion.training import Encoded, estimate, parse_config
from text2ct.diffusion.training.on_manifest import CONFIGS, _check_shapes, _parts
from text2ct.errors import UserError

FEW = ("--steps", "2", "--batch-size", "2", "--device", "cpu")


def run(*words: str | Path, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["core", *(str(word) for word in words)], catch_exceptions=False)
    assert result.exit_code == code, result.stderr
    return result.stdout if code == 0 else result.stderr


def config(folder: Path, **settings: Any) -> Path:
    path = folder / "settings.json"
    path.write_text(json.dumps(settings))
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return init_pack(tmp_path_factory.mktemp("core") / "base")


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("core") / "workspace"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workflow, "EMBEDDED_PATIENTS", 20)
        workflow.real_manifest(manifests.Workspace.open(folder))
    return folder


@pytest.fixture(scope="module")
def work(space: Path, base: Pack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Encoded once; each test trains in a copy of its own."""
    folder = tmp_path_factory.mktemp("core") / "work"
    run("encode", "--model", base.path, "--work", folder, "--workspace", space, "--device", "cpu")
    return folder


@pytest.fixture
def place(space: Path, work: Path, tmp_path: Path) -> tuple[str | Path, ...]:
    own = tmp_path / "work"
    own.mkdir()
    for path in work.iterdir():
        (own / path.name).symlink_to(path)
    return "--workspace", space, "--work", own


def test_fine_tuning_changes_the_unet_alone(
    base: Pack, space: Path, place: tuple[str | Path, ...], tmp_path: Path
) -> None:
    """The pack's scale factor, scheduler, VAE and CLIP stay; patients old and new are listed; --model is --from."""
    first = run("train-diffusion", "--from", base.path, "--out", tmp_path / "first", *FEW, *place, "--json")
    again = load_pack(json.loads(first)["pack"])
    again_words = ("--model", again.path, "--out", tmp_path / "second", "--work", tmp_path / "other")
    run("train-diffusion", *again_words, *FEW, "--workspace", space)
    tuned = load_pack(tmp_path / "second")
    assert tuned.info.latent_scale_factor == base.info.latent_scale_factor
    assert tuned.info.objective == "velocity"
    changed = {name for name, sha in tuned.info.files.items() if base.info.files[name] != sha}
    assert changed == {"unet/model.safetensors"}
    frame = manifests.read_manifest(space / "real" / "manifest.csv")
    train = tuple(sorted(set(frame.loc[frame["split"] == "train", "patient"])))
    assert [data.patients for data in tuned.info.trained_on] == [train, train]


@pytest.mark.parametrize(
    ("component", "settings", "trial", "seconds"),
    [
        ("clip", {"short_steps": 5, "text_only_steps": 9}, {"short_steps": 0, "text_only_steps": 0}, 3.0),
        ("vae", {"adversarial_start": 9}, {"adversarial_start": 0, "whole_every": 2}, 0.25 * 2 + 0.75 * 4),
        ("vae", {"whole_every": 1}, {"adversarial_start": 0}, 2.0),
        ("vae", {"whole_every": 0}, {"adversarial_start": 0}, 3.0),
        ("unet", {}, {}, 3.0),
    ],
)
def test_an_estimate_measures_what_most_steps_are(
    component: Any, settings: dict[str, Any], trial: dict[str, Any], seconds: float, base: Pack, space: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Neither a step without volumes or a player, nor patches alone. The trial's steps take 1, 2 and 4 seconds."""
    tried: dict[str, Any] = {}

    def train(name: str, *_: Any, work: Path, settings: dict[str, Any], **__: Any) -> None:
        tried.update(settings)
        parse_config(estimate.CONFIGS[component], settings)
        log = work / {"unet": "diffusion"}.get(name, name) / "metrics.csv"
        log.parent.mkdir(parents=True)
        log.write_text("step,seconds\n1,1.0\n2,3.0\n3,7.0\n")

    monkeypatch.setattr(estimate, "train_component", train)
    frame = manifests.read_manifest(space / "real" / "manifest.csv")
    steps = {"steps": 1000, "batch_size": 2}
    given = steps | settings
    would = estimate.estimate_training(component, frame, manifests.Workspace.open(space), base, settings=given)
    assert would["seconds"] == 1000 * seconds
    assert tried == settings | {"steps": 3, "log_every": 1, "minutes": None, "batch_size": 2} | trial


def test_noise_prediction_from_scratch_samples(base: Pack, place: tuple[str | Path, ...], tmp_path: Path) -> None:
    settings = config(tmp_path, objective="epsilon", scale="first-batch")
    words = ("train-diffusion", "--from", base.path, *FEW, *place, "--config", settings)
    error = run(*words, "--out", tmp_path / "no", code=2)
    assert "predicts the velocity; the objective 'epsilon' needs --scratch" in error
    made = load_pack(json.loads(run(*words, "--out", tmp_path / "made", "--scratch", "--json"))["pack"])
    assert (made.info.objective, made.info.components["scheduler"]) == ("epsilon", "ddpm")
    assert made.info.latent_scale_factor != base.info.latent_scale_factor
    from text2ct.diffusion import generate
    from text2ct.diffusion.info import Sampling

    hu = generate(made, ["Normal chest."], [0], sampling=Sampling(steps=3, guidance_scale=2.0), device="cpu")
    assert hu.shape == (1, 16, 16, 16)
    tuned = ("train-diffusion", "--from", made.path, "--out", tmp_path / "tuned", "--work", tmp_path / "tuned-work")
    run(*tuned, *FEW, *place[:2])
    assert load_pack(tmp_path / "tuned").info.objective == "epsilon"


def test_scratch_starts_from_the_seed(base: Pack, place: tuple[str | Path, ...], tmp_path: Path) -> None:
    """The same seed gives the same first weights, whatever was drawn before; another seed gives others."""
    folders = []
    for name, seed in (("one", "3"), ("two", "3"), ("three", "4")):
        torch.rand(5)
        settings = config(tmp_path, learning_rate=1e-12)
        own = tmp_path / f"work-{name}"
        own.mkdir()
        for part in ("cases", "encoded", "source.json"):
            (own / part).symlink_to(Path(place[3]) / part)
        words = ("--from", base.path, "--out", tmp_path / name, "--work", own, "--config", settings)
        run("train-diffusion", *words, "--scratch", "--seed", seed, *FEW, *place[:2])
        folders.append(load_file(tmp_path / name / "unet" / "model.safetensors"))
    one, two, three = folders
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert any(not torch.equal(value, three[name]) for name, value in one.items())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train-diffusion", "--devices", "4"), "batch_size is 2, the whole batch's; expected a multiple of 4"),
        (("train-clip", "--nodes", "3"), "batch_size is 2, the whole batch's; expected a multiple of 3"),
        (("train-vae", "--devices", "2", "--config", {"minutes": 1.0, "patch": 8}), "works on one device only"),
        (("train-diffusion", "--config", {"micro_bach": 1}), "micro_bach: Extra inputs are not permitted"),
        (("train-vae", "--config", {"patch": 10}), "must be multiples of 4"),
        (("train-vae", "--config", {"patch": 8, "adversarial_weight": 0.1}), "too small for a discriminator"),
        (("train-vae", "--config", {"patch": 8, "perceptual": "nothing"}), "neither a perceptual network nor a file"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_bad_settings_are_refused(
    words: tuple[Any, ...], message: str, base: Pack, place: tuple[str | Path, ...], tmp_path: Path
) -> None:
    given = [config(tmp_path, **word) if isinstance(word, dict) else word for word in words]
    assert message in run(*given[:1], *FEW, *given[1:], "--from", base.path, "--out", tmp_path / "out", *place, code=2)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["train-vae", "train-clip", "train-diffusion"])
def test_a_finished_training_answers_the_same_request_alone(
    command: str, base: Pack, space: Path, work: Path, tmp_path: Path
) -> None:
    """Another pack to start from, or random weights, is another run; the same command gives the same pack."""
    other = init_pack(tmp_path / "other", seed=7)

    def own(name: str) -> tuple[str | Path, ...]:
        """A work folder with the cases, and with latents where they are the base's."""
        (tmp_path / name).mkdir()
        for part in ("cases", "source.json", *(("encoded",) if name == "w" else ())):
            (tmp_path / name / part).symlink_to(work / part)
        return "--work", tmp_path / name

    settings = ("--config", config(tmp_path, patch=8)) if command == "train-vae" else ()
    words = (command, *FEW, *settings, "--workspace", space, "--out", tmp_path / "out", "--json")
    begun = (*words, *own("w"), "--from", base.path)
    first = json.loads(run(*begun))
    assert json.loads(run(*begun))["sha256"] == first["sha256"]
    said = run(*words, "--work", tmp_path / "w", "--from", other.path, code=2)
    assert "belongs to another pack" in said if command == "train-diffusion" else "start.pack" in said
    said = run(*begun, "--scratch", code=2)
    assert "start.weights: the pack's then, random, of seed 0 now" in said
    assert "choose another work folder" in said
    assert len(said.splitlines()) == 1
    assert load_pack(tmp_path / "out").sha256 == first["sha256"]
    different = json.loads(run(*words, *own("v"), "--from", other.path))
    assert different["sha256"] != first["sha256"]


@pytest.fixture
def half(space: Path, tmp_path: Path) -> Path:
    """A manifest with some of the training patients."""
    frame = manifests.read_manifest(space / "real" / "manifest.csv")
    patients = sorted(set(frame.loc[frame["split"] == "train", "patient"]))[::2]
    path = space / "real" / "half.csv"
    frame[frame["patient"].isin(patients)].to_csv(path, index=False)
    return path


@pytest.mark.parametrize("command", ["encode", "train-vae", "train-clip", "train-diffusion"])
def test_latents_of_one_manifest_are_not_trained_on_as_those_of_another(
    command: str, base: Pack, half: Path, place: tuple[str | Path, ...], tmp_path: Path
) -> None:
    """Or the pack would list patients that it has not seen, and leave out those that it has."""
    out = () if command == "encode" else ("--out", tmp_path / "out", *FEW)
    words = (command, "--from" if out else "--model", base.path, "--manifest", half, *out, *place)
    assert "belongs to another manifest" in run(*words, code=2)
    assert not (tmp_path / "out").exists()


def test_other_labels_are_another_manifest(
    base: Pack, space: Path, place: tuple[str | Path, ...], tmp_path: Path
) -> None:
    frame = manifests.read_manifest(space / "real" / "manifest.csv")
    frame["Emphysema"] = 1 - frame["Emphysema"]
    path = space / "real" / "relabelled.csv"
    frame.to_csv(path, index=False)
    words = ("--from", base.path, "--manifest", path, "--out", tmp_path / "out")
    assert "belongs to another manifest" in run("train-clip", *words, *FEW, *place, code=2)


def test_the_same_data_read_in_another_workspace_are_the_same(base: Pack, space: Path, tmp_path: Path) -> None:
    """So it is in the processes that follow: roots and paths differ, files do not."""
    words = (
        "encode",
        "--model",
        base.path,
        "--manifest",
        next((space / "cohorts").iterdir()),
        "--work",
        tmp_path / "w",
    )
    run(*words, "--workspace", space)
    run(*words, "--workspace", tmp_path / "other")
    run(*words, "--workspace", space, "--dry-run")  # in one that is thrown away


@pytest.mark.parametrize("command", ["encode", "train-vae"])
def test_a_manifest_without_usable_rows_leaves_the_work_folder_free(
    command: str, base: Pack, space: Path, half: Path, tmp_path: Path
) -> None:
    frame = manifests.read_manifest(half)
    frame["split"] = "test"
    path = space / "real" / "tests.csv"
    frame.to_csv(path, index=False)
    out = ("--out", tmp_path / "out", *FEW, "--config", config(tmp_path, patch=8)) if command == "train-vae" else ()
    words = (command, "--model", base.path, "--work", tmp_path / "work", "--workspace", space, *out)
    assert "no row of the manifest is in train" in run(*words, "--manifest", path, code=2)
    run(*words, "--manifest", half)


@pytest.mark.parametrize("command", ["encode", "train-vae", "train-clip", "train-diffusion"])
@pytest.mark.parametrize("dry", [(), ("--dry-run",)], ids=["", "dry-run"])
def test_a_grid_that_the_networks_cannot_take_is_refused_before_reading(
    command: str, dry: tuple[str, ...], base: Pack, space: Path, tmp_path: Path
) -> None:
    pack = tmp_path / "odd"
    shutil.copytree(base.path, pack)
    info = json.loads((pack / "pack.json").read_text("utf-8"))
    (pack / "pack.json").write_text(
        json.dumps(info | {"grid": [18, 16, 16] if command != "train-vae" else [17, 16, 16]})
    )
    out = () if command == "encode" else ("--out", tmp_path / "out", *FEW)
    said = run(command, "--model", pack, "--work", tmp_path / "work", "--workspace", space, *out, *dry, code=2)
    assert "grid" in said
    assert "must be a multiple of" in said or "takes volumes of (16, 16, 16)" in said
    assert not (tmp_path / "work" / "cases").exists()


@pytest.mark.parametrize(
    ("command", "lacks"),
    [
        ("encode", "vae"),
        ("encode", "clip"),
        ("train-vae", "vae"),
        ("train-clip", "clip"),
        ("train-diffusion", "vae"),
        ("train-diffusion", "clip"),
    ],
)
def test_a_pack_without_the_component_is_refused_before_reading(
    command: str, lacks: str, base: Pack, space: Path, tmp_path: Path
) -> None:
    parts = {name: part for name, part in _parts(base, leave_out=()).items() if name != lacks}
    pack = save_pack(tmp_path / "less", base.info, parts, None if lacks == "clip" else base.tokenizer)
    out = () if command == "encode" else ("--out", tmp_path / "out", *FEW)
    said = run(command, "--model", pack.path, "--work", tmp_path / "work", "--workspace", space, *out, code=2)
    assert f"has no component '{lacks}'" in said
    assert not (tmp_path / "work" / "cases").exists()


def test_an_architecture_that_takes_other_latents_is_refused(
    base: Pack, place: tuple[str | Path, ...], tmp_path: Path
) -> None:
    """The bundled UNet's latents have other channels; contexts have their width, and a Gaussian a shape."""
    without = save_pack(tmp_path / "less", base.info, _parts(base, leave_out=("unet",)), base.tokenizer)
    words = ("train-diffusion", "--from", without.path, "--out", tmp_path / "out", *FEW)
    said = run(*words, *place[:2], "--work", tmp_path / "work", code=2)
    assert "choose packs that fit together" in said
    encoded = Encoded(np.zeros((1, 4, 8, 8, 8), np.float16), np.zeros((1, 3, 19, 16), np.float16), {})
    _check_shapes(encoded, base.unet, "base")
    for other in (
        replace(encoded, contexts=encoded.contexts[..., :8]),
        replace(encoded, latents=encoded.latents[:, :2]),
    ):
        with pytest.raises(UserError, match=r"takes latents of \(4,\) and contexts of \(16,\)"):
            _check_shapes(other, base.unet, "base")
    gaussian = SimpleNamespace(latent_shape=(4, 8, 8, 8), context_shape=(19, 16))
    unet = GaussianUnet.__new__(GaussianUnet)
    object.__setattr__(unet, "config", gaussian)
    _check_shapes(encoded, unet, "base")
    with pytest.raises(UserError, match="encoded are latents of"):
        _check_shapes(replace(encoded, latents=encoded.latents[..., :4]), unet, "base")


def test_the_bundled_architecture_knows_the_velocity_alone(space: Path, tmp_path: Path) -> None:
    settings = config(tmp_path, objective="epsilon")
    words = ("--out", tmp_path / "out", "--config", settings, "--scratch", "--workspace", space)
    assert "'gaussian_unet' cannot predict 'epsilon'" in run("train-diffusion", *words, *FEW, code=2)


def test_two_devices_train_one_pack(base: Pack, place: tuple[str | Path, ...], tmp_path: Path) -> None:
    """Lightning runs the command again for the second process, which writes and prints nothing."""
    words = ["core", "train-diffusion", "--from", base.path, "--out", tmp_path / "two", "--devices", "2", *FEW, *place]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "text2ct.cli", *map(str, words), "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["missing"] == []
    again = list(words)
    again[again.index("2")] = "1"
    again[again.index(tmp_path / "two")] = tmp_path / "one"
    run(*again[1:])  # the run is complete: the same pack, made from its checkpoint
    one, two = (load_file(tmp_path / name / "unet" / "model.safetensors") for name in ("one", "two"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_documented_settings_are_valid() -> None:
    """Each block ``json train-...`` of the page is a whole configuration of that command, ``json pack`` of a build."""
    page = (Path(__file__).parents[1] / "docs" / "training.md").read_text("utf-8")
    blocks = re.findall(r"```json train-(\w+)\n(.*?)```", page, flags=re.DOTALL)
    assert {name for name, _ in blocks} == {"vae", "clip", "diffusion"}
    for name, text in blocks:
        parse_config(CONFIGS["unet" if name == "diffusion" else name], json.loads(text))
    (build,) = re.findall(r"```json pack\n(.*?)```", page, flags=re.DOTALL)
    parse_config(BuildConfig, json.loads(build))
