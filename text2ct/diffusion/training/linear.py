"""The linear autoencoder of blocks, fitted in closed form."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from text2ct.diffusion.training.cases import Cases
from text2ct.diffusion.training.vae import unit_tensor
from text2ct.diffusion.vae import LinearBlocksConfig, LinearBlocksVae, space_to_depth

# Added to the regression's normal matrix, as a share of the number of blocks: components have variance near 1.
RIDGE = 1e-4
BATCH = 10


def sample_blocks(cases: Cases, factor: int, volumes: int = 200) -> Tensor:
    """Blocks of ``factor``³ voxels from evenly spaced cases, (n, factor³) in [0, 1]."""
    return _rows(space_to_depth(_units(cases, _spread(len(cases), volumes)), factor))


@torch.no_grad()
def fit_linear_blocks(cases: Cases, config: LinearBlocksConfig, *, volumes: int = 600) -> LinearBlocksVae:
    """Fit encoder and decoder to evenly spaced cases.

    The encoder projects on principal components. Component c with variance s is scaled by s**-1/4, between
    whitened and untouched: large components stay larger, so that diffusion learns them first. The decoder is
    the ridge regression of a block's voxels on the components of the blocks around it.

    Args:
        cases: What to fit to.
        config: Sizes.
        volumes: At most so many cases are used.
    """
    vae = LinearBlocksVae(config)
    _fit_encoder(vae, sample_blocks(cases, config.factor, max(1, volumes // 3)))
    kernel, channels = config.decoder_kernel, config.latent_channels
    size = channels * kernel**3 + 1
    normal, product = torch.zeros(size, size, dtype=torch.float64), torch.zeros(size, config.factor**3)
    product = product.double()
    count = 0
    chosen = _spread(len(cases), volumes)
    for start in range(0, len(chosen), BATCH):
        units = _units(cases, chosen[start : start + BATCH])
        features = _neighbours(vae.encode(units)[0], kernel)
        target = _rows(space_to_depth(units, config.factor))
        normal += (features.T @ features).double()
        product += (features.T @ target).double()
        count += len(target)
    solution = torch.linalg.solve(normal + RIDGE * count * torch.eye(size, dtype=torch.float64), product).float()
    weight = solution[:-1].T.reshape(-1, channels, kernel, kernel, kernel)
    vae.to_voxels.weight.copy_(weight)
    cast(Tensor, vae.to_voxels.bias).copy_(solution[-1])
    return vae.eval().requires_grad_(False)


def _fit_encoder(vae: LinearBlocksVae, blocks: Tensor) -> None:
    channels = vae.config.latent_channels
    mean = blocks.mean(dim=0)
    variance, vectors = torch.linalg.eigh((blocks - mean).T @ (blocks - mean) / len(blocks))
    variance = variance.flip(0)[:channels].clamp(min=1e-8)
    vectors = vectors.flip(1)[:, :channels]
    scale = variance**-0.25
    scale = scale / (scale**2 * variance).mean().sqrt()
    encode = scale[:, None] * vectors.T
    vae.to_latent.weight.copy_(encode.reshape(channels, -1, 1, 1, 1))
    cast(Tensor, vae.to_latent.bias).copy_(-encode @ mean)


def _spread(count: int, wanted: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, wanted).astype(int))


def _units(cases: Cases, indices: np.ndarray) -> Tensor:
    return torch.stack([unit_tensor(cases.volume_hu(int(i))) for i in indices])[:, None]


def _rows(x: Tensor) -> Tensor:
    return x.movedim(1, -1).flatten(0, -2)


def _neighbours(z: Tensor, kernel: int) -> Tensor:
    """(B, C, x, y, z) to (B·x·y·z, C·kernel³ + 1): each position's neighbourhood, zero outside, and a one."""
    padded = F.pad(z, (kernel // 2,) * 6)
    around = padded.unfold(2, kernel, 1).unfold(3, kernel, 1).unfold(4, kernel, 1)
    rows = around.permute(0, 2, 3, 4, 1, 5, 6, 7).flatten(4).flatten(0, 3)
    return torch.cat([rows, torch.ones(len(rows), 1)], dim=1)
