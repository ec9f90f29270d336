"""Rows of CT-RATE's metadata table for simulated volumes: true geometry, plausible everything else.

Scanners, kernels and their shares, tube currents, doses and dates follow summary statistics of CT-RATE's
validation metadata; geometry, patient and slice count are those of the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from text2ct.simulation.patients import Acquisition, Patient, generator

COLUMNS: tuple[str, ...] = (
    "VolumeName",
    "Manufacturer",
    "SeriesDescription",
    "ManufacturerModelName",
    "PatientSex",
    "PatientAge",
    "ReconstructionDiameter",
    "DistanceSourceToDetector",
    "DistanceSourceToPatient",
    "GantryDetectorTilt",
    "TableHeight",
    "RotationDirection",
    "ExposureTime",
    "XRayTubeCurrent",
    "Exposure",
    "FilterType",
    "GeneratorPower",
    "FocalSpots",
    "ConvolutionKernel",
    "PatientPosition",
    "RevolutionTime",
    "SingleCollimationWidth",
    "TotalCollimationWidth",
    "TableSpeed",
    "TableFeedPerRotation",
    "SpiralPitchFactor",
    "DataCollectionCenterPatient",
    "ReconstructionTargetCenterPatient",
    "ExposureModulationType",
    "CTDIvol",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "SliceLocation",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "Rows",
    "Columns",
    "XYSpacing",
    "RescaleIntercept",
    "RescaleSlope",
    "RescaleType",
    "NumberofSlices",
    "ZSpacing",
    "StudyDate",
)


@dataclass(frozen=True)
class _Scanner:
    """What a scanner writes into its headers; ``kernels`` and ``series`` by kind of reconstruction."""

    share: float
    manufacturer: str
    model: str
    kernels: dict[str, str]
    series: dict[str, str]
    intercept: int
    modulation: str
    exposure_time_ms: int


_SCANNERS = (
    _Scanner(
        0.53,
        "Philips",
        "iCT 256",
        {"soft": "B", "sharp": "YA"},
        {"soft": "", "sharp": "HRCT"},
        -1024,
        "Z DOM",
        622,
    ),
    _Scanner(
        0.28,
        "Siemens Healthineers",
        "SOMATOM go.All",
        {"soft": "['Br40f', '3']", "sharp": "['Br60f', '3']"},
        {"soft": "Thorax 1,50 Br40 S3", "sharp": "Thorax 1,50 Br60 S3"},
        -8192,
        "OFF_OFF",
        507,
    ),
    _Scanner(
        0.11,
        "Philips",
        "Brilliance Big Bore",
        {"soft": "A", "sharp": "L"},
        {"soft": "", "sharp": "HRCT"},
        -1024,
        "Z DOM",
        923,
    ),
    _Scanner(
        0.05,
        "PNMS",
        "MX 16",
        {"soft": "SA", "sharp": "EA"},
        {"soft": "Toraks", "sharp": "HRCT"},
        -1024,
        "Z DOM",
        1000,
    ),
    _Scanner(
        0.03,
        "SIEMENS",
        "SOMATOM Force",
        {"soft": "['Br36d', '3']", "sharp": "['Bl57d', '3']"},
        {"soft": "Thorax  Mediasten 1.5  Br36  3", "sharp": "Thorax  Lung 1.5  Bl57  3"},
        -1024,
        "XYZ_EC",
        275,
    ),
)


_FIRST_DAY, _LAST_DAY = date(2017, 1, 1), date(2022, 12, 31)
_GAP_DAYS = (30, 365)  # between two scans of a patient, whose age is that of all of them


def study_date(patient: Patient, scan: int) -> date:
    """The day of scan ``scan``, counted from 0; a patient's scans follow each other in the order of their letters."""
    rng = generator(patient.number, "dates")
    gaps = rng.integers(*_GAP_DAYS, size=len(patient.scans) - 1, endpoint=True)
    first = int(rng.integers((_LAST_DAY - _FIRST_DAY).days - gaps.sum(), endpoint=True))
    return _FIRST_DAY + timedelta(days=first + int(gaps[:scan].sum()))


def metadata_row(
    volume: str,
    patient: Patient,
    scan: int,
    acquisition: Acquisition,
    size: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
) -> dict[str, object]:
    """One row of the metadata table.

    Args:
        volume: The volume's name, such as ``train_1_a_1.nii.gz``.
        patient: Whose volume.
        scan: Index into ``patient.scans``; reconstructions of a scan share scanner, dose and date.
        acquisition: The reconstruction.
        size: Voxels along x, y, z.
        spacing_mm: Voxel spacing of the file.

    Returns:
        A value for each of ``COLUMNS``; "" where CT-RATE often has none.
    """
    rng = generator(patient.number, "metadata", scan)
    shares = np.array([scanner.share for scanner in _SCANNERS])
    scanner = _SCANNERS[int(rng.choice(len(_SCANNERS), p=shares / shares.sum()))]
    current = int(np.clip(rng.lognormal(5.24, 0.42), 44, 794))  # CT-RATE: median 178 mA, 5 to 95%: 107 to 478
    dose = float(np.clip(rng.lognormal(1.55, 0.5), 0.9, 33.0))  # CTDIvol, CT-RATE: median 4.6 mGy
    corner = [-(count - 1) / 2 * step for count, step in zip(size, spacing_mm, strict=True)]
    row: dict[str, object] = dict.fromkeys(COLUMNS, "")
    row |= {
        "VolumeName": volume,
        "Manufacturer": scanner.manufacturer,
        "SeriesDescription": scanner.series[acquisition.kernel],
        "ManufacturerModelName": scanner.model,
        "PatientSex": patient.sex,
        "PatientAge": f"{patient.age:03d}Y",
        "ReconstructionDiameter": round(size[0] * spacing_mm[0], 3),
        "GantryDetectorTilt": 0,
        "TableHeight": round(float(rng.normal(135, 30)), 1),
        "RotationDirection": "CW",
        "ExposureTime": scanner.exposure_time_ms,
        "XRayTubeCurrent": current,
        "Exposure": round(current * scanner.exposure_time_ms / 1000),
        "ConvolutionKernel": scanner.kernels[acquisition.kernel],
        "PatientPosition": "HFS",
        "ExposureModulationType": scanner.modulation,
        "CTDIvol": round(dose, 4),
        "ImagePositionPatient": str([round(value, 4) for value in corner]),
        "ImageOrientationPatient": "[1, 0, 0, 0, 1, 0]",
        "SliceLocation": round(corner[2], 4),
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": size[1],
        "Columns": size[0],
        # DICOM gives the distance of rows (y) first.
        "XYSpacing": str([spacing_mm[1], spacing_mm[0]]),
        "RescaleIntercept": scanner.intercept,
        "RescaleSlope": 1,
        "RescaleType": "HU",
        "NumberofSlices": size[2],
        "ZSpacing": spacing_mm[2],
        "StudyDate": int(f"{study_date(patient, scan):%Y%m%d}"),
    }
    return row
