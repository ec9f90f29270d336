"""The script that fitted the label model: known correlations come back, wrong tables end in one line."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from text2ct.findings import FINDINGS

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "fit_prevalence.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fit_prevalence", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tables(tmp_path: Path) -> tuple[Path, Path]:
    """A label table and a metadata table of 60 patients."""
    rng = np.random.default_rng(0)
    labels, metadata = tmp_path / "labels.csv", tmp_path / "metadata.csv"
    pd.DataFrame(rng.integers(0, 2, (60, len(FINDINGS))), columns=list(FINDINGS)).to_csv(labels, index=False)
    names = [f"valid_{n}_a_{k}.nii.gz" for n in range(1, 61) for k in (1, 2)]
    pd.DataFrame({"VolumeName": names, "PatientAge": "050Y", "PatientSex": ["M", "F"] * 60}).to_csv(
        metadata, index=False
    )
    return labels, metadata


def test_tetrachoric_correlations_are_recovered(script):
    latent = np.random.default_rng(1).multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], 20_000)
    estimate = script.tetrachoric((latent > [0.3, 1.0]).astype(float))
    assert estimate[0, 1] == pytest.approx(0.6, abs=0.04)


def test_the_nearest_correlation_matrix_is_one(script):
    broken = np.array([[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]])
    mended = script.nearest_correlation(broken)
    np.testing.assert_allclose(np.diag(mended), 1.0)
    assert np.linalg.eigvalsh(mended).min() > 0
    np.testing.assert_allclose(script.nearest_correlation(np.eye(3)), np.eye(3), atol=1e-9)


def test_a_fit_holds_summaries_only(script, tables):
    fit = script.fit(*(pd.read_csv(path) for path in tables))
    assert fit["volumes"] == 60
    assert fit["reconstructions_per_scan"] == [0.0, 1.0, 0.0]
    assert fit["scans_per_patient"] == [1.0, 0.0, 0.0, 0.0]
    assert np.shape(fit["correlation"]) == np.shape(fit["joint"]) == (18, 18)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda labels, metadata: labels.unlink(), "cannot read"),
        (lambda labels, metadata: labels.write_text(""), "cannot read"),
        (lambda labels, metadata: labels.write_text("Emphysema\n1\n"), "lacks the columns Medical material"),
        (lambda labels, metadata: metadata.write_text("VolumeName\nx\n"), "lacks the columns PatientAge, PatientSex"),
        (
            lambda labels, metadata: labels.write_text(f"{','.join(FINDINGS)}\n2{',0' * 17}\n"),
            "labels other than 0 and 1",
        ),
    ],
    ids=["absent", "empty", "columns", "metadata columns", "two"],
)
def test_wrong_tables_end_in_one_line(script, tables, tmp_path, monkeypatch, capsys, change, message):
    labels, metadata = tables
    change(labels, metadata)
    out = tmp_path / "out.json"
    arguments = ["fit", "--labels", str(labels), "--metadata", str(metadata), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit, match="2"):
        script.main()
    assert message in capsys.readouterr().err
    assert not out.exists()
