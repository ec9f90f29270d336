"""Three short trainings on the number of processes given; Lightning runs this script again for the second one.

Usage: run_processes.py FOLDER DEVICES
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from text2ct.diffusion.clip import Clip3D
from text2ct.diffusion.ddpm import Ddpm, DdpmConfig
from text2ct.diffusion.init import PRESETS
from text2ct.diffusion.tokenizer import TextTokenizer
from text2ct.diffusion.training import (
    Cases,
    ClipTraining,
    DiffusionTraining,
    Encoded,
    VaeTraining,
    train_clip,
    train_diffusion,
    train_vae,
)
from text2ct.diffusion.unet import Unet
from text2ct.diffusion.vae import SpaceToDepthVae

TINY = PRESETS["tiny"]
COMMON = {"steps": 2, "batch_size": 4, "precision": "float32", "log_every": 1, "learning_rate": 1e-4}


def main(folder: Path, devices: int) -> None:
    cases = Cases(folder / "cases")
    place = {"device": "cpu", "devices": devices}
    out = folder / f"devices-{devices}"
    tokenizer = TextTokenizer.train(["pleural effusion is seen", "normal"], TINY.clip.text.vocab_size)
    torch.manual_seed(0)
    clip = ClipTraining(**COMMON, label_weight=1.0, text_length=32, micro_batch=1)
    train_clip(cases, Clip3D(TINY.clip), tokenizer, clip, out / "clip", **place)
    torch.manual_seed(0)
    judged = {"adversarial_weight": 0.1, "discriminator_channels": 4, "discriminator_layers": 1}
    vae = VaeTraining(**COMMON, patch=8, whole_every=0, **judged)
    train_vae(cases, SpaceToDepthVae(TINY.vae), vae, out / "vae", **place)
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(6, 4, 4, 4, 4)).astype(np.float16)
    contexts = rng.normal(size=(6, 1, 2, TINY.clip.projection_dim)).astype(np.float16)
    encoded = Encoded(latents, contexts, {"spacing_mm": (20.0, 20.0, 20.0), "std": 1.0})
    torch.manual_seed(0)
    diffusion = DiffusionTraining(**COMMON, gradient_clip=0.1, ema_decay=0.5)
    scheduler = Ddpm(DdpmConfig())
    train_diffusion(encoded, Unet(TINY.unet), scheduler, diffusion, out / "diffusion", scale_factor=1.0, **place)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
