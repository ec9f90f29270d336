"""From manifest rows to tensors: known labels, cached volumes, and the order they are drawn in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset, RandomSampler

from text2ct import console
from text2ct.classifiers.cache import VolumeCache
from text2ct.engines import LOCAL, Engine
from text2ct.errors import UserError
from text2ct.findings import FINDINGS

if TYPE_CHECKING:
    from text2ct.manifests import Workspace


@dataclass(frozen=True)
class VolumeTable:
    """Rows whose volumes are in the cache.

    Args:
        names: (n,) volume names.
        scans: (n,) identity of the scan, dataset included.
        patients: (n, 2) dataset and patient.
        labels: (n, 18) float32; 0, 1, NaN for unknown.
        entries: Cached file of each row.
    """

    names: list[str]
    scans: np.ndarray
    patients: list[tuple[str, str]]
    labels: np.ndarray
    entries: list[Path]

    def digest(self) -> str:
        """SHA-256 of contents (a cache key is a digest of content), labels and identities, in order."""
        digest = hashlib.sha256()
        for name, scan, entry in zip(self.names, self.scans, self.entries, strict=True):
            digest.update(f"{name}|{scan}|{entry.stem}\n".encode())
        digest.update(np.ascontiguousarray(self.labels, dtype=np.float32).tobytes())
        return digest.hexdigest()


def make_table(
    frame: pd.DataFrame, workspace: Workspace, cache: VolumeCache, purpose: str, engine: Engine = LOCAL
) -> VolumeTable:
    """Bring the volumes of manifest rows to the grid, through the cache.

    Args:
        frame: Manifest rows.
        workspace: Resolves roots.
        cache: Where the grids lie.
        purpose: What the rows are for, for messages, such as ``training``.
        engine: Where volumes are brought to the grid.

    Raises:
        UserError: Missing, unreadable or changed volumes, all of them at once.
    """
    _, entries, problems = on_grid(frame, workspace, cache, purpose, engine)
    if problems:
        raise UserError(f"{len(problems)} of {len(frame)} {purpose} volumes cannot be read", problems)
    return VolumeTable(
        names=[str(name) for name in frame["volume"]],
        scans=(frame["dataset"].astype(str) + "/" + frame["scan"].astype(str)).to_numpy(dtype=object),
        patients=list(zip(frame["dataset"].astype(str), frame["patient"].astype(str), strict=True)),
        labels=frame[list(FINDINGS)].to_numpy(dtype=np.float32, copy=True),
        entries=entries,
    )


def on_grid(
    frame: pd.DataFrame, workspace: Workspace, cache: VolumeCache, purpose: str, engine: Engine = LOCAL
) -> tuple[pd.DataFrame, list[Path], list[str]]:
    """The rows whose volumes can be brought to the grid, their files of the cache, and why the others cannot.

    Args:
        frame: Manifest rows; those that are kept keep their index.
        workspace: Resolves roots.
        cache: Where the grids lie.
        purpose: What the rows are for, for messages.
        engine: Where volumes are brought to the grid.
    """
    entries: list[Path] = []
    problems: list[str] = []
    kept: list[bool] = []
    rows = [{name: str(row.get(name) or "") for name in ("root", "path", "sha256")} for row in frame.to_dict("records")]
    with console.progress(f"reading {purpose} volumes", len(frame)) as advance:
        for number, entry in enumerate(engine.map(partial(_entry, workspace, cache), rows), start=1):
            kept.append(isinstance(entry, Path))
            if isinstance(entry, Path):
                entries.append(entry)
            else:
                problems.append(f"row {number} ({frame['volume'].iloc[number - 1]}): {entry}")
            advance(1)
    return frame[np.array(kept, dtype=bool)], entries, problems


def _entry(workspace: Workspace, cache: VolumeCache, row: Mapping[str, str]) -> Path | str:
    """A row's file of the cache, or why there is none."""
    if not row["path"]:
        return "the row has no file"
    try:
        return cache.entry(workspace.resolve(row["root"], row["path"]), row["sha256"])
    except UserError as error:
        return str(error)


def draw_order(rows: int, draws: int, seed: int, weights: Sequence[float] | np.ndarray | None = None) -> np.ndarray:
    """The row of every draw of a training, decided before it begins.

    Args:
        rows: Number of rows.
        draws: Steps times batch size.
        seed: Decides the order.
        weights: Relative frequency of each row, >= 0 and not all 0; None: permutation after permutation.

    Returns:
        (draws,) int64 row numbers. With weights, a row comes within 1 of ``draws * weight / sum(weights)`` times,
        evenly over the training; equal weights give permutation after permutation, too.
    """
    if weights is None:
        generator = torch.Generator().manual_seed(seed)
        sampler = RandomSampler(range(rows), num_samples=draws, generator=generator)
        return np.fromiter(sampler, dtype=np.int64, count=draws)
    return _systematic(np.asarray(weights, dtype=np.float64), draws, np.random.default_rng(seed))


def brought_forward(order: np.ndarray, early: np.ndarray, until: float) -> np.ndarray:
    """The same draws in another order: those of some rows within the first share of all.

    Both kinds keep their own order, and mix evenly before ``until``. Where the other rows have too few draws to fill
    the rest, they fill as much of it as they can.

    Args:
        order: (draws,) row numbers.
        early: (rows,) bool, the rows to bring forward.
        until: Share of the draws, in (0, 1].

    Returns:
        (draws,) int64, a permutation of ``order``.
    """
    first, others = order[early[order]], order[~early[order]]
    alone = min(round((1 - until) * len(order)), len(others))
    mixed = others[: len(others) - alone]
    times = [(np.arange(len(kind)) + 0.5) / max(1, len(kind)) for kind in (first, mixed)]
    together = np.concatenate([first, mixed])[np.argsort(np.concatenate(times), kind="stable")]
    return np.concatenate([together, others[len(mixed) :]])


def _systematic(weights: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Systematic resampling (Kitagawa 1996, appendix), each row's draws then stratified over the training.

    Independent draws would show a row of five expected draws between 0 and 14 times, a handicap beside
    permutations, which show each row as often as the next.
    """
    drawn = rng.permutation(np.flatnonzero(weights > 0))
    expected = draws * weights[drawn] / weights[drawn].sum()
    upto = np.minimum(np.ceil(np.cumsum(expected) - rng.random()), draws)
    upto[-1] = draws  # whatever the sum's rounding
    counts = np.diff(upto, prepend=0.0).astype(np.int64)
    # A row that is expected e times has its draw j at a random time of [j / e, (j + 1) / e), cut off at the end, 1:
    # at every time each row is as likely as its weight, and no draw is far from where an even spacing has it.
    row, e = np.repeat(drawn, counts), np.repeat(expected, counts)
    j = np.arange(draws) - np.repeat(np.cumsum(counts) - counts, counts)
    times = (j + rng.random(draws) * np.clip(e - j, 0.0, 1.0)) / e
    return row[np.argsort(times, kind="stable")]


class DrawnVolumes(Dataset[tuple[Tensor, Tensor]]):
    """A stretch of the draws of a training as a dataset.

    Each draw has its own random state, made of the seed and the draw's number: augmentation is the same
    whatever was interrupted and however many workers load.

    Args:
        table: The rows.
        order: (draws,) row of each draw, of the whole training.
        start: First draw of the stretch.
        stop: Draw after the last.
        augment: (1, X, Y, Z) float32 HU -> the same, drawing from torch's generator; None: none.
        seed: The training's seed.
    """

    def __init__(
        self,
        table: VolumeTable,
        order: np.ndarray,
        *,
        start: int = 0,
        stop: int | None = None,
        augment: Callable[[Tensor], Tensor] | None = None,
        seed: int = 0,
    ) -> None:
        self.table = table
        self.order = order
        self.start = start
        self.stop = len(order) if stop is None else stop
        self.augment = augment
        self.seed = seed

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """The volume (1, X, Y, Z) float32 HU and the labels (18,) float32 of a draw."""
        draw = self.start + index
        row = int(self.order[draw])
        grid = VolumeCache.load(self.table.entries[row])
        volume_hu = torch.from_numpy(grid.astype(np.float32))[None]
        if self.augment is not None:
            with torch.random.fork_rng(devices=[]):
                state = np.random.SeedSequence([self.seed, draw]).generate_state(1, np.uint64)[0]
                torch.manual_seed(int(state >> np.uint64(1)))
                volume_hu = self.augment(volume_hu)
        return volume_hu, torch.from_numpy(self.table.labels[row])
