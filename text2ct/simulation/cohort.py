"""A simulated cohort on disk, in CT-RATE's own layout."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from text2ct.console import info, progress
from text2ct.errors import UserError
from text2ct.files import read_json, write_json, write_text
from text2ct.findings import FINDINGS
from text2ct.locks import LOCK, working_in
from text2ct.simulation.labels import scan_labels
from text2ct.simulation.metadata import COLUMNS, metadata_row
from text2ct.simulation.patients import MAX_PATIENTS, Patient, draw_patient, patient_number
from text2ct.workers import available_cores, run_all

# Raised by one whenever the same request would give other bytes, so that old cohorts are not mixed with new.
COHORT_VERSION = 6

# Measured on one core (0.10 s at 64^3, 0.8 s at 128^3) and rounded up: a fixed part and seconds for each million
# voxels; and bytes a voxel after compression.
_SECONDS_PER_VOLUME, _SECONDS_PER_MEGAVOXEL, _BYTES_PER_VOXEL = 0.05, 0.5, 1.15
# A volume's file before compression: NIfTI's header, then int16 voxels.
_HEADER_BYTES, _VOXEL_BYTES = 352, 2
_REPORT_COLUMNS = ("VolumeName", "ClinicalInformation_EN", "Technique_EN", "Findings_EN", "Impressions_EN")


@dataclass(frozen=True)
class _Request:
    """What decides every byte of a cohort."""

    seed: int
    patients: int
    size: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    valid_fraction: float

    def record(self) -> dict[str, Any]:
        """The content of ``simulation.json``."""
        return {
            "dataset": f"simulated-seed{self.seed}",
            "seed": self.seed,
            "patients": self.patients,
            "size": list(self.size),
            "spacing_mm": list(self.spacing_mm),
            "valid_fraction": self.valid_fraction,
            "version": COHORT_VERSION,
        }


@dataclass(frozen=True)
class _Member:
    """One patient's place in a cohort."""

    part: str
    name: str
    number: int


@dataclass(frozen=True)
class _Job:
    """One volume to render; small, since it travels to another process."""

    number: int
    scan: int
    reconstruction: int
    size: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    target: str


def simulate_cohort(
    out: Path | str,
    patients: int,
    seed: int = 0,
    size: tuple[int, int, int] = (64, 64, 64),
    spacing_mm: tuple[float, float, float] = (5.0, 5.0, 5.0),
    valid_fraction: float = 0.4,
    workers: int | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Write a cohort: volumes, labels, reports, metadata and ``simulation.json``.

    The same request gives the same bytes with any number of workers. A cohort that was interrupted goes on
    where it stopped; a volume that is not whole is rendered again.

    Args:
        out: Folder to write to: new, empty, or an unfinished cohort of the same request.
        patients: How many patients; each has one or more scans with one or more reconstructions.
        seed: Which cohort; cohorts of different seeds share no patient, nor do they share any with the
            bundled pack. Cohorts of one seed do share patients, under other names where ``valid_fraction``
            differs: what is to be independent needs another seed.
        size: Voxels along x, y, z.
        spacing_mm: Voxel spacing.
        valid_fraction: Share of patients in CT-RATE's ``valid``, in [0, 1); the others are ``train``.
        workers: Processes; None takes one for each core.
        dry_run: Write nothing; say how long what is missing would take and how much disk.

    Returns:
        ``root``, ``manifest``, ``patients``, ``scans``, ``volumes``, ``rendered`` and ``resumed``
        (volumes that were there), or for a dry run ``seconds`` and ``megabytes`` in place of the last two.

    Raises:
        UserError: Zero patients, a seed or grid out of range, a folder that holds something else, or too
            little memory for a volume.
    """
    request = _checked(patients, seed, size, spacing_mm, valid_fraction)
    workers = _workers(workers)
    root = Path(out)
    with working_in(root, unless=dry_run, instead="choose another folder"):
        _check_folder(root, request)
        members = _drawn(request)
        jobs = [job for member, patient in members for job in _jobs(root, member, patient, request)]
        missing = [job for job in jobs if not _is_whole(job)]
        counts: dict[str, Any] = {
            "root": str(root),
            "manifest": str(root / "manifest.csv"),
            "patients": len(members),
            "scans": sum(len(patient.scans) for _, patient in members),
            "volumes": len(jobs),
        }
        if dry_run:
            voxels = float(np.prod(request.size))
            seconds = _SECONDS_PER_VOLUME + _SECONDS_PER_MEGAVOXEL * voxels / 1e6
            estimate = {
                "seconds": round(len(missing) * seconds / workers, 1),
                "megabytes": round(len(missing) * voxels * _BYTES_PER_VOXEL / 1e6, 1),
            }
            there = f" ({len(jobs) - len(missing)} more are there)" if len(missing) < len(jobs) else ""
            info(
                f"would write {len(missing)} volumes of {counts['patients']} patients to {root}{there}: "
                f"about {estimate['seconds']:g} s with {workers} processes and {estimate['megabytes']:g} MB"
            )
            return counts | estimate
        write_json(root / "simulation.json", request.record())
        _write_tables(root, members, request)
        with progress("simulating", len(jobs)) as advance:
            advance(len(jobs) - len(missing))
            for _ in _run(missing, workers):
                advance(1)
        _write_manifest(root)
        return counts | {"rendered": len(missing), "resumed": len(jobs) - len(missing)}


def _checked(
    patients: int, seed: int, size: Sequence[int], spacing_mm: Sequence[float], valid_fraction: float
) -> _Request:
    from text2ct.simulation.render import check_grid

    if not 1 <= patients <= MAX_PATIENTS:
        raise UserError(f"a cohort needs 1 to {MAX_PATIENTS} patients, not {patients}; choose another --patients")
    if not 0.0 <= valid_fraction < 1.0:
        raise UserError(f"the share of validation patients is {valid_fraction}; expected at least 0 and below 1")
    patient_number(seed, patients - 1)
    if len(size) != 3 or len(spacing_mm) != 3:
        raise UserError(f"a grid needs three sizes and three spacings, not {tuple(size)} and {tuple(spacing_mm)}")
    x, y, z = (int(count) for count in size)
    dx, dy, dz = (float(step) for step in spacing_mm)
    check_grid((x, y, z), (dx, dy, dz))
    return _Request(int(seed), int(patients), (x, y, z), (dx, dy, dz), float(valid_fraction))


def _workers(workers: int | None) -> int:
    if workers is not None and workers < 1:
        raise UserError(f"{workers} worker processes cannot do anything; choose at least 1")
    if workers is not None:
        return workers
    return available_cores()


def _check_folder(root: Path, request: _Request) -> None:
    """Refuse a folder that is no cohort, or the cohort of another request."""
    if root.exists() and not root.is_dir():
        raise UserError(f"{root} is a file; choose a folder for the cohort")
    if not root.is_dir() or all(path.name in (LOCK, ".partial-simulation.json") for path in root.iterdir()):
        return
    record = root / "simulation.json"
    if not record.is_file():
        raise UserError(f"{root} is not empty and holds no simulated cohort; choose a new folder")
    stored, wanted = read_json(record), request.record()
    if stored != wanted:
        old = stored if isinstance(stored, dict) else {}
        raise UserError(
            f"{root} holds another cohort; choose a new folder, or remove it to simulate again",
            [f"{key} was {old.get(key)}, now {value}" for key, value in wanted.items() if old.get(key) != value],
        )


def _members(request: _Request) -> Iterator[_Member]:
    """Patients in order, those of ``valid`` spread evenly: a longer cohort starts with a shorter one."""
    counts = {"train": 0, "valid": 0}
    for index in range(request.patients):
        # A small bias keeps sums such as 5 * 0.4 from falling just short of a whole number.
        before, after = (int(step * request.valid_fraction + 1e-9) for step in (index, index + 1))
        part = "valid" if after > before else "train"
        counts[part] += 1
        yield _Member(part, f"{part}_{counts[part]}", patient_number(request.seed, index))


def _drawn(request: _Request) -> list[tuple[_Member, Patient]]:
    """The patients themselves: a thousand take less than a second, a million some minutes."""
    drawn = []
    with progress("drawing patients", request.patients) as advance:
        for member in _members(request):
            drawn.append((member, draw_patient(member.number)))
            advance(1)
    return drawn


def _volumes(member: _Member, patient: Patient) -> Iterator[tuple[str, int, int]]:
    """Name (``train_1_a_1.nii.gz``), scan and reconstruction of each volume of a patient."""
    for scan_index, scan in enumerate(patient.scans):
        for index in range(len(scan.reconstructions)):
            yield f"{member.name}_{scan.letter}_{index + 1}.nii.gz", scan_index, index


def _jobs(root: Path, member: _Member, patient: Patient, request: _Request) -> Iterator[_Job]:
    for volume, scan, reconstruction in _volumes(member, patient):
        folder = root / "dataset" / f"{member.part}_fixed" / member.name / f"{member.name}_{patient.scans[scan].letter}"
        yield _Job(member.number, scan, reconstruction, request.size, request.spacing_mm, str(folder / volume))


def _is_whole(job: _Job) -> bool:
    """Whether the volume is there to its end: a gzip file's last four bytes are its content's length (RFC 1952)."""
    target = Path(job.target)
    if not target.is_file() or target.stat().st_size < 4:
        return False
    with target.open("rb") as stream:
        stream.seek(-4, os.SEEK_END)
        length = int.from_bytes(stream.read(), "little")
    return length == (_HEADER_BYTES + _VOXEL_BYTES * math.prod(job.size)) % 2**32


def _run(jobs: Sequence[_Job], workers: int) -> Iterator[None]:
    """Render all jobs, here or in processes that share nothing but their job."""
    try:
        yield from run_all(_render, jobs, workers, chunksize=max(1, min(8, len(jobs) // (4 * workers))))
    except MemoryError as error:
        voxels = " x ".join(str(count) for count in jobs[0].size)
        raise UserError(
            f"a volume of {voxels} voxels does not fit into memory; choose a smaller grid or fewer workers"
        ) from error


def _render(job: _Job) -> None:
    """Render and write one volume, centred on the world's origin."""
    from text2ct.simulation.render import render
    from text2ct.volumes import Volume, write

    affine = centred_affine(job.size, job.spacing_mm)
    hu = render(draw_patient(job.number), job.scan, job.reconstruction, job.size, job.spacing_mm)
    write(Volume(hu, affine), Path(job.target))


def centred_affine(size: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> NDArray[np.float64]:
    """(4, 4) voxel to RAS+ world in mm, with the middle of the grid at the origin: where rendered volumes lie."""
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = [-(count - 1) / 2 * step for count, step in zip(size, spacing_mm, strict=True)]
    return affine


def _write_tables(root: Path, members: Sequence[tuple[_Member, Patient]], request: _Request) -> None:
    """Write labels, reports and metadata of ``train`` and ``valid``; a part without patients has none."""
    from text2ct.simulation.text import report

    for part in ("train", "valid"):
        labels: list[list[object]] = []
        reports: list[list[object]] = []
        metadata: list[list[object]] = []
        for member, patient in members:
            if member.part != part:
                continue
            texts = [report(patient, scan) for scan in patient.scans]
            for volume, scan, reconstruction in _volumes(member, patient):
                text = texts[scan]
                acquisition = patient.scans[scan].reconstructions[reconstruction]
                row = metadata_row(volume, patient, scan, acquisition, request.size, request.spacing_mm)
                labels.append([volume, *scan_labels(patient.scans[scan]).astype(int).tolist()])
                reports.append([volume, text.clinical, text.technique, text.findings, text.impression])
                metadata.append([row[column] for column in COLUMNS])
        if labels:
            _write_csv(
                root / "multi_abnormality_labels" / f"{part}_predicted_labels.csv",
                ("VolumeName", *FINDINGS),
                labels,
            )
            _write_csv(root / "radiology_text_reports" / f"{part}_reports.csv", _REPORT_COLUMNS, reports)
            _write_csv(root / "metadata" / f"{part}_metadata.csv", COLUMNS, metadata)


def _write_manifest(root: Path) -> None:
    """Write ``manifest.csv``, its paths relative to the cohort's folder."""
    from text2ct.manifests import read, write_manifest

    write_manifest(read(root), root / "manifest.csv")


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_text(path, stream.getvalue())
