"""Memorisation: is a synthetic volume a copy of a training volume?

The nearest training volume is found by a coarse embedding and compared at full resolution. How near is too near is
not guessed: real volumes that the generator was not trained on say how near unrelated patients come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from text2ct.errors import UserError
from text2ct.evaluation._inputs import check_same_grid, checked_volume
from text2ct.evaluation.similarity import SETTINGS, ms_ssim

BLOCKS = 16
# Blocks outside the body hardly change; divided by their own deviation, noise there (which clipping at -1000 HU turns
# into a bias of 4 HU for a deviation of 10) would hide what is alike inside.
_LEAST_DEVIATION_HU = 30.0

Embed = Callable[[NDArray[Any]], NDArray[Any]]


def block_means(volume_hu: NDArray[Any], blocks: int = BLOCKS) -> NDArray[np.float32]:
    """Mean HU of a volume's blocks.

    Args:
        volume_hu: (X, Y, Z) HU.
        blocks: Along each axis; an axis of fewer voxels keeps them.

    Returns:
        (blocks**3,) float32 for axes of ``blocks`` voxels or more. Where ``blocks`` does not divide an axis, blocks
        differ by one voxel.
    """
    means: NDArray[Any] = np.asarray(volume_hu, dtype=np.float32)
    for axis, size in enumerate(means.shape):
        edges = np.linspace(0, size, min(blocks, size) + 1).astype(int)
        shape = [-1 if other == axis else 1 for other in range(3)]
        means = np.add.reduceat(means, edges[:-1], axis=axis) / np.diff(edges).reshape(shape)
    return means.astype(np.float32).ravel()


def shifted_rms(a_hu: NDArray[Any], b_hu: NDArray[Any], max_shift: int = 1) -> tuple[float, tuple[int, int, int]]:
    """Root mean square difference in HU, at the shift by whole voxels where it is least.

    Args:
        a_hu: (X, Y, Z) HU.
        b_hu: Likewise.
        max_shift: Voxels that ``b`` may be moved along each axis, either way.

    Returns:
        The difference over the voxels that all shifts share, and the shift (x, y, z): ``a[i]`` is like
        ``b[i + shift]``.
    """
    a, b = np.asarray(a_hu, dtype=np.float32), np.asarray(b_hu, dtype=np.float32)
    inner = a[tuple(slice(max_shift, n - max_shift) for n in a.shape)]
    best, where = np.inf, (0, 0, 0)
    for x, y, z in sorted(product(range(-max_shift, max_shift + 1), repeat=3), key=lambda s: (np.abs(s).sum(), s)):
        moved = b[tuple(slice(max_shift + s, n - max_shift + s) for s, n in zip((x, y, z), b.shape, strict=True))]
        difference = float(np.sqrt(np.mean(np.square(inner - moved), dtype=np.float64)))
        if difference < best:
            best, where = difference, (x, y, z)
    return best, where


@dataclass(frozen=True)
class Neighbour:
    """The training volume nearest to a volume.

    Attributes:
        index: Of the training volume.
        distance_hu: :func:`shifted_rms` to it.
        second_hu: The same to the second nearest; infinite if there is one training volume only.
        shift: Voxels (x, y, z) by which it is moved.
    """

    index: int
    distance_hu: float
    second_hu: float
    shift: tuple[int, int, int]

    @property
    def ratio(self) -> float:
        """Distance to the nearest over that to the second nearest, in [0, 1]: near 0 for a copy."""
        return 1.0 if self.second_hu == 0 else self.distance_hu / self.second_hu


class TrainingVolumes:
    """Training volumes, ready to be searched.

    The search has two steps: the ``candidates`` nearest by block means, standardised over the training set, and as
    many by the given embedding; then :func:`shifted_rms` to these.

    Args:
        volumes_hu: (X, Y, Z) in [-1000, 1000] HU, one grid; each is read once now, and when it is a candidate.
        embed: A volume to (d,), beside block means; None for these alone.
        candidates: Compared at full resolution, of each embedding; 2 or more, so that there is a second nearest.
        max_shift: As for :func:`shifted_rms`.

    Raises:
        UserError: There are no volumes, one leaves its range or has another grid, or a setting is too small.
    """

    def __init__(
        self, volumes_hu: Sequence[NDArray[Any]], *, embed: Embed | None = None, candidates: int = 8, max_shift: int = 1
    ) -> None:
        if len(volumes_hu) == 0:
            raise UserError("there is no training volume to compare with; give one or more")
        if candidates < 2:
            raise UserError(f"candidates is {candidates}; expected 2 or more")
        if max_shift < 0:
            raise UserError(f"max_shift is {max_shift}; expected 0 or more")
        self._volumes = volumes_hu
        self._embeds: list[Embed] = [block_means, *([embed] if embed else [])]
        self._candidates = candidates
        self._max_shift = max_shift
        self.grid: tuple[int, ...] = checked_volume(volumes_hu[0], "training volume 0").shape
        if min(self.grid) <= 2 * max_shift:
            raise UserError(f"max_shift {max_shift} leaves nothing of a grid {self.grid}; choose a smaller one")
        tables: list[list[NDArray[np.float32]]] = [[] for _ in self._embeds]
        for number in range(len(volumes_hu)):
            volume_hu = self._checked(volumes_hu[number], f"training volume {number}")
            for table, one in zip(tables, self._embeds, strict=True):
                table.append(np.asarray(one(volume_hu), dtype=np.float32).ravel())
        self._tables = []
        self._scales = []
        for number, table in enumerate(tables):
            stacked = np.stack(table)
            least = _LEAST_DEVIATION_HU if number == 0 else 1e-6
            centre, deviation = stacked.mean(axis=0), np.maximum(stacked.std(axis=0), least)
            self._scales.append((centre, deviation))
            self._tables.append((stacked - centre) / deviation)

    def __len__(self) -> int:
        return len(self._volumes)

    def _checked(self, volume_hu: NDArray[Any], name: str) -> NDArray[Any]:
        hu = checked_volume(volume_hu, name)
        check_same_grid(hu.shape, self.grid, name)
        return hu

    def nearest(self, volume_hu: NDArray[Any], name: str = "volume") -> Neighbour:
        """The nearest training volume to (X, Y, Z) HU.

        Raises:
            UserError: The volume leaves its range or has another grid.
        """
        hu = self._checked(volume_hu, name)
        found: set[int] = set()
        for one, table, (centre, deviation) in zip(self._embeds, self._tables, self._scales, strict=True):
            query = (np.asarray(one(hu), dtype=np.float32).ravel() - centre) / deviation
            # |t - q|^2 without a table of differences.
            squared = np.einsum("nd,nd->n", table, table) - 2 * (table @ query)
            found.update(int(i) for i in np.argsort(squared, kind="stable")[: self._candidates])
        compared = sorted((*shifted_rms(hu, self._volumes[index], self._max_shift), index) for index in found)
        distance, shift, index = compared[0]
        return Neighbour(index, distance, compared[1][0] if len(compared) > 1 else np.inf, shift)

    def similarity(self, volume_hu: NDArray[Any], found: Neighbour) -> float:
        """MS-SSIM of a volume and its neighbour, moved by its shift; NaN where the grid is too small for it."""
        ours, theirs = [], []
        for size, shift in zip(self.grid, found.shift, strict=True):
            ours.append(slice(max(0, -shift), size - max(0, shift)))
            theirs.append(slice(max(0, shift), size - max(0, -shift)))
        a, b = np.asarray(volume_hu)[tuple(ours)], np.asarray(self._volumes[found.index])[tuple(theirs)]
        return ms_ssim(a, b) if min(a.shape) >= SETTINGS.smallest_axis else float("nan")


@dataclass(frozen=True, eq=False)
class Memorisation:
    """Which synthetic volumes are copies, and the evidence.

    Attributes:
        n: Synthetic volumes.
        memorised: How many are nearer to a training volume than ``threshold_hu``.
        indices: Which, of the synthetic volumes.
        neighbours: Of each synthetic volume, its nearest training volume.
        distances_hu: (n,) float64, to these.
        ratios: (n,) float64, distance to the nearest over that to the second nearest (evidence only: a patient
            with two training volumes makes it 1 for a copy).
        ms_ssim: (n,) float64, to the nearest training volume, moved by its shift; NaN for volumes that are not
            memorised (it takes time) and for grids too small for MS-SSIM.
        threshold_hu: The rule's.
        held_out_distances_hu: (m,) float64, of the real volumes that set the threshold.
        held_out_ratios: (m,) float64, likewise.
        false_positive_rate: Bound on the chance that a new held-out real volume is flagged, by exchangeability: the
            rank of the quantile over m + 1. The margin makes the true rate smaller still.
        n_training: Training volumes searched.
    """

    n: int
    memorised: int
    indices: tuple[int, ...]
    neighbours: tuple[Neighbour, ...]
    distances_hu: NDArray[np.float64]
    ratios: NDArray[np.float64]
    ms_ssim: NDArray[np.float64]
    threshold_hu: float
    held_out_distances_hu: NDArray[np.float64]
    held_out_ratios: NDArray[np.float64]
    false_positive_rate: float
    n_training: int


def find_memorised(
    synthetic: Iterable[NDArray[Any]],
    training: Sequence[NDArray[Any]] | TrainingVolumes,
    held_out: Iterable[NDArray[Any]],
    *,
    quantile: float = 0.001,
    margin: float = 0.5,
    embed: Embed | None = None,
    candidates: int = 8,
    max_shift: int = 1,
) -> Memorisation:
    """Flag synthetic volumes that are nearer to a training volume than held-out real ones ever are.

    The rule: with ``d_(1) <= .. <= d_(m)`` the distances of m held-out real volumes to their nearest training
    volumes, a synthetic volume is memorised when its distance is below ``margin * d_(r)``,
    ``r = floor(quantile * (m - 1)) + 1``; for m up to 1,000 that is the smallest distance. Distances are root mean
    squares in HU at full resolution and the best shift (:func:`shifted_rms`), so noise and a small shift hide no
    copy. Comparison with held-out neighbours follows membership tests of generators (Meehan et al. 2020,
    arXiv 2004.05675); nearest over second nearest is the evidence of Carlini et al. 2023 (arXiv 2301.13188,
    section 4.2), reported beside it.

    It does not see copies that are mirrored, turned, scaled, or copied in part. Training, held-out and synthetic
    volumes must come through one preprocessing, and held-out patients must not be training patients.

    Args:
        synthetic: (X, Y, Z) in [-1000, 1000] HU, read one at a time.
        training: Training volumes, or :class:`TrainingVolumes` made of them.
        held_out: Real volumes that the generator was not trained on: the more, the smaller the bound.
        quantile: Of the held-out distances, in [0, 1).
        margin: Factor on it, in (0, 1]. On simulated patients at 64x64x64 unrelated volumes are 200 HU apart and more,
            copies with noise of 10 HU about 9, copies blurred by 0.7 voxels about 90: half leaves room on both sides.
        embed: As for :class:`TrainingVolumes`; like ``candidates`` and ``max_shift`` not used where one is given.
        candidates: As for :class:`TrainingVolumes`.
        max_shift: As for :class:`TrainingVolumes`.

    Raises:
        UserError: A set is empty, volumes have different grids or leave their range, a held-out volume is itself
            a training volume, or a setting is out of range.
    """
    if not 0 <= quantile < 1 or not 0 < margin <= 1:
        raise UserError(f"quantile is {quantile} and margin {margin}; expected [0, 1) and (0, 1]")
    if not isinstance(training, TrainingVolumes):
        training = TrainingVolumes(training, embed=embed, candidates=candidates, max_shift=max_shift)
    calibration = [training.nearest(hu, f"held-out volume {i}") for i, hu in enumerate(held_out)]
    if not calibration:
        raise UserError("there is no held-out real volume to set the threshold by; give some, 100 or more are better")
    same = [
        f"held-out volume {i} is training volume {found.index}"
        for i, found in enumerate(calibration)
        if found.distance_hu == 0
    ]
    if same:
        raise UserError("held-out volumes were trained on, and would hide copies; take other patients", same)
    held_out_hu = np.array([found.distance_hu for found in calibration])
    rank = int(quantile * (len(held_out_hu) - 1)) + 1
    threshold = margin * float(np.sort(held_out_hu)[rank - 1])
    neighbours, similarities = [], []
    for number, hu in enumerate(synthetic):
        found = training.nearest(hu, f"synthetic volume {number}")
        neighbours.append(found)
        similarities.append(training.similarity(hu, found) if found.distance_hu < threshold else np.nan)
    if not neighbours:
        raise UserError("there is no synthetic volume to judge; give one or more")
    distances = np.array([found.distance_hu for found in neighbours])
    flagged = tuple(int(i) for i in np.flatnonzero(distances < threshold))
    return Memorisation(
        n=len(neighbours),
        memorised=len(flagged),
        indices=flagged,
        neighbours=tuple(neighbours),
        distances_hu=distances,
        ratios=np.array([found.ratio for found in neighbours]),
        ms_ssim=np.array(similarities),
        threshold_hu=threshold,
        held_out_distances_hu=held_out_hu,
        held_out_ratios=np.array([found.ratio for found in calibration]),
        false_positive_rate=rank / (len(held_out_hu) + 1),
        n_training=len(training),
    )
