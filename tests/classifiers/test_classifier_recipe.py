"""What a step is made of: which rows are drawn, and the parts that a batch is sent in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import model_bytes
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from text2ct.classifiers.config import Training
from text2ct.classifiers.module import ClassifierTraining
from text2ct.classifiers.planning import validations
from text2ct.classifiers.rows import row_weights
from text2ct.errors import UserError
from text2ct.findings import FINDINGS


def test_rows_with_weight_zero_are_never_drawn(tmp_path: Path, manifest, tiny_training) -> None:
    weights = np.where(manifest["patient"] == "toy_0", 0.0, 1.0)
    tiny_training(manifest, tmp_path / "a", sampling_weights=weights)
    first = manifest["path"][manifest["patient"] == "toy_2"].iloc[0]
    manifest.loc[manifest["patient"] == "toy_0", "path"] = first  # other voxels, never seen
    tiny_training(manifest, tmp_path / "b", sampling_weights=weights)
    assert model_bytes(tmp_path / "a") == model_bytes(tmp_path / "b")


def test_synthetic_until_brings_synthetic_volumes_forward(tmp_path: Path, manifest, tiny_training) -> None:
    mixed = manifest.assign(source=np.where(manifest["patient"] == "toy_0", "synthetic", "real"))
    tiny_training(mixed, tmp_path / "even", synthetic_until=1.0)
    tiny_training(mixed, tmp_path / "first", synthetic_until=0.5)
    assert model_bytes(tmp_path / "even") != model_bytes(tmp_path / "first")
    tiny_training(manifest, tmp_path / "real alone", synthetic_until=0.5)
    assert model_bytes(tmp_path / "real alone") == model_bytes(tmp_path / "even"), "nothing to bring forward"
    with pytest.raises(UserError, match="synthetic_until"):
        tiny_training(mixed, tmp_path / "never", synthetic_until=0.0)


def test_the_manifests_sampling_weight_decides_what_is_drawn(tmp_path: Path, manifest, tiny_training) -> None:
    weights = np.where(manifest["patient"] == "toy_0", 0.0, 2.0)
    tiny_training(manifest, tmp_path / "argument", sampling_weights=weights)
    column = manifest.assign(sampling_weight=weights)
    tiny_training(column, tmp_path / "column")
    assert model_bytes(tmp_path / "column") == model_bytes(tmp_path / "argument")
    tiny_training(column, tmp_path / "both", sampling_weights=np.ones(len(manifest)))
    assert model_bytes(tmp_path / "both") != model_bytes(tmp_path / "column"), "the argument comes first"
    tiny_training(manifest, tmp_path / "none")
    tiny_training(manifest.assign(sampling_weight=np.nan), tmp_path / "unknown")
    assert model_bytes(tmp_path / "unknown") == model_bytes(tmp_path / "none")


@given(st.lists(st.sampled_from([np.nan, 0.0, 0.5, 1.0, 3.0]), min_size=6, max_size=6))
def test_an_empty_sampling_weight_is_one(cells: list[float]) -> None:
    frame = pd.DataFrame({"split": ["train"] * 4 + ["validation"] * 2, "sampling_weight": cells})
    train, filled = frame["split"] == "train", np.nan_to_num(cells, nan=1.0)[:4]
    if filled.sum() == 0:
        with pytest.raises(UserError, match="some above 0"):
            row_weights(frame, frame, train, None)
        return
    weights = row_weights(frame, frame, train, None)
    if weights is None:
        assert np.ptp(filled) == 0, "only equal weights are as good as none"
    else:
        np.testing.assert_array_equal(weights, filled)


@pytest.mark.parametrize("damage", [-1.0, np.inf, "often"], ids=str)
def test_sampling_weights_of_the_manifest_that_do_not_serve_are_refused(
    tmp_path: Path, manifest, tiny_training, damage: object
) -> None:
    column = pd.Series(1.0, index=manifest.index, dtype=object)
    column[0] = damage
    with pytest.raises(UserError, match="finite and not negative"):
        tiny_training(manifest.assign(sampling_weight=column), tmp_path / "run")


class Unnormed(torch.nn.Module):
    """A network without batch norm or dropout: a step depends on its volumes' sum alone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(64, len(FINDINGS))

    def forward(self, volume_hu: torch.Tensor) -> torch.Tensor:
        return self.linear(torch.nn.functional.avg_pool3d(volume_hu / 1000, 4).flatten(1))


@pytest.mark.parametrize("loss", ["bce", "asymmetric"])
def test_gradients_of_the_parts_of_a_step_add_up_to_the_whole(
    tmp_path: Path, manifest, tiny_training, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    from text2ct.classifiers import training

    rng = np.random.default_rng(0)
    manifest[list(FINDINGS)] = rng.choice([0, 1, np.nan], (len(manifest), len(FINDINGS)), p=[0.3, 0.2, 0.5])
    kept: dict[int, dict[str, torch.Tensor]] = {}
    for parts in (1, 2, 4):
        whole: list[torch.Tensor] = []

        def watch(self: ClassifierTraining, *_: object, whole=whole) -> None:
            whole.append(torch.cat([p.grad.flatten() for p in self.classifier.parameters()]))

        with monkeypatch.context() as patch:
            patch.setattr(training, "build_classifier", lambda *_, **__: Unnormed())
            patch.setattr(ClassifierTraining, "on_before_optimizer_step", watch)
            recipe = {"validate_every": 3, "accumulate": parts, "loss": loss, "ema_decay": 0.5}
            result = tiny_training(manifest, tmp_path / str(parts), steps=3, batch_size=4, recipe=recipe)
        assert result["steps"] == len(whole) == 3
        kept[parts] = {**load_file(tmp_path / str(parts) / "model.safetensors"), "gradients": torch.stack(whole)}
    for parts in (2, 4):
        for name, value in kept[1].items():
            torch.testing.assert_close(kept[parts][name], value, atol=1e-6, rtol=1e-4)


def test_an_accumulating_training_that_was_interrupted_goes_on_to_the_same_bytes(
    tmp_path: Path, manifest, tiny_training, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"steps": 5, "recipe": {"validate_every": 2, "accumulate": 2, "ema_decay": 0.5}}
    tiny_training(manifest, tmp_path / "whole", **settings)
    step = ClassifierTraining.training_step

    def stops_within_step_4(self: ClassifierTraining, batch, batch_idx: int) -> torch.Tensor:
        if self.global_step == 3 and batch_idx % 2 == 1:
            raise RuntimeError
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(ClassifierTraining, "training_step", stops_within_step_4)
        with pytest.raises(RuntimeError):
            tiny_training(manifest, tmp_path / "cut", **settings)
    tiny_training(manifest, tmp_path / "cut", **settings)
    assert model_bytes(tmp_path / "cut") == model_bytes(tmp_path / "whole")
    assert pd.read_csv(tmp_path / "cut" / "history.csv")["step"].tolist() == [2, 4, 5]


@given(st.integers(1, 5000), st.integers(1, 64), st.integers(1, 10_000))
def test_looking_at_the_validation_volumes_stays_cheap(steps: int, batch_size: int, volumes: int) -> None:
    settings = Training(steps=steps, batch_size=batch_size, learning_rate=1e-3, validate_every=1)
    looks = validations(settings, volumes)
    assert min(steps, 2) <= looks <= min(steps, 6)
    if looks > 2:
        assert 4 * looks * volumes <= 3 * steps * batch_size
