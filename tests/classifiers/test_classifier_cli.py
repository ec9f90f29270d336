"""What ``text2ct train`` hands to the trainer; the trainer itself is replaced by a notebook."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from text2ct import classifiers
from text2ct.cli import app
from text2ct.manifests import Workspace, validate, write_manifest


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    def note(*_: object, **settings: object) -> dict[str, Any]:
        seen.update(settings)
        return {"run": "here", "validation_macro_auc": 0.5, "steps": 1}

    monkeypatch.setattr(classifiers, "train", note)
    return seen


def train(workspace: Workspace, manifest: pd.DataFrame, *words: str, code: int = 0) -> str:
    path = workspace.run_dir("real") / "manifest.csv"
    write_manifest(validate(manifest, "the test"), path)
    result = CliRunner().invoke(app, ["train", str(path), "--workspace", str(workspace.path), *words])
    assert result.exit_code == code, result.output
    return result.stderr


def test_options_loss_and_parts_reach_the_trainer(workspace: Workspace, manifest: pd.DataFrame, asked: dict) -> None:
    words = ("--option", "style=mc3", "--option", "blocks=[1,2]", "--option", "pretrained=false")
    train(workspace, manifest, "--classifier", "r3d", *words, "--loss", "asymmetric", "--accumulate", "4")
    assert asked["options"] == {"style": "mc3", "blocks": [1, 2], "pretrained": False}
    assert asked["recipe"] == {"loss": "asymmetric", "accumulate": 4}
    train(workspace, manifest, "--ema", "0.9")
    assert asked["recipe"] == {"loss": "bce", "ema_decay": 0.9, "accumulate": 1}
    assert asked["init"] is None


def test_a_start_is_a_folder_or_the_name_of_a_run(
    workspace: Workspace, manifest: pd.DataFrame, asked: dict, tmp_path: Path
) -> None:
    (workspace.run_dir("classifiers") / "cnn3d-real-seed0").mkdir(parents=True)
    train(workspace, manifest, "--init", "cnn3d-real-seed0")
    assert asked["init"] == workspace.run_dir("classifiers") / "cnn3d-real-seed0"
    train(workspace, manifest, "--init", str(tmp_path))
    assert asked["init"] == tmp_path


@pytest.mark.parametrize("words", [("width",), ("width=8", "width=16")], ids=" ".join)
def test_an_option_that_cannot_be_read_is_a_mistake(
    workspace: Workspace, manifest: pd.DataFrame, asked: dict, words: tuple[str, ...]
) -> None:
    options = [word for value in words for word in ("--option", value)]
    assert "expected key=value, each key once" in train(workspace, manifest, *options, code=2)
    assert not asked


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--loss", "focal"), "loss: Input should be 'bce' or 'asymmetric'"),
        (("--option", "widht=8"), "widht"),
        (("--accumulate", "3"), "accumulate 3 does not divide batch_size 8"),
        (("--ema", "1.5"), "ema_decay: Input should be less than 1"),
        (("--init", "nowhere"), "'nowhere' is neither a run's folder nor a run"),
    ],
    ids=["loss", "option", "parts", "average", "init"],
)
def test_the_trainers_refusals_are_one_mistake_with_a_reason(
    workspace: Workspace, manifest: pd.DataFrame, words: tuple[str, ...], message: str
) -> None:
    small = ("--grid", "16", "--device", "cpu", "--dry-run")
    assert message in train(workspace, manifest, *small, *words, code=2)


@pytest.mark.parametrize("command", ["train", "benchmark"])
def test_the_help_names_every_classifier(command: str) -> None:
    words = CliRunner().invoke(app, [command, "--help"]).stdout.replace(",", " ").split()
    assert set(classifiers.CLASSIFIERS) <= {word.rstrip(".") for word in words}
