"""A run's folder: ``config.json``, ``model.safetensors``, ``history.csv``, ``metrics.csv``, ``patients.json``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from text2ct.classifiers.config import FORMAT_VERSION, RunConfig
from text2ct.classifiers.dataset import VolumeTable
from text2ct.classifiers.model import Classifier, build_classifier
from text2ct.errors import UserError
from text2ct.files import atomic_path, read_json, sha256_file, write_json

CONFIG, MODEL, HISTORY, PATIENTS = "config.json", "model.safetensors", "history.csv", "patients.json"
RESUME = "resume.ckpt"
"""State of an unfinished training; removed when it ends."""


def read_config(run_dir: Path) -> RunConfig:
    """Read and validate a run's configuration.

    Raises:
        UserError: There is none, or it is damaged or of another version.
    """
    path = Path(run_dir) / CONFIG
    if not path.is_file():
        raise UserError(f"{run_dir} holds no classifier run ({CONFIG} is missing); train one with text2ct train")
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a classifier's configuration; train the run again")
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise UserError(f"{path} has run format {version}; this version reads {FORMAT_VERSION}: train the run again")
    return RunConfig.of(str(path), content)


def write_config(run_dir: Path, config: RunConfig) -> None:
    """Write a run's configuration, atomically."""
    write_json(Path(run_dir) / CONFIG, config.model_dump(mode="json"))


def write_model(run_dir: Path, weights: dict[str, Tensor]) -> str:
    """Write the chosen weights, atomically.

    Returns:
        SHA-256 of the file.
    """
    path = Path(run_dir) / MODEL
    with atomic_path(path) as temporary:
        save_file({name: value.detach().cpu().contiguous() for name, value in weights.items()}, temporary)
    return sha256_file(path)


def load_classifier(run_dir: Path) -> tuple[Classifier, RunConfig]:
    """The finished classifier of a run, in evaluation mode on the CPU.

    Raises:
        UserError: The run is missing, unfinished or damaged. Random weights never stand in.
    """
    run_dir = Path(run_dir)
    config = read_config(run_dir)
    path = run_dir / MODEL
    if config.model is None:
        raise UserError(f"the training in {run_dir} has not ended; run the same train command again to go on")
    if not path.is_file():
        raise UserError(f"{path} is missing; train the run again")
    if sha256_file(path) != config.model.sha256:
        raise UserError(f"{path} is damaged (its sha256 is not the one in {CONFIG}); train the run again")
    classifier = build_classifier(config, initial=False)
    try:
        classifier.load_state_dict(load_file(path), strict=True)
    except (SafetensorError, RuntimeError) as error:
        raise UserError(f"{path} does not fit {CONFIG}: {str(error)[:300]}; train the run again") from error
    return classifier.eval(), config


def write_history(run_dir: Path, history: list[dict[str, Any]]) -> None:
    """Write one row a validation: step, learning rate, losses, macro AUC, AUC of each finding."""
    with atomic_path(Path(run_dir) / HISTORY) as temporary:
        pd.DataFrame(history).to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")


def write_patients(
    run_dir: Path,
    train: VolumeTable,
    validation: VolumeTable,
    prompts: pd.DataFrame,
    makers: Sequence[dict[str, Any]] = (),
    init: Path | None = None,
) -> None:
    """Write which patients the run has seen, so that nobody is judged by a model that knows them.

    Args:
        run_dir: The run.
        train: Training volumes.
        validation: Volumes by which the checkpoint was chosen.
        prompts: Columns ``prompt_dataset`` and ``prompt_volume``: the scans whose reports the synthetic
            training volumes were made from; may be empty.
        makers: Whom the packs and gates of these volumes were trained on, as ``pack.json`` lists it.
        init: The run that the weights started from: what it has seen this run has seen.
    """
    trained, chosen = set(train.patients), set(validation.patients)
    told = {origin for origin in prompts.astype(str).itertuples(index=False, name=None) if origin[1]}
    before: dict[str, list[dict[str, str]]] = {}
    if init is not None:
        before = {"init": _rows(training_patients(init), "patient")}
        chosen |= validation_patients(init)
        told |= set(prompt_volumes(init))
        makers = [*makers, *(one for one in known_to_makers(init) if one not in makers)]
    seen = {"training": _rows(trained, "patient"), "validation": _rows(chosen, "patient"), **before}
    write_json(Path(run_dir) / PATIENTS, {**seen, "prompts": _rows(told, "volume"), "makers": list(makers)})


def _rows(identities: Iterable[tuple[str, str]], key: str) -> list[dict[str, str]]:
    return [{"dataset": dataset, key: value} for dataset, value in sorted(identities)]


def training_patients(run_dir: Path) -> set[tuple[str, str]]:
    """The (dataset, patient) pairs that a run was trained on, those of the run it started from included.

    Raises:
        UserError: The folder holds no run, or its ``patients.json`` is damaged.
    """
    return set(_seen(run_dir, "training", "patient")) | set(_seen(run_dir, "init", "patient"))


def validation_patients(run_dir: Path) -> set[tuple[str, str]]:
    """The (dataset, patient) pairs that chose a run's checkpoint and temperature, or those of its start.

    Raises:
        UserError: The folder holds no run, or its ``patients.json`` is damaged.
    """
    return set(_seen(run_dir, "validation", "patient"))


def prompt_volumes(run_dir: Path) -> list[tuple[str, str]]:
    """The (dataset, volume) pairs whose reports a run's synthetic training volumes were made from.

    Raises:
        UserError: The folder holds no run, or its ``patients.json`` is damaged.
    """
    return _seen(run_dir, "prompts", "volume")


def known_to_makers(run_dir: Path) -> list[dict[str, Any]]:
    """Whom the packs and gates behind a run's synthetic training volumes were trained on, as ``pack.json`` lists it.

    Raises:
        UserError: The folder holds no run, or its ``patients.json`` is damaged.
    """
    makers: list[dict[str, Any]] = _content(run_dir).get("makers", [])
    return makers


def _seen(run_dir: Path, kind: str, key: str) -> list[tuple[str, str]]:
    content = _content(run_dir)
    try:
        rows = content.get(kind, []) if kind == "init" else content[kind]  # only a warm start has it
        return [(row["dataset"], row[key]) for row in rows]
    except (KeyError, TypeError) as error:
        raise _damaged(run_dir) from error


def _content(run_dir: Path) -> dict[str, Any]:
    path = Path(run_dir) / PATIENTS
    if not path.is_file():
        raise UserError(f"{run_dir} is no trained classifier: {PATIENTS} is missing; run `text2ct train` first")
    content = read_json(path)
    if not isinstance(content, dict):
        raise _damaged(run_dir)
    return content


def _damaged(run_dir: Path) -> UserError:
    return UserError(f"{Path(run_dir) / PATIENTS} is damaged; train the classifier again")


def read_resume(run_dir: Path) -> Path | None:
    """The state of an unfinished training, checked to be whole.

    Raises:
        UserError: The file is damaged.
    """
    path = Path(run_dir) / RESUME
    if not path.is_file():
        return None
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many types on a damaged file
        raise UserError(f"{path} is damaged; delete it to train this run from the start") from error
    return path
