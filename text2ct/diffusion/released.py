"""The released Text2CT model: sizes, settings and where its weights are (arXiv 2506.00633 and its code)."""

from __future__ import annotations

from pydantic import BaseModel

from text2ct.diffusion.cleaning import TextCleaning
from text2ct.diffusion.clip import ClipConfig
from text2ct.diffusion.flow import FlowConfig
from text2ct.diffusion.info import PackInfo, Sampling, TrainingData
from text2ct.diffusion.unet import UnetConfig
from text2ct.diffusion.vae import MaisiConfig

NETWORKS: dict[str, BaseModel] = {"clip": ClipConfig(), "vae": MaisiConfig(), "unet": UnetConfig()}
# Its sampler's float16 times and truncated step sizes: the weights are used as their authors used them.
FLOW = FlowConfig(step_sizes="released")
GRID, SPACING_MM = (512, 512, 128), (0.75, 0.75, 3.0)
# What the released sampling divides by where a checkpoint does not state its own.
SCALE_FACTOR = 1.0287
TEXT_LENGTH = 512
DEFAULTS = Sampling(steps=30, guidance_scale=5.0)
# Whether ftfy was importable when the text tower was trained is not known; the authors' requirements leave it out.
TEXT_CLEANING: TextCleaning = "bert"

REPOSITORY = "dmolino/text2ct-weights"
FILES = {
    "vae": "autoencoder_epoch273.pt",
    "unet": "unet_rflow_200ep.pt",
    "clip": "CLIP3D_Finding_Impression_30ep.pt",
}


def released_info(name: str, scale_factor: float, text_cleaning: TextCleaning, source: str = "") -> PackInfo:
    """``pack.json`` of imported weights; ``source`` ends its description."""
    return PackInfo(
        name=name,
        version="1.0.0",
        licence="not stated with the weights; CT-RATE, which they were trained on, is CC BY-NC-SA 4.0",
        description=(
            f"The released Text2CT weights (Molino et al. 2025, arXiv 2506.00633); not for clinical use.{source}"
        ),
        components={},
        trained_on=(TrainingData(dataset="CT-RATE", patients=("train_*",)),),
        grid=GRID,
        spacing_mm=SPACING_MM,
        latent_scale_factor=scale_factor,
        conditioning="pooled",
        text_cleaning=text_cleaning,
        text_length=TEXT_LENGTH,
        defaults=DEFAULTS,
    )
