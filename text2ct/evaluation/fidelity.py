"""2.5D Fréchet distance: are synthetic volumes distributed as real ones, as a 2D network sees their slices?

M. Heusel et al. 2017, "GANs trained by a two time-scale update rule converge to a local Nash equilibrium",
arXiv 1706.08500, eq. 6. A distance depends on the network, the number of volumes and of slices, the grid and the
grey scale; all stand in the result, and figures that differ in any of them cannot be compared. It is biased upwards
when volumes are few (Chong and Forsyth 2020, arXiv 1911.07023): compare it with :func:`fid_floor`, the distance
between real volumes and as many other real ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from text2ct.errors import UserError
from text2ct.evaluation.bootstrap import cluster_weights, spread_around
from text2ct.evaluation.frechet import frechet_distance
from text2ct.evaluation.slices import COLOUR, PLANES, SliceEncoder, SliceStatistics, slice_statistics
from text2ct.volumes.windows import WINDOWS


@dataclass(frozen=True)
class Fid2p5d:
    """Fréchet distances of the slices of two sets of volumes, and all they depend on.

    Attributes:
        axial: Distance of axial slices.
        coronal: Of coronal slices.
        sagittal: Of sagittal slices.
        mean: Mean of the three.
        ci: 95% interval of ``mean``: the spread over resampled volumes, placed around the estimate; None without
            a bootstrap.
        plane_cis: The same of each plane.
        n_real: Real volumes.
        n_synthetic: Synthetic volumes.
        slices: Slices of each volume: axial, coronal, sagittal.
        every: Every how manyth slice was taken.
        grid: (X, Y, Z) of the volumes.
        view: Grey scale, one of ``VIEWS``.
        backbone: Network and weights.
        dimension: Number of features.
        rank_deficient: Planes where a set has no more slices than features, so that a covariance is singular.
            The distance is defined, but very biased.
        n_bootstrap: Bootstrap samples.
        seed: Of the bootstrap.
    """

    axial: float
    coronal: float
    sagittal: float
    mean: float
    ci: tuple[float, float] | None
    plane_cis: tuple[tuple[float, float], ...] | None
    n_real: int
    n_synthetic: int
    slices: tuple[int, int, int]
    every: int
    grid: tuple[int, ...]
    view: str
    backbone: str
    dimension: int
    rank_deficient: tuple[str, ...]
    n_bootstrap: int
    seed: int


def fid_between(
    real: SliceStatistics,
    synthetic: SliceStatistics,
    *,
    groups: tuple[NDArray[np.integer], NDArray[np.integer]] | None = None,
    n_bootstrap: int = 200,
    seed: int = 0,
) -> Fid2p5d:
    """Fréchet distances between two sets that were read already.

    The bootstrap draws volumes, not slices, since slices of a volume are not independent. Resampled sets repeat
    volumes, so their distances are larger than the estimate; their deviations from their median are taken around
    the estimate instead, cut at 0. The interval speaks of the spread, not of the bias of few volumes.

    Args:
        real: Statistics of the real volumes.
        synthetic: Of the synthetic ones; same encoder, view, step and grid.
        groups: Codes (n,) and (m,) of what is drawn together: a patient's volumes, a prompt's; each volume by itself
            if None.
        n_bootstrap: Bootstrap samples; 0 for no interval.
        seed: Of the bootstrap.

    Raises:
        UserError: The two were not made alike.
    """
    differing = [
        f"{field}: {getattr(real, field)} and {getattr(synthetic, field)}"
        for field in ("backbone", "view", "every", "grid", "dimension")
        if getattr(real, field) != getattr(synthetic, field)
    ]
    if differing:
        raise UserError("these sets cannot be compared; measure both alike", differing)
    for statistics, which in ((real, "real"), (synthetic, "synthetic")):
        if statistics.n < 2:
            raise UserError(f"there is 1 {which} volume; a distance between distributions needs 2 or more of each")
    planes = _planes(real, synthetic, np.ones(real.n), np.ones(synthetic.n))
    mean = float(np.mean(planes))
    ci, plane_cis = None, None
    if n_bootstrap > 0:
        rng = np.random.default_rng(seed)
        together = groups or (np.arange(real.n), np.arange(synthetic.n))
        draws = [cluster_weights(codes, n_bootstrap, rng) for codes in together]
        samples = fid_samples(real, synthetic, draws[0], draws[1])
        ci = spread_around(mean, samples.mean(axis=1))
        plane_cis = tuple(spread_around(one, drawn) for one, drawn in zip(planes, samples.T, strict=True))
    fewest = min(real.n, synthetic.n)
    return Fid2p5d(
        axial=planes[0],
        coronal=planes[1],
        sagittal=planes[2],
        mean=mean,
        ci=ci,
        plane_cis=plane_cis,
        n_real=real.n,
        n_synthetic=synthetic.n,
        slices=real.slices,
        every=real.every,
        grid=real.grid,
        view=real.view,
        backbone=real.backbone,
        dimension=real.dimension,
        rank_deficient=tuple(
            name for name, each in zip(PLANES, real.slices, strict=True) if fewest * each <= real.dimension
        ),
        n_bootstrap=max(0, n_bootstrap),
        seed=seed,
    )


def fid_samples(
    real: SliceStatistics, synthetic: SliceStatistics, of_real: NDArray[np.float64], of_synthetic: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Distances of the three planes for many weightings of the volumes.

    Args:
        real: As for :func:`fid_between`.
        synthetic: As for :func:`fid_between`.
        of_real: (n, B) how often each real volume counts.
        of_synthetic: (m, B).

    Returns:
        (B, 3): axial, coronal, sagittal.
    """
    weights = zip(of_real.T, of_synthetic.T, strict=True)
    return np.array([_planes(real, synthetic, a, b) for a, b in weights]).reshape(-1, len(PLANES))


def _planes(
    real: SliceStatistics, synthetic: SliceStatistics, a: NDArray[np.float64], b: NDArray[np.float64]
) -> list[float]:
    return [frechet_distance(*real.gaussian(plane, a), *synthetic.gaussian(plane, b)) for plane in range(len(PLANES))]


def fid_2p5d(
    real: Iterable[NDArray[Any]],
    synthetic: Iterable[NDArray[Any]],
    encoder: SliceEncoder,
    *,
    view: str | None = None,
    every: int = 1,
    n_bootstrap: int = 200,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> Fid2p5d:
    """Fréchet distance between the slices of real and of synthetic volumes, in three planes.

    Slices are not resized here; both sets must be on one grid, since a distance also sees sharpness. Keep
    one volume a patient: volumes are taken as independent.

    Args:
        real: (X, Y, Z) in [-1000, 1000] HU, int16 or float32, RAS order; 2 or more, read one at a time.
        synthetic: Likewise.
        encoder: Describes slices.
        view: One of ``VIEWS``; ``colour`` for an encoder of 3 channels and ``full_range`` for 1, if None.
        every: Every how manyth slice of each plane.
        n_bootstrap: Bootstrap samples; 0 for no interval.
        seed: Of the bootstrap.
        device: Where the encoder is.

    Returns:
        The distances, and all they depend on. Smaller is better, and the least that can be hoped for is
        :func:`fid_floor`.

    Raises:
        UserError: As :func:`slice_statistics`, or a set has fewer than 2 volumes.
    """
    chosen = view or ("colour" if encoder.channels == len(COLOUR) else "full_range")
    fids = fid_views(
        real, synthetic, encoder, views=(chosen,), every=every, n_bootstrap=n_bootstrap, seed=seed, device=device
    )
    return fids[chosen]


def fid_views(
    real: Iterable[NDArray[Any]],
    synthetic: Iterable[NDArray[Any]],
    encoder: SliceEncoder,
    *,
    views: Sequence[str] = tuple(WINDOWS),
    every: int = 1,
    n_bootstrap: int = 200,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> dict[str, Fid2p5d]:
    """:func:`fid_2p5d` under several grey scales, the four HU windows by default; each volume is read once.

    A distance over the full range is ruled by air against tissue; a window shows whether lungs, soft tissue, bone
    and vessels are right.

    Args:
        real: As for :func:`fid_2p5d`.
        synthetic: As for :func:`fid_2p5d`.
        encoder: Describes slices.
        views: Each of ``VIEWS``.
        every: As for :func:`fid_2p5d`.
        n_bootstrap: As for :func:`fid_2p5d`.
        seed: As for :func:`fid_2p5d`.
        device: As for :func:`fid_2p5d`.

    Returns:
        View to distances.

    Raises:
        UserError: As :func:`fid_2p5d`.
    """
    first = slice_statistics(real, encoder, views=views, every=every, device=device, name="real volume")
    second = slice_statistics(
        synthetic, encoder, views=views, every=every, device=device, origin=first, name="synthetic volume"
    )
    return {view: fid_between(first[view], second[view], n_bootstrap=n_bootstrap, seed=seed) for view in first}


@dataclass(frozen=True)
class FidFloor:
    """The distance of real volumes from other real ones, of several random divisions.

    Attributes:
        mean: Mean over planes and divisions.
        range: Least and greatest of the divisions' means over planes.
        n_each: Volumes on either side.
        divisions: How many.
        seed: Of the divisions.
    """

    mean: float
    range: tuple[float, float]
    n_each: int
    divisions: int
    seed: int


def fid_floor(real: SliceStatistics, *, n_each: int | None = None, divisions: int = 10, seed: int = 0) -> FidFloor:
    """The least distance to hope for: between disjoint random parts of one real set.

    Distances fall as volumes are added, so a floor stands for its own number of volumes alone: judge
    ``fid_2p5d`` of n real and n synthetic volumes by ``n_each=n``, which needs 2 n real ones. For two given sets
    of real volumes, call :func:`fid_2p5d` on them.

    Args:
        real: Statistics of real volumes, of different patients.
        n_each: Volumes on either side; half of them if None.
        divisions: Random divisions.
        seed: Of the divisions.

    Raises:
        UserError: There are fewer than ``2 n_each`` volumes, ``n_each`` is below 2, or ``divisions`` below 1.
    """
    each = real.n // 2 if n_each is None else n_each
    if each < 2 or 2 * each > real.n:
        raise UserError(f"{real.n} real volumes make no two disjoint parts of {each}; 2 or more each are needed")
    if divisions < 1:
        raise UserError(f"divisions is {divisions}; expected 1 or more")
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(divisions):
        order = rng.permutation(real.n)
        halves = real.subset(order[:each]), real.subset(order[each : 2 * each])
        means.append(fid_between(*halves, n_bootstrap=0).mean)
    return FidFloor(float(np.mean(means)), (min(means), max(means)), each, divisions, seed)
