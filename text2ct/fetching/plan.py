"""What a part of CT-RATE takes: which files, how many bytes, and what of it is here already."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from text2ct import hub
from text2ct.console import warn
from text2ct.errors import UserError, first_of
from text2ct.fetching.ct_rate import REPOSITORY, select_volumes, table_paths, volume_path
from text2ct.manifests import parse_volume_name

PARTIALS = ".download"


@dataclass(frozen=True)
class Plan:
    """Files to have in a folder.

    Attributes:
        root: The folder.
        source: The repository at one commit.
        tables: Label table, reports, metadata and lists.
        volumes: The volumes chosen, in order.
        absent: Names of volumes that were chosen and are not on the hub.
        here: Files that are whole in ``root`` already.
    """

    root: Path
    source: hub.Source
    tables: list[hub.RemoteFile]
    volumes: list[hub.RemoteFile]
    absent: list[str]
    here: frozenset[hub.RemoteFile]

    @property
    def missing(self) -> list[hub.RemoteFile]:
        """What is not whole in ``root``: tables, then volumes."""
        return [file for file in (*self.tables, *self.volumes) if file not in self.here]

    @property
    def bytes_left(self) -> int:
        """Bytes to fetch; what is there of unfinished files counts as had."""
        partials = {file: hub.partial_of(file, self.root / PARTIALS) for file in self.missing}
        return sum(max(0, file.bytes - _size(partial)) for file, partial in partials.items())

    def counts(self, whole: Sequence[hub.RemoteFile] | None = None) -> dict[str, int]:
        """``volumes``, ``scans``, ``patients`` and ``bytes`` (with the tables) of these files, or of all."""
        files = [*self.tables, *self.volumes] if whole is None else list(whole)
        tables = set(self.tables)
        names = [parse_volume_name(file.name) for file in files if file not in tables]
        return {
            "volumes": len(names),
            "scans": len({name.scan for name in names}),
            "patients": len({name.patient for name in names}),
            "bytes": sum(file.bytes for file in files),
        }

    def as_json(self) -> dict[str, Any]:
        """What a dry run says; ``bytes`` are those still to fetch, ``seconds`` at 100 Mbit/s."""
        left = self.bytes_left
        return {
            "dry_run": True,
            "root": str(self.root),
            "commit": self.source.commit,
            **self.counts(),
            "bytes": left,
            "seconds": round(left / hub.BYTES_PER_SECOND, 1),
            "resumed": sum(file in self.here for file in self.volumes),
            "absent": self.absent,
        }


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def plan_ct_rate(
    root: Path,
    part: str,
    *,
    findings: Sequence[str] = (),
    limit: int | None = None,
    seed: int = 0,
    all_reconstructions: bool = False,
    metadata_only: bool = False,
    revision: str = hub.DEFAULT_REVISION,
    endpoint: str | None = None,
    dry_run: bool = False,
) -> Plan:
    """Ask the hub what a part of CT-RATE takes. The label table is fetched to choose by it.

    Args:
        root: Folder that the files go to.
        part: ``train`` or ``valid``.
        findings: As for :func:`text2ct.fetching.select_volumes`, with the three that follow.
        limit: See ``findings``.
        seed: See ``findings``.
        all_reconstructions: See ``findings``.
        metadata_only: Tables and lists alone.
        revision: Branch, tag or commit.
        endpoint: The hub's address; the library's own (``HF_ENDPOINT``) if None.
        dry_run: Leave ``root`` alone: what has to be read goes to a temporary folder.

    Raises:
        UserError: The hub cannot be reached or refuses, the label table is not usable, or no scan carries any of
            the findings.
    """
    source = hub.open_dataset(REPOSITORY, revision=revision, endpoint=endpoint)
    paths = table_paths(part)
    found = hub.find_files(source, list(paths.values()))
    if paths["labels"] not in found:
        raise UserError(f"{REPOSITORY} at {revision} has no {paths['labels']}; is {source.address} a whole copy?")
    lacking = [path for path in paths.values() if path not in found]
    if lacking:
        warn(f"{REPOSITORY} lacks {', '.join(lacking)}; the rest is taken")
    tables = list(found.values())
    if metadata_only:
        return _plan(root, source, tables, [], [])
    with TemporaryDirectory() if dry_run else nullcontext(root) as folder:
        place = {
            key: _have(source, found[paths[key]], root, Path(folder))
            for key in ("labels", "no_chest")
            if paths[key] in found
        }
        chosen = select_volumes(
            place["labels"],
            place.get("no_chest"),
            findings=findings,
            limit=limit,
            seed=seed,
            all_reconstructions=all_reconstructions,
        )
    files = hub.find_files(source, [volume_path(volume) for volume in chosen])
    absent = [volume for volume in chosen if volume_path(volume) not in files]
    if absent:
        warn(f"{len(absent)} volumes are in the label table and not on the hub: {', '.join(first_of(absent, 5))}")
    volumes = [files[path] for path in map(volume_path, chosen) if path in files]
    return _plan(root, source, tables, volumes, absent)


def _have(source: hub.Source, file: hub.RemoteFile, root: Path, folder: Path) -> Path:
    """The file in ``root`` if it is whole there, otherwise fetched to ``folder``."""
    there = root / file.name
    return there if file.is_whole(there) else hub.fetch(source, file, folder / file.name, folder / PARTIALS)


def _plan(
    root: Path, source: hub.Source, tables: list[hub.RemoteFile], volumes: list[hub.RemoteFile], absent: list[str]
) -> Plan:
    here = frozenset(file for file in (*tables, *volumes) if file.is_whole(root / file.name))
    return Plan(root, source, tables, volumes, absent, here)
