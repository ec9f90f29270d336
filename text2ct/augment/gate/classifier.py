"""The gate's classifier: trained here on the real training split, or a finished run that saw nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from text2ct.augment._scans import label_matrix
from text2ct.augment.gate.config import GateConfig
from text2ct.augment.gate.record import GateClassifier
from text2ct.engines import LOCAL, Engine
from text2ct.errors import UserError, first_of
from text2ct.manifests import Workspace


def own_run(real: pd.DataFrame, workspace: Workspace, config: GateConfig, seed: int) -> Path:
    """Where the gate's own classifier lies: the same real data and settings find the same one again.

    It lies below ``classifiers/gate``, where no command looks for the newest classifier to be scored.
    """
    settings = config.classifier
    digest = hashlib.sha256(settings.model_dump_json().encode())
    digest.update(repr((config.size, config.spacing_mm)).encode())
    rows = _rows(real)
    for row in rows[["dataset", "volume", "split", "sha256"]].itertuples(index=False, name=None):
        digest.update(repr(row).encode())
    digest.update(np.ascontiguousarray(label_matrix(rows)).tobytes())
    return workspace.run_dir("classifiers", "gate") / f"{settings.name}-seed{seed}-{digest.hexdigest()[:8]}"


def train_own(
    real: pd.DataFrame, workspace: Workspace, config: GateConfig, seed: int, *, device: str, dry_run: bool = False
) -> dict[str, Any]:
    """Train the gate's own classifier, or find it trained; returns what ``classifiers.train`` does."""
    from text2ct.classifiers import train

    settings = config.classifier
    return train(
        _rows(real),
        workspace,
        own_run(real, workspace, config, seed),
        name=settings.name,
        steps=settings.steps,
        batch_size=settings.batch_size,
        seed=seed,
        size=config.size,
        spacing_mm=config.spacing_mm,
        options=settings.options,
        device=device,
        dry_run=dry_run,
    )


def refuse_unfit(run: Path, real: pd.DataFrame) -> None:
    """Refuse a classifier that knows more than the real training split.

    Raises:
        UserError: It was trained on synthetic volumes, on patients that are not in the training split of ``real``,
            or its checkpoint was chosen on patients that are not in train or validation.
    """
    from text2ct.classifiers import prompt_volumes, training_patients
    from text2ct.classifiers.runs import validation_patients

    split_of = dict(zip(zip(real["dataset"], real["patient"], strict=True), real["split"], strict=True))
    problems = [f"{volume}: the report of a synthetic training volume" for _, volume in prompt_volumes(run)]
    problems += _outside(training_patients(run), split_of, ("train",), "trained on")
    problems += _outside(validation_patients(run), split_of, ("train", "validation"), "chosen on")
    if problems:
        raise UserError(
            f"{run} cannot be the gate: a gate is trained on the real training split and on nothing else; train one "
            "on the real manifest, or leave out --classifier",
            first_of(problems),
        )


def _outside(
    patients: Iterable[tuple[str, str]], split_of: dict[tuple[str, str], str], allowed: tuple[str, ...], how: str
) -> list[str]:
    found = []
    for dataset, patient in sorted(patients):
        split = split_of.get((dataset, patient))
        if split not in allowed:
            where = "not in the real manifest" if split is None else f"in the split '{split}'"
            found.append(f"{dataset}/{patient}: {how}, and {where}")
    return found


def describe(run: Path, workspace: Workspace) -> GateClassifier:
    """What the record says of a finished run.

    Raises:
        UserError: The run is missing, unfinished or damaged.
    """
    from text2ct.classifiers.runs import load_classifier

    _, config = load_classifier(run)
    assert config.model is not None  # load_classifier refuses it otherwise
    folder = run.resolve()
    inside = folder.is_relative_to(workspace.path.resolve())
    return GateClassifier(
        name=config.classifier,
        seed=config.training.seed,
        sha256=config.model.sha256,
        run=folder.relative_to(workspace.path.resolve()).as_posix() if inside else str(folder),
    )


def sift(
    real: pd.DataFrame, workspace: Workspace, config: GateConfig, engine: Engine = LOCAL
) -> tuple[pd.DataFrame, list[str]]:
    """A real manifest without training and validation volumes that cannot be read, and these with their reasons."""
    from text2ct.classifiers import VolumeCache
    from text2ct.classifiers.config import Preprocessing
    from text2ct.classifiers.dataset import on_grid

    grid = Preprocessing(size=config.size, spacing_mm=config.spacing_mm)
    used = real[_used(real)]
    kept, _, problems = on_grid(
        used, workspace, VolumeCache(workspace.path / "cache" / "volumes", grid), "real", engine
    )
    return real.drop(index=used.index.difference(kept.index)), problems


def _rows(real: pd.DataFrame) -> pd.DataFrame:
    """Real training and validation rows with files: all that the gate may learn from."""
    return real[_used(real)].reset_index(drop=True)


def _used(real: pd.DataFrame) -> pd.Series:
    return real["split"].isin(("train", "validation")) & (real["path"] != "") & (real["source"] != "synthetic")
