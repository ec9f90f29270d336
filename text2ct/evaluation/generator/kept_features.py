"""Features that were computed once, on disk: keyed on a volume's content and grid, and on what described it."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from text2ct.classifiers.cache import CachedVolumes, VolumeCache
from text2ct.console import progress
from text2ct.engines import LOCAL, Engine
from text2ct.errors import UserError
from text2ct.files import atomic_path

Arrays = tuple[NDArray[np.float32], ...]
Describe = Callable[[NDArray[np.int16]], Arrays]


class KeptFeatures:
    """A folder of features; an interrupted call goes on, and another backbone's are others.

    Args:
        folder: Where they lie; made when first needed.
        engine: Where they are computed.
    """

    def __init__(self, folder: Path, engine: Engine = LOCAL) -> None:
        self.folder, self._engine = Path(folder), engine

    def of(self, volumes: CachedVolumes, backbone: str, describe: Describe, what: str) -> Described:
        """Features of each volume, one after the other; what is missing is computed now.

        Args:
            volumes: Whose.
            backbone: Names network, weights and all that decides the features besides the volume.
            describe: (X, Y, Z) HU to arrays.
            what: For the progress bar.
        """
        paths = [self._path(key, backbone) for key in map(volumes.key, range(len(volumes)))]
        jobs = [(entry, path) for entry, path in zip(volumes.entries, paths, strict=True) if not _usable(path)]
        with progress(what, len(jobs)) as advance:
            for _ in self._engine.map(partial(_keep, describe), jobs):
                advance(1)
        return Described(paths)

    def missing(self, keys: Iterable[str], backbone: str) -> int:
        """Of how many volumes, by their keys, such features would have to be computed."""
        return sum(not _usable(self._path(key, backbone)) for key in keys)

    def _path(self, volume: str, backbone: str) -> Path:
        key = hashlib.sha256(f"{volume} {backbone}".encode()).hexdigest()
        return self.folder / key[:2] / f"{key}.npz"


def _keep(describe: Describe, job: tuple[Path, Path]) -> None:
    """Keep the features of an entry of the cache."""
    entry, path = job
    arrays = describe(VolumeCache.load(entry))
    if not all(np.isfinite(array).all() for array in arrays):
        raise UserError(
            f"the network describes {entry} by numbers that are not finite; look at its weights and the volume"
        )
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, *arrays)


class Described:
    """Features by volume, read when they are asked for.

    Args:
        paths: A file of each volume.
    """

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Arrays:
        """The arrays of one volume, as ``describe`` gave them."""
        with np.load(self._paths[index], allow_pickle=False) as kept:
            return tuple(kept[name] for name in kept.files)

    def rows(self) -> NDArray[np.float64]:
        """(n, d) the first array of every volume: what describes whole volumes."""
        return np.stack([self[index][0] for index in range(len(self))]).astype(np.float64)


def _usable(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as kept:
            # The whole of it: the directory of a damaged file may be whole.
            return bool([kept[name] for name in kept.files])
    except (OSError, EOFError, ValueError, BadZipFile, zlib.error):
        return False
