"""A small benchmark without networks: tables, and a classifier that guesses better with more volumes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from text2ct.evaluation.benchmark import BenchmarkSettings, run_benchmark
from text2ct.findings import FINDINGS
from text2ct.manifests import Workspace, validate


def make_real(n: int = 40, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = []
    for split in ("train", "validation", "test"):
        labels = (rng.random((n, 18)) < np.linspace(0.08, 0.5, 18)).astype(float)
        labels[0], labels[1] = 1, 0
        for index, row in enumerate(labels):
            name = f"{split}{index}"
            rows.append(
                {
                    "dataset": "clinic",
                    "volume": f"{name}.nii.gz",
                    "patient": name,
                    "scan": name,
                    "split": split,
                    "findings_text": f"Report {index} of {split}.",
                }
                | {"source": "simulated", "root": "workspace", "path": f"real/{name}.nii.gz"}
                | dict(zip(FINDINGS, row, strict=True))
            )
    return validate(pd.DataFrame(rows), "the test")


def make_synthetic(workspace: Workspace, n: int = 30) -> pd.DataFrame:
    rng = np.random.default_rng(7)
    rows = []
    for index in range(n):
        path = f"synthetic/r/volumes/s{index}.nii.gz"
        file = workspace.path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"voxels")
        labels = dict(zip(FINDINGS, (rng.random(18) < 0.3).astype(float), strict=True))
        rows.append(
            {
                "dataset": "synthetic-r",
                "volume": f"s{index}.nii.gz",
                "patient": f"s{index}",
                "scan": f"s{index}",
            }
            | {
                "split": "train",
                "source": "synthetic",
                "root": "workspace",
                "path": path,
                "prompt": f"Text {index}.",
            }
            | labels
        )
    return validate(pd.DataFrame(rows), "the test")


class FakeClassifier:
    """Predicts test labels with noise that shrinks with the number of training volumes; keeps a diary."""

    def __init__(self, fail_after: int | None = None) -> None:
        self.trainings: list[dict] = []
        self.fail_after = fail_after

    def train(self, manifest, workspace, out_dir, **options):
        if self.fail_after is not None and len(self.trainings) >= self.fail_after:
            raise KeyboardInterrupt
        if options.get("dry_run"):
            self.foreseen = manifest
            return {"seconds_reading": 100.0, "seconds_training": 2.0, "bytes_cache": 1000, "bytes_run": 10}
        self.trainings.append({"manifest": manifest, **options})
        Path(out_dir).mkdir(parents=True, exist_ok=True)
        train = manifest[manifest["split"] == "train"]
        (Path(out_dir) / "model.json").write_text(json.dumps({"n": len(train), "seed": options["seed"]}))
        return {
            "run": str(out_dir),
            "classifier": options["name"],
            "steps": options["steps"],
            "validation_macro_auc": 0.6 if options["sampling_weights"] is None else 0.65,
        }

    def predict(self, run_dir, manifest, workspace, **options):
        model = json.loads((Path(run_dir) / "model.json").read_text("utf-8"))
        rng = np.random.default_rng([model["seed"], model["n"], len(manifest)])
        noise = rng.normal(0, 100 / model["n"], (len(manifest), 18))
        scores = 1 / (1 + np.exp(-(manifest[list(FINDINGS)].to_numpy() - 0.5 + noise)))
        return pd.DataFrame(scores, columns=list(FINDINGS)).assign(VolumeName=manifest["volume"].tolist())


ARMS = ("real", "real+oversampled", "real+synthetic@R", "real+shuffled@R", "synthetic")
HOW = ("run", "pack", "fidelity", "engine", "dry_run")


def run(workspace, real, synthetic, fake=None, **options):
    fake = fake or FakeClassifier()
    how = {key: options.pop(key) for key in HOW if key in options}
    options = {"ratios": (0.25, 0.5), "seeds": (0, 1), "steps": 7, "n_bootstrap": 50, "arms": ARMS} | options
    settings = BenchmarkSettings.of("the test", options)
    return run_benchmark(real, synthetic, workspace, settings, train=fake.train, predict=fake.predict, **how)
