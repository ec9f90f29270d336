"""Training of the core: cases on disk, then autoencoder, 3D CLIP, encoding, velocity network."""

from text2ct.diffusion.training.cases import Cases, render_patients
from text2ct.diffusion.training.clip import train_clip
from text2ct.diffusion.training.config import ClipTraining, DiffusionTraining, VaeTraining, parse_config
from text2ct.diffusion.training.data import cache_manifest
from text2ct.diffusion.training.diffusion import train_diffusion
from text2ct.diffusion.training.encode import Encoded, encode
from text2ct.diffusion.training.vae import train_vae

__all__ = [
    "Cases",
    "ClipTraining",
    "DiffusionTraining",
    "Encoded",
    "VaeTraining",
    "cache_manifest",
    "encode",
    "parse_config",
    "render_patients",
    "train_clip",
    "train_diffusion",
    "train_vae",
]
