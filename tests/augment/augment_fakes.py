"""A manifest, a pack and a generator that cost nothing."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd

from text2ct.augment import synthesize
from text2ct.diffusion.info import Sampling
from text2ct.files import sha256_file, write_json
from text2ct.findings import FINDINGS
from text2ct.manifests import Workspace, read_manifest, validate

RARE = FINDINGS[0]
PREVALENCE = np.linspace(0.05, 0.5, len(FINDINGS))
SHAPE = (6, 5, 4)


def make_frame(
    n_train: int = 60, n_validation: int = 10, n_test: int = 12, seed: int = 0, unknown: float = 0.0
) -> pd.DataFrame:
    """A manifest with one scan per patient, every finding present in each split, and a report per scan."""
    rng = np.random.default_rng(seed)
    rows = []
    for split, count in (("train", n_train), ("validation", n_validation), ("test", n_test)):
        labels = (rng.random((count, len(FINDINGS))) < PREVALENCE).astype(float)
        if count > 1:
            labels[0], labels[1] = 1, 0
        labels[rng.random(labels.shape) < unknown] = np.nan
        for index, row in enumerate(labels):
            patient = f"{split}p{index:03d}"
            rows.append(
                {
                    "dataset": "clinic",
                    "volume": f"{patient}.nii.gz",
                    "patient": patient,
                    "scan": patient,
                    "split": split,
                    "source": "real",
                    "root": "clinic",
                    "path": f"{patient}.nii.gz",
                    **dict(zip(FINDINGS, row, strict=True)),
                    "findings_text": f"Report of {patient}: {int(np.nansum(row))} findings.",
                    "impression_text": "See above.",
                }
            )
    return validate(pd.DataFrame(rows), "the test's table")


@dataclass
class FakePack:
    path: Path
    sha256: str
    info: SimpleNamespace
    affine: np.ndarray

    @classmethod
    def write(cls, path: Path, name: str = "fake", trained_on: tuple[dict, ...] = ()) -> FakePack:
        write_json(path / "pack.json", {"name": name, "trained_on": list(trained_on)})
        defaults = Sampling(guidance_scale=2.5, steps=3)
        affine = np.diag([5.0, 4.0, 3.0, 1.0])
        affine[:3, 3] = [-12.5, -8.0, -4.5]
        return cls(
            path, sha256_file(path / "pack.json"), SimpleNamespace(name=name, defaults=defaults, grid=SHAPE), affine
        )

    @property
    def usual_batch(self) -> int:
        return 4


class FakeGenerator:
    """Voxels from prompt, seed, settings and batch shape only; counts its calls."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.batches: list[list[str]] = []
        self.fail_at = fail_at

    def __call__(self, pack, prompts, seeds, *, sampling, device, batch_size):
        if self.fail_at is not None and len(self.batches) == self.fail_at:
            raise KeyboardInterrupt
        assert 0 < len(prompts) <= batch_size
        self.batches.append(list(prompts))
        volumes = []
        for prompt, seed in zip(prompts, seeds, strict=True):
            key = repr((pack.sha256, prompt, seed, sampling, batch_size)).encode()
            rng = np.random.default_rng(int.from_bytes(hashlib.sha256(key).digest()[:8], "big"))
            volumes.append(rng.uniform(-1100, 1100, SHAPE).astype(np.float32))
        return np.stack(volumes)


def requests(prompts: list[str], **columns) -> pd.DataFrame:
    """A requests table with every label known and negative, except the first finding."""
    table = pd.DataFrame({"prompt": prompts})
    for index, name in enumerate(FINDINGS):
        table[name] = 1.0 if index == 0 else 0.0
    return table.assign(**columns)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder and its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def synthetic_set(workspace: Workspace, pack: FakePack, table: pd.DataFrame) -> pd.DataFrame:
    """The manifest of a run of ``synthesize`` with these prompts."""
    result = synthesize(table, pack=pack, workspace=workspace, generate=FakeGenerator(), batch_size=8)
    return read_manifest(result["manifest"])
