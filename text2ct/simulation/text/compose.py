"""Reports of simulated scans, and of label sets for which plausible instances are drawn."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from text2ct.errors import UserError
from text2ct.findings import FINDINGS
from text2ct.simulation.patients import Patient, Scan, draw_patient, generator
from text2ct.simulation.text.report import Mention, Report, mention, write_report

# Patients of composed texts are drawn from all cohort numbers; only their words are used.
_NUMBERS = 10**12


def report(patient: Patient, scan: Scan) -> Report:
    """The report of one scan, true of its records.

    Sides, lobes, stations, vessels and measurements are those of the records, and so are the numbers of nodules and
    nodes. What a finding looks like and where in its lobe it lies ("spiculated", "subpleural") is manner, and so are
    the statements of :mod:`text2ct.simulation.text.distractors` and small material (``SMALL_DEVICES`` of
    :mod:`text2ct.simulation.text.devices`), of which nothing is painted.
    """
    return write_report(
        scan.instances,
        generator(patient.number, "report", scan.index),
        distractors=scan.distractors,
        motion=scan.motion_mm > 0,
        contrast=scan.contrast,
        slice_thickness_mm=scan.reconstructions[0].slice_thickness_mm,
    )


def compose_mention(finding: str, rng: np.random.Generator) -> Mention:
    """A finding in words, with plausible severity, side, place and size.

    Args:
        finding: One of ``FINDINGS``.
        rng: Decides the instance and the words.
    """
    labels = np.array([name == finding for name in FINDINGS])
    scan = draw_patient(int(rng.integers(_NUMBERS)), labels=labels).scans[0]
    return mention(scan.instances[0], rng)


def compose(labels_row: ArrayLike, rng: np.random.Generator) -> Report:
    """A report that fits a label set, with plausible sides, places and sizes.

    Args:
        labels_row: (18,) in the order of ``FINDINGS``: 1 present, 0 absent, NaN unknown. Nothing is said of
            an unknown finding.
        rng: Decides the instances and the words.

    Raises:
        UserError: Not 18 values, or a value other than 0, 1 and NaN.
    """
    row = np.asarray(labels_row, dtype=float)
    if row.shape != (len(FINDINGS),):
        raise UserError(f"a label row has shape {row.shape}; expected one value for each of {len(FINDINGS)} findings")
    wrong = [
        f"{name} is {value:g}"
        for name, value in zip(FINDINGS, row, strict=True)
        if not (value in (0.0, 1.0) or np.isnan(value))
    ]
    if wrong:
        raise UserError("labels must be 0, 1 or empty", wrong)
    scan = draw_patient(int(rng.integers(_NUMBERS)), labels=row == 1.0).scans[0]
    unknown = [name for name, value in zip(FINDINGS, row, strict=True) if np.isnan(value)]
    return write_report(
        scan.instances,
        rng,
        unknown=unknown,
        distractors=scan.distractors,
        motion=scan.motion_mm > 0,
        contrast=scan.contrast,
        slice_thickness_mm=scan.reconstructions[0].slice_thickness_mm,
    )
