"""Small sets of stand-in volumes, real and synthetic, and an encoder with random weights."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from text2ct.evaluation.generator import Settings
from text2ct.files import sha256_file, write_json
from text2ct.findings import FINDINGS
from text2ct.manifests import Workspace, validate
from text2ct.volumes import Volume, write

from .volumes import stand_in

SIZE, N = 16, 12
CPU = torch.device("cpu")
FOLDERS = {"simulated": "real", "synthetic": "synthetic/r/volumes"}
SETTINGS = Settings(
    metrics=("fidelity", "alignment", "privacy", "diversity"), grid=(SIZE,) * 3, spacing_mm=(20.0,) * 3, n_bootstrap=40
)


class Encoder(nn.Module):
    """Random weights, and how often it was asked."""

    channels = 3

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU())
        self.name = "a test's"
        self.asked = 0

    def forward(self, slices: Tensor) -> Tensor:
        self.asked += 1
        return self.body(slices).mean(dim=(-2, -1))


def row(workspace: Workspace, name: str, hu: np.ndarray, split: str, source: str, **more: object) -> dict:
    path = f"{FOLDERS[source]}/{name}.nii.gz"
    write(Volume(hu.astype(np.float32), np.diag([20.0, 20.0, 20.0, 1.0])), workspace.path / path)
    labels = np.zeros(len(FINDINGS))
    labels[len(name) % 2], labels[2] = 1, int(name[-1]) % 2
    return {
        "dataset": "clinic" if source == "simulated" else "synthetic-r",
        "volume": f"{name}.nii.gz", "patient": name, "scan": name, "split": split, "source": source,
        "root": "workspace", "path": path, "findings_text": f"Report of {name}.",
    } | dict(zip(FINDINGS, labels, strict=True)) | more  # fmt: skip


def make_sets(workspace: Workspace) -> tuple[pd.DataFrame, pd.DataFrame]:
    splits = {"train": 0, "validation": 100, "test": 200}
    real = [
        row(workspace, f"{split}{i}", stand_in(first + i, SIZE), split, "simulated")
        for split, first in splits.items()
        for i in range(N)
    ]
    learnt = {"trained_on": [{"dataset": "clinic", "patients": ["train*"]}], "files": {}}
    record = workspace.path / "synthetic" / "r" / "pack.json"
    write_json(record, learnt)
    made = [
        row(
            workspace, f"s{i}", stand_in(300 + i, SIZE), "train", "synthetic",
            prompt=f"Report of test{i % 6}.", prompt_dataset="clinic", prompt_volume=f"test{i % 6}.nii.gz",
            pack="a test's", pack_sha256=sha256_file(record),
        )
        for i in range(N)
    ]  # fmt: skip
    return validate(pd.DataFrame(real), "the test"), validate(pd.DataFrame(made), "the test")
