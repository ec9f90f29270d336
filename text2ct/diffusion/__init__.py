"""The diffusion core: model packs, 3D CLIP, autoencoders, the velocity network, rectified flow, training."""

from text2ct.diffusion.estimate import estimate_seconds
from text2ct.diffusion.generate import generate
from text2ct.diffusion.info import PackInfo, Sampling
from text2ct.diffusion.init import init_pack
from text2ct.diffusion.pack import DEFAULT_PACK, Pack, list_packs, load_pack, save_pack, verify_pack

__all__ = [
    "DEFAULT_PACK",
    "Pack",
    "PackInfo",
    "Sampling",
    "estimate_seconds",
    "generate",
    "init_pack",
    "list_packs",
    "load_pack",
    "save_pack",
    "verify_pack",
]
