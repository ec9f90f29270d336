"""Each training resumes from its middle to the same weights; batches and draws depend on the step alone."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from monai.networks.nets.resnet import resnet10
from torch import nn

from text2ct.diffusion.build import run_summary
from text2ct.diffusion.clip import Clip3D
from text2ct.diffusion.ddpm import Ddpm, DdpmConfig
from text2ct.diffusion.flow import RectifiedFlow
from text2ct.diffusion.gaussian import GaussianUnet, GaussianUnetConfig
from text2ct.diffusion.tokenizer import TextTokenizer
from text2ct.diffusion.training import (
    ClipTraining,
    DiffusionTraining,
    Encoded,
    VaeTraining,
    parse_config,
    train_clip,
    train_diffusion,
    train_vae,
)
from text2ct.diffusion.training.adversarial import perceptual_network
from text2ct.diffusion.training.cases import Cases, write_cases
from text2ct.diffusion.training.clip import STATEMENTS, clip_batches, label_text
from text2ct.diffusion.training.diffusion import DiffusionModule, first_batch_scale
from text2ct.diffusion.training.draws import epoch_indices
from text2ct.diffusion.training.gaussian import fit_gaussian
from text2ct.diffusion.training.loop import LAST
from text2ct.diffusion.training.processes import Share
from text2ct.diffusion.training.vae import VaeModule
from text2ct.diffusion.unet import Unet
from text2ct.diffusion.vae import SpaceToDepthVae
from text2ct.errors import UserError
from text2ct.evaluation.zero_shot import UNTAUGHT_PHRASINGS
from text2ct.findings import FINDINGS

from .conftest import TINY, stand_in_case

TINY_GAUSSIAN = GaussianUnetConfig(
    text_embedding=4,
    unet=TINY.unet.model_copy(update={"in_channels": 8}),
    latent_shape=(4, 4, 4, 4),
    components=3,
    context_shape=(1 + TINY.clip.text.queries, TINY.clip.projection_dim),
)
FORM: dict[str, Any] = {"size": (16, 16, 16), "spacing_mm": (20.0, 20.0, 20.0), "source": "stand-in"}
COMMON = {"steps": 4, "batch_size": 2, "checkpoint_every": 1, "ema_decay": 0.5, "warmup_steps": 2, "log_every": 2}
Train = Callable[..., nn.Module]


@pytest.mark.parametrize("seed", range(20))
def test_a_text_of_labels_states_what_it_says_it_states(seed: int) -> None:
    draw = np.random.default_rng(seed)
    labels = draw.choice([0.0, 1.0, np.nan], size=len(FINDINGS))
    text, told = label_text(labels, draw)
    sentences = text.lower().rstrip(".").split(". ")
    assert 1 <= told.sum() == len(sentences) <= 8
    for finding, label, stated in zip(FINDINGS, labels, told, strict=True):
        said = [sentence for sentence in sentences if finding.lower() in sentence]
        assert len(said) == stated
        ways = [pair[int(label == 0)].format(x=finding).lower().rstrip(".") for pair in STATEMENTS]
        assert all(sentence in ways for sentence in said)
    assert not told[np.isnan(labels)].any()
    assert label_text(np.full(len(FINDINGS), np.nan), draw)[0] == ""


def test_an_impression_is_not_asked_for_what_it_leaves_out(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    hu, text = stand_in_case(0)
    unsaid = tuple(name for name, label in zip(FINDINGS, text.labels, strict=True) if label == 1)[:1]
    whole = write_cases(tmp_path, lambda _: (hu, replace(text, unsaid=unsaid)), 4, **FORM)
    config = ClipTraining(steps=40, batch_size=4, short_steps=1, text_only_steps=40, label_texts=0.0)
    make = clip_batches(whole, tokenizer, config)
    left_out = torch.tensor([name in unsaid for name in FINDINGS])
    assert left_out.any()
    assert torch.equal(make(0, Share())["told"], ~left_out.expand(4, -1))
    told = torch.cat([make(step, Share())["told"] for step in range(1, 40)])
    masked = ~told[:, left_out].flatten()
    assert masked.float().mean() == pytest.approx(0.2, abs=0.1)
    assert told[:, ~left_out].all()


def test_what_affirms_never_denies_and_held_out_words_are_not_taught() -> None:
    present, absent = ({template for pair in STATEMENTS for template in pair[i : i + 1]} for i in (0, 1))
    assert len(present) == len(absent) == len(STATEMENTS)
    assert not present & absent
    taught, held_out = (
        {word for pair in pairs for text in pair for word in text.lower().strip(".").split()} - {"{x}", "was"}
        for pairs in (STATEMENTS, UNTAUGHT_PHRASINGS)
    )
    assert held_out
    assert not taught & held_out


ADVERSARIAL = {
    "adversarial_weight": 0.1,
    "adversarial_start": 1,
    "discriminator_channels": 4,
    "discriminator_layers": 1,
}
# Each way to train: the training, and the settings that make it this way.
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "vae": ("vae", {"patch": 8, "whole_every": 2, "weight_decay": 0.01, "gradient_clip": 1.0}),
    "vae-adversarial": ("vae", {"patch": 8, "whole_every": 2, **ADVERSARIAL}),
    "clip": ("clip", {"label_weight": 1.0, "text_length": 32}),
    "clip-cached": ("clip", {"label_weight": 1.0, "text_length": 32, "micro_batch": 1}),
    "velocity": ("diffusion", {"gradient_checkpointing": True}),
    "epsilon": ("diffusion", {"weight_decay": 0.01, "micro_batch": 1}),
    "gaussian": ("gaussian", {}),
}


@pytest.fixture
def train(cases: Cases, tokenizer: TextTokenizer, encoded: Encoded) -> Train:
    def run(way: str, out: Path, stop_at: int | None = None, **others: Any) -> nn.Module:
        kind, settings = WAYS[way]
        settings = COMMON | settings | others
        place: dict[str, Any] = {"device": "cpu", "stop_at": stop_at}
        torch.manual_seed(1)
        if kind == "vae":
            return train_vae(cases, SpaceToDepthVae(TINY.vae), VaeTraining(**settings), out, **place)
        if kind == "clip":
            return train_clip(cases, Clip3D(TINY.clip), tokenizer, ClipTraining(**settings), out, **place)
        scheduler = Ddpm(DdpmConfig()) if way == "epsilon" else RectifiedFlow(TINY.flow)
        unet = GaussianUnet(TINY_GAUSSIAN) if kind == "gaussian" else Unet(TINY.unet)
        config = DiffusionTraining(**settings)
        scale = first_batch_scale(encoded, config)
        if isinstance(unet, GaussianUnet):
            fit_gaussian(unet, encoded, scale)
        return train_diffusion(encoded, unet, scheduler, config, out, scale_factor=scale, **place)

    return run


def test_a_compiled_network_learns_the_same_and_keeps_its_names(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Traced as for a GPU, but no compiler is asked for.
    compiled = nn.Module.compile
    calls = []

    def traced(self: nn.Module) -> None:
        calls.append(self)
        compiled(self, backend="eager")

    monkeypatch.setattr(nn.Module, "compile", traced)
    monkeypatch.setattr("text2ct.diffusion.training.diffusion.check_compiler", lambda: None)
    plain, fused = train("gaussian", tmp_path / "a"), train("gaussian", tmp_path / "b", compile=True)
    assert len(calls) == 1
    assert plain.state_dict().keys() == fused.state_dict().keys()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(fused.state_dict()[name], value, msg=name, rtol=1e-4, atol=1e-5)


def test_compiling_without_a_compiler_is_refused_before_any_work(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UserError, match="needs a C\\+\\+ compiler; install"):
        train("velocity", tmp_path / "out", compile=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("way", WAYS)
def test_resumed_from_the_middle_the_weights_are_the_same(way: str, train: Train, tmp_path: Path) -> None:
    """Weights, averaged weights, every optimiser's state and the counter; bit for bit."""
    whole = train(way, tmp_path / "whole").state_dict()
    train(way, tmp_path / "parts", stop_at=2)
    torch.rand(7)  # the state of torch's own generator is of no matter
    parts = train(way, tmp_path / "parts").state_dict()
    for key, value in whole.items():
        assert torch.equal(value, parts[key]), key
    one, other = (torch.load(tmp_path / name / LAST, weights_only=True) for name in ("whole", "parts"))
    assert one["global_step"] == COMMON["steps"]
    assert one["state_dict"].keys() == other["state_dict"].keys()
    assert all(torch.equal(value, other["state_dict"][key]) for key, value in one["state_dict"].items())
    assert len(one["optimizer_states"]) == (2 if way == "vae-adversarial" else 1)
    for mine, theirs in zip(one["optimizer_states"], other["optimizer_states"], strict=True):
        assert mine["state"].keys() == theirs["state"].keys()
        for index, state in mine["state"].items():
            assert all(torch.equal(value, theirs["state"][index][name]) for name, value in state.items())
    log = (tmp_path / "whole" / "metrics.csv").read_text("utf-8").splitlines()
    assert log[0].startswith("step,seconds,learning_rate,seconds_per_step,loss")
    assert [row.split(",")[0] for row in log[1:]] == ["1", "2", "4"]


def test_ctrl_c_is_passed_on_and_the_run_goes_on(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the last checkpoint on, to the same weights, averaged ones included."""
    whole = train("vae-adversarial", tmp_path / "whole").state_dict()
    backward, handler = VaeModule.backward_part, signal.getsignal(signal.SIGINT)

    def interrupted(module: VaeModule, part: Any, weight: float) -> Any:
        if module.trainer.global_step == 2:
            raise KeyboardInterrupt
        return backward(module, part, weight)

    with monkeypatch.context() as patch:
        patch.setattr(VaeModule, "backward_part", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train("vae-adversarial", tmp_path / "parts")
    assert signal.getsignal(signal.SIGINT) is handler
    assert torch.load(tmp_path / "parts" / LAST, weights_only=True)["global_step"] == 2
    parts = train("vae-adversarial", tmp_path / "parts").state_dict()
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_a_killed_run_logs_each_step_once(train: Train, tmp_path: Path) -> None:
    """Steps after the last checkpoint are computed again, and may have been logged, the last row in part."""
    train("velocity", tmp_path, stop_at=2, log_every=1)
    with (tmp_path / "metrics.csv").open("a") as log:
        log.write("3,1.0,0.1,0.5\n4,")
    train("velocity", tmp_path, log_every=1)
    rows = (tmp_path / "metrics.csv").read_text("utf-8").splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", "1", "2", "3", "4"]


def test_a_discriminator_plays_from_its_first_step_on(train: Train, tmp_path: Path) -> None:
    """Before it, the autoencoder is trained as without one; from it on, both learn."""
    alone = train("vae", tmp_path / "alone", stop_at=1, weight_decay=0.0, gradient_clip=None)
    first = train("vae-adversarial", tmp_path / "both", stop_at=1)
    assert all(torch.equal(a, b) for a, b in zip(alone.parameters(), first.parameters(), strict=True))
    begun = torch.load(tmp_path / "both" / LAST, weights_only=True)["state_dict"]
    train("vae-adversarial", tmp_path / "both", stop_at=2)
    went_on = torch.load(tmp_path / "both" / LAST, weights_only=True)["state_dict"]
    named = [name for name in begun if name.startswith("discriminator.")]
    assert named
    assert not any(torch.equal(begun[name], went_on[name]) for name in named if "weight" in name)
    header = (tmp_path / "both" / "metrics.csv").read_text("utf-8").splitlines()[0]
    assert header.endswith("loss,l1,gradient,kl,adversarial,discriminator")


def test_a_perceptual_network_counts_and_must_be_there(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "resnet_10.pth"
    torch.manual_seed(0)
    network = resnet10(spatial_dims=3, n_input_channels=1, feed_forward=False, shortcut_type="B", bias_downsample=False)
    torch.save({"state_dict": {f"module.{name}": value for name, value in network.state_dict().items()}}, file)
    distance = perceptual_network(str(file))
    assert distance is not None
    volume = torch.rand(1, 1, 8, 8, 8)
    assert float(distance(volume, volume)) == 0
    assert float(distance(volume, volume.flip(2))) > 0
    one, other = (
        train("vae", tmp_path / str(number), stop_at=1, perceptual=name)
        for number, name in enumerate(("none", str(file)))
    )
    assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    kept = torch.load(tmp_path / "1" / LAST, weights_only=True)["state_dict"]
    assert all(name.startswith(("network.", "ema.")) for name in kept)
    with pytest.raises(UserError, match="neither a perceptual network nor a file; the networks are none, "):
        perceptual_network("medical")
    file.write_bytes(b"no weights")
    with pytest.raises(UserError, match="does not hold the weights of MedicalNet"):
        perceptual_network(str(file))

    def offline(*words: Any, **named: Any) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "load", offline)
    with pytest.raises(UserError, match=r"cannot be downloaded(.|\n)*TORCH_HOME"):
        perceptual_network("medicalnet_resnet10_23datasets")


def test_other_settings_do_not_continue_a_run(train: Train, cases: Cases, encoded: Encoded, tmp_path: Path) -> None:
    """Nor other cases, another start or another scale; what differs is named."""
    train("vae", tmp_path / "vae")
    with pytest.raises(UserError, match=r"holds another run \(.*training.steps: 4 then, 1 now"):
        train_vae(cases, SpaceToDepthVae(TINY.vae), VaeTraining(steps=1, patch=8), tmp_path / "vae", device="cpu")
    config, place = VaeTraining(**COMMON | WAYS["vae"][1]), {"device": "cpu"}
    with pytest.raises(UserError, match=r"holds another run \(start: none then, elsewhere now\); choose another work"):
        train_vae(cases, SpaceToDepthVae(TINY.vae), config, tmp_path / "vae", start={"start": "elsewhere"}, **place)
    form: dict[str, Any] = {"size": (16, 16, 16), "spacing_mm": (20.0, 20.0, 20.0), "source": "stand-in"}
    others = write_cases(tmp_path / "cases", lambda number: stand_in_case(number + 1), 6, **form)
    with pytest.raises(UserError, match=r"holds another run \(cases: \w{12}… then, \w{12}… now\)"):
        train_vae(others, SpaceToDepthVae(TINY.vae), config, tmp_path / "vae", **place)
    network, unet, out = Unet(TINY.unet), DiffusionTraining(**COMMON), tmp_path / "unet"
    train_diffusion(encoded, network, Ddpm(DdpmConfig()), unet, out, scale_factor=1.0, **place)
    with pytest.raises(UserError, match=r"scale_factor: 1 then, 2 now; scheduler.*type: ddpm then, rectified_flow now"):
        train_diffusion(
            encoded, Unet(TINY.unet), RectifiedFlow(TINY.flow), unet, tmp_path / "unet", scale_factor=2.0, **place
        )


def test_a_time_budget_ends_a_run(cases: Cases, tmp_path: Path) -> None:
    config = VaeTraining(steps=10**6, minutes=1e-6, batch_size=1, patch=8)
    train_vae(cases, SpaceToDepthVae(TINY.vae), config, tmp_path, device="cpu")
    first = (tmp_path / LAST).read_bytes()
    assert torch.load(tmp_path / LAST, weights_only=True)["global_step"] == 1
    train_vae(cases, SpaceToDepthVae(TINY.vae), config, tmp_path, device="cpu")
    assert (tmp_path / LAST).read_bytes() == first, "a finished run is not trained again"


def test_a_loss_that_is_not_finite_stops_the_run(cases: Cases, tmp_path: Path) -> None:
    vae = SpaceToDepthVae(TINY.vae)
    nn.init.constant_(vae.inner.quant_conv_mu.conv.bias, float("nan"))
    with pytest.raises(UserError, match="no longer finite by step 1"):
        train_vae(cases, vae, VaeTraining(steps=2, batch_size=1, patch=8), tmp_path, device="cpu")


def test_no_checkpoint_is_written_of_a_loss_that_is_not_finite(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = DiffusionModule.losses

    def broken(self: DiffusionModule, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        found = losses(self, batch)
        return found if self.trainer.global_step < 1 else {name: value * torch.nan for name, value in found.items()}

    monkeypatch.setattr(DiffusionModule, "losses", broken)
    rarely = {"log_every": 100, "checkpoint_every": 3}
    with pytest.raises(UserError, match="no longer finite by step 3"):
        train("velocity", tmp_path / "checkpoint", **rarely)
    with pytest.raises(UserError, match="no longer finite by step 2"):
        train("velocity", tmp_path / "stopped", stop_at=2, **rarely)
    assert not list(tmp_path.rglob(LAST))


def test_a_run_says_how_long_it_took_and_on_what(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("text2ct.diffusion.training.loop.device_name", lambda device: f"the {device.type}'s name")
    train("velocity", tmp_path)
    summary = run_summary(tmp_path)
    assert summary.pop("minutes") >= 0
    assert summary == {"steps": COMMON["steps"], "device": "the cpu's name"}


def test_a_run_that_goes_on_elsewhere_says_that_its_draws_differ(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train("velocity", tmp_path, stop_at=1)
    train("velocity", tmp_path, stop_at=2)
    assert "goes on on" not in capsys.readouterr().err
    monkeypatch.setattr("text2ct.diffusion.training.loop.device_name", lambda device: "another GPU")
    train("velocity", tmp_path)
    assert "began on CPU and goes on on another GPU" in " ".join(capsys.readouterr().err.split())


def test_patches_must_fit(cases: Cases, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="too small for a discriminator of 3 layers"):
        VaeModule(SpaceToDepthVae(TINY.vae), VaeTraining(steps=1, patch=8, adversarial_weight=0.1))
    config = VaeTraining(steps=1, patch=8, batch_size=16)
    with pytest.raises(UserError, match="takes 2 whole volumes, which 4 processes cannot share"):
        train_vae(cases, SpaceToDepthVae(TINY.vae), config, tmp_path, device="cpu", devices=4)
    with pytest.raises(UserError, match="must be multiples of 4"):
        train_vae(cases, SpaceToDepthVae(TINY.vae), VaeTraining(steps=1, patch=10), tmp_path, device="cpu")


def test_clip_settings_must_fit(cases: Cases, tokenizer: TextTokenizer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="exceeds the tower's 64 positions"):
        train_clip(cases, Clip3D(TINY.clip), tokenizer, ClipTraining(steps=1, text_length=65), tmp_path)
    letters = np.array(list("abcdefghijklmnop"))
    words = ["".join(row) for row in np.random.default_rng(0).choice(letters, (300, 6))]
    larger = TextTokenizer.train([" ".join(words * 2)], 900)
    assert larger.vocab_size > TINY.clip.text.vocab_size
    with pytest.raises(UserError, match="tokenizer does not fit"):
        train_clip(cases, Clip3D(TINY.clip), larger, ClipTraining(steps=1, text_length=32), tmp_path)


def test_unknown_settings_are_refused_together() -> None:
    with pytest.raises(UserError, match=r"batch_size(.|\n)*stepz"):
        parse_config(VaeTraining, {"stepz": 3, "batch_size": 0, "steps": 1})
    assert parse_config(VaeTraining, {"steps": 7}).steps == 7


def test_an_epoch_sees_every_case_once() -> None:
    seen = np.concatenate([epoch_indices(7, 3, seed=0, step=step) for step in range(7)])
    assert all(sorted(seen[start : start + 7]) == list(range(7)) for start in (0, 7, 14))
    assert not np.array_equal(seen[:7], seen[7:14])
