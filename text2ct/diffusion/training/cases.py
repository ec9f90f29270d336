"""Training cases on disk: volumes on the pack's grid beside their reports and labels, in memory-mapped chunks.

A folder of cases is ``cases.json`` (what it was made with) and chunks, each written whole or not at all::

    chunk-00000/volumes.npy   (n, X, Y, Z) int16 HU, clipped to [-1000, 1000]
    chunk-00000/cases.json    one record per volume: id, findings, impression, labels, details, unsaid
    chunk-00000/quarantine.json   volumes that were left out and why, where there are any
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from text2ct import console
from text2ct.diffusion.training.identity import differences
from text2ct.errors import UserError
from text2ct.files import atomic_path, read_json, write_json
from text2ct.findings import FINDINGS
from text2ct.workers import available_cores, run_all

# Cases a chunk: what is rendered together, and what is read from files between two writes. Chunks of large
# volumes hold fewer, down to one.
CHUNK = 100
CHUNK_OF_FILES = 10
CHUNK_VOXELS = CHUNK * 64**3
# What an instance tells beside its label: severity, and whether it is on the right and on the left.
DETAILS = ("severity", "right", "left")
_QUARANTINE = "quarantine.json"
Size = tuple[int, int, int]
Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class CaseText:
    """What is said of one volume.

    Attributes:
        id: Patient number or volume name.
        findings: Findings section, may be empty.
        impression: Impression section, may be empty.
        labels: (18,) float32, NaN where unknown.
        details: (18, 3) float32 of ``DETAILS``, NaN where unknown or where the finding is absent.
        unsaid: Findings that are present but known to be left out of the impression.
    """

    id: str
    findings: str
    impression: str
    labels: NDArray[np.float32]
    details: NDArray[np.float32]
    unsaid: tuple[str, ...] = ()

    def text(self, variant: int = 0) -> str:
        """A prompt made of this case: 0 is findings and impression, 1 the impression, 2 the findings alone."""
        options = (f"{self.findings} {self.impression}", self.impression, self.findings)
        return options[variant].strip() or options[0].strip()

    def told(self, variant: int = 0) -> NDArray[np.bool_]:
        """(18,) bool, of which findings such a prompt tells: all but those left out, for silence denies."""
        whole = variant != 1 or not self.impression.strip()
        return np.array([whole or name not in self.unsaid for name in FINDINGS])


class Cases:
    """A folder of cases, opened for reading.

    Args:
        folder: As written by :func:`render_patients` or :func:`cache_volumes`.

    Raises:
        UserError: The folder is not one, or is incomplete.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.info: dict[str, Any] = read_json(self.folder / "cases.json")
        missing = _missing(self.folder, self.info["chunks"])
        if missing:
            raise UserError(
                f"{self.folder} lacks {len(missing)} of its {self.info['chunks']} chunks; run the same command again"
            )
        records = [read_json(_chunk(self.folder, index) / "cases.json") for index in range(self.info["chunks"])]
        self.texts = [_from_json(record) for chunk in records for record in chunk]
        if not self.texts:
            raise UserError(f"none of the volumes of {self.folder} could be read", quarantined(self.folder))
        self._starts = np.cumsum([0, *(len(chunk) for chunk in records)])
        self.labels = np.stack([text.labels for text in self.texts])
        self.details = np.stack([text.details for text in self.texts])

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def size(self) -> Size:
        """Voxels along (x, y, z)."""
        x, y, z = self.info["size"]
        return x, y, z

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what the folder was made with, and of all ids, texts and labels in their order."""
        digest = hashlib.sha256(json.dumps(self.info, sort_keys=True).encode())
        for text in self.texts:
            digest.update(json.dumps(_to_json(text)).encode())
        return digest.hexdigest()

    @property
    def volumes_hu(self) -> CaseVolumes:
        """All volumes, opened one by one when they are asked for."""
        return CaseVolumes(self, range(len(self)))

    def volume_hu(self, index: int) -> NDArray[np.int16]:
        """(X, Y, Z) int16 HU of case ``index``, mapped from disk."""
        chunk = int(np.searchsorted(self._starts, index, side="right")) - 1
        # Opened each time: a large data set has more chunks than a process may map.
        volumes = np.load(_chunk(self.folder, chunk) / "volumes.npy", mmap_mode="r")
        return volumes[index - self._starts[chunk]]


class CaseVolumes(Sequence[NDArray[np.int16]]):
    """Volumes of cases as a sequence. A list of mapped volumes would hold a file open for each.

    Args:
        cases: Whose.
        indices: Which, in this order.
    """

    def __init__(self, cases: Cases, indices: range) -> None:
        self._cases = cases
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> NDArray[np.int16]: ...

    @overload
    def __getitem__(self, index: slice) -> CaseVolumes: ...

    def __getitem__(self, index: int | slice) -> NDArray[np.int16] | CaseVolumes:
        """(X, Y, Z) int16 HU, or the volumes of a slice."""
        if isinstance(index, slice):
            return CaseVolumes(self._cases, self._indices[index])
        return self._cases.volume_hu(self._indices[index])


def render_patients(
    folder: Path, first: int, count: int, *, size: Size, spacing_mm: Spacing, workers: int | None = None
) -> Cases:
    """Render the first scan of ``count`` of the pack's own simulated patients; goes on where it was stopped.

    Args:
        folder: Where the cases go.
        first: Number of the first patient; the whole range lies in ``PACK_PATIENTS``.
        count: Number of patients.
        size: Voxels along (x, y, z).
        spacing_mm: Spacing along (x, y, z).
        workers: Processes; one per core if None.

    Raises:
        UserError: The range leaves ``PACK_PATIENTS``, or the folder holds other cases, those of another version of
            the simulator included; what differs is named.
    """
    from text2ct.simulation.cohort import COHORT_VERSION

    check_pack_patients(first, count)
    jobs = [
        (folder, index, first + start, min(CHUNK, count - start), size, spacing_mm)
        for index, start in enumerate(range(0, count, CHUNK))
    ]
    info: dict[str, Any] = {"kind": "simulated", "first": first, "count": count}
    # The simulator's version, so that patients of two simulators are never mixed.
    info |= {"size": list(size), "spacing_mm": list(spacing_mm), "cohort_version": COHORT_VERSION}
    _begin(folder, info | {"chunks": len(jobs)})
    missing = set(_missing(folder, len(jobs)))
    todo = [job for job in jobs if job[1] in missing]
    workers = workers or available_cores()
    with console.progress("rendering simulated patients", len(todo) * CHUNK) as advance:
        for _ in run_all(_render_chunk, todo, workers):
            advance(CHUNK)
    return Cases(folder)


def check_pack_patients(first: int, count: int) -> None:
    """Refuse patients that are not reserved for packs.

    Raises:
        UserError: Any of ``first .. first + count - 1`` is outside ``PACK_PATIENTS``.
    """
    from text2ct.simulation.patients import PACK_PATIENTS

    if count < 1:
        raise UserError(f"{count} patients cannot train anything; ask for 1 or more")
    if first not in PACK_PATIENTS or first + count - 1 not in PACK_PATIENTS:
        raise UserError(
            f"patients {first} to {first + count - 1} are not all reserved for packs; "
            f"choose them from {PACK_PATIENTS.start} to {PACK_PATIENTS.stop - 1}"
        )


def write_cases(
    folder: Path,
    read: Callable[[int], tuple[NDArray[np.int16], CaseText]],
    count: int,
    *,
    size: Size,
    spacing_mm: Spacing,
    source: str,
) -> Cases:
    """Write cases ``read(0)`` to ``read(count - 1)``, of volumes in files; goes on where it was stopped.

    A volume that cannot be read is quarantined (:func:`quarantined`), and the rest go on.

    Raises:
        UserError: None can be read, the folder holds other cases, or the disk is full.
    """
    each = max(1, min(CHUNK_OF_FILES, CHUNK_VOXELS // int(np.prod(size))))
    chunks = -(-count // each)
    info = {"kind": source, "count": count, "size": list(size), "spacing_mm": list(spacing_mm), "chunks": chunks}
    _begin(folder, info)
    missing = _missing(folder, chunks)
    with console.progress("reading volumes", len(missing) * each) as advance:
        for index in missing:
            batch, left_out = [], []
            for number in range(index * each, min((index + 1) * each, count)):
                try:
                    batch.append(read(number))
                except UserError as error:
                    left_out.append(str(error))
                    console.warn(f"quarantined {error}")
            if left_out:
                write_json(_chunk(folder, index) / _QUARANTINE, left_out)
            hu = [one for one, _ in batch] or np.empty((0, *size), dtype=np.int16)
            _write_chunk(_chunk(folder, index), hu, [text for _, text in batch])
            advance(each)
    return Cases(folder)


def quarantined(folder: Path) -> list[str]:
    """The volumes that were left out of a folder of cases, each with its reason."""
    return [one for file in sorted(folder.glob(f"chunk-*/{_QUARANTINE}")) for one in read_json(file)]


def cases_are_complete(folder: Path) -> bool:
    """Whether a folder of cases is there, with all its chunks."""
    path = folder / "cases.json"
    return path.is_file() and not _missing(folder, read_json(path)["chunks"])


def _missing(folder: Path, chunks: int) -> list[int]:
    return [index for index in range(chunks) if not (_chunk(folder, index) / "cases.json").is_file()]


def _chunk(folder: Path, index: int) -> Path:
    return folder / f"chunk-{index:05d}"


def _begin(folder: Path, info: dict[str, Any]) -> None:
    path = folder / "cases.json"
    differing = differences(read_json(path), info) if path.is_file() else []
    if differing:
        raise UserError(
            f"{folder} holds cases made with other settings ({'; '.join(differing)}); choose another folder or remove "
            "this one"
        )
    write_json(path, info)


def _render_chunk(job: tuple[Path, int, int, int, Size, Spacing]) -> None:
    folder, index, first, count, size, spacing_mm = job
    volumes, texts = [], []
    for number in range(first, first + count):
        hu, text = simulated_case(number, size, spacing_mm)
        volumes.append(hu)
        texts.append(text)
    _write_chunk(_chunk(folder, index), volumes, texts)


def simulated_case(
    number: int, size: Size, spacing_mm: Spacing, findings: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.int16], CaseText]:
    """Render one patient's first scan, in one of its reconstructions, with its report.

    Args:
        number: The patient's number.
        size: Voxels along (x, y, z).
        spacing_mm: Spacing along (x, y, z).
        findings: (18,) bool, what the scan shows; the patient's own findings if None.
    """
    from text2ct.simulation.patients import draw_patient
    from text2ct.simulation.render import render
    from text2ct.simulation.text import report

    patient = draw_patient(number, labels=findings)
    scan = patient.scans[0]
    reconstruction = number % len(scan.reconstructions)
    hu = np.clip(np.rint(render(patient, 0, reconstruction, size, spacing_mm)), -1000, 1000).astype(np.int16)
    said = report(patient, scan)
    labels = np.zeros(len(FINDINGS), dtype=np.float32)
    details = np.full((len(FINDINGS), len(DETAILS)), np.nan, dtype=np.float32)
    for instance in scan.instances:
        row = FINDINGS.index(instance.finding)
        labels[row] = 1
        sides = (instance.side in ("right", "bilateral"), instance.side in ("left", "bilateral"))
        details[row] = (instance.severity, *(sides if instance.side else (np.nan, np.nan)))
    return hu, CaseText(str(number), said.findings, said.impression, labels, details, said.unsaid)


def _write_chunk(folder: Path, volumes: Sequence[NDArray[np.int16]] | NDArray, texts: list[CaseText]) -> None:
    with atomic_path(folder / "volumes.npy") as temporary:
        np.save(temporary, np.asarray(volumes))
    write_json(folder / "cases.json", [_to_json(text) for text in texts])


def _to_json(text: CaseText) -> dict[str, Any]:
    def known(values: NDArray[np.float32]) -> list[Any]:
        return [None if np.isnan(value) else round(float(value), 4) for value in values]

    return {
        "id": text.id,
        "findings": text.findings,
        "impression": text.impression,
        "labels": known(text.labels),
        "details": [known(row) for row in text.details],
        # Only where there are any: records without it, and their digest, stay what they were.
        **({"unsaid": list(text.unsaid)} if text.unsaid else {}),
    }


def _from_json(record: dict[str, Any]) -> CaseText:
    labels = np.array([np.nan if v is None else v for v in record["labels"]], dtype=np.float32)
    details = np.array([[np.nan if v is None else v for v in row] for row in record["details"]], dtype=np.float32)
    unsaid = tuple(record.get("unsaid", ()))
    return CaseText(record["id"], record["findings"], record["impression"], labels, details, unsaid)
