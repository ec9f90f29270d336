"""Checkpoints as released, of networks small enough for a test."""

from __future__ import annotations

from pathlib import Path

import torch

from text2ct.diffusion import released
from text2ct.diffusion.clip import Clip3D, ClipConfig, TextConfig
from text2ct.diffusion.init import PRESETS
from text2ct.diffusion.unet import Unet
from text2ct.diffusion.vae import MaisiConfig, MaisiVae

TINY = PRESETS["tiny"]
NETWORKS = {
    "clip": ClipConfig(
        text=TextConfig(hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2),
        vision=TINY.clip.vision.model_copy(update={"quantize": True, "codebook_size": 8}),
        projection_dim=16,
    ),
    "vae": MaisiConfig(
        num_channels=(4, 8, 8), num_res_blocks=(1, 1, 1), norm_num_groups=4, attention_levels=(False, False, False)
    ),
    "unet": TINY.unet,
}
SCALE_FACTOR = 0.875


def checkpoint_files(folder: Path) -> dict[str, Path]:
    """The three files under their released names, weights random in float32."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    clip = {f"model.{name}": value for name, value in Clip3D(NETWORKS["clip"]).state_dict().items()}
    clip["model.text_model.embeddings.position_ids"] = torch.arange(512)[None]
    unet = {"unet_state_dict": Unet(NETWORKS["unet"]).state_dict(), "scale_factor": torch.tensor(SCALE_FACTOR)}
    states = {"clip": clip, "vae": MaisiVae(NETWORKS["vae"]).state_dict(), "unet": unet}
    files = {component: folder / name for component, name in released.FILES.items()}
    for component, path in files.items():
        torch.save(states[component], path)
    return files
