"""Volumes of an arm on disk, each beside a record of what it was made of: none is made twice."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from text2ct.errors import UserError
from text2ct.files import read_json, sha256_file, write_json

if TYPE_CHECKING:
    from text2ct.volumes import Volume

# Raised by one whenever the same request would give other voxels, so that old volumes are made again.
METHOD_VERSION = 1


@dataclass(frozen=True)
class StoredVolume:
    """A volume that is made, or is to be made.

    Args:
        folder: The arm's folder, which holds ``volumes`` and ``records``.
        name: The file's place below ``volumes``, with its suffix.
        key: What decides its voxels, see :func:`key_of`.
    """

    folder: Path
    name: str
    key: str

    @property
    def path(self) -> Path:
        """Where its voxels are."""
        return self.folder / "volumes" / self.name

    @property
    def _record(self) -> Path:
        return self.folder / "records" / f"{self.name}.json"

    def is_done(self) -> bool:
        """Whether the file is whole and was made from the same request."""
        if not (self._record.is_file() and self.path.is_file()):
            return False
        try:
            record = read_json(self._record)
        except UserError:
            return False
        ours = isinstance(record, dict) and record.get("key") == self.key
        return ours and record.get("sha256") == sha256_file(self.path)

    def write(self, volume: Volume) -> None:
        """Write the voxels, then the record that says they are whole."""
        from text2ct.volumes import write

        write(volume, self.path)
        record = {"key": self.key, "sha256": sha256_file(self.path)}
        write_json(self._record, record | {"size": volume.size, "spacing_mm": volume.spacing_mm})

    def columns(self, root: str, prefix: str) -> dict[str, Any]:
        """The manifest columns that tell of the file.

        Args:
            root: The root that ``folder`` belongs to.
            prefix: The folder's place in it, "" or with a final slash, as ``Workspace.root_for`` gives it.
        """
        record = read_json(self._record)
        columns: dict[str, Any] = {"root": root, "path": f"{prefix}volumes/{self.name}", "sha256": record["sha256"]}
        for axis, size, spacing in zip("xyz", record["size"], record["spacing_mm"], strict=True):
            columns |= {f"size_{axis}": float(size), f"spacing_{axis}": float(spacing)}
        return columns


def key_of(*parts: Any) -> str:
    """SHA-256 of what decides a volume's voxels, the version of the method included."""
    return hashlib.sha256(json.dumps([METHOD_VERSION, *parts], sort_keys=True).encode()).hexdigest()
