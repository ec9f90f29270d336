"""MAISI's autoencoder on volumes of any size in bounded memory, without seams.

A volume's activations are slabs along x. Each layer turns slabs into slabs and frees what it has read.
Convolutions see the planes of the neighbouring slabs that they need, and group norm the statistics of the
*whole* volume, which are gathered while a layer's slabs are made. So the result is that of the network run on
the whole volume, to rounding, and every product is computed once.

The released code cuts the latent into overlapping windows instead, each with group-norm statistics of its own,
and blends the results: :func:`text2ct.diffusion.decode.decode_windowed`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import cast

import torch
import torch.nn.functional as F
from monai.apps.generation.maisi.networks.autoencoderkl_maisi import (
    AutoencoderKlMaisi,
    MaisiConvolution,
    MaisiDownsample,
    MaisiGroupNorm3D,
    MaisiResBlock,
    MaisiUpsample,
)
from torch import Tensor, nn

from text2ct.diffusion.norms import guess_of_mean

# Bytes of the widest layer's activations in one slab: several planes, so that their neighbours cost little.
SLAB_BYTES = 2**27


@dataclass
class _Moments:
    """Mean and variance of a volume's groups, gathered plane by plane and kept in float64."""

    groups: int
    count: float = 0.0
    mean: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.float64))
    squares: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.float64))

    def add(self, slab: Tensor) -> None:
        """Take the (1, C, x, Y, Z) slab in (Chan, Golub & LeVeque 1983, for several parts at once)."""
        planes = slab[0].transpose(0, 1)
        mean, variance = _moments_of_planes(planes, self.groups)
        number, part = len(planes), float(planes[0].numel() // self.groups)
        squares = variance.sum(dim=0) * part
        total = self.count + number * part
        after = (self.count * self.mean + part * mean.sum(dim=0)) / total
        self.squares = self.squares + self.count * (self.mean - after) ** 2 + squares
        self.squares = self.squares + part * ((mean - after) ** 2).sum(dim=0)
        self.mean, self.count = after, total

    def of_channels(self, channels: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean and variance of every channel's group, (C,) float32 each."""
        repeats = channels // self.groups
        mean, variance = (
            moment.float().repeat_interleave(repeats).to(device) for moment in (self.mean, self.squares / self.count)
        )
        return mean, variance


def _moments_of_planes(planes: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Mean and variance of each group in each of (x, C, Y, Z) planes, (x, groups) float64 on the CPU."""
    if planes.device.type == "cpu":
        # Group norm's kernel is the fastest that has them: by-products, the variance as 1 / sqrt(variance + epsilon).
        number, channels, height, width = planes.shape
        guess = guess_of_mean(planes, groups)
        shifted = planes - guess
        ones = torch.ones(channels, dtype=shifted.dtype)
        epsilon = 1e-12
        _, mean, rstd = torch.native_group_norm(
            shifted, ones, torch.zeros_like(ones), number, channels, height * width, groups, epsilon
        )
        guess = guess.reshape(number, groups, -1)[:, :, 0]
        return mean.double() + guess.double(), (1 / rstd.double() ** 2 - epsilon).clamp(min=0)
    variance, mean = torch.var_mean(planes.float().reshape(len(planes), groups, -1), dim=2, correction=0)
    return mean.cpu().double(), variance.cpu().double()  # MPS has no float64


@dataclass
class _Slabs:
    """A volume's activations: (1, C, x, Y, Z) slabs along x, and the moments of their groups."""

    parts: list[Tensor]
    moments: _Moments

    def __iter__(self) -> Iterator[Tensor]:
        """Each slab; it is freed when the next is asked for."""
        for index in range(len(self.parts)):
            part = self.parts[index]
            self.parts[index] = part.new_empty(0)
            yield part

    def with_neighbours(self, before: int, after: int) -> Iterator[tuple[Tensor, Tensor, tuple[int, int]]]:
        """Each slab, the slab with its neighbours' planes, and how many of these do not exist; freed as read."""
        kept: Tensor | None = None
        for index, part in enumerate(self):
            pieces = [part]
            missing_before, missing_after = before, after
            if kept is not None:
                pieces.insert(0, kept)
                missing_before = 0
            if after and index + 1 < len(self.parts):
                pieces.append(self.parts[index + 1][:, :, :after])
                missing_after = 0
            seen = torch.cat(pieces, dim=2) if len(pieces) > 1 else part
            yield part, seen, (missing_before, missing_after)
            if before:
                kept = part[:, :, -before:].clone(memory_format=torch.channels_last_3d)


def decode(vae: AutoencoderKlMaisi, z: Tensor) -> Tensor:
    """Decode unscaled latents of any size, as the network run on the whole volume would.

    Args:
        vae: The autoencoder, in evaluation mode.
        z: (B, C, x, y, z) latents.

    Returns:
        (B, 1, X, Y, Z) float32, nominally in [0, 1] and not clamped.
    """
    return _through(vae, cast(nn.ModuleList, vae.decoder.blocks), vae.post_quant_conv(z)).float()


def encode(vae: AutoencoderKlMaisi, x: Tensor) -> tuple[Tensor, Tensor]:
    """Encode volumes of any size, as the network run on the whole volume would.

    Args:
        vae: The autoencoder, in evaluation mode.
        x: (B, 1, X, Y, Z) in [0, 1].

    Returns:
        Mean and standard deviation, (B, C, x, y, z) float32 each.
    """
    h = _through(vae, cast(nn.ModuleList, vae.encoder.blocks), x)
    log_variance = vae.quant_conv_log_sigma(h).float().clamp(-30.0, 20.0)
    return vae.quant_conv_mu(h).float(), torch.exp(log_variance / 2)


def peak_bytes(num_channels: tuple[int, ...], size: tuple[int, int, int], itemsize: int) -> int:
    """Bytes that :func:`decode` or :func:`encode` holds at its widest, for one volume of ``size`` voxels.

    At full resolution a residual block holds two activations of the first level's channels; while it is made,
    its input is freed slab by slab.
    """
    x, y, z = size
    widest = num_channels[1] if len(num_channels) > 1 else num_channels[0]
    return x * y * z * itemsize * max(2 * num_channels[0], widest) + 6 * SLAB_BYTES


def _through(vae: AutoencoderKlMaisi, blocks: nn.ModuleList, x: Tensor) -> Tensor:
    """Run blocks on each volume of a batch, slab by slab."""
    return torch.cat([_one(list(blocks), sample[None], vae) for sample in x])


def _one(blocks: list[nn.Module], x: Tensor, vae: AutoencoderKlMaisi) -> Tensor:
    groups = next(m.num_groups for m in vae.modules() if isinstance(m, nn.GroupNorm))
    x = x.contiguous(memory_format=torch.channels_last_3d)
    slabs = _Slabs(list(x.split(_planes(blocks, x), dim=2)), _Moments(groups))
    activate: MaisiGroupNorm3D | None = None
    for block in blocks:
        if isinstance(block, MaisiConvolution):
            slabs = _convolve(slabs, block, activate)
        elif isinstance(block, MaisiResBlock):
            slabs = _residual(slabs, block)
        elif isinstance(block, MaisiUpsample) and not block.use_convtranspose:
            slabs = _double(slabs, block)
        elif isinstance(block, MaisiDownsample):
            slabs = _halve(slabs, block)
        elif not isinstance(block, MaisiGroupNorm3D):
            slabs = _whole(slabs, block)
        activate = block if isinstance(block, MaisiGroupNorm3D) else None
    return torch.cat(slabs.parts, dim=2)


def _planes(blocks: list[nn.Module], x: Tensor) -> int:
    """Planes of the input in one slab; even as often as the slabs will be halved."""
    halvings = sum(isinstance(block, MaisiDownsample) for block in blocks)
    doublings = sum(isinstance(block, MaisiUpsample) for block in blocks)
    channels = max(block.out_channels for block in blocks if isinstance(block, MaisiResBlock))
    widest = 8**doublings * x[0, 0, 0].numel() * channels * 4
    unit = 2**halvings
    return max(1, SLAB_BYTES // widest // unit) * unit


def _made(slabs: Iterable[Tensor], groups: int) -> _Slabs:
    """Keep the slabs that a layer makes, and gather their moments while they are at hand."""
    made = _Slabs([], _Moments(groups))
    for slab in slabs:
        made.parts.append(slab)
        if slab.shape[1] % groups == 0:
            made.moments.add(slab)
    return made


def _normaliser(norm: MaisiGroupNorm3D, moments: _Moments) -> Callable[[Tensor], Tensor]:
    """Group norm with the volume's moments, for its slabs."""
    mean, variance = moments.of_channels(norm.num_channels, norm.weight.device)
    return lambda slab: F.batch_norm(slab, mean, variance, norm.weight, norm.bias, eps=norm.eps)


def _conv(seen: Tensor, missing: tuple[int, int], layer: MaisiConvolution) -> Tensor:
    """Convolve a slab with its neighbours' planes; planes beyond the volume are zero."""
    conv = cast(nn.Conv3d, layer.conv.conv)
    if any(missing):
        seen = F.pad(seen, (0, 0, 0, 0, *missing))
    padding = (0, int(conv.padding[1]), int(conv.padding[2]))
    return F.conv3d(seen, conv.weight, conv.bias, conv.stride, padding)


def _convolve(slabs: _Slabs, block: MaisiConvolution, norm: MaisiGroupNorm3D | None) -> _Slabs:
    before = slabs.moments
    prepare = _normaliser(norm, before) if norm is not None else _unchanged
    reach = cast(nn.Conv3d, block.conv.conv).kernel_size[0] // 2
    parts = (_conv(prepare(seen), missing, block) for _, seen, missing in slabs.with_neighbours(reach, reach))
    return _made(parts, before.groups)


def _residual(slabs: _Slabs, block: MaisiResBlock) -> _Slabs:
    groups = slabs.moments.groups
    first = _normaliser(block.norm1, slabs.moments)
    same = block.in_channels == block.out_channels
    shortcuts: list[Tensor] = []

    def inner() -> Iterator[Tensor]:
        for part, seen, missing in slabs.with_neighbours(1, 1):
            shortcuts.append(part if same else block.nin_shortcut(part))
            yield _conv(F.silu(first(seen), inplace=True), missing, block.conv1)

    hidden = _made(inner(), groups)
    second = _normaliser(block.norm2, hidden.moments)
    residuals = iter(_Slabs(shortcuts, slabs.moments))

    def outer() -> Iterator[Tensor]:
        for _, seen, missing in hidden.with_neighbours(1, 1):
            yield next(residuals).add_(_conv(F.silu(second(seen), inplace=True), missing, block.conv2))

    return _made(outer(), groups)


def _double(slabs: _Slabs, block: MaisiUpsample) -> _Slabs:
    def parts() -> Iterator[Tensor]:
        for _, seen, (before, after) in slabs.with_neighbours(1, 1):
            # Trilinear: the planes made from a neighbour's are right but for the outermost.
            doubled = F.interpolate(seen, scale_factor=2.0, mode="trilinear")
            doubled = doubled[:, :, 1 - before : doubled.shape[2] - 1 + after]
            yield _conv(doubled, (before, after), block.conv)

    return _made(parts(), slabs.moments.groups)


def _halve(slabs: _Slabs, block: MaisiDownsample) -> _Slabs:
    def parts() -> Iterator[Tensor]:
        for _, seen, missing in slabs.with_neighbours(0, 1):
            if seen.shape[2] + missing[1] < 3:
                continue  # a last single plane, which the slab before has used
            yield _conv(F.pad(seen, (0, 1, 0, 1)), missing, block.conv)

    return _made(parts(), slabs.moments.groups)


def _whole(slabs: _Slabs, block: nn.Module) -> _Slabs:
    """A layer that cannot be cut, as attention, on the whole volume."""
    sizes = [part.shape[2] for part in slabs.parts]
    out = block(torch.cat(slabs.parts, dim=2))
    grown = out.shape[2] // sum(sizes)
    return _made(out.split([size * grown for size in sizes], dim=2), slabs.moments.groups)


def _unchanged(slab: Tensor) -> Tensor:
    return slab
