"""One volume's way through ``preprocess``: its sources, its key, its result."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from text2ct.errors import UserError
from text2ct.files import read_json, sha256_file, write_json
from text2ct.volumes.anatomy import not_a_chest
from text2ct.volumes.grid import Fit, to_grid
from text2ct.volumes.quality import check
from text2ct.volumes.reading import read
from text2ct.volumes.scales import Scale
from text2ct.volumes.writing import format_problem, write

# Raised by one whenever the same settings would give other voxels or records, so that old outputs are made again.
METHOD_VERSION = 2


@dataclass(frozen=True)
class Settings:
    """Everything beside the source that decides the voxels of an output."""

    size: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    fit: Fit
    format: str
    version: int = METHOD_VERSION


@dataclass(frozen=True)
class Job:
    """A source and where its output and its record go.

    Args:
        source: File or DICOM folder.
        target: The volume to write.
        record: JSON beside it: key, evidence and geometry.
        settings: The grid.
        scale: The metadata's statement about this volume.
        expected_sha256: The source's checksum in a manifest; empty if none is stated.
    """

    source: Path
    target: Path
    record: Path
    settings: Settings
    scale: Scale = field(default_factory=Scale)
    expected_sha256: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of a job: a record, or the reasons why there is none."""

    record: dict[str, Any] | None
    reasons: tuple[str, ...] = ()
    resumed: bool = False


def run(job: Job) -> Outcome:
    """Convert one volume, or find that it is done already.

    Whatever is wrong with the source is an outcome; a target that cannot be written is an error.

    Raises:
        UserError: The output cannot be written.
    """
    try:
        source_sha256 = _content_sha256(job.source)
        if job.expected_sha256 and source_sha256 != job.expected_sha256:
            return Outcome(None, ("its content differs from the manifest's sha256",))
        key = _key(job, source_sha256)
        done = _finished(job, key)
        if done is not None:
            return Outcome(done, resumed=True)
        volume = read(job.source, **vars(job.scale))
        reasons = check(volume)
        if reasons:
            return Outcome(None, tuple(reasons))
        not_chest = not_a_chest(volume)
        settings = job.settings
        result = to_grid(volume, settings.size, settings.spacing_mm, settings.fit)
        if problem := format_problem(result, settings.format):
            return Outcome(None, (problem,))
    except UserError as error:
        first, *rest = str(error).splitlines()
        reasons = [first.removeprefix(f"{job.source}: "), *(line.removeprefix("  - ") for line in rest)]
        return Outcome(None, tuple(reasons))
    except (OSError, MemoryError) as error:
        return Outcome(None, (f"cannot be read: {error or 'out of memory'}",))
    write(result, job.target)
    record = {
        "key": key,
        "source": job.source.name,
        "source_sha256": source_sha256,
        "source_size": list(volume.size),
        "source_spacing_mm": list(volume.spacing_mm),
        "intensity": volume.intensity,
        "not_chest": not_chest,
        "notes": [*volume.notes, not_chest] if not_chest else list(volume.notes),
        "obliquity_deg": volume.obliquity_deg,
        "preprocessing": asdict(settings),
        "size": list(result.size),
        "spacing_mm": list(result.spacing_mm),
        "affine": result.affine.tolist(),
        "sha256": sha256_file(job.target),
    }
    write_json(job.record, record)
    return Outcome(record)


def _key(job: Job, source_sha256: str) -> str:
    stated: dict[str, Any] = {
        "source": source_sha256,
        "scale": asdict(job.scale),
        "settings": asdict(job.settings),
    }
    # Whether the path says `_fixed` can settle the intensity.
    stated["fixed"] = any(part.endswith("_fixed") for part in job.source.parts)
    return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()


def _finished(job: Job, key: str) -> dict[str, Any] | None:
    """The record of an output that is whole and was made from this source in this way."""
    if not (job.target.is_file() and job.record.is_file()):
        return None
    try:
        record = read_json(job.record)
    except UserError:
        return None
    if not isinstance(record, dict) or record.get("key") != key:
        return None
    return record if record.get("sha256") == sha256_file(job.target) else None


def _content_sha256(source: Path) -> str:
    """Checksum of a file, or of a folder's files in the order of their names."""
    if not source.is_dir():
        if source.suffix.lower() in (".mhd", ".nhdr"):
            return _joined_sha256([source, *_raw_files(source)])
        return sha256_file(source)
    return _joined_sha256(sorted(file for file in source.iterdir() if file.is_file()))


def _raw_files(header: Path) -> list[Path]:
    """The files beside a detached header that carry its name: `ct.mhd` has `ct.raw` or `ct.zraw`."""
    return sorted(file for file in header.parent.glob(f"{header.stem}.*") if file != header)


def _joined_sha256(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0{sha256_file(file)}\n".encode())
    return digest.hexdigest()
