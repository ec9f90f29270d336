from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import model_bytes, toy_manifest

from text2ct.classifiers import predict, runs
from text2ct.classifiers.module import ClassifierTraining
from text2ct.errors import UserError
from text2ct.findings import FINDINGS
from text2ct.status import status

RUN_FILES = ["config.json", "history.csv", "metrics.csv", "model.safetensors", "patients.json"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_bright_cube_is_learnt_in_few_steps(tmp_path: Path, workspace, tiny_training) -> None:
    manifest = toy_manifest(workspace, patients=16, validation=8)
    result = tiny_training(
        manifest,
        tmp_path / "run",
        steps=50,
        batch_size=8,
        recipe={"validate_every": 10, "learning_rate": 1e-2},
    )
    assert result["validation_macro_auc"] > 0.9
    assert result["undefined_findings"] == [f for f in FINDINGS if f != "Lung nodule"]
    test = toy_manifest(workspace, patients=0, validation=12, seed=1)
    predicted = predict(tmp_path / "run", test, workspace, device="cpu")["Lung nodule"]
    bright = test["Lung nodule"] == 1
    assert (predicted[bright].to_numpy()[:, None] > predicted[~bright].to_numpy()).mean() > 0.9


def test_a_run_holds_its_files_and_who_was_seen(tmp_path: Path, manifest, tiny_training) -> None:
    result = tiny_training(manifest, tmp_path / "run", class_weights=True, augment=True)
    assert names(tmp_path / "run") == RUN_FILES
    config = json.loads((tmp_path / "run" / "config.json").read_text("utf-8"))
    assert config["training"]["class_weights"] is True
    assert config["model"]["step"] == result["chosen_step"]
    patients = json.loads((tmp_path / "run" / "patients.json").read_text("utf-8"))
    assert patients["training"] == [{"dataset": "toy", "patient": f"toy_{i}"} for i in range(4)]
    assert patients["validation"] == [{"dataset": "toy", "patient": f"toy_{i}"} for i in (4, 5)]
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    assert history["step"].tolist() == [2, 4]
    assert history["validation_macro_auc"].max() == pytest.approx(result["validation_macro_auc"], abs=1e-5)
    assert history[FINDINGS[0]].isna().all()


def test_prompts_of_synthetic_rows_are_recorded(tmp_path: Path, manifest, tiny_training) -> None:
    manifest["prompt_dataset"], manifest["prompt_volume"] = "", ""
    manifest.loc[0, ["source", "prompt_dataset", "prompt_volume"]] = [
        "synthetic",
        "ct-rate",
        "train_9_a_1.nii.gz",
    ]
    tiny_training(manifest, tmp_path / "run", steps=1)
    patients = json.loads((tmp_path / "run" / "patients.json").read_text("utf-8"))
    assert patients["prompts"] == [{"dataset": "ct-rate", "volume": "train_9_a_1.nii.gz"}]


def test_the_same_call_gives_the_same_bytes_and_another_seed_does_not(tmp_path: Path, manifest, tiny_training) -> None:
    for run, seed in (("a", 0), ("b", 0), ("c", 1)):
        tiny_training(manifest, tmp_path / run, seed=seed, augment=True)
    assert model_bytes(tmp_path / "a") == model_bytes(tmp_path / "b") != model_bytes(tmp_path / "c")


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError], ids=["ctrl-c", "crash"])
def test_an_interrupted_training_goes_on_to_the_same_bytes(
    tmp_path: Path,
    manifest,
    tiny_training,
    monkeypatch: pytest.MonkeyPatch,
    interruption: type[BaseException],
) -> None:
    settings = {"steps": 7, "augment": True, "recipe": {"validate_every": 2, "ema_decay": 0.5}}
    tiny_training(manifest, tmp_path / "whole", **settings)
    step = ClassifierTraining.training_step

    def stops_at_step_5(self: ClassifierTraining, batch, batch_idx: int) -> torch.Tensor:
        if self.global_step == 5:
            raise interruption
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(ClassifierTraining, "training_step", stops_at_step_5)
        handler = signal.getsignal(signal.SIGINT)
        with pytest.raises(interruption):
            tiny_training(manifest, tmp_path / "cut", **settings)
        assert signal.getsignal(signal.SIGINT) is handler
    assert "resume.ckpt" in names(tmp_path / "cut")
    (row,) = status(tmp_path / "none", [tmp_path / "cut"])["runs"]
    assert (row["kind"], row["state"], row["done"], row["left"]) == ("classifier", "stopped", 4, 3)
    with pytest.raises(UserError, match="has not ended"):
        predict(tmp_path / "cut", manifest, None)
    tiny_training(manifest, tmp_path / "cut", **settings)
    assert names(tmp_path / "cut") == RUN_FILES
    assert model_bytes(tmp_path / "cut") == model_bytes(tmp_path / "whole")
    for file in ("history.csv", "patients.json"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    logs = [pd.read_csv(tmp_path / run / "metrics.csv") for run in ("cut", "whole")]
    assert logs[0]["step"].tolist() == [1, 2, 4, 6, 7]
    assert (logs[0]["seconds_per_step"] > 0).all()
    same = ["step", "learning_rate", "loss"]
    pd.testing.assert_frame_equal(logs[0][same], logs[1][same], check_exact=True)


def test_a_training_killed_before_its_last_write_only_writes(
    tmp_path: Path, manifest, tiny_training, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_training(manifest, tmp_path / "whole")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runs, "write_model", killed)
        with pytest.raises(KeyboardInterrupt):
            tiny_training(manifest, tmp_path / "cut")
    monkeypatch.setattr(ClassifierTraining, "training_step", killed)
    tiny_training(manifest, tmp_path / "cut")
    assert model_bytes(tmp_path / "cut") == model_bytes(tmp_path / "whole")


def test_a_damaged_state_is_not_resumed_from(tmp_path: Path, manifest, tiny_training) -> None:
    tiny_training(manifest, tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text("utf-8"))
    (tmp_path / "run" / "config.json").write_text(json.dumps({**config, "model": None}))
    (tmp_path / "run" / "resume.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match=r"resume.ckpt is damaged; delete it"):
        tiny_training(manifest, tmp_path / "run")


def test_a_finished_run_is_not_trained_again(
    tmp_path: Path, manifest, tiny_training, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tiny_training(manifest, tmp_path / "run")
    monkeypatch.setattr(ClassifierTraining, "training_step", None)
    assert tiny_training(manifest, tmp_path / "run") == first


def test_another_run_is_not_overwritten(tmp_path: Path, manifest, tiny_training) -> None:
    tiny_training(manifest, tmp_path / "run")
    with pytest.raises(UserError, match="holds another run"):
        tiny_training(manifest, tmp_path / "run", seed=1)
    manifest.loc[0, FINDINGS[0]] = 1.0
    with pytest.raises(UserError, match="holds another run"):
        tiny_training(manifest, tmp_path / "run")


def test_the_best_checkpoint_is_kept_not_the_last(
    tmp_path: Path, manifest, tiny_training, monkeypatch: pytest.MonkeyPatch
) -> None:
    from text2ct.classifiers import module
    from text2ct.classifiers.metrics import ScanAuc

    values = iter([0.6, 0.9, 0.7])
    monkeypatch.setattr(module, "scan_auc", lambda *_: ScanAuc({"Lung nodule": next(values)}, ()))
    result = tiny_training(manifest, tmp_path / "run", steps=6)
    assert (result["chosen_step"], result["validation_macro_auc"]) == (4, 0.9)


def without_split(frame: pd.DataFrame, split: str) -> pd.DataFrame:
    return frame[frame["split"] != split]


def changed(frame: pd.DataFrame, rows: object, column: str, value: object) -> pd.DataFrame:
    copy = frame.copy()
    copy.loc[rows, column] = value
    return copy


def with_test_patient(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([frame, frame.iloc[:1].assign(volume="other.nii.gz", split="test")])


def with_prompt_of_validation(frame: pd.DataFrame) -> pd.DataFrame:
    made = frame.iloc[:1].assign(volume="made.nii.gz", patient="made", source="synthetic")
    return pd.concat([frame, made.assign(prompt_dataset="toy", prompt_volume="toy_5_a_1.nii.gz")])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: without_split(f, "train"), "no labelled rows with split 'train'"),
        (lambda f: without_split(f, "validation"), "no labelled rows with split 'validation'"),
        (lambda f: changed(f, f.index, "Lung nodule", np.nan), "no row has a known label"),
        (lambda f: changed(f, f["split"] == "validation", "Lung nodule", 1.0), "no checkpoint can be chosen"),
        (lambda f: changed(f, f["split"] == "validation", "source", "synthetic"), "must be real"),
        (lambda f: changed(f, f["split"] == "validation", "patient", "toy_0"), "in train and in validation"),
        (with_test_patient, "toy/toy_0: in train and in test"),
        (with_prompt_of_validation, "its prompt is of a validation or test patient"),
        (lambda f: changed(f, [0], "path", "real/volumes/none.nii.gz"), "none.nii.gz does not exist"),
        (lambda f: changed(f, [0], "path", ""), "the row has no file"),
        (lambda f: changed(f, [0], "sha256", "0" * 64), "not the file that the manifest was made of"),
        (lambda f: f.drop(columns="Emphysema"), "lacks columns"),
    ],
    ids=str.split("no-train no-validation unknown one-class synthetic leak test prompt missing no-file sha256 column"),
)
def test_manifests_that_do_not_serve_are_refused(tmp_path: Path, manifest, tiny_training, damage, message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny_training(damage(manifest), tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "resnet"}, "unknown classifier 'resnet'; use one of cnn3d"),
        ({"steps": 0}, "steps: Input should be greater than or equal to 1"),
        ({"recipe": {"learning_rat": 1.0}}, "learning_rat"),
        ({"size": (2, 16, 16)}, "size.0"),
        ({"recipe": {"loss": "focal"}}, "loss: Input should be 'bce' or 'asymmetric'"),
        ({"recipe": {"accumulate": 3}}, "accumulate 3 does not divide batch_size 2"),
        ({"options": {"blocks": [1, 1, 1, 1]}}, "grid 16x16x16 does not serve"),
        ({"spacing_mm": (0.0, 5.0, 5.0)}, "spacing_mm.0"),
        ({"sampling_weights": np.ones(3)}, "3 sampling weights for 12 manifest rows"),
        ({"sampling_weights": np.zeros(12)}, "some above 0"),
        ({"device": "tpu9"}, "unknown device"),
    ],
    ids=["name", "steps", "recipe", "size", "loss", "parts", "grid", "spacing", "weights", "zero-weights", "device"],
)
def test_settings_that_do_not_serve_are_refused(
    tmp_path: Path, manifest, tiny_training, changes: dict, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        tiny_training(manifest, tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_stops_the_training(
    tmp_path: Path, manifest, tiny_training, monkeypatch: pytest.MonkeyPatch
) -> None:
    from text2ct.classifiers import module

    monkeypatch.setattr(module.TrainingLoss, "forward", lambda _, logits, *__: logits.sum() * float("nan"))
    with pytest.raises(UserError, match="not finite at step 1; lower the learning rate"):
        tiny_training(manifest, tmp_path / "run")


def drop_config(run: Path) -> None:
    (run / "config.json").unlink()


def drop_model(run: Path) -> None:
    (run / "model.safetensors").unlink()


def cut_model(run: Path) -> None:
    (run / "model.safetensors").write_bytes(model_bytes(run)[:-8])


def other_format(run: Path) -> None:
    config = json.loads((run / "config.json").read_text("utf-8"))
    (run / "config.json").write_text(json.dumps({**config, "format_version": 99}))


def older_format(run: Path) -> None:
    """As it was before there were temperatures."""
    config = json.loads((run / "config.json").read_text("utf-8"))
    del config["model"]["temperature"], config["training"]["loss"], config["init"]
    (run / "config.json").write_text(json.dumps({**config, "format_version": 1}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop_config, "holds no classifier run"),
        (drop_model, "model.safetensors is missing"),
        (cut_model, "model.safetensors is damaged"),
        (other_format, "run format 99"),
        (older_format, "run format 1; this version reads 2: train the run again"),
    ],
    ids=["config", "model", "cut", "format", "older"],
)
def test_a_damaged_run_never_predicts(tmp_path: Path, workspace, manifest, tiny_training, damage, message: str) -> None:
    tiny_training(manifest, tmp_path / "run", steps=1)
    damage(tmp_path / "run")
    with pytest.raises(UserError, match=message):
        predict(tmp_path / "run", manifest, workspace, device="cpu")


def test_predicting_nothing_is_a_mistake(tmp_path: Path, workspace, manifest, tiny_training) -> None:
    tiny_training(manifest, tmp_path / "run", steps=1)
    with pytest.raises(UserError, match="nothing to predict"):
        predict(tmp_path / "run", manifest.iloc[:0], workspace, device="cpu")
    with pytest.raises(UserError, match="batch size 0"):
        predict(tmp_path / "run", manifest, workspace, device="cpu", batch_size=0)


def test_a_dry_run_foresees_and_writes_nothing(tmp_path: Path, workspace, manifest, tiny_training) -> None:
    before = sorted(workspace.path.rglob("*"))
    foreseen = tiny_training(manifest, tmp_path / "run", augment=True, dry_run=True)
    assert not (tmp_path / "run").exists()
    assert sorted(workspace.path.rglob("*")) == before
    assert foreseen["validation_macro_auc"] is None
    assert foreseen["seconds"] == foreseen["seconds_reading"] + foreseen["seconds_training"] > 0
    tiny_training(manifest, tmp_path / "run", augment=True)
    cached = sum(path.stat().st_size for path in (workspace.path / "cache").rglob("*.npy"))
    assert foreseen["bytes_cache"] == cached
    assert foreseen["bytes_run"] > (tmp_path / "run" / "model.safetensors").stat().st_size
    again = tiny_training(manifest, tmp_path / "run", augment=True, dry_run=True)
    assert (again["seconds"], again["bytes"]) == (0.0, 0)
    with pytest.raises(UserError, match="holds another run"):
        tiny_training(manifest, tmp_path / "run", seed=1, dry_run=True)


def test_a_dry_run_counts_only_what_is_left(
    tmp_path: Path, manifest, tiny_training, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runs, "write_model", killed)
        with pytest.raises(KeyboardInterrupt):
            tiny_training(manifest, tmp_path / "run")
    assert tiny_training(manifest, tmp_path / "run", dry_run=True)["seconds"] == 0.0
