"""The denoiser: MAISI's UNet with cross-attention, spacing and modality inputs, built from a configuration.

Its parameters, their names and its results are MAISI's; what is computed less often or faster is said where it
is done.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from monai.apps.generation.maisi.networks.diffusion_model_unet_maisi import DiffusionModelUNetMaisi
from monai.networks.blocks.crossattention import CrossAttentionBlock
from monai.networks.blocks.selfattention import SABlock
from monai.networks.nets.diffusion_model_unet import CrossAttnDownBlock, DiffusionUNetResnetBlock
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from text2ct.diffusion.attention import Attention
from text2ct.diffusion.info import Layers
from text2ct.diffusion.norms import GroupNorm

# MAISI's number for the modality CT, the only one used.
CT_CLASS = 1
# MAISI's spacing input is millimetres times 100.
SPACING_UNITS_PER_MM = 100.0


class UnetConfig(BaseModel):
    """Configuration of ``diffusion_unet_maisi``; the defaults are the released model's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    in_channels: int = 4
    out_channels: int = 4
    num_channels: tuple[int, ...] = Field(default=(64, 128, 256, 512), min_length=1)
    attention_levels: tuple[bool, ...] = (False, False, True, True)
    num_head_channels: tuple[int, ...] = (0, 0, 32, 32)
    num_res_blocks: Layers | tuple[Layers, ...] = 2
    cross_attention_dim: int = 768
    norm_num_groups: int = 32
    num_class_embeds: int = 128
    resblock_updown: bool = True
    include_fc: bool = True
    include_spacing_input: bool = True
    transformer_num_layers: Layers = 1

    @property
    def downsampling(self) -> int:
        """Latent voxels per voxel of the coarsest level along one axis."""
        return int(2 ** (len(self.num_channels) - 1))


class Unet(DiffusionModelUNetMaisi):
    """The velocity network.

    Args:
        config: :class:`UnetConfig`.
    """

    def __init__(self, config: UnetConfig) -> None:
        super().__init__(
            spatial_dims=3,
            with_conditioning=True,
            use_flash_attention=False,
            include_top_region_index_input=False,
            include_bottom_region_index_input=False,
            **config.model_dump(),
        )
        self.config = config
        for module in list(self.modules()):
            for name, child in module.named_children():
                if isinstance(child, SABlock | CrossAttentionBlock):
                    setattr(module, name, Attention(child))
            if type(module) is DiffusionUNetResnetBlock:
                module.__class__ = _ResnetBlock
            if type(module) is nn.GroupNorm:
                module.__class__ = GroupNorm

    @property
    def downsampling(self) -> int:
        """Latent voxels per voxel of the coarsest level along one axis."""
        return self.config.downsampling

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        class_labels: Tensor,
        spacing_tensor: Tensor,
        more_embedding: Tensor | None = None,
    ) -> Tensor:
        """What the network says at x.

        Several contexts may share their latents, as guidance has it: what comes before the first
        cross-attention is then computed once.

        Args:
            x: (B, C, x, y, z) noised latents.
            timesteps: (B,) float32 in [0, 1000].
            context: (k·B, tokens, width); rows b, B + b, 2·B + b, ... belong to latent b.
            class_labels: (B,) int64 of modalities; 1 is CT.
            spacing_tensor: (B, 3) float32, mm · 100.
            more_embedding: (B, 4·first channels) added to the embedding of the time, or None.

        Returns:
            (k·B, C, x, y, z), in the order of ``context``.

        Raises:
            ValueError: The number of contexts is no multiple of that of the latents.
        """
        if len(context) % len(x):
            raise ValueError(f"{len(context)} contexts cannot share {len(x)} latents")
        embedding = self._get_time_and_class_embedding(x, timesteps, class_labels)
        if more_embedding is not None:
            embedding = embedding + more_embedding
        embedding = self._get_input_embeddings(embedding, None, None, spacing_tensor)
        copies = len(context) // len(x)
        h = self.conv_in(x)
        skips = [h]
        for block in self.down_blocks:
            if isinstance(block, CrossAttnDownBlock):
                h, embedding = _repeat(h, len(context)), _repeat(embedding, len(context))
            h, more = block(hidden_states=h, temb=embedding, context=context)
            skips.extend(more)
        h, embedding = _repeat(h, len(context)), _repeat(embedding, len(context))
        h = self.middle_block(h, embedding, context)
        for block in self.up_blocks:
            count = len(block.resnets)  # type: ignore[arg-type]
            used = [_repeat(skip, len(context)) if copies > 1 else skip for skip in skips[-count:]]
            del skips[-count:]
            h = block(hidden_states=h, res_hidden_states_list=used, temb=embedding, context=context)
        return self.out(h)


def _repeat(tensor: Tensor, batch: int) -> Tensor:
    """Repeat the rows of a tensor until there are ``batch``; the memory layout stays."""
    if len(tensor) == batch:
        return tensor
    repeated = tensor.repeat(batch // len(tensor), *[1] * (tensor.ndim - 1))
    return repeated.contiguous(memory_format=torch.channels_last_3d) if tensor.ndim == 5 else repeated


class _ResnetBlock(DiffusionUNetResnetBlock):
    """MONAI's residual block, its changes of resolution done with less work."""

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.nonlinearity(self.norm1(x))
        if self.downsample is not None:
            x, h = _halve(x), _halve(h)
        if self.upsample is None:
            h = self.conv1(h)
        elif torch.is_grad_enabled():
            x, h = self.upsample(x), self.conv1(self.upsample(h))
        else:
            conv = cast(nn.Conv3d, self.conv1.conv)
            x, h = self.upsample(x), upsampled_conv(h, conv.weight, conv.bias)
        h = h + self.time_emb_proj(self.nonlinearity(emb))[:, :, None, None, None]
        h = self.conv2(self.nonlinearity(self.norm2(h)))
        return self.skip_connection(x) + h


def _halve(x: Tensor) -> Tensor:
    """Mean over 2×2×2 blocks; torch's pooling converts to float32 and back on the CPU."""
    for axis in (2, 3, 4):
        even = x.narrow(axis, 0, x.shape[axis] // 2 * 2).unflatten(axis, (-1, 2))
        x = (even.select(axis + 1, 0) + even.select(axis + 1, 1)) * 0.5
    return x


def upsampled_conv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolution of a volume that was first doubled by its nearest neighbours, without making that volume.

    Each of the eight parities of an output voxel sees only 2×2×2 different input voxels, so the 27 weights fall
    together into 8: 3.4 times fewer products, the same result.

    Args:
        x: (B, C, X, Y, Z) before doubling.
        weight: (K, C, 3, 3, 3) of a convolution with padding 1.
        bias: (K,), or None.

    Returns:
        (B, K, 2·X, 2·Y, 2·Z).
    """
    size = x.shape[2:]
    padded = F.pad(x, (1,) * 6)
    out: Tensor | None = None
    for parity in torch.cartesian_prod(*[torch.arange(2)] * 3).tolist():
        folded = weight
        for axis, odd in zip((2, 3, 4), parity, strict=True):
            first, middle, last = folded.unbind(axis)
            folded = torch.stack((first + middle, last) if odd else (first, middle + last), dim=axis)
        seen = padded
        for axis, odd, n in zip((2, 3, 4), parity, size, strict=True):
            seen = seen.narrow(axis, odd, n + 1)
        part = F.conv3d(seen.contiguous(memory_format=torch.channels_last_3d), folded, bias)
        if out is None:
            shape = (len(x), len(weight), *(2 * n for n in size))
            out = torch.empty(shape, dtype=part.dtype, device=x.device, memory_format=torch.channels_last_3d)
        out[:, :, parity[0] :: 2, parity[1] :: 2, parity[2] :: 2] = part
    assert out is not None
    return out
