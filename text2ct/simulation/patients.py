"""Who is scanned and how: patients, scans and reconstructions, each drawn from its own random stream."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from text2ct.errors import UserError
from text2ct.findings import FINDINGS
from text2ct.simulation.instance import Distractor, Instance
from text2ct.simulation.labels import draw_age, draw_count, draw_labels, draw_sex, fitted

MAX_SEED = 10**6
MAX_PATIENTS = 10**6

# Patients that only the bundled pack may be trained on. The largest number that `patient_number` can give is
# 10**12 - 1, so no cohort of any seed contains one of them.
PACK_PATIENTS = range(10**12, 10**12 + 10**7)
# Of these, the first that judges of generated volumes learn from; no pack is trained on it or on a later one.
FIRST_JUDGED = PACK_PATIENTS.start + 8 * 10**6
# And the first that figures are measured on: neither a pack nor a judge has seen them.
FIRST_MEASURED = PACK_PATIENTS.start + 9 * 10**6
# Patients that a benchmark draws to show what a perfect generator would bring: no cohort contains one and no pack is
# trained on one. So many that numbers picked by a digest do not meet, and small enough for a float64 to hold.
ORACLE_PATIENTS = range(PACK_PATIENTS.stop, 10**15)

_MOTION_SHARE = 0.1  # of scans in which breath or heart beat blurs what lies near diaphragm and heart

# Findings that come and go between two scans of a patient; the others stay, with their draws: side, size and, as
# far as another breath leaves room there, place.
TRANSIENT = frozenset(
    {
        "Pericardial effusion",
        "Atelectasis",
        "Lung opacity",
        "Pleural effusion",
        "Consolidation",
        "Interlobular septal thickening",
        "Mosaic attenuation pattern",
    }
)


@dataclass(frozen=True)
class Acquisition:
    """How one reconstruction of a scan was made.

    Args:
        kernel: "soft" (mediastinal) or "sharp" (lung): resolution and noise texture.
        noise_hu: Standard deviation of the noise in soft tissue in voxels of 1.5 mm, HU.
        slice_thickness_mm: Full width at half maximum of the slice profile along z.
    """

    kernel: str
    noise_hu: float
    slice_thickness_mm: float


@dataclass(frozen=True)
class Scan:
    """One examination of a patient.

    Args:
        letter: "a" for the first scan, "b" for the next.
        instances: The findings present, in the order of `FINDINGS`.
        contrast: Whether intravenous contrast was given.
        inspiration: Depth of breath in [0, 1]; 1 is full inspiration.
        arms_up: Whether the arms are raised out of the field (they lie beside the body otherwise).
        reconstructions: At least one; they differ in nothing but acquisition.
        index: Place of the scan in the patient's history, from 0; names its random streams.
        distractors: What is seen beside the findings; it lasts, so all scans of a patient show it.
        motion_mm: How far diaphragm and heart moved during the scan; 0 in most scans.
    """

    letter: str
    instances: tuple[Instance, ...]
    contrast: bool
    inspiration: float
    arms_up: bool
    reconstructions: tuple[Acquisition, ...]
    index: int = 0
    distractors: tuple[Distractor, ...] = ()
    motion_mm: float = 0.0


@dataclass(frozen=True)
class Patient:
    """One simulated patient.

    Args:
        number: The patient's number; every random stream of the patient starts from it.
        sex: "M" or "F".
        age: Years, 18 to 96.
        habitus: From 0 (thin) to 1 (obese).
        height_scale: Body height relative to the mean adult, about 0.9 to 1.1.
        scans: At least one.
    """

    number: int
    sex: str
    age: int
    habitus: float
    height_scale: float
    scans: tuple[Scan, ...]


def patient_number(seed: int, index: int) -> int:
    """The number of patient ``index`` of the cohort with ``seed``; never of `PACK_PATIENTS` or `ORACLE_PATIENTS`.

    Args:
        seed: Cohort seed, 0 <= seed < `MAX_SEED`.
        index: Place in the cohort, 0 <= index < `MAX_PATIENTS`.

    Raises:
        UserError: Either is out of range.
    """
    if not 0 <= seed < MAX_SEED:
        raise UserError(f"the cohort seed {seed} is out of range; choose one from 0 to {MAX_SEED - 1}")
    if not 0 <= index < MAX_PATIENTS:
        raise UserError(f"patient index {index} is out of range; a cohort has patients 0 to {MAX_PATIENTS - 1}")
    return int(seed) * MAX_PATIENTS + int(index)  # numpy's narrow integers would overflow


def generator(number: int, *stream: int | str) -> np.random.Generator:
    """The random generator of one named stream of a patient.

    Streams are independent, so what one part of a patient draws never shifts another part.

    Args:
        number: The patient's number.
        stream: Names or indices, such as ``("finding", 0, "Lung nodule")``.
    """
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in stream]
    # The stream goes into the spawn key: in a list of entropy, trailing zeros would not count.
    return np.random.default_rng(np.random.SeedSequence(number, spawn_key=tuple(words)))


def finding_generator(number: int, purpose: str, scan: int, finding: str) -> np.random.Generator:
    """The stream of a finding in a scan, always from its start; one that lasts has the same in all scans.

    Args:
        number: The patient's number.
        purpose: "finding" to draw the instance, "apply" to paint it.
        scan: Index of the scan.
        finding: Its name in `FINDINGS`.
    """
    return generator(number, purpose, scan if finding in TRANSIENT else 0, finding)


def draw_patient(number: int, prevalence: str = "ct-rate", labels: NDArray[np.bool_] | None = None) -> Patient:
    """Draw a patient: person, scans, findings and reconstructions.

    Args:
        number: The patient's number (`patient_number`, or one of `PACK_PATIENTS` or `ORACLE_PATIENTS`).
        prevalence: How labels are drawn; "ct-rate" is CT-RATE's prevalence and co-occurrence.
        labels: ``(18,)`` bool, the findings of every scan in the order of `FINDINGS`; drawn when None.
            Choosing them changes nothing else of the patient.

    Raises:
        UserError: The number is negative or beyond the oracle's, or the prevalence is unknown.
    """
    from text2ct.simulation import distractors
    from text2ct.simulation import findings as models

    if not 0 <= number < ORACLE_PATIENTS.stop:
        raise UserError(f"there is no patient {number}; numbers go from 0 to {ORACLE_PATIENTS.stop - 1}")
    if prevalence != "ct-rate":
        raise UserError(f"unknown prevalence {prevalence!r}; the only one is 'ct-rate'")
    if labels is not None and np.shape(labels) != (len(FINDINGS),):
        raise UserError(
            f"labels have shape {np.shape(labels)}; expected one value for each of {len(FINDINGS)} findings"
        )
    rng = generator(number, "person")
    sex = draw_sex(rng)
    person = Patient(
        number=number,
        sex=sex,
        age=draw_age(rng),
        habitus=float(rng.beta(2.2, 2.6)),
        height_scale=float(np.clip(rng.normal(1.02 if sex == "M" else 0.97, 0.035), 0.88, 1.12)),
        scans=(),
    )
    beside = distractors.draw(generator(number, "distractors"), person)
    scans: list[Scan] = []
    present = np.zeros(len(FINDINGS), bool)
    for index in range(draw_count(rng, fitted().scans_per_patient)):
        present = _scan_labels(person, index, present) if labels is None else np.asarray(labels, bool)
        instances = tuple(
            models.draw(name, finding_generator(number, "finding", index, name), person)
            for name, positive in zip(FINDINGS, present, strict=True)
            if positive
        )
        scans.append(_draw_scan(number, index, instances, beside))
    return Patient(**{**person.__dict__, "scans": tuple(scans)})


def _scan_labels(person: Patient, index: int, before: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Labels of scan ``index``; after the first scan only the transient findings are drawn anew."""
    drawn = np.asarray(draw_labels(generator(person.number, "labels", index), person.age, person.sex), bool)
    if index == 0:
        return drawn
    transient = np.array([name in TRANSIENT for name in FINDINGS])
    return np.where(transient, drawn, before)


def _draw_scan(number: int, index: int, instances: tuple[Instance, ...], beside: tuple[Distractor, ...]) -> Scan:
    moment = generator(number, "motion", index)
    moved = moment.random() < _MOTION_SHARE
    rng = generator(number, "scan", index)
    noise = float(rng.uniform(8.0, 22.0))  # HU in soft tissue at 1.5 mm, soft kernel
    thickness = float(rng.choice([1.0, 1.5, 3.0]))
    soft = Acquisition("soft", noise, thickness)
    sharp = Acquisition("sharp", 2.0 * noise, 1.0)
    # Mostly one soft and one sharp.
    reconstructions: tuple[Acquisition, ...] = (soft, sharp, Acquisition("soft", 0.7 * noise, 5.0))
    count = draw_count(rng, fitted().reconstructions_per_scan)
    if count == 1 and rng.random() < 0.4:
        reconstructions = (sharp,)
    return Scan(
        letter="abcdefgh"[index],
        instances=instances,
        contrast=bool(rng.random() < 0.3),
        inspiration=float(np.clip(rng.normal(0.7, 0.2), 0.05, 1.0)),
        arms_up=bool(rng.random() < 0.85),
        reconstructions=reconstructions[:count],
        index=index,
        distractors=beside,
        motion_mm=float(moment.uniform(1.0, 4.0)) if moved else 0.0,
    )
