"""Preprocessed volumes on disk, keyed on content and preprocessing, never on a file's name."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from text2ct import volumes
from text2ct.classifiers.config import Preprocessing
from text2ct.errors import UserError
from text2ct.files import atomic_path, sha256_file

NODE_CACHE = "TEXT2CT_NODE_CACHE"
"""Environment variable: a folder on a disk of the node, for entries of a cache that lies on a shared one."""
CACHE_VERSION = 1
"""Raise it when reading or resampling changes: every older entry is then ignored."""


class VolumeCache:
    """Volumes on one grid as int16 HU ``.npy`` files of shape (X, Y, Z), memory-mapped when read.

    Real and synthetic volumes go through the same steps: HU, RAS, the grid, clipped to
    [-1000, 1000] HU (all that a generator can draw), rounded to whole HU.

    Args:
        folder: Where the entries lie; made when first needed.
        preprocessing: The grid.
        dry_run: Make no entry; note in ``missing`` the volumes that have none.
    """

    def __init__(self, folder: Path, preprocessing: Preprocessing, *, dry_run: bool = False) -> None:
        self.folder = Path(folder)
        self.preprocessing = preprocessing
        self.dry_run = dry_run
        self.missing: list[Path] = []

    def key(self, path: Path) -> str:
        """Digest of the file's content, the preprocessing and the cache's version."""
        parts = {
            "content": content_sha256(path),
            "preprocessing": self.preprocessing.model_dump(mode="json"),
            "version": CACHE_VERSION,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def entry(self, path: Path, expected_sha256: str = "") -> Path:
        """The cached file of a volume, made if absent or damaged.

        Args:
            path: The volume.
            expected_sha256: What its manifest says of its content; empty: nothing.

        Raises:
            UserError: The volume is missing, unreadable, impossible or not the manifest's.
        """
        if expected_sha256 and path.is_file() and content_sha256(path) != expected_sha256:
            raise UserError(f"{path} is not the file that the manifest was made of; make the manifest again")
        key = self.key(path)
        target = self.folder / key[:2] / f"{key}.npy"
        if self._usable(target):
            return target
        if self.dry_run:
            self.missing.append(Path(path))
        else:
            grid_hu = self.preprocess(path)
            with atomic_path(target) as temporary:
                np.save(temporary, grid_hu)
        return target

    @staticmethod
    def load(entry: Path) -> np.ndarray:
        """Memory-map an entry, or its copy on this node: (X, Y, Z) int16 HU, read-only."""
        return _mapped(_near(Path(entry)))

    def bytes_per_volume(self) -> int:
        """Size of one entry on disk."""
        return int(np.prod(self.preprocessing.size)) * 2 + 128

    def _usable(self, target: Path) -> bool:
        if not target.is_file():
            return False
        try:
            array = _mapped(target)
        except (OSError, EOFError, ValueError):
            return False
        return array.shape == self.preprocessing.size and array.dtype == np.int16

    def preprocess(self, path: Path) -> np.ndarray:
        """Bring a volume to the grid: (X, Y, Z) int16 HU.

        Raises:
            UserError: The volume is unreadable or impossible.
        """
        settings = self.preprocessing
        volume = volumes.to_grid(
            volumes.read(path),
            size=settings.size,
            spacing_mm=settings.spacing_mm,
            fit=settings.fit,
            pad_hu=settings.pad_hu,
        )
        if not np.isfinite(volume.hu).all():
            raise UserError(f"{path} has voxels that are not finite; repair the volume or leave its row out")
        clipped = np.clip(volume.hu, volumes.HU_MIN, volumes.HU_MAX)
        return np.rint(clipped).astype(np.int16)


def _mapped(path: Path) -> np.ndarray:
    array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def _near(entry: Path) -> Path:
    """A copy of an entry in the folder that ``TEXT2CT_NODE_CACHE`` names, made now if need be; else the entry.

    Entries are named after their content, so a copy is never out of date. A folder that cannot be written, or is
    full, costs speed and nothing else.
    """
    folder = os.environ.get(NODE_CACHE)
    if not folder:
        return entry
    copy = Path(folder) / entry.parent.name / entry.name
    try:
        if not copy.is_file() or copy.stat().st_size != entry.stat().st_size:
            with atomic_path(copy) as temporary:
                shutil.copyfile(entry, temporary)
    except (OSError, UserError):
        return entry
    return copy


class CachedVolumes(Sequence[NDArray[np.int16]]):
    """Volumes of the cache, (X, Y, Z) int16 HU, mapped one by one when they are asked for.

    Args:
        entries: Files of the cache.
    """

    def __init__(self, entries: Sequence[Path]) -> None:
        self.entries = list(entries)

    def __len__(self) -> int:
        return len(self.entries)

    @overload
    def __getitem__(self, index: int) -> NDArray[np.int16]: ...

    @overload
    def __getitem__(self, index: slice) -> CachedVolumes: ...

    def __getitem__(self, index: int | slice) -> NDArray[np.int16] | CachedVolumes:
        """One volume, or some of them."""
        if isinstance(index, slice):
            return CachedVolumes(self.entries[index])
        return VolumeCache.load(self.entries[index])

    def of(self, rows: NDArray[np.integer]) -> CachedVolumes:
        """Those at ``rows``."""
        return CachedVolumes([self.entries[row] for row in rows])

    def key(self, index: int) -> str:
        """Digest of the volume's content and of how it was brought to the grid."""
        return self.entries[index].stem


def content_sha256(path: Path) -> str:
    """SHA-256 of a volume's bytes; of a DICOM folder, of its files' names and digests.

    A file is read once in a process unless its size or time of change differ.

    Raises:
        UserError: There is no such file.
    """
    path = Path(path)
    if path.is_dir():
        listing = [f"{file.name} {content_sha256(file)}" for file in sorted(path.iterdir()) if file.is_file()]
        return hashlib.sha256("\n".join(listing).encode()).hexdigest()
    try:
        stat = path.stat()
    except OSError as error:
        raise UserError(f"{path} does not exist; check the root in workspace.json") from error
    return _file_sha256(path.resolve(), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=200_000)
def _file_sha256(path: Path, size: int, changed_ns: int) -> str:
    del size, changed_ns  # part of the key only
    try:
        return sha256_file(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
