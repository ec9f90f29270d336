"""The autoencoders: MAISI's KL autoencoder, alone or behind a space-to-depth rearrangement.

Both map intensities in [0, 1] to a latent grid and back; the released model's is ``autoencoder_kl_maisi``.
"""

from __future__ import annotations

import torch
from monai.apps.generation.maisi.networks.autoencoderkl_maisi import AutoencoderKlMaisi
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor, nn

from text2ct.diffusion import slabs
from text2ct.diffusion.info import Layers


class MaisiConfig(BaseModel):
    """Configuration of ``autoencoder_kl_maisi``; the defaults are the released model's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    in_channels: int = 1
    out_channels: int = 1
    latent_channels: int = 4
    num_channels: tuple[int, ...] = Field(default=(64, 128, 256), min_length=1)
    num_res_blocks: tuple[Layers, ...] = (2, 2, 2)
    attention_levels: tuple[bool, ...] = (False, False, False)
    norm_num_groups: int = 32
    norm_eps: float = 1e-6
    use_convtranspose: bool = False
    num_splits: int = Field(default=1, description="tiles along one axis, to save memory; changes rounding only")

    @property
    def downsampling(self) -> int:
        """Voxels per latent voxel along one axis."""
        return int(2 ** (len(self.num_channels) - 1))


class SpaceToDepthConfig(MaisiConfig):
    """Configuration of ``space_to_depth``: blocks of ``factor``³ voxels become channels of a small MAISI."""

    factor: int = Field(default=2, ge=2)

    @property
    def downsampling(self) -> int:
        """Voxels per latent voxel along one axis."""
        return super().downsampling * self.factor


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
    """MAISI's autoencoder.

    Args:
        config: :class:`MaisiConfig`.
    """

    def __init__(self, config: MaisiConfig, blocks: int = 1) -> None:
        sizes = config.model_dump(exclude={"factor"})
        sizes["in_channels"] *= blocks
        sizes["out_channels"] *= blocks
        super().__init__(spatial_dims=3, norm_float16=False, dim_split=1, **sizes)
        self.config = config

    @property
    def downsampling(self) -> int:
        """Voxels per latent voxel along one axis."""
        return self.config.downsampling

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, X, Y, Z) in [0, 1] to mean and deviation; slab by slab where no gradient is wanted."""
        return super().encode(x) if torch.is_grad_enabled() else slabs.encode(self, x)

    def decode(self, z: Tensor) -> Tensor:
        """(B, C, x, y, z) latents to (B, 1, X, Y, Z), not clamped; slab by slab where no gradient is wanted."""
        return super().decode(z) if torch.is_grad_enabled() else slabs.decode(self, z)


class SpaceToDepthVae(nn.Module):
    """A MAISI autoencoder that works on blocks of voxels: ``factor`` times fewer positions along each axis.

    On a small machine the full-resolution level costs most of an autoencoder's time and learns little; the
    rearrangement skips it without losing a voxel.

    Args:
        config: :class:`SpaceToDepthConfig`.
    """

    def __init__(self, config: SpaceToDepthConfig) -> None:
        super().__init__()
        self.config = config
        self.inner = MaisiVae(config, blocks=config.factor**3)

    @property
    def downsampling(self) -> int:
        """Voxels per latent voxel along one axis."""
        return self.config.downsampling

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, X, Y, Z) in [0, 1] to mean and standard deviation, (B, C, x, y, z) each."""
        mean, deviation = self.inner.encode(space_to_depth(x, self.config.factor))
        return mean, deviation

    def decode(self, z: Tensor) -> Tensor:
        """(B, C, x, y, z) latents, unscaled, to (B, 1, X, Y, Z), nominally in [0, 1] and not clamped."""
        return depth_to_space(self.inner.decode(z), self.config.factor)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction, mean and deviation; in evaluation mode the mean is decoded, not a sample."""
        mean, deviation = self.encode(x)
        z = mean + torch.randn_like(mean) * deviation if self.training else mean
        return self.decode(z), mean, deviation


class LinearBlocksConfig(BaseModel):
    """Configuration of ``linear_blocks``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    factor: int = Field(default=8, ge=2, description="voxels along one edge of a block")
    latent_channels: int = Field(default=32, ge=1, description="principal components of a block")
    decoder_kernel: int = Field(default=3, ge=1, description="blocks along one edge that decode the middle one; odd")

    @field_validator("decoder_kernel")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError(f"{value} blocks have no middle one; it must be odd")
        return value

    @property
    def downsampling(self) -> int:
        """Voxels per latent voxel along one axis."""
        return self.factor


class LinearBlocksVae(nn.Module):
    """A linear autoencoder: components of blocks one way, a regression on neighbouring blocks back.

    Both maps have closed forms (:func:`text2ct.diffusion.training.linear.fit_linear_blocks`), so it is made in
    a minute without a gradient. It blurs where a network would not, and shows no joins between blocks, since
    each block is decoded from its neighbours too.

    Args:
        config: :class:`LinearBlocksConfig`.
    """

    def __init__(self, config: LinearBlocksConfig) -> None:
        super().__init__()
        self.config = config
        voxels, channels, kernel = config.factor**3, config.latent_channels, config.decoder_kernel
        self.to_latent = nn.Conv3d(voxels, channels, 1)
        self.to_voxels = nn.Conv3d(channels, voxels, kernel, padding=kernel // 2)

    @property
    def downsampling(self) -> int:
        """Voxels per latent voxel along one axis."""
        return self.config.downsampling

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, X, Y, Z) in [0, 1] to components, (B, C, x, y, z), and their deviation, which is zero."""
        mean = self.to_latent(space_to_depth(x, self.config.factor))
        return mean, torch.zeros_like(mean)

    def decode(self, z: Tensor) -> Tensor:
        """(B, C, x, y, z) components to (B, 1, X, Y, Z), nominally in [0, 1] and not clamped."""
        return depth_to_space(self.to_voxels(z), self.config.factor)


Vae = MaisiVae | SpaceToDepthVae | LinearBlocksVae
TrainedVae = MaisiVae | SpaceToDepthVae
