"""Each training resumes from its middle to the same weights; batches and draws depend on the step alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from text2ct.diffusion.clip import Clip3D
from text2ct.diffusion.flow import RectifiedFlow
from text2ct.diffusion.gaussian import GaussianUnet, GaussianUnetConfig
from text2ct.diffusion.init import PRESETS
from text2ct.diffusion.tokenizer import TextTokenizer
from text2ct.diffusion.training import (
    ClipTraining,
    DiffusionTraining,
    Encoded,
    VaeTraining,
    encode,
    parse_config,
    train_clip,
    train_diffusion,
    train_vae,
)
from text2ct.diffusion.training.cases import Cases, write_cases
from text2ct.diffusion.training.diffusion import first_batch_scale
from text2ct.diffusion.training.gaussian import fit_gaussian
from text2ct.diffusion.training.linear import fit_linear_blocks, sample_blocks
from text2ct.diffusion.training.loop import LAST, epoch_indices
from text2ct.diffusion.training.vae import hu_to_unit
from text2ct.diffusion.unet import Unet
from text2ct.diffusion.vae import LinearBlocksConfig, SpaceToDepthVae
from text2ct.errors import UserError

from .conftest import stand_in_case

TINY = PRESETS["tiny"]
TINY_GAUSSIAN = GaussianUnetConfig(
    unet=TINY.unet.model_copy(update={"in_channels": 8}),
    latent_shape=(4, 4, 4, 4),
    components=3,
    context_shape=(1 + TINY.clip.text.queries, TINY.clip.projection_dim),
)
COMMON = {"steps": 4, "batch_size": 2, "checkpoint_every": 1, "ema_decay": 0.5, "warmup_steps": 2, "log_every": 2}
Train = Callable[..., nn.Module]


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer.train(["pleural effusion is seen", "normal"], TINY.clip.text.vocab_size)


@pytest.fixture(scope="module")
def encoded(cases: Cases, tokenizer: TextTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Encoded:
    torch.manual_seed(0)
    vae, clip = SpaceToDepthVae(TINY.vae), Clip3D(TINY.clip)
    out = tmp_path_factory.mktemp("encoded")
    return encode(cases, vae, clip, tokenizer, out, conditioning="tokens", text_length=32, device="cpu")


@pytest.fixture
def trainings(cases: Cases, tokenizer: TextTokenizer, encoded: Encoded) -> dict[str, Train]:
    def vae(out: Path, stop_at: int | None = None) -> nn.Module:
        torch.manual_seed(1)
        config = VaeTraining(**COMMON, patch=8, whole_every=2, weight_decay=0.01, gradient_clip=1.0)
        return train_vae(cases, SpaceToDepthVae(TINY.vae), config, out, device="cpu", stop_at=stop_at)

    def clip(out: Path, stop_at: int | None = None) -> nn.Module:
        torch.manual_seed(1)
        config = ClipTraining(**COMMON, label_weight=1.0, text_length=32)
        return train_clip(cases, Clip3D(TINY.clip), tokenizer, config, out, device="cpu", stop_at=stop_at)

    def diffusion(out: Path, stop_at: int | None = None) -> nn.Module:
        torch.manual_seed(1)
        unet, flow, config = Unet(TINY.unet), RectifiedFlow(TINY.flow), DiffusionTraining(**COMMON)
        scale = first_batch_scale(encoded, config)
        return train_diffusion(encoded, unet, flow, config, out, scale_factor=scale, device="cpu", stop_at=stop_at)

    def gaussian(out: Path, stop_at: int | None = None) -> nn.Module:
        torch.manual_seed(1)
        unet, flow, config = GaussianUnet(TINY_GAUSSIAN), RectifiedFlow(TINY.flow), DiffusionTraining(**COMMON)
        fit_gaussian(unet, encoded, scale_factor=2.0)
        return train_diffusion(encoded, unet, flow, config, out, scale_factor=2.0, device="cpu", stop_at=stop_at)

    return {"vae": vae, "clip": clip, "diffusion": diffusion, "gaussian": gaussian}


@pytest.mark.parametrize("name", ["vae", "clip", "diffusion", "gaussian"])
def test_resumed_from_the_middle_the_weights_are_the_same(
    name: str, trainings: dict[str, Train], tmp_path: Path
) -> None:
    train = trainings[name]
    whole = train(tmp_path / "whole").state_dict()
    train(tmp_path / "parts", stop_at=2)
    parts = train(tmp_path / "parts").state_dict()
    for key, value in whole.items():
        assert torch.equal(value, parts[key]), key
    started = torch.load(tmp_path / "whole" / LAST, weights_only=True)
    assert started["global_step"] == COMMON["steps"]
    log = (tmp_path / "whole" / "log.csv").read_text().splitlines()
    assert log[0].startswith("step,seconds,learning_rate,loss")
    assert [row.split(",")[0] for row in log[1:]] == ["1", "2", "4"]


def test_other_settings_do_not_continue_a_run(trainings: dict[str, Train], cases: Cases, tmp_path: Path) -> None:
    trainings["vae"](tmp_path)
    with pytest.raises(UserError, match="holds a run with other settings"):
        train_vae(cases, SpaceToDepthVae(TINY.vae), VaeTraining(steps=1, patch=8), tmp_path, device="cpu")


def test_a_time_budget_ends_a_run(cases: Cases, tmp_path: Path) -> None:
    config = VaeTraining(steps=10**6, minutes=1e-6, batch_size=1, patch=8)
    train_vae(cases, SpaceToDepthVae(TINY.vae), config, tmp_path, device="cpu")
    assert torch.load(tmp_path / LAST, weights_only=True)["global_step"] == 1


def test_a_loss_that_is_not_finite_stops_the_run(cases: Cases, tmp_path: Path) -> None:
    vae = SpaceToDepthVae(TINY.vae)
    nn.init.constant_(vae.inner.quant_conv_mu.conv.bias, float("nan"))
    with pytest.raises(UserError, match="no longer finite at step 1"):
        train_vae(cases, vae, VaeTraining(steps=2, batch_size=1, patch=8), tmp_path, device="cpu")


def test_patches_must_fit(cases: Cases, tmp_path: Path) -> None:
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


def test_encoding_maps_back(encoded: Encoded, cases: Cases) -> None:
    assert encoded.latents.shape == (len(cases), 4, 4, 4, 4)
    assert encoded.contexts.shape == (len(cases), 3, 1 + TINY.clip.text.queries, TINY.clip.projection_dim)
    assert encoded.info["std"] > 0


def test_linear_blocks_with_every_component_are_the_identity(cases: Cases, tmp_path: Path) -> None:
    vae = fit_linear_blocks(cases, LinearBlocksConfig(factor=2, latent_channels=8, decoder_kernel=1))
    assert sample_blocks(cases, 2).shape == (6 * 8**3, 8)
    unit = torch.rand(1, 1, 8, 8, 8)
    mean, deviation = vae.encode(unit)
    assert mean.shape == (1, 8, 4, 4, 4)
    assert not deviation.any()
    torch.testing.assert_close(vae.decode(mean), unit, atol=1e-2, rtol=0)
    with pytest.raises(UserError, match="fitted in closed form, not trained"):
        train_vae(cases, vae, VaeTraining(steps=1, patch=8), tmp_path, device="cpu")  # type: ignore[arg-type]


def test_neighbouring_blocks_help_the_linear_decoder(tmp_path: Path) -> None:
    """On a smooth volume two components and the neighbours beat two components alone."""
    axis = np.linspace(0, 3, 16)
    made = []
    for index in range(4):
        hu = 900 * np.sin(axis[:, None, None] + index) * np.cos(axis[None, :, None] * 2 + index) * np.ones(16)
        made.append((hu.astype(np.int16), stand_in_case(index)[1]))
    smooth = write_cases(tmp_path, made.__getitem__, 4, size=(16, 16, 16), spacing_mm=(1.0, 1.0, 1.0), source="smooth")
    unit = hu_to_unit(smooth.volume_hu(0))[None, None]
    errors = []
    for kernel in (1, 3):
        vae = fit_linear_blocks(smooth, LinearBlocksConfig(factor=4, latent_channels=2, decoder_kernel=kernel))
        errors.append(float((vae.decode(vae.encode(unit)[0]) - unit).square().mean()))
    assert errors[1] < 0.5 * errors[0]
