"""Structural similarity of volumes, and the diversity of a group of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.metrics.regression import compute_ms_ssim
from numpy.typing import NDArray

from text2ct.errors import UserError
from text2ct.evaluation._inputs import check_same_grid, checked_volume
from text2ct.evaluation.bootstrap import cluster_weights, interval
from text2ct.volumes.volume import hu_to_unit

# The first three of the five weights of Wang et al. 2003; five scales would need 96 voxels along each axis and more.
_WEIGHTS = np.array([0.0448, 0.2856, 0.3001])


@dataclass(frozen=True)
class SsimSettings:
    """What a value of MS-SSIM depends on beside the volumes.

    Attributes:
        kernel_size: Voxels along each axis of the Gaussian window.
        kernel_sigma: Its standard deviation, in voxels.
        weights: Exponents of the scales, finest first, of sum 1; each scale halves the grid.
    """

    kernel_size: int = 7
    kernel_sigma: float = 1.5
    weights: tuple[float, ...] = tuple(float(w) for w in _WEIGHTS / _WEIGHTS.sum())

    @property
    def smallest_axis(self) -> int:
        """Voxels that each axis of a volume must have."""
        halvings = max(1, len(self.weights) - 1) ** 2  # MONAI's own condition
        return self.kernel_size * halvings


SETTINGS = SsimSettings()


@torch.inference_mode()
def ms_ssim(
    a_hu: NDArray[Any],
    b_hu: NDArray[Any],
    *,
    settings: SsimSettings = SETTINGS,
    device: str | torch.device = "cpu",
) -> float:
    """Multi-scale structural similarity of two volumes (Wang, Simoncelli and Bovik 2003), by MONAI.

    HU in [-1000, 1000] become [0, 1] first. The default settings, a window of 7 voxels on 3 scales, serve grids
    from 28 voxels an axis on; values of other settings are not comparable.

    Args:
        a_hu: (X, Y, Z) in [-1000, 1000] HU.
        b_hu: Likewise, on the same grid.
        settings: Window and scales.
        device: Where it is computed.

    Returns:
        A value in [0, 1]; 1 for equal volumes.

    Raises:
        UserError: Shapes differ, a volume leaves its range, or the grid is too small for the settings.
    """
    a, b = checked_volume(a_hu, "the first volume"), checked_volume(b_hu, "the second volume")
    check_same_grid(b.shape, a.shape, "the second volume")
    if min(a.shape) < settings.smallest_axis:
        raise UserError(
            f"a grid {a.shape} is too small for {len(settings.weights)} scales, window {settings.kernel_size}; "
            f"each axis needs {settings.smallest_axis} voxels"
        )
    first, second = (torch.from_numpy(hu_to_unit(hu))[None, None].to(device) for hu in (a, b))
    value = compute_ms_ssim(
        first,
        second,
        spatial_dims=3,
        data_range=1.0,
        kernel_size=settings.kernel_size,
        kernel_sigma=settings.kernel_sigma,
        weights=settings.weights,
    )
    return float(np.clip(value.item(), 0.0, 1.0))


@dataclass(frozen=True)
class Diversity:
    """How alike the volumes of a group are.

    Attributes:
        ms_ssim: Mean over pairs; lower is more diverse.
        ci: 95% interval of a bootstrap over volumes; None when there are too few.
        n: Volumes.
        pairs: Pairs measured.
        settings: Of MS-SSIM.
        n_bootstrap: Bootstrap samples.
        seed: Of the pairs and the bootstrap.
    """

    ms_ssim: float
    ci: tuple[float, float] | None
    n: int
    pairs: int
    settings: SsimSettings
    n_bootstrap: int
    seed: int


def diversity(
    volumes_hu: Iterable[NDArray[Any]],
    *,
    pairs: int = 200,
    seed: int = 0,
    n_bootstrap: int = 1000,
    settings: SsimSettings = SETTINGS,
    device: str | torch.device = "cpu",
) -> Diversity:
    """Mean MS-SSIM of random pairs within a group; a generator that repeats itself scores high.

    As for 3D generators since Kwon et al. 2019 (arXiv 1908.02498). A value means something beside that of as many
    real volumes of the same finding: noise is very diverse. Pairs that share a volume are not independent, so
    the bootstrap draws volumes, and a pair counts as often as the product of its two.

    Args:
        volumes_hu: Volumes of one group (one prompt, or one finding), (X, Y, Z) in [-1000, 1000] HU, one grid, 2 or
            more. An iterator is read into memory whole.
        pairs: Distinct pairs at most; all if there are fewer.
        seed: Of pairs and bootstrap.
        n_bootstrap: Bootstrap samples; 0 for no interval.
        settings: Of MS-SSIM.
        device: Where it is computed.

    Raises:
        UserError: Fewer than 2 volumes, no pairs asked for, or as :func:`ms_ssim`.
    """
    volumes = list(volumes_hu)
    n = len(volumes)
    if n < 2:
        raise UserError(f"diversity needs pairs, but the group has {n} volumes; give 2 or more")
    if pairs < 1:
        raise UserError(f"pairs is {pairs}; expected 1 or more")
    rng = np.random.default_rng(seed)
    first, second = np.triu_indices(n, k=1)
    chosen = np.sort(rng.permutation(len(first))[:pairs])
    first, second = first[chosen], second[chosen]
    values = np.array(
        [ms_ssim(volumes[i], volumes[j], settings=settings, device=device) for i, j in zip(first, second, strict=True)]
    )
    ci = None
    if n_bootstrap > 0:
        weights = cluster_weights(np.arange(n), n_bootstrap, rng)
        share = weights[first] * weights[second]
        total = share.sum(axis=0)
        means = np.divide(values @ share, total, out=np.full(n_bootstrap, np.nan), where=total > 0)
        bounds = interval(means)
        ci = (bounds[0], bounds[1]) if bounds else None
    return Diversity(float(values.mean()), ci, n, len(values), settings, max(0, n_bootstrap), seed)
