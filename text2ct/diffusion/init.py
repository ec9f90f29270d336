"""Packs with random weights, for trying the software and for tests; their names say so."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel

from text2ct.diffusion import released
from text2ct.diffusion.cleaning import TextCleaning
from text2ct.diffusion.clip import ClipConfig, TextConfig
from text2ct.diffusion.clip_vocabulary import clip_tokenizer
from text2ct.diffusion.components import COMPONENT_TYPES, type_of
from text2ct.diffusion.ctvit import CTViTConfig
from text2ct.diffusion.flow import FlowConfig
from text2ct.diffusion.info import PackInfo, Sampling
from text2ct.diffusion.pack import Pack, Part, save_networks
from text2ct.diffusion.tokenizer import TextTokenizer
from text2ct.diffusion.unet import UnetConfig
from text2ct.diffusion.unfinished import making_pack
from text2ct.diffusion.vae import MaisiConfig, SpaceToDepthConfig
from text2ct.diffusion.weights import expected_shapes
from text2ct.errors import UserError
from text2ct.findings import FINDINGS

STORED = torch.float16
# Drawn, checked and written on one core, measured at the released sizes.
NUMBERS_PER_SECOND = 4e7


@dataclass(frozen=True)
class Preset:
    """Sizes of a pack and how it reads texts."""

    grid: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    text_length: int
    clip: ClipConfig
    vae: SpaceToDepthConfig | MaisiConfig
    unet: UnetConfig
    flow: FlowConfig
    defaults: Sampling
    tokenizer: Callable[[], TextTokenizer]
    conditioning: Literal["pooled", "tokens"] = "tokens"
    text_cleaning: TextCleaning = "tokenizer"
    latent_scale_factor: float = 1.0


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
        tokenizer=lambda: TextTokenizer.train(FINDINGS, 400),
    ),
    "text2ct": Preset(
        grid=released.GRID,
        spacing_mm=released.SPACING_MM,
        text_length=released.TEXT_LENGTH,
        clip=ClipConfig(),
        vae=MaisiConfig(),
        unet=UnetConfig(),
        flow=released.FLOW,
        defaults=released.DEFAULTS,
        tokenizer=clip_tokenizer,
        conditioning="pooled",
        text_cleaning=released.TEXT_CLEANING,
        latent_scale_factor=released.SCALE_FACTOR,
    ),
}


def init_pack(path: Path, preset: str = "tiny", *, seed: int = 0) -> Pack:
    """Write a pack with random weights.

    Args:
        path: The pack's folder.
        preset: A key of ``PRESETS``.
        seed: Of the weights.

    Raises:
        UserError: No such preset, or ``path`` is in use.
    """
    if preset not in PRESETS:
        raise UserError(f"there is no preset '{preset}'; choose one of {', '.join(PRESETS)}")
    sizes = PRESETS[preset]
    networks = (("clip", sizes.clip), ("vae", sizes.vae), ("unet", sizes.unet))
    parts = {name: Part(config, partial(_random_state, config, seed)) for name, config in networks}
    info = PackInfo(
        name=f"random-{preset}",
        version="0",
        licence="Apache-2.0",
        description="Random weights: generates noise, for tests.",
        components={},
        grid=sizes.grid,
        spacing_mm=sizes.spacing_mm,
        latent_scale_factor=sizes.latent_scale_factor,
        conditioning=sizes.conditioning,
        text_cleaning=sizes.text_cleaning,
        text_length=sizes.text_length,
        defaults=sizes.defaults,
    )
    with making_pack(path, {"init": preset, "seed": seed}):
        return save_networks(path, info, parts, sizes.flow, sizes.tokenizer, dtype=STORED)


def estimate_init(preset: str) -> dict[str, float]:
    """``seconds`` on one core and ``bytes`` of :func:`init_pack`."""
    sizes = PRESETS[preset]
    numbers = 0
    for config in (sizes.clip, sizes.vae, sizes.unet):
        shapes = expected_shapes(COMPONENT_TYPES[type_of(config)].build, config)
        numbers += sum(math.prod(shape) for shape in shapes.values())
    return {"seconds": round(1 + numbers / NUMBERS_PER_SECOND, 1), "bytes": numbers * STORED.itemsize}


def _random_state(config: BaseModel, seed: int) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = COMPONENT_TYPES[type_of(config)].build(config)
        if isinstance(config, UnetConfig):
            for weight in module.parameters():
                # MAISI starts its output layers at zero, which would hide the prompt and the times.
                if weight.ndim > 1 and not weight.any():
                    torch.nn.init.normal_(weight, std=0.05)
    # In place, tensor by tensor: two copies of the released CLIP in float32 would be 6 GB.
    return module.to(STORED).state_dict()
