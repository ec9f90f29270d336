"""CT-ViT, the CT tower of 3D CLIP: 16×16×16 patches, a spatial and a temporal transformer, one codebook.

Architecture of CT-ViT (Hamamci et al. 2024, GenerateCT, arXiv 2305.16037) as the released Text2CT code
uses it. Names of parameters are those of the released checkpoint, unused ones included, and so are three
peculiarities that change results: keys and values come from the *un-normed* input, the temporal stack's
position convolution reads its tensor without undoing a permutation, and the codebook's stored rows are
returned un-normalised.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from text2ct.diffusion.info import Layers

# Cosine attention multiplies its logits by this constant (Dehghani et al. 2023, arXiv 2302.05442).
ATTENTION_SCALE = 8.0


class CTViTConfig(BaseModel):
    """Sizes of a CT-ViT; the defaults are the released model's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image_size: tuple[int, int, int] = Field(default=(512, 512, 128), description="voxels along (H, W, D)")
    patch_size: int = 16
    temporal_patch_size: int = 16
    dim: int = 768
    spatial_depth: Layers = 4
    temporal_depth: Layers = 4
    heads: int = 8
    dim_head: int = 32
    channels: int = Field(default=1, ge=1, description="what a patch holds of each voxel; more than 1 needs `windows`")
    windows: tuple[tuple[float, float], ...] = Field(
        default=(),
        description="ranges of intensities, which then lie in [0, 1], each stretched to [0, 1] as one channel; "
        "none, of one channel only, for intensities as they are",
    )
    codebook_size: int = 8192
    quantize: bool = Field(default=True, description="replace each token by its nearest codebook row")
    unused_parameters: bool = Field(
        default=True, description="hold the first-frame and pixel heads of the released checkpoint, never used here"
    )

    @model_validator(mode="after")
    def _divisible(self) -> CTViTConfig:
        height, width, depth = self.image_size
        if height % self.patch_size or width % self.patch_size or depth % self.temporal_patch_size:
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of the patch "
                f"({self.patch_size}, {self.patch_size}, {self.temporal_patch_size})"
            )
        return self

    @model_validator(mode="after")
    def _windowed(self) -> CTViTConfig:
        if self.channels > 1 and not self.windows:
            raise ValueError(f"{self.channels} channels need as many windows; a volume as it is has 1 channel")
        if any(not 0 <= low < high <= 1 for low, high in self.windows) or len(self.windows) not in (0, self.channels):
            raise ValueError(f"windows {self.windows} are not one rising range within [0, 1] for each channel")
        return self

    @property
    def grid(self) -> tuple[int, int, int]:
        """Patches along (depth, height, width)."""
        height, width, depth = self.image_size
        return depth // self.temporal_patch_size, height // self.patch_size, width // self.patch_size


class _LayerNorm(nn.Module):
    """LayerNorm with weight ``gamma`` and a *buffer* ``beta``, as the checkpoint names them."""

    beta: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))
        self.register_buffer("beta", torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.gamma, self.beta)


class _PositionConv(nn.Module):
    """Depthwise 3×3×3 convolution that sees the past only along depth (padding 2 before, 0 after)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dsconv = nn.Conv3d(dim, dim, 3, groups=dim)

    def forward(self, x: Tensor, grid: tuple[int, int, int, int]) -> Tensor:
        batch, depth, height, width = grid
        # A plain reshape for both stacks. For the temporal stack, whose tensor is (b·h·w, t, d), this mixes
        # positions; the released weights were trained with it.
        shaped = x.reshape(batch, depth, height, width, -1).permute(0, 4, 1, 2, 3)
        out = self.dsconv(F.pad(shaped, (1, 1, 1, 1, 2, 0)))
        return out.permute(0, 2, 3, 4, 1).reshape(x.shape)


class _Attention(nn.Module):
    """Cosine attention: queries from the normed input, keys and values from the input itself."""

    def __init__(self, dim: int, heads: int, dim_head: int) -> None:
        super().__init__()
        self.heads = heads
        inner = heads * dim_head
        self.null_kv = nn.Parameter(torch.zeros(heads, 0, dim_head))
        self.q_scale = nn.Parameter(torch.ones(dim_head))
        self.k_scale = nn.Parameter(torch.ones(dim_head))
        self.norm = _LayerNorm(dim)
        self.context_norm = _LayerNorm(dim)
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_kv = nn.Linear(dim, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, dim, bias=False)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        def split(tensor: Tensor) -> Tensor:
            return tensor.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        query = split(self.to_q(self.norm(x)))
        key, value = (split(part) for part in self.to_kv(x).chunk(2, dim=-1))
        query = F.normalize(query, dim=-1) * self.q_scale
        key = F.normalize(key, dim=-1) * self.k_scale
        mask = None if bias is None else bias.to(query.dtype).unsqueeze(0)
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=ATTENTION_SCALE)
        return self.to_out(out.transpose(1, 2).flatten(2))


class _Geglu(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        value, gate = x.chunk(2, dim=-1)
        return value * F.gelu(gate)


class _Transformer(nn.Module):
    """``depth`` layers of (position convolution, attention, feed-forward), each with its residual."""

    def __init__(self, dim: int, depth: int, heads: int, dim_head: int) -> None:
        super().__init__()
        inner = int(4 * 2 / 3 * dim)
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [
                    _PositionConv(dim),
                    _Attention(dim, heads, dim_head),
                    nn.Identity(),  # the checkpoint's place for cross-attention, which is absent
                    nn.Sequential(
                        nn.LayerNorm(dim),
                        nn.Linear(dim, 2 * inner, bias=False),
                        _Geglu(),
                        nn.Identity(),
                        nn.Linear(inner, dim, bias=False),
                    ),
                ]
            )
            for _ in range(depth)
        )
        self.norm_out = _LayerNorm(dim)

    def forward(self, x: Tensor, grid: tuple[int, int, int, int], bias: Tensor | None = None) -> Tensor:
        for layer in self.layers:
            position, attention, _, feed_forward = cast(nn.ModuleList, layer)
            x = position(x, grid) + x
            x = attention(x, bias) + x
            x = feed_forward(x) + x
        return self.norm_out(x)


class _SpatialBias(nn.Module):
    """Continuous position bias: a small network of the log-scaled (row, column) offset of two patches."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.net = nn.ModuleList(
            [
                nn.Sequential(nn.Linear(2, dim), nn.LeakyReLU(0.1)),
                nn.Sequential(nn.Linear(dim, dim), nn.LeakyReLU(0.1)),
                nn.Linear(dim, heads),
            ]
        )

    def forward(self, height: int, width: int) -> Tensor:
        """Bias of shape (heads, height·width, height·width)."""
        weight = cast(nn.Linear, self.net[2]).weight
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        position = torch.stack([rows, columns], dim=-1).reshape(-1, 2).to(weight)
        offset = position[:, None] - position[None]
        bias = offset.sign() * torch.log(offset.abs() + 1)
        for layer in self.net:
            bias = layer(bias)
        return bias.permute(2, 0, 1)


class _Codebook(nn.Module):
    """Rows of the vector quantiser, with the running counts that the checkpoint holds."""

    embed: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("initted", torch.ones(1))
        self.register_buffer("cluster_size", torch.zeros(1, size))
        self.register_buffer("embed", torch.randn(1, size, dim))


class _Quantizer(nn.Module):
    """Nearest row by cosine; the gradient passes straight through (van den Oord et al. 2017)."""

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self._codebook = _Codebook(size, dim)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        rows = self._codebook.embed[0]
        with torch.no_grad():
            cosine = F.normalize(tokens.float(), dim=-1) @ F.normalize(rows.float(), dim=-1).T
            indices = cosine.argmax(dim=-1)
        chosen = rows[indices].to(tokens.dtype)
        return tokens + (chosen - tokens).detach() if tokens.requires_grad else chosen, indices


class CTViT(nn.Module):
    """The CT tower: a volume to a grid of tokens.

    Args:
        config: Sizes; :class:`CTViTConfig`.
    """

    def __init__(self, config: CTViTConfig) -> None:
        super().__init__()
        self.config = config
        frame = config.channels * config.patch_size**2
        patch = frame * config.temporal_patch_size
        self.spatial_rel_pos_bias = _SpatialBias(config.dim, config.heads)
        if config.unused_parameters:
            self.to_patch_emb_first_frame = self._embedding(frame)
            self.to_pixels_first_frame = nn.Sequential(nn.Linear(config.dim, frame))
            self.to_pixels = nn.Sequential(nn.Linear(config.dim, patch))
        self.to_patch_emb = self._embedding(patch)
        sizes = (config.heads, config.dim_head)
        self.enc_spatial_transformer = _Transformer(config.dim, config.spatial_depth, *sizes)
        self.enc_temporal_transformer = _Transformer(config.dim, config.temporal_depth, *sizes)
        if config.quantize or config.unused_parameters:
            self.vq = _Quantizer(config.codebook_size, config.dim)

    def _embedding(self, size: int) -> nn.Sequential:
        dim = self.config.dim
        return nn.Sequential(nn.Identity(), nn.LayerNorm(size), nn.Linear(size, dim), nn.LayerNorm(dim))

    def tokens(self, volume: Tensor) -> Tensor:
        """Tokens before quantisation.

        Args:
            volume: (B, 1, H, W, D) float, intensities as the checkpoint was trained on: in [0, 1] or [-1, 1],
                with windows in [0, 1].

        Returns:
            (B, T·h·w, dim) tokens, T patches along depth.

        Raises:
            ValueError: The volume does not have the configured size.
        """
        config = self.config
        if tuple(volume.shape[2:]) != config.image_size:
            raise ValueError(f"the CT tower takes volumes of {config.image_size} voxels, not {tuple(volume.shape[2:])}")
        depth, height, width = config.grid
        batch = volume.shape[0]
        space, time = config.patch_size, config.temporal_patch_size
        if config.windows:
            volume = torch.cat([((volume - low) / (high - low)).clamp(0, 1) for low, high in config.windows], dim=1)
        x = volume.permute(0, 1, 4, 2, 3)
        x = x.reshape(batch, config.channels, depth, time, height, space, width, space)
        x = x.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)
        x = self.to_patch_emb(x)
        grid = (batch, depth, height, width)
        x = x.reshape(batch * depth, height * width, config.dim)
        x = self.enc_spatial_transformer(x, grid, self.spatial_rel_pos_bias(height, width))
        x = x.reshape(batch, depth, height * width, config.dim).transpose(1, 2)
        x = x.reshape(batch * height * width, depth, config.dim)
        x = self.enc_temporal_transformer(x, grid)
        x = x.reshape(batch, height * width, depth, config.dim).transpose(1, 2)
        return x.reshape(batch, depth * height * width, config.dim)

    def forward(self, volume: Tensor) -> Tensor:
        """Quantised tokens of shape (B, T, h, w, dim); see :meth:`tokens` for the argument."""
        tokens = self.tokens(volume)
        if self.config.quantize:
            tokens, _ = self.vq(tokens)
        return tokens.reshape(volume.shape[0], *self.config.grid, self.config.dim)
