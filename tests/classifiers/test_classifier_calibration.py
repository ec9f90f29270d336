"""One temperature: fitted on validation volumes, applied to every prediction, harmless to every order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import toy_manifest
from hypothesis import given
from hypothesis import strategies as st

from text2ct.classifiers import predict, runs
from text2ct.classifiers.calibration import LARGEST, fit_temperature
from text2ct.classifiers.losses import masked_bce
from text2ct.classifiers.metrics import scan_auc
from text2ct.evaluation import score
from text2ct.findings import FINDINGS

NAN = float("nan")


@given(st.integers(0, 2**31), st.floats(0.01, 50), st.floats(0, 0.9))
def test_the_fitted_temperature_never_raises_the_cross_entropy(seed: int, scale: float, unknown: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(20, 4, generator=generator)
    labels = (torch.rand(20, 4, generator=generator) < torch.sigmoid(logits)).float()
    labels[torch.rand(20, 4, generator=generator) < unknown] = NAN
    temperature = fit_temperature(logits, labels)
    assert 1 / LARGEST <= temperature <= LARGEST
    cost = masked_bce(logits.double() / temperature, labels.double())
    assert cost <= masked_bce(logits.double(), labels.double())


@pytest.mark.parametrize("truth", [0.4, 1.0, 3.0])
def test_the_temperature_of_a_network_whose_error_is_known_is_found(truth: float) -> None:
    generator = torch.Generator().manual_seed(0)
    honest = 2 * torch.randn(20_000, 2, generator=generator)
    labels = (torch.rand(20_000, 2, generator=generator) < torch.sigmoid(honest)).float()
    assert fit_temperature(truth * honest, labels) == pytest.approx(truth, rel=0.05)


def test_nothing_known_leaves_the_probabilities_alone() -> None:
    assert fit_temperature(torch.randn(3, 2), torch.full((3, 2), NAN)) == 1.0


@pytest.fixture
def overconfident(tmp_path: Path, manifest: pd.DataFrame, tiny_training) -> Path:
    """A run whose training labels are noise, so that it is surer than its validation allows."""
    rng = np.random.default_rng(0)
    for finding in FINDINGS:
        manifest[finding] = rng.integers(0, 2, len(manifest)).astype(float)
    recipe = {"validate_every": 15, "learning_rate": 1e-2}
    tiny_training(manifest, tmp_path / "run", steps=15, recipe=recipe)
    return tmp_path / "run"


def test_a_prediction_is_calibrated_and_keeps_the_order(overconfident: Path, manifest: pd.DataFrame, workspace) -> None:
    config = runs.read_config(overconfident)
    assert config.model is not None
    temperature = config.model.temperature
    assert temperature > 1.1
    rows = manifest[manifest["split"] == "validation"]
    raw, calibrated = (
        predict(overconfident, rows, workspace, device="cpu", calibrated=wanted)[list(FINDINGS)].to_numpy()
        for wanted in (False, True)
    )
    logits, divided = (np.log(p / (1 - p)) for p in (raw, calibrated))
    np.testing.assert_allclose(logits / temperature, divided)
    labels, volumes = rows[list(FINDINGS)].to_numpy(), rows["volume"].to_numpy()
    assert scan_auc(raw, labels, volumes) == scan_auc(calibrated, labels, volumes)
    before, after = (masked_bce(torch.tensor(values), torch.tensor(labels)) for values in (logits, divided))
    assert after < before


def test_scores_average_the_reconstructions_of_a_scan(tmp_path: Path, workspace, tiny_training) -> None:
    manifest = toy_manifest(workspace, patients=4, validation=8)
    tiny_training(manifest, tmp_path / "run")
    rows = manifest[manifest["split"] == "validation"].reset_index(drop=True)
    predicted = predict(tmp_path / "run", rows, workspace, device="cpu")
    labels = rows[["volume", *FINDINGS]].rename(columns={"volume": "VolumeName"})
    scored = score(predicted, labels, scans=list(rows["scan"]), n_bootstrap=5)
    averaged = predicted.groupby(rows["scan"])[["Lung nodule"]].mean()
    truth = labels.groupby(rows["scan"])["Lung nodule"].max()
    assert len(averaged) == scored["scans"] == len(rows) / 2
    positive, negative = (averaged[truth == value].to_numpy() for value in (1, 0))
    by_hand = ((positive > negative.T) + 0.5 * (positive == negative.T)).mean()
    assert scored["findings"]["Lung nodule"]["auc"] == pytest.approx(by_hand)
