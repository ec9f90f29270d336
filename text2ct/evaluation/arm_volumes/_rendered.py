"""Simulated patients rendered to files, in processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from text2ct import console
from text2ct.errors import UserError
from text2ct.evaluation.arm_volumes._stored import StoredVolume, key_of
from text2ct.findings import FINDINGS
from text2ct.workers import available_cores, run_all

Size = tuple[int, int, int]
Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class RenderJob:
    """A patient's first scan, to be rendered in one of its reconstructions.

    Args:
        number: The patient's number.
        findings: The 18 findings that the scan shows.
        size: Voxels along (x, y, z).
        spacing_mm: Spacing along (x, y, z).
        folder: The arm's folder.
    """

    number: int
    findings: tuple[bool, ...]
    size: Size
    spacing_mm: Spacing
    folder: Path

    @property
    def stored(self) -> StoredVolume:
        """Where it goes; the simulator's version decides the voxels too."""
        from text2ct.simulation.cohort import COHORT_VERSION

        key = key_of("rendered", self.number, self.findings, self.size, self.spacing_mm, COHORT_VERSION)
        return StoredVolume(self.folder, f"simulated_{self.number}.nii.gz", key)


def render_missing(jobs: Sequence[RenderJob], workers: int | None = None) -> None:
    """Render what is not there yet; the bytes do not depend on the number of processes (one a core if None).

    Raises:
        UserError: An impossible grid or number of processes.
    """
    from text2ct.simulation.render import check_grid

    if workers is not None and workers < 1:
        raise UserError(f"{workers} worker processes cannot do anything; choose at least 1")
    for size, spacing_mm in {(job.size, job.spacing_mm) for job in jobs}:
        check_grid(size, spacing_mm)
    missing = [job for job in jobs if not job.stored.is_done()]
    with console.progress("rendering simulated patients", len(missing)) as advance:
        for _ in run_all(_render, missing, workers or available_cores()):
            advance(1)


def _render(job: RenderJob) -> None:
    from text2ct.diffusion.training.cases import simulated_case
    from text2ct.simulation.cohort import centred_affine
    from text2ct.volumes import Volume

    asked = np.array(job.findings, dtype=bool)
    hu, case = simulated_case(job.number, job.size, job.spacing_mm, asked)
    _check_labels(job.number, asked, case.labels)
    job.stored.write(Volume(hu.astype(np.float32), centred_affine(job.size, job.spacing_mm)))


def _check_labels(number: int, asked: NDArray[np.bool_], shown: NDArray[np.float32]) -> None:
    wrong = [name for name, a, b in zip(FINDINGS, asked, shown, strict=True) if float(a) != float(b)]
    if wrong:
        raise UserError(f"the simulator gave patient {number} other findings than asked: {', '.join(wrong)}")
