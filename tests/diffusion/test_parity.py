"""Against arrays computed with the released code; tolerances are rounding in float32."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from text2ct.diffusion.clip import Clip3D, ClipConfig, TextConfig
from text2ct.diffusion.ctvit import CTViTConfig
from text2ct.diffusion.flow import FlowConfig, RectifiedFlow, guided
from text2ct.diffusion.training.config import DiffusionTraining
from text2ct.diffusion.training.diffusion import DiffusionModule
from text2ct.diffusion.unet import Unet, UnetConfig
from text2ct.diffusion.vae import MaisiConfig, MaisiVae

TOLERANCE = 1e-4


def close(ours: torch.Tensor, theirs: np.ndarray, tolerance: float = TOLERANCE) -> None:
    np.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def clip(parity: Path) -> Clip3D:
    text = TextConfig(hidden_size=16, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2)
    vision = CTViTConfig(
        image_size=(64, 64, 48), dim=16, spatial_depth=1, temporal_depth=1, heads=2, dim_head=8, codebook_size=32
    )
    model = Clip3D(ClipConfig(text=text, vision=vision, projection_dim=12)).eval()
    state = torch.load(parity / "clip3d/a/clip3d_state_dict.pt", weights_only=True)
    model.load_state_dict({k.removeprefix("model."): v for k, v in state.items() if "position_ids" not in k})
    return model


@torch.inference_mode()
def test_clip_towers(parity: Path, clip: Clip3D) -> None:
    text = np.load(parity / "clip3d/a/text.npz")
    features = clip.encode_text(torch.from_numpy(text["token_ids"]).long())
    close(features.context("pooled"), text["text_embed"])
    close(features.states[:3, :64], text["last_hidden_state_first3"])
    assert (features.mask.sum(1).numpy() == text["pool_position"] + 1).all()
    vision = np.load(parity / "clip3d/a/vision.npz")
    volume = torch.from_numpy(vision["volume"])
    close(clip.vision_model.tokens(volume), vision["pre_vq_tokens"])
    close(clip.vision_model(volume), vision["encoded_tokens"])
    close(clip.encode_volume(volume), vision["vision_embed"][:, 0])


def test_clip_has_the_released_names_and_shapes(parity: Path) -> None:
    with torch.device("meta"):
        ours = {f"model.{name}": list(value.shape) for name, value in Clip3D(ClipConfig()).state_dict().items()}
    theirs = json.loads((parity / "clip3d/keys_full.json").read_text())
    theirs.pop("model.text_model.embeddings.position_ids")
    assert ours == theirs


def test_unet_and_vae_have_the_released_names_and_shapes(parity: Path) -> None:
    with torch.device("meta"):
        modules = {"sampler": Unet(UnetConfig()), "vae": MaisiVae(MaisiConfig())}
    for folder, module in modules.items():
        theirs = json.loads((parity / folder / "keys_full.json").read_text())
        assert {name: list(value.shape) for name, value in module.state_dict().items()} == theirs


@torch.inference_mode()
def test_vae(parity: Path) -> None:
    vae = MaisiVae(MaisiConfig(num_channels=(8, 16, 16), num_res_blocks=(1, 1, 1), norm_num_groups=4)).eval()
    vae.load_state_dict(torch.load(parity / "vae/a/autoencoder_state_dict.pt", weights_only=True))
    scale = json.loads((parity / "vae/a/config.json").read_text())["scale_factor"]
    arrays = np.load(parity / "vae/a/vae.npz")
    close(vae.decode(torch.from_numpy(arrays["latent_scaled"]) / scale), arrays["decoded"])
    mean, deviation = vae.encode(torch.from_numpy(arrays["image01"]))
    close(mean, arrays["mu"])
    close(deviation, arrays["sigma"])


@torch.inference_mode()
def test_sampler(parity: Path) -> None:
    config = UnetConfig(
        num_channels=(8, 16, 16),
        attention_levels=(False, True, True),
        num_head_channels=(0, 8, 8),
        num_res_blocks=1,
        cross_attention_dim=12,
        norm_num_groups=4,
    )
    unet = Unet(config).eval()
    unet.load_state_dict(torch.load(parity / "sampler/a/unet_ckpt.pt", weights_only=True)["unet_state_dict"])
    arrays = {name: torch.from_numpy(value) for name, value in np.load(parity / "sampler/a/sampler.npz").items()}
    forward = unet(
        arrays["fwd_x"],
        arrays["fwd_timesteps"],
        arrays["fwd_context"],
        arrays["fwd_class_labels"],
        spacing_tensor=arrays["fwd_spacing"],
    )
    close(forward, arrays["fwd_out"].numpy())
    flow = RectifiedFlow(FlowConfig(step_sizes="released"))
    context = torch.cat([arrays["context"], torch.zeros_like(arrays["context"])])
    spacing = torch.tensor([[75.0, 75.0, 300.0]]).expand(2, 3)

    def velocity(x: torch.Tensor, t: float) -> torch.Tensor:
        ones = torch.ones(2, dtype=torch.long)
        both = unet(torch.cat([x, x]), torch.full((2,), t), context, ones, spacing_tensor=spacing)
        return guided(*both.chunk(2), 5.0)

    assert flow.sampling_timesteps(30, (16, 12, 8)) == arrays["g5_s30_timesteps"].tolist()
    close(flow.sample(velocity, arrays["noise"], 30), arrays["g5_s30_latent"].numpy())


def test_training_step(parity: Path) -> None:
    config = UnetConfig(
        num_channels=(8, 16),
        attention_levels=(False, True),
        num_head_channels=(0, 8),
        num_res_blocks=1,
        cross_attention_dim=12,
        norm_num_groups=4,
    )
    unet = Unet(config)
    unet.load_state_dict(torch.load(parity / "training_step/a/unet_before.pt", weights_only=True))
    arrays = {k: torch.from_numpy(v) for k, v in np.load(parity / "training_step/a/training.npz").items()}
    flow = RectifiedFlow(FlowConfig())
    settings = DiffusionTraining(drop_condition=0.5, batch_size=4)
    module = DiffusionModule(unet, settings, flow, float(arrays["scale_factor"]))
    step = {k.removeprefix("step0_"): v for k, v in arrays.items() if k.startswith("step0_")}
    close(flow.training_timesteps(step["u_timestep"], (8, 6, 4)), step["timesteps"].numpy())
    sample = flow.path(step["latent"] * module.scale_factor, step["noise"], step["timesteps"])
    close(sample.x_t, step["noisy"].numpy())
    close(sample.target, step["target"].numpy())
    batch = {
        "latent": step["latent"],
        "context": step["cond"],
        "spacing": step["spacing"],
        "noise": step["noise"],
        "time_draw": step["u_timestep"],
        "drop_draw": step["u_mask"],
    }
    loss = module.losses(batch)["loss"]
    assert float(loss.detach()) == pytest.approx(float(arrays["losses"][0]), abs=1e-5)
    loss.backward()
    gradients = torch.load(parity / "training_step/a/grads_step0.pt", weights_only=True)
    for name, parameter in unet.named_parameters():
        if parameter.grad is not None:
            close(parameter.grad, gradients[name].numpy(), 1e-5)
