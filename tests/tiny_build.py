"""A build of a pack that takes seconds."""

from __future__ import annotations

from text2ct.diffusion.build_config import BuildConfig
from text2ct.diffusion.clip import ClipConfig
from text2ct.diffusion.gaussian import GaussianUnetConfig
from text2ct.diffusion.info import Sampling
from text2ct.diffusion.init import PRESETS
from text2ct.diffusion.training import ClipTraining, DiffusionTraining
from text2ct.diffusion.vae import LinearBlocksConfig

TINY = PRESETS["tiny"]
VISION = TINY.clip.vision.model_copy(update={"image_size": (32, 32, 32)})
CONFIG = BuildConfig(
    name="tiny-32",
    patients=24,
    grid=(32, 32, 32),
    spacing_mm=(10.0, 10.0, 10.0),
    vocab_size=400,
    text_length=64,
    vae=LinearBlocksConfig(factor=8, latent_channels=4),
    clip=ClipConfig(text=TINY.clip.text, vision=VISION, projection_dim=16),
    unet=GaussianUnetConfig(
        unet=TINY.unet.model_copy(update={"in_channels": 8}),
        latent_shape=(4, 4, 4, 4),
        components=5,
        context_shape=(1 + TINY.clip.text.queries, 16),
    ),
    train_clip=ClipTraining(steps=4, batch_size=4, label_weight=1.0, text_length=64, short_steps=1, text_only_steps=2),
    train_diffusion=DiffusionTraining(steps=3, batch_size=2, ema_decay=0.9, loss="l2"),
    defaults=Sampling(steps=2, guidance_scale=2.0),
)
