"""Fitting the Gaussian of :class:`text2ct.diffusion.gaussian.GaussianUnet`, in closed form."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from text2ct.diffusion.gaussian import GaussianUnet
from text2ct.diffusion.training.encode import Encoded
from text2ct.errors import UserError

# Every so many-th case is held out to choose the ridge and to measure what the text leaves open.
HOLD_OUT = 8
RIDGES = (1e-3, 1e-2, 1e-1, 1.0)
# Deviations below this share of the latents' (1) are rounding in float16.
MIN_DEVIATION = 1e-2
OVERSAMPLING, POWER_ITERATIONS = 16, 4
COLUMNS = 1024  # at a time: all latents in float32 are gigabytes, of which there should be one copy


@torch.no_grad()
def fit_gaussian(network: GaussianUnet, encoded: Encoded, scale_factor: float) -> dict[str, float]:
    """Fit mean, covariance and the text's linear effect to encoded cases.

    Fewer cases than components leave the last components unused.

    Args:
        network: Its buffers are set.
        encoded: Latents and contexts.
        scale_factor: Latents are multiplied by it.

    Returns:
        ``explained``: share of the latents' variance inside the components; ``told``: share of the
        components' variance that the text explains in held-out cases.

    Raises:
        UserError: Fewer than three cases.
    """
    count = len(encoded.latents)
    if count < 3:
        raise UserError(f"{count} cases cannot fit a Gaussian; give at least 3 training volumes with reports")
    latents = torch.from_numpy(encoded.latents.astype(np.float32)).flatten(1).mul_(scale_factor)
    rank = min(network.config.components, count - 1, latents.shape[1])
    mean = latents.mean(dim=0)
    latents.sub_(mean)
    basis, values = _leading(latents, rank)
    inside = latents @ basis
    total, rest = _mean_squares(latents, inside, basis)
    text_mean, weight, open_variance = _fit_text(encoded, inside)
    variance = values / count
    network.mean.copy_(mean)
    for unused in (network.basis, network.deviation, network.deviation_given_text, network.text_weight):
        unused.zero_()
    network.basis[:, :rank] = basis
    network.deviation[:rank] = variance.sqrt()
    network.deviation_given_text[:rank] = open_variance.clamp(max=variance).sqrt()
    network.rest_deviation.copy_(rest.sqrt().clamp(min=MIN_DEVIATION))
    network.text_mean.copy_(text_mean)
    network.text_weight[:, :rank] = weight
    told = 1 - float(open_variance.clamp(max=variance).sum() / variance.sum())
    return {"explained": float(variance.sum() / total.sum()), "told": told}


def _mean_squares(rows: Tensor, inside: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Of each column of (n, d) ``rows``, and of what the components leave of it; few columns at a time."""
    total, rest = torch.empty(rows.shape[1]), torch.empty(rows.shape[1])
    for start in range(0, rows.shape[1], COLUMNS):
        part = slice(start, start + COLUMNS)
        total[part] = rows[:, part].square().mean(dim=0)
        rest[part] = (rows[:, part] - inside @ basis[part].T).square_().mean(dim=0)
    return total, rest


def _leading(rows: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Directions of (n, d) ``rows``, (d, rank), in which their squares are largest, and the sums of these (rank,).

    Found in a random subspace of a few more directions (Halko et al. 2011, SIAM Review 53(2)), which costs n·d·rank
    and not n³.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        _, singular, basis = torch.svd_lowrank(rows, q=min(rank + OVERSAMPLING, *rows.shape), niter=POWER_ITERATIONS)
    return basis[:, :rank], singular[:rank].square()


def _fit_text(encoded: Encoded, inside: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Ridge regression of component values on text features, whole reports and their parts alike."""
    variants = encoded.contexts.shape[1]
    features = torch.from_numpy(encoded.contexts.astype(np.float32)).flatten(2)
    text_mean = features.mean(dim=(0, 1))
    features = features - text_mean
    held = torch.arange(len(features)) % HOLD_OUT == 0  # the first too, so that there is always one
    train = features[~held].flatten(0, 1)
    target = inside[~held].repeat_interleave(variants, dim=0)
    normal, product = train.T @ train, train.T @ target
    size = normal.diagonal().mean()
    best: tuple[float, Tensor, Tensor] | None = None
    for ridge in RIDGES:
        weight = torch.linalg.solve(normal + ridge * size * torch.eye(len(normal)), product)
        # What is left open after a whole report, the usual prompt.
        error = (inside[held] - features[held, 0] @ weight).square().mean(dim=0)
        if best is None or float(error.sum()) < best[0]:
            best = (float(error.sum()), weight, error)
    assert best is not None
    return text_mean, best[1], best[2]
