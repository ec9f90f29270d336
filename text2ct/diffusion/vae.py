"""The autoencoders: MAISI's KL autoencoder, alone or behind a space-to-depth rearrangement.

Both map intensities in [0, 1] to a latent grid and back; the released model's is ``autoencoder_kl_maisi``.
"""

from __future__ import annotations

import math

import torch
from monai.apps.generation.maisi.networks.autoencoderkl_maisi import AutoencoderKlMaisi
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn


# log(0.1²): a posterior narrow enough to keep most components, wide enough for the decoder to bear small errors.
START_LOG_VARIANCE = -4.6
# Beside a linear autoencoder the network adds detail of a few hundredths; Adam's steps, which do not know the
# scale of a loss, would overshoot without this factor.
NETWORK_GAIN = 0.1


class MaisiConfig(BaseModel):
    """Configuration of ``autoencoder_kl_maisi``; the defaults are the released model's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    in_channels: int = 1
    out_channels: int = 1
    latent_channels: int = 4
    num_channels: tuple[int, ...] = (64, 128, 256)
    num_res_blocks: tuple[int, ...] = (2, 2, 2)
    attention_levels: tuple[bool, ...] = (False, False, False)
    norm_num_groups: int = 32
    norm_eps: float = 1e-6
    use_convtranspose: bool = False
    num_splits: int = Field(default=1, description="tiles along one axis, to save memory; changes rounding only")


class SpaceToDepthConfig(MaisiConfig):
    """Configuration of ``space_to_depth``: blocks of ``factor``³ voxels become channels of a small MAISI."""

    factor: int = Field(default=2, ge=2)
    linear_skip: bool = Field(default=False, description="a linear autoencoder of blocks beside the network")
    linear_encoder: bool = Field(default=False, description="the encoder is the linear one alone, with a fixed deviation")

    @model_validator(mode="after")
    def _consistent(self) -> SpaceToDepthConfig:
        if self.linear_encoder and not self.linear_skip:
            raise ValueError("linear_encoder needs linear_skip")
        return self


def space_to_depth(x: Tensor, factor: int) -> Tensor:
    """(B, C, X, Y, Z) to (B, C·factor³, X/factor, Y/factor, Z/factor), losslessly."""
    b, c, *size = x.shape
    x = x.reshape(b, c, *(part for n in size for part in (n // factor, factor)))
    return x.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(b, c * factor**3, *(n // factor for n in size))


def depth_to_space(x: Tensor, factor: int) -> Tensor:
    """The inverse of :func:`space_to_depth`."""
    b, c, *size = x.shape
    x = x.reshape(b, c // factor**3, factor, factor, factor, *size)
    return x.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(b, c // factor**3, *(n * factor for n in size))


class MaisiVae(AutoencoderKlMaisi):
    """MAISI's autoencoder, whole volumes at once.

    Args:
        config: :class:`MaisiConfig`.
    """

    def __init__(self, config: MaisiConfig, blocks: int = 1) -> None:
        sizes = config.model_dump(exclude={"factor", "linear_skip", "linear_encoder"})
        sizes["in_channels"] *= blocks
        sizes["out_channels"] *= blocks
        super().__init__(spatial_dims=3, norm_float16=False, dim_split=1, **sizes)
        self.config = config

    @property
    def downsampling(self) -> int:
        """Voxels per latent voxel along one axis."""
        return int(2 ** (len(self.config.num_channels) - 1))


class SpaceToDepthVae(nn.Module):
    """A MAISI autoencoder that works on blocks of voxels: ``factor`` times fewer positions along each axis.

    On a small machine the full-resolution level costs most of an autoencoder's time and learns little; the
    rearrangement skips it without losing a voxel. With ``linear_skip`` the network adds to a linear
    autoencoder of whole blocks (as the shortcuts of DC-AE do, Chen et al. 2024, arXiv 2410.10733), which can
    begin as the principal components of the data: :meth:`start_from_blocks`.

    Args:
        config: :class:`SpaceToDepthConfig`.
    """

    def __init__(self, config: SpaceToDepthConfig) -> None:
        super().__init__()
        self.config = config
        self.inner = MaisiVae(config, blocks=config.factor**3)
        if config.linear_skip:
            voxels = self.downsampling**3
            self.skip_in = nn.Conv3d(config.in_channels * voxels, config.latent_channels, 1)
            self.skip_out = nn.Conv3d(config.latent_channels, config.out_channels * voxels, 1)
        if config.linear_encoder:
            # Fixed from the start, so that latents can be made while the decoder still learns.
            self.skip_in.requires_grad_(False)
            for name in ("encoder", "quant_conv_mu", "quant_conv_log_sigma"):
                setattr(self.inner, name, nn.Identity())

    @property
    def downsampling(self) -> int:
        """Voxels per latent voxel along one axis."""
        return self.inner.downsampling * self.config.factor

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, X, Y, Z) in [0, 1] to mean and standard deviation, (B, C, x, y, z) each."""
        if self.config.linear_encoder:
            mean = self.skip_in(space_to_depth(x, self.downsampling))
            return mean, torch.full_like(mean, math.exp(START_LOG_VARIANCE / 2))
        mean, deviation = self.inner.encode(space_to_depth(x, self.config.factor))
        if self.config.linear_skip:
            mean = mean + self.skip_in(space_to_depth(x, self.downsampling))
        return mean, deviation

    def decode(self, z: Tensor) -> Tensor:
        """(B, C, x, y, z) latents, unscaled, to (B, 1, X, Y, Z), nominally in [0, 1] and not clamped."""
        unit = depth_to_space(self.inner.decode(z), self.config.factor)
        if self.config.linear_skip:
            unit = NETWORK_GAIN * unit + depth_to_space(self.skip_out(z), self.downsampling)
        return unit

    @torch.no_grad()
    def start_from_blocks(self, blocks: Tensor) -> None:
        """Begin as the principal components of ``blocks``, the network adding nothing yet.

        Args:
            blocks: (n, downsampling³) voxels in [0, 1], in the order of :func:`space_to_depth`; n well above
                the number of voxels.
        """
        mean = blocks.mean(dim=0)
        variance, vectors = torch.linalg.eigh((blocks - mean).T @ (blocks - mean) / len(blocks))
        variance, vectors = variance.flip(0)[: self.config.latent_channels], vectors.flip(1)
        vectors = vectors[:, : self.config.latent_channels]
        # Between whitened and untouched: large components stay larger, so that diffusion learns them first,
        # and small ones stay above the posterior's noise. Mean variance 1, as the KL term wants.
        scale = variance**-0.25
        scale = scale / (scale**2 * variance).mean().sqrt()
        shape = (-1, 1, 1, 1)
        encode, decode = scale[:, None] * vectors.T, vectors / scale
        self.skip_in.weight.copy_(encode.reshape(len(scale), *shape))
        self.skip_in.bias.copy_(-encode @ mean)
        self.skip_out.weight.copy_(decode.reshape(len(decode), *shape))
        self.skip_out.bias.copy_(mean)
        last = self.inner.decoder.blocks[-1].conv.conv
        last.weight.zero_()
        last.bias.zero_()
        if not self.config.linear_encoder:
            for layer in (self.inner.quant_conv_mu.conv, self.inner.quant_conv_log_sigma.conv):
                layer.weight.zero_()
                layer.bias.zero_()
            self.inner.quant_conv_log_sigma.conv.bias.fill_(START_LOG_VARIANCE)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction, mean and deviation; in evaluation mode the mean is decoded, not a sample."""
        mean, deviation = self.encode(x)
        z = mean + torch.randn_like(mean) * deviation if self.training else mean
        return self.decode(z), mean, deviation


Vae = MaisiVae | SpaceToDepthVae
