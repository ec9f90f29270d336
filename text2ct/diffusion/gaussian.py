"""A velocity network that adds to a Gaussian's velocity.

Simulated chests share one anatomy, so a Gaussian fitted to whole latents already knows most of where things
are, and its velocity has a closed form. The MAISI UNet adds what is not Gaussian. On a small machine this saves
the many thousand steps in which a UNet alone would learn the common anatomy.

With data z ~ N(m, C) and ``x_t = (1 - t)·z + t·noise``, the expected velocity is
``E[z - noise | x_t]``, linear in x_t (the Gaussian case of Lipman et al. 2023, arXiv 2210.02747). Here z has
components of deviations s along U, and a rest outside of them of deviations r, voxel by voxel; the mean moves
linearly with the text. The components and the rest are taken as independent, given x_t too. That is exact where r is
constant; where it is not, a rest of diagonal covariance lies partly along U, and the velocity is an approximation.
"""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from text2ct.diffusion.flow import TIMESTEPS
from text2ct.diffusion.unet import Unet, UnetConfig


class GaussianUnetConfig(BaseModel):
    """Configuration of ``gaussian_unet``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    unet: UnetConfig = Field(
        default=UnetConfig(in_channels=8), description="takes x_t beside the Gaussian's estimate of the data"
    )
    latent_shape: tuple[int, int, int, int] = Field(default=(4, 8, 8, 8), description="(C, x, y, z)")
    components: int = Field(default=64, ge=1, description="rank of the Gaussian's covariance")
    context_shape: tuple[int, int] = Field(default=(1, 768), description="(tokens, width) of the text context")
    text_embedding: int = Field(
        default=0,
        ge=0,
        description="width through which the context joins the UNet's embedding of the time; 0: cross-attention alone",
    )

    @property
    def in_channels(self) -> int:
        """Channels of a latent."""
        return self.latent_shape[0]

    @property
    def downsampling(self) -> int:
        """Latent voxels per voxel of the UNet's coarsest level along one axis."""
        return self.unet.downsampling


class GaussianUnet(nn.Module):
    """A Gaussian's velocity plus a UNet's; called like MAISI's UNet.

    Args:
        config: :class:`GaussianUnetConfig`.
    """

    basis: Tensor
    mean: Tensor
    deviation: Tensor
    deviation_given_text: Tensor
    rest_deviation: Tensor
    text_weight: Tensor
    text_mean: Tensor

    def __init__(self, config: GaussianUnetConfig) -> None:
        super().__init__()
        self.config = config
        channels, x, y, z = config.latent_shape
        size, rank = channels * x * y * z, config.components
        features = config.context_shape[0] * config.context_shape[1]
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("basis", torch.zeros(size, rank))  # U, orthonormal columns
        self.register_buffer("deviation", torch.ones(rank))  # s
        self.register_buffer("deviation_given_text", torch.ones(rank))  # s of what the text leaves open
        self.register_buffer("rest_deviation", torch.ones(size))  # r
        self.register_buffer("text_mean", torch.zeros(features))
        self.register_buffer("text_weight", torch.zeros(features, rank))
        self.unet = Unet(config.unet)
        if config.text_embedding:
            # So that the text reaches every block, also those too fine for attention (Saharia et al. 2022, arXiv
            # 2205.11487, section 2.3: pooled text added to the embedding of the time).
            last = nn.Linear(config.text_embedding, 4 * config.unet.num_channels[0])
            nn.init.zeros_(last.weight)  # at first the time alone decides
            nn.init.zeros_(last.bias)
            self.text_embedding = nn.Sequential(nn.Linear(features, config.text_embedding), nn.SiLU(), last)

    @property
    def downsampling(self) -> int:
        """Latent voxels per voxel of the UNet's coarsest level along one axis."""
        return self.config.downsampling

    def gaussian(self, x_t: Tensor, timesteps: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """The Gaussian's expectations of data and of noise at x_t, both of the latent's shape.

        The components and the rest are taken as independent: exact where the rest's deviation is constant.
        A context of zeros means no text, as everywhere: then the mean and the spread of all data are used.
        """
        flat = x_t.flatten(1)
        t = (timesteps.to(flat.dtype) / TIMESTEPS).clamp(min=1e-3)[:, None]
        features = context.flatten(1)
        told = (features != 0).any(dim=1, keepdim=True)
        shift = torch.where(told, (features - self.text_mean) @ self.text_weight, 0.0)
        spread = torch.where(told, self.deviation_given_text, self.deviation) ** 2
        rest = self.rest_deviation**2
        mean = self.mean + shift @ self.basis.T
        away = flat - (1 - t) * mean
        inside = away @ self.basis
        outside = away - inside @ self.basis.T
        inside = inside / ((1 - t) ** 2 * spread + t**2)
        outside = outside / ((1 - t) ** 2 * rest + t**2)
        data = mean + (1 - t) * ((inside * spread) @ self.basis.T + outside * rest)
        noise = t * (inside @ self.basis.T + outside)
        return data.view_as(x_t), noise.view_as(x_t)

    def forward(
        self, x: Tensor, timesteps: Tensor, context: Tensor, class_labels: Tensor, spacing_tensor: Tensor
    ) -> Tensor:
        """Velocity at x, one for each context; arguments as for :class:`text2ct.diffusion.unet.Unet`."""
        copies = len(context) // len(x)
        if copies > 1:
            # The Gaussian's estimate goes by the context, so nothing can be shared.
            x = x.repeat(copies, 1, 1, 1, 1)
            timesteps, class_labels = timesteps.repeat(copies), class_labels.repeat(copies)
            spacing_tensor = spacing_tensor.repeat(copies, 1)
        x_t = x.float().contiguous()
        # A few digits more than bfloat16 has: near the data, differences are divided by small numbers.
        with torch.autocast(x.device.type, enabled=False):
            data, noise = self.gaussian(x_t, timesteps, context.float())
        seen = torch.cat([x_t, data], dim=1).contiguous(memory_format=torch.channels_last_3d)
        more = self.unet(
            x=seen,
            timesteps=timesteps,
            context=context,
            class_labels=class_labels,
            spacing_tensor=spacing_tensor,
            more_embedding=self.text_embedding(context.flatten(1)) if self.config.text_embedding else None,
        )
        return data - noise + more
