"""A classifier that starts from the pack's own patients: what its knowledge is worth without an image generated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from text2ct.errors import UserError
from text2ct.evaluation.arm_volumes._rendered import RenderJob, render_missing
from text2ct.findings import FINDINGS

if TYPE_CHECKING:
    from text2ct.diffusion import Pack
    from text2ct.manifests import Workspace

# Of the patients, those that choose the checkpoint.
VALIDATION_SHARE = 0.2


def pretrained_classifier(
    pack: Pack | str | Path,
    workspace: Workspace,
    folder: Path,
    *,
    classifier: str,
    steps: int,
    seed: int = 0,
    patients: int = 1000,
    device: str = "auto",
    workers: int | None = None,
    **train_options: Any,
) -> Path:
    """Train a classifier on patients that the pack was trained on, rendered anew with their findings.

    The volumes are those that the pack has seen, one of each patient, on its grid; a fifth of the patients chooses
    the checkpoint. They are rendered once for a ``folder``; each classifier and seed has a run of its own there.

    Args:
        pack: A pack, its name or its folder, trained on the simulator's own patients.
        workspace: Gives ``folder`` its root.
        folder: Where ``volumes``, ``records``, ``manifest.csv`` and the runs go; the same call goes on.
        classifier: An entry of ``text2ct.classifiers.CLASSIFIERS``.
        steps: Optimisation steps.
        seed: Of the training.
        patients: How many, the first that the pack was trained on.
        device: As for :func:`text2ct.compute.pick_device`.
        workers: Processes that render; one a core if None.
        train_options: Further arguments of :func:`text2ct.classifiers.train`.

    Returns:
        The run's folder, to be used as ``init``.

    Raises:
        UserError: The pack was not trained on simulated patients, or on fewer; and as the training.
    """
    from text2ct.classifiers import train
    from text2ct.diffusion import load_pack
    from text2ct.manifests import write_manifest

    loaded = load_pack(pack) if isinstance(pack, str | Path) else pack
    numbers = _own_patients(loaded, patients)
    folder = Path(folder)
    jobs = [_job(number, loaded, folder) for number in numbers]
    render_missing(jobs, workers)
    frame = _manifest(jobs, workspace, folder)
    write_manifest(frame, folder / "manifest.csv")
    run = folder / f"{classifier}-seed{seed}"
    trained = train(frame, workspace, run, name=classifier, steps=steps, seed=seed, device=device, **train_options)
    return Path(trained["run"])


def _own_patients(pack: Pack, patients: int) -> list[int]:
    """The first numbers of the pack's own range."""
    from text2ct.diffusion.info import SIMULATED

    if patients < 2:
        raise UserError(f"{patients} patients cannot train and choose a checkpoint; ask for 2 or more")
    ranges = [
        range(data.first, data.last + 1)
        for data in pack.info.trained_on
        if data.dataset == SIMULATED and data.first is not None and data.last is not None
    ]
    if not ranges:
        names = ", ".join(sorted({data.dataset for data in pack.info.trained_on})) or "nothing that it names"
        raise UserError(
            f"the pack '{pack.info.name}' was trained on {names}, not on simulated patients that could be rendered "
            "anew; leave out the arm of the pretrained classifier"
        )
    count = sum(map(len, ranges))
    if patients > count:
        raise UserError(f"the pack '{pack.info.name}' was trained on {count} patients; ask for that many at most")

    def numbers() -> Iterator[int]:
        for own in ranges:
            yield from own

    return [number for number, _ in zip(numbers(), range(patients), strict=False)]


def _job(number: int, pack: Pack, folder: Path) -> RenderJob:
    from text2ct.simulation.labels import scan_labels
    from text2ct.simulation.patients import draw_patient

    own = scan_labels(draw_patient(number).scans[0])
    return RenderJob(number, tuple(own.tolist()), pack.info.grid, pack.info.spacing_mm, folder)


def _manifest(jobs: list[RenderJob], workspace: Workspace, folder: Path) -> pd.DataFrame:
    """One row a patient; identities are those of the pack's ``trained_on``, so that leak checks know them."""
    from text2ct.diffusion.info import SIMULATED
    from text2ct.manifests import split_by_patient, validate

    root, prefix = workspace.root_for(folder, "pretrained")
    rows = []
    for job in jobs:
        name = str(job.number)
        row = {"dataset": SIMULATED, "volume": job.stored.name, "patient": name, "scan": name, "source": "simulated"}
        findings = dict(zip(FINDINGS, map(float, job.findings), strict=True))
        rows.append(row | findings | job.stored.columns(root, prefix))
    frame = pd.DataFrame(rows)
    frame["split"] = split_by_patient(frame, {"train": 1 - VALIDATION_SHARE, "validation": VALIDATION_SHARE})
    return validate(frame, "the pack's patients")
