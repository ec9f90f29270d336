"""Packs with random weights, for trying the software and for tests; their names say so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from text2ct.diffusion.clip import Clip3D, ClipConfig, TextConfig
from text2ct.diffusion.ctvit import CTViTConfig
from text2ct.diffusion.flow import FlowConfig
from text2ct.diffusion.info import PackInfo, Sampling
from text2ct.diffusion.pack import Pack, Part, save_pack
from text2ct.diffusion.tokenizer import TextTokenizer
from text2ct.diffusion.unet import Unet, UnetConfig
from text2ct.diffusion.vae import SpaceToDepthConfig, SpaceToDepthVae
from text2ct.errors import UserError
from text2ct.findings import FINDINGS


@dataclass(frozen=True)
class Preset:
    """Sizes of a pack."""

    grid: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    text_length: int
    clip: ClipConfig
    vae: SpaceToDepthConfig
    unet: UnetConfig
    flow: FlowConfig
    defaults: Sampling


PRESETS: dict[str, Preset] = {
    "tiny": Preset(
        grid=(16, 16, 16),
        spacing_mm=(20.0, 20.0, 20.0),
        text_length=32,
        clip=ClipConfig(
            text=TextConfig(
                vocab_size=400,
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=64,
                bos_token_id=0,
                eos_token_id=1,
                queries=len(FINDINGS),
            ),
            vision=CTViTConfig(
                image_size=(16, 16, 16),
                patch_size=8,
                temporal_patch_size=8,
                dim=16,
                spatial_depth=1,
                temporal_depth=1,
                heads=2,
                dim_head=8,
                quantize=False,
                unused_parameters=False,
            ),
            projection_dim=16,
        ),
        vae=SpaceToDepthConfig(
            factor=2,
            latent_channels=4,
            num_channels=(8, 16),
            num_res_blocks=(1, 1),
            attention_levels=(False, False),
            norm_num_groups=4,
        ),
        unet=UnetConfig(
            in_channels=4,
            out_channels=4,
            num_channels=(8, 16),
            attention_levels=(False, True),
            num_head_channels=(0, 8),
            num_res_blocks=1,
            cross_attention_dim=16,
            norm_num_groups=4,
        ),
        flow=FlowConfig(timestep_transform=False),
        defaults=Sampling(steps=2, guidance_scale=2.0),
    ),
}


def init_pack(path: Path, preset: str = "tiny", *, seed: int = 0) -> Pack:
    """Write a pack with random weights.

    Args:
        path: The pack's folder.
        preset: A key of ``PRESETS``.
        seed: Of the weights.

    Raises:
        UserError: No such preset.
    """
    if preset not in PRESETS:
        raise UserError(f"there is no preset '{preset}'; choose one of {', '.join(PRESETS)}")
    sizes = PRESETS[preset]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = Unet(sizes.unet)
        for weight in unet.parameters():
            # MAISI starts its output layers at zero, which would hide the prompt and the times.
            if weight.ndim > 1 and not weight.any():
                torch.nn.init.normal_(weight, std=0.05)
        parts = {
            "clip": Part(sizes.clip, Clip3D(sizes.clip).state_dict()),
            "vae": Part(sizes.vae, SpaceToDepthVae(sizes.vae).state_dict()),
            "unet": Part(sizes.unet, unet.state_dict()),
            "scheduler": Part(sizes.flow),
        }
    info = PackInfo(
        name=f"random-{preset}",
        version="0",
        licence="Apache-2.0",
        description="Random weights: generates noise, for tests.",
        components={},
        grid=sizes.grid,
        spacing_mm=sizes.spacing_mm,
        latent_scale_factor=1.0,
        conditioning="tokens",
        text_length=sizes.text_length,
        defaults=sizes.defaults,
    )
    return save_pack(path, info, parts, TextTokenizer.train(FINDINGS, sizes.clip.text.vocab_size))
