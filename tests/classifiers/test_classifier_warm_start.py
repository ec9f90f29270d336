"""Training from another run's weights: what is kept, what is recorded, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TINY_OPTIONS, toy_manifest
from safetensors.torch import load_file

from text2ct.classifiers import predict, prompt_volumes, runs, training_patients
from text2ct.errors import UserError
from text2ct.files import sha256_file, write_json
from text2ct.findings import FINDINGS
from text2ct.manifests import Workspace


@pytest.fixture
def other(workspace) -> pd.DataFrame:
    """A manifest of the same volumes' patients under another data set's name."""
    return toy_manifest(workspace, patients=6, validation=2, seed=1).assign(dataset="elsewhere")


@pytest.fixture
def first(tmp_path: Path, other: pd.DataFrame, tiny_training) -> Path:
    tiny_training(other, tmp_path / "first", steps=2)
    return tmp_path / "first"


def model(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model.safetensors")


def test_a_warm_start_begins_at_the_other_runs_weights(
    tmp_path: Path, manifest: pd.DataFrame, first: Path, tiny_training, workspace
) -> None:
    still = {"validate_every": 1, "learning_rate": 1e-12, "weight_decay": 0.0}
    tiny_training(manifest, tmp_path / "warm", steps=1, init=first, recipe=still)
    tiny_training(manifest, tmp_path / "cold", steps=1, recipe=still)
    weights = [name for name, value in model(first).items() if value.is_floating_point() and "running" not in name]
    for name in weights:
        torch.testing.assert_close(model(tmp_path / "warm")[name], model(first)[name])
    assert any(not torch.allclose(model(tmp_path / "cold")[name], model(first)[name]) for name in weights)
    running = [name for name in model(first) if "running_mean" in name]
    assert any(not torch.equal(model(tmp_path / "warm")[n], model(first)[n]) for n in running), "norms are trained too"


def test_a_warm_start_is_recorded_with_all_that_its_start_has_seen(
    tmp_path: Path, manifest: pd.DataFrame, first: Path, tiny_training
) -> None:
    tiny_training(manifest, tmp_path / "second", steps=1, init=first)
    init = runs.read_config(tmp_path / "second").init
    assert init is not None
    assert (init.run, init.sha256) == ("first", sha256_file(first / "model.safetensors"))
    written = json.loads((tmp_path / "second" / "patients.json").read_text("utf-8"))
    assert written["init"] == [{"dataset": "elsewhere", "patient": f"toy_{i}"} for i in range(6)]
    chosen = runs.validation_patients(tmp_path / "second")
    assert chosen == {("elsewhere", "toy_6"), ("elsewhere", "toy_7"), ("toy", "toy_4"), ("toy", "toy_5")}
    third = manifest.assign(dataset="third")
    tiny_training(third, tmp_path / "third", steps=1, init=tmp_path / "second")
    origins = {dataset for dataset, _ in training_patients(tmp_path / "third")}
    assert origins == {"elsewhere", "toy", "third"}, "what the start's own start has seen is remembered"


def test_an_interrupted_warm_start_goes_on_and_another_start_is_another_run(
    tmp_path: Path, manifest: pd.DataFrame, first: Path, tiny_training, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    tiny_training(manifest, tmp_path / "whole", init=first)
    with monkeypatch.context() as patch:
        patch.setattr(runs, "write_history", killed)
        with pytest.raises(KeyboardInterrupt):
            tiny_training(manifest, tmp_path / "cut", init=first)
    with pytest.raises(UserError, match="holds another run"):
        tiny_training(manifest, tmp_path / "cut")
    tiny_training(manifest, tmp_path / "cut", init=first)
    assert sha256_file(tmp_path / "cut" / "model.safetensors") == sha256_file(tmp_path / "whole" / "model.safetensors")


def test_a_run_on_the_same_manifest_serves_as_start(tmp_path: Path, manifest: pd.DataFrame, tiny_training) -> None:
    tiny_training(manifest, tmp_path / "first", steps=1)
    result = tiny_training(manifest, tmp_path / "second", steps=1, init=tmp_path / "first")
    assert result["chosen_step"] == 1


def told_by(manifest: pd.DataFrame, volume: str) -> pd.DataFrame:
    made = manifest.iloc[:1].assign(volume="made.nii.gz", patient="made", scan="made", source="synthetic")
    return pd.concat([manifest, made.assign(prompt_dataset="toy", prompt_volume=volume)], ignore_index=True)


def swapped(manifest: pd.DataFrame, patients: list[int], split: str) -> pd.DataFrame:
    """The manifest with the patients of these numbers in another split."""
    chosen = manifest["patient"].isin([f"toy_{number}" for number in patients])
    return manifest.assign(split=manifest["split"].mask(chosen, split))


@pytest.mark.parametrize(
    ("of_start", "of_training", "message"),
    [
        (
            lambda m: m,
            lambda m: swapped(swapped(m, [4, 5], "train"), [0, 1], "validation"),
            "toy/toy_0: it was trained",
        ),
        (lambda m: m, lambda m: swapped(m, [3], "test"), "toy/toy_3: it was trained on"),
        (
            lambda m: m,
            lambda m: swapped(swapped(m, [0, 1], "validation"), [4], "test"),
            "toy/toy_4: of test, its check",
        ),
        (
            lambda m: told_by(
                swapped(swapped(m, [1], "validation"), [5], "train").assign(dataset="elsewhere"), "toy_5_a_1.nii.gz"
            ),
            lambda m: m,
            "toy_5_a_1.nii.gz: it was trained on a volume made from the report",
        ),
    ],
    ids=["validation", "test", "chosen-on-test", "report"],
)
def test_a_start_that_has_seen_held_out_patients_is_refused(
    tmp_path: Path, manifest: pd.DataFrame, tiny_training, of_start, of_training, message: str
) -> None:
    tiny_training(of_start(manifest), tmp_path / "first", steps=1)
    with pytest.raises(UserError, match="has seen validation or test patients") as caught:
        tiny_training(of_training(manifest), tmp_path / "second", steps=1, init=tmp_path / "first")
    assert any(problem.startswith(message) for problem in caught.value.problems)
    assert not (tmp_path / "second").exists()


def test_a_leak_two_starts_back_is_refused(tmp_path: Path, manifest: pd.DataFrame, tiny_training) -> None:
    tiny_training(swapped(manifest, [4, 5, 0, 1], "train").pipe(swapped, [2, 3], "validation"), tmp_path / "a", steps=1)
    elsewhere = manifest.assign(dataset="elsewhere")
    tiny_training(elsewhere, tmp_path / "b", steps=1, init=tmp_path / "a")
    with pytest.raises(UserError, match=r"toy/toy_4: it was trained on"):
        tiny_training(manifest, tmp_path / "c", steps=1, init=tmp_path / "b")


def test_the_reports_that_a_start_was_told_of_are_remembered(
    tmp_path: Path, manifest: pd.DataFrame, tiny_training
) -> None:
    tiny_training(told_by(manifest, "toy_1_a_1.nii.gz"), tmp_path / "first", steps=1)
    tiny_training(manifest, tmp_path / "second", steps=1, init=tmp_path / "first")
    assert prompt_volumes(tmp_path / "second") == [("toy", "toy_1_a_1.nii.gz")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "slices"}, "classifier: cnn3d there, slices here"),
        ({"options": {**TINY_OPTIONS["cnn3d"], "stem": 4}}, "options: .*'stem': 8.* there, .*'stem': 4.* here"),
        ({"spacing_mm": (4.0, 4.0, 4.0)}, "preprocessing: .*5.0.* there, .*4.0.* here"),
    ],
    ids=["classifier", "options", "grid"],
)
def test_another_network_does_not_serve_as_start(
    tmp_path: Path, manifest: pd.DataFrame, first: Path, tiny_training, changes: dict, message: str
) -> None:
    with pytest.raises(UserError, match="cannot start from") as caught:
        tiny_training(manifest, tmp_path / "second", init=first, **changes)
    assert pd.Series(caught.value.problems).str.contains(message).any()


def test_an_unfinished_or_absent_start_is_refused(
    tmp_path: Path, manifest: pd.DataFrame, first: Path, tiny_training
) -> None:
    with pytest.raises(UserError, match="holds no classifier run"):
        tiny_training(manifest, tmp_path / "second", init=tmp_path / "nowhere")
    config = json.loads((first / "config.json").read_text("utf-8"))
    (first / "config.json").write_text(json.dumps({**config, "model": None}))
    with pytest.raises(UserError, match="has not ended"):
        tiny_training(manifest, tmp_path / "second", init=first)


def test_a_warm_started_run_does_not_predict_with_its_start(
    tmp_path: Path, manifest: pd.DataFrame, first: Path, tiny_training, workspace
) -> None:
    tiny_training(manifest, tmp_path / "second", init=first, recipe={"validate_every": 4, "learning_rate": 1e-2})
    a, b = (predict(run, manifest, workspace, device="cpu") for run in (first, tmp_path / "second"))
    assert (a[list(FINDINGS)] != b[list(FINDINGS)]).to_numpy().all()


def made_by(manifest: pd.DataFrame, workspace: Workspace, known: dict[str, object]) -> pd.DataFrame:
    """The manifest and a synthetic volume whose generator was trained on the patients of ``known``."""
    record = workspace.path / "real" / "pack.json"
    write_json(record, {"name": "peeking", "trained_on": [known]})
    joined = told_by(manifest, "")
    made = joined["source"] == "synthetic"
    return joined.assign(pack_sha256=np.where(made, sha256_file(record), ""), pack=np.where(made, "peeking", ""))


@pytest.mark.parametrize("starts", [1, 2])
def test_a_start_trained_on_volumes_whose_generator_knows_held_out_patients_is_refused(
    tmp_path: Path, manifest: pd.DataFrame, tiny_training, workspace: Workspace, starts: int
) -> None:
    elsewhere = manifest.assign(dataset="elsewhere")
    peeked = made_by(elsewhere, workspace, {"dataset": "toy", "patients": ["toy_5"]})
    tiny_training(peeked, tmp_path / "1", steps=1)
    if starts == 2:
        tiny_training(elsewhere, tmp_path / "2", steps=1, init=tmp_path / "1")
    with pytest.raises(UserError, match=r"toy/toy_5: it was trained on volumes whose generator or gate"):
        tiny_training(manifest, tmp_path / "last", steps=1, init=tmp_path / str(starts))
    harmless = made_by(elsewhere, workspace, {"dataset": "toy", "patients": ["toy_0"]})
    tiny_training(harmless, tmp_path / "fair", steps=1)
    tiny_training(manifest, tmp_path / "last", steps=1, init=tmp_path / "fair")
    assert [one["patients"] for one in runs.known_to_makers(tmp_path / "last")] == [["toy_0"]]
