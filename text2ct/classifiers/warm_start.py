"""Training that starts from another run's weights: which runs serve, and what they must not have seen."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from text2ct.classifiers import runs
from text2ct.classifiers.config import InitRecord, RunConfig
from text2ct.classifiers.leaks import leaks
from text2ct.classifiers.rows import held_out
from text2ct.errors import UserError, first_of

SAME = ("classifier", "options", "preprocessing", "windows")
"""Parts of the configuration that must be equal for weights to mean the same."""


def check_init(init: Path, config: RunConfig, manifest: pd.DataFrame) -> InitRecord:
    """What a training records of the run that it starts from.

    Args:
        init: A finished run.
        config: The training that is to start from it.
        manifest: All rows, those of validation and test included.

    Raises:
        UserError: The run is missing, unfinished, damaged or another network, or knows patients that this
            manifest holds out.
    """
    _, theirs = runs.load_classifier(init)
    assert theirs.model is not None
    there, here = theirs.model_dump(mode="json"), config.model_dump(mode="json")
    differing = [f"{part}: {there[part]} there, {here[part]} here" for part in SAME if there[part] != here[part]]
    if differing:
        raise UserError(
            f"the training cannot start from {init}; ask for the same network, or for another run", differing
        )
    _refuse_leaks(Path(init), manifest)
    return InitRecord(run=Path(init).resolve().name, sha256=theirs.model.sha256)


def _refuse_leaks(init: Path, manifest: pd.DataFrame) -> None:
    """Refuse a start that knows held-out patients, or whose checkpoint was chosen by test patients.

    That validation patients chose the start too is what they are for.
    """
    test = manifest[manifest["split"] == "test"]
    chosen = runs.validation_patients(init) & set(zip(test["dataset"], test["patient"], strict=True))
    problems = leaks(init, held_out(manifest))
    problems += [f"{d}/{p}: of test, its checkpoint was chosen on" for d, p in sorted(chosen)]
    if problems:
        raise UserError(
            f"{init} has seen validation or test patients of this manifest; start from another run",
            first_of(problems),
        )
