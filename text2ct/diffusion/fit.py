"""Whether a pack's components fit each other and ``pack.json``, told from configurations: no weights are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from text2ct.diffusion.clip import ClipConfig
from text2ct.diffusion.gaussian import GaussianUnetConfig
from text2ct.diffusion.info import PackInfo
from text2ct.diffusion.tokenizer import TextTokenizer
from text2ct.diffusion.unet import UnetConfig
from text2ct.diffusion.vae import LinearBlocksConfig, MaisiConfig


def grid_multiple(vae: MaisiConfig | LinearBlocksConfig, unet: UnetConfig | GaussianUnetConfig | None) -> int:
    """What each axis of a grid must be a multiple of; a pack may have no UNet."""
    if unet is None:
        return vae.downsampling
    return vae.downsampling * unet.downsampling


def text_misfits(info: PackInfo, clip: ClipConfig) -> list[str]:
    """What of ``pack.json`` the text tower cannot do."""
    problems = []
    if info.text_length > clip.text.max_position_embeddings:
        problems.append(
            f"text_length is {info.text_length}, but the text tower has {clip.text.max_position_embeddings} positions"
        )
    if info.conditioning == "tokens" and not clip.text.queries:
        problems.append("conditioning is 'tokens', but the text tower has no queries; it can be 'pooled' alone")
    return problems


def tokenizer_misfits(tokenizer: TextTokenizer, clip: ClipConfig) -> list[str]:
    """Token ids that the text tower does not know, or knows as something else."""
    problems = []
    if tokenizer.vocab_size > clip.text.vocab_size:
        problems.append(f"the tokenizer has {tokenizer.vocab_size} tokens, but the text tower {clip.text.vocab_size}")
    if tokenizer.end_id != clip.text.eos_token_id:
        problems.append(
            f"the tokenizer's end-of-text is {tokenizer.end_id}, but the text tower's eos_token_id is "
            f"{clip.text.eos_token_id}"
        )
    return problems


def misfits(info: PackInfo, configs: Mapping[str, Any]) -> list[str]:
    """Everything that does not fit; absent components fit.

    Args:
        info: The contents of ``pack.json``.
        configs: Component to its configuration.
    """
    clip, vae, unet = (configs.get(name) for name in ("clip", "vae", "unet"))
    problems = [] if clip is None else text_misfits(info, clip)
    if vae is not None:
        multiple = grid_multiple(vae, unet)
        if any(size % multiple for size in info.grid):
            problems.append(
                f"the pack's networks cannot take its grid {info.grid}: each axis must be a multiple of {multiple}"
            )
    if unet is not None:
        problems += _unet_misfits(info, clip, vae, unet)
    return problems


def _unet_misfits(
    info: PackInfo,
    clip: ClipConfig | None,
    vae: MaisiConfig | LinearBlocksConfig | None,
    unet: UnetConfig | GaussianUnetConfig,
) -> list[str]:
    """Channels and shapes on either side of the UNet."""
    gaussian = unet if isinstance(unet, GaussianUnetConfig) else None
    inner = gaussian.unet if gaussian else unet
    assert isinstance(inner, UnetConfig)
    problems = []
    if gaussian and inner.in_channels != 2 * gaussian.in_channels:
        problems.append(
            f"the UNet's in_channels is {inner.in_channels}, but it sees {2 * gaussian.in_channels}: x_t and the data "
            "that the Gaussian expects"
        )
    if vae is not None:
        channels = vae.latent_channels
        for name, value in (("in_channels", unet.in_channels), ("out_channels", inner.out_channels)):
            if value != channels:
                problems.append(f"the UNet's {name} is {value}, but the VAE's latents have {channels} channels")
        size = tuple(n // vae.downsampling for n in info.grid)
        if gaussian and gaussian.latent_shape[1:] != size:
            problems.append(f"the Gaussian's latents are {gaussian.latent_shape[1:]}, but the grid's are {size}")
    if clip is not None:
        width, dim = inner.cross_attention_dim, clip.projection_dim
        if width != dim:
            problems.append(f"the UNet's cross_attention_dim is {width}, but CLIP's projection_dim is {dim}")
        context = (1 + clip.text.queries if info.conditioning == "tokens" else 1, dim)
        if gaussian and gaussian.context_shape != context:
            problems.append(f"the Gaussian's context is {gaussian.context_shape}, but the text tower's is {context}")
    return problems
