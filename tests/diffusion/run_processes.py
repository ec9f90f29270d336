"""Short trainings on the number of processes given; Lightning runs this script again for the second one.

Usage: run_processes.py FOLDER DEVICES STRATEGY
"""

from __future__ import annotations

import sys
from functools import partial
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
    sharding,
    train_clip,
    train_diffusion,
    train_vae,
)
from text2ct.diffusion.training.processes import Strategy
from text2ct.diffusion.unet import Unet
from text2ct.diffusion.vae import SpaceToDepthVae

TINY = PRESETS["tiny"]
STEPS = 6
COMMON = {"steps": STEPS, "batch_size": 4, "precision": "float32", "log_every": 1, "learning_rate": 1e-4}


def main(folder: Path, devices: int, strategy: Strategy) -> None:
    sharding.MANY = 64  # small as they are
    cases = Cases(folder / "cases")
    place = {"device": "cpu", "devices": devices, "strategy": strategy}
    out = folder / f"{strategy}-{devices}"
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

    def unet() -> Unet:
        torch.manual_seed(0)
        return Unet(TINY.unet).to(memory_format=torch.channels_last_3d)  # as it comes from a pack

    spared = {"micro_batch": 1, "gradient_checkpointing": True}
    diffusion = DiffusionTraining(**COMMON, **spared, gradient_clip=0.1, ema_decay=0.5)
    scheduler = Ddpm(DdpmConfig())
    run = partial(train_diffusion, encoded, scheduler=scheduler, config=diffusion, scale_factor=1.0, **place)
    if strategy == "fsdp":  # stopped and gone on with
        run(unet=unet(), out=out / "diffusion", stop_at=2)
    trained = run(unet=unet(), out=out / "diffusion")
    torch.save(trained.state_dict(), out / "trained.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
