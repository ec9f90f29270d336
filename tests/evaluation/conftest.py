import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from text2ct.diffusion import Pack, init_pack
from text2ct.findings import FINDINGS
from text2ct.manifests import Workspace

from .benchmark_fakes import make_real, make_synthetic
from .evaluated_sets import make_sets


def make_tables(
    n: int = 60, seed: int = 0, strength: float | np.ndarray = 1.0, noise: float = 1.0, training: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predictions and labels of n CT-RATE volumes: two reconstructions a scan, about two scans a patient."""
    rng = np.random.default_rng(seed)
    scans = [f"valid_{k // 2 + 1}_{'ab'[k % 2]}" for k in range(n // 2)]
    truth = (rng.random((n // 2, len(FINDINGS))) < 0.3).astype(float)
    truth[0], truth[1] = 1.0, 0.0
    own = np.random.default_rng([seed, training])
    logit = strength * truth + noise * own.normal(size=truth.shape)
    names, scores, labels = [], [], []
    for k, scan in enumerate(scans):
        for reconstruction in (1, 2):
            names.append(f"{scan}_{reconstruction}.nii.gz")
            scores.append(1 / (1 + np.exp(-(logit[k] + 0.1 * own.normal(size=len(FINDINGS))))))
            labels.append(truth[k])
    predictions = pd.DataFrame(scores, columns=list(FINDINGS))
    table = pd.DataFrame(labels, columns=list(FINDINGS))
    predictions.insert(0, "VolumeName", names)
    table.insert(0, "VolumeName", names)
    return predictions, table


@pytest.fixture(scope="session")
def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    return make_tables()


def load_benchmark(name: str) -> ModuleType:
    """A script of ``benchmarks``, as a module."""
    path = Path(__file__).parents[2] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"{name}_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "ws")


@pytest.fixture
def real() -> pd.DataFrame:
    return make_real()


@pytest.fixture
def synthetic(workspace: Workspace) -> pd.DataFrame:
    return make_synthetic(workspace)


@pytest.fixture
def sets(workspace: Workspace) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A real and a synthetic manifest of stand-in volumes."""
    return make_sets(workspace)


@pytest.fixture(scope="session")
def tiny_pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """A pack with random weights."""
    return init_pack(tmp_path_factory.mktemp("pack") / "tiny")
