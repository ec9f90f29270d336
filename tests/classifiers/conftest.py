from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest

from text2ct.findings import FINDINGS
from text2ct.manifests import Workspace

SIZE = (16, 16, 16)
SPACING = (5.0, 5.0, 5.0)

TINY_OPTIONS = {
    "cnn3d": {"width": 4, "blocks": [1, 1]},
    "ctnet": {"backbone": "test_resnet", "output_stride": 8, "hidden": [32, 16], "dropout": 0.0},
    "slices": {"backbone": "test_resnet", "hidden": 16, "dropout": 0.0},
    "r3d": {"width": 4, "blocks": [1, 1, 1]},
    "densenet": {"features": 4, "growth": 4, "blocks": [1, 2], "dropout": 0.0},
}
"""Options that make each registered classifier fit a 16^3 grid; a new entry of the registry needs a line."""

VARIANTS = {
    "slices-transformer": ("slices", {"pooling": "transformer", "layers": 1}),
    "r3d-mc3": ("r3d", {"style": "mc3"}),
    "r3d-r2plus1d": ("r3d", {"style": "r2plus1d", "slice_stride": 1}),
    "densenet-pooled": ("densenet", {"stem_pool": True}),
}
"""Options that change a network's layers, with the entry they belong to: they pass the same tests."""


def toy_volume(rng: np.random.Generator, bright: bool) -> np.ndarray:
    """Noisy lung within a body within air; a bright cube of 4 voxels in the lung where ``bright``."""
    hu = np.full(SIZE, -1000.0)
    hu[1:-1, 1:-1] = rng.normal(30, 15, (14, 14, 16))
    hu[3:-3, 3:-3] = rng.normal(-800, 40, (10, 10, 16))
    if bright:
        x, y, z = rng.integers(3, 9, 3)
        hu[x : x + 4, y : y + 4, z : z + 4] = 400
    return hu.round().astype(np.int16)


def write_nifti(path: Path, hu: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(hu, np.diag([*SPACING, 1.0]))
    nibabel.save(image, path)


def toy_manifest(workspace: Workspace, patients: int, validation: int, seed: int = 0) -> pd.DataFrame:
    """Two reconstructions a patient; ``Lung nodule`` is the cube, the other findings are unknown."""
    rng = np.random.default_rng(seed)
    rows = []
    for patient in range(patients + validation):
        for reconstruction in (1, 2):
            bright = patient % 2 == 0
            volume = f"toy_{patient}_a_{reconstruction}.nii.gz"
            write_nifti(workspace.path / "real" / "volumes" / volume, toy_volume(rng, bright))
            row = dict.fromkeys(FINDINGS, np.nan)
            row["Lung nodule"] = float(bright)
            split = "train" if patient < patients else "validation"
            rows.append(
                {
                    "dataset": "toy",
                    "volume": volume,
                    "patient": f"toy_{patient}",
                    "scan": f"toy_{patient}_a",
                    "split": split,
                    "source": "real",
                    "root": "workspace",
                    "path": f"real/volumes/{volume}",
                    "sha256": "",
                    **row,
                }
            )
    return pd.DataFrame(rows)


def model_bytes(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def manifest(workspace: Workspace) -> pd.DataFrame:
    return toy_manifest(workspace, patients=4, validation=2)


@pytest.fixture
def tiny_training(workspace: Workspace) -> Callable[..., dict]:
    """``train`` of a tiny cnn3d; keyword arguments override."""
    from text2ct.classifiers import train

    def run(manifest: pd.DataFrame, out_dir: Path, **changes: object) -> dict:
        settings: dict = {
            "steps": 4,
            "batch_size": 2,
            "size": SIZE,
            "spacing_mm": SPACING,
            "options": TINY_OPTIONS.get(str(changes.get("name", "cnn3d")), {}),
            "recipe": {"validate_every": 2},
            "device": "cpu",
        }
        return train(manifest, workspace, out_dir, **{**settings, **changes})

    return run
