"""Tiny chests, a cohort of them, a pack that draws them and a classifier that reads the prompt."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from augment_fakes import FakePack, requests
from scipy.ndimage import gaussian_filter

from text2ct import augment, volumes
from text2ct.augment.gate import GateConfig, GateRecord
from text2ct.augment.gate.record import Counts, Thresholds
from text2ct.diffusion.info import Sampling
from text2ct.files import sha256_file, write_json
from text2ct.findings import FINDINGS
from text2ct.manifests import Workspace, read_manifest, validate, write_manifest

SIZE, SPACING = (24, 24, 24), (12.0, 12.0, 12.0)
AFFINE = np.diag([*SPACING, 1.0])
EFFUSION = "Pleural effusion"
COPY, TORN, MISSED, ONCE, EXTRA = "a copy", "torn skin", "nothing seen", "seen in the second try", "more than asked"
TINY = {"backbone": "test_resnet", "hidden": 16, "dropout": 0.0}


def config(**changes: object) -> GateConfig:
    settings = {"size": SIZE, "spacing_mm": SPACING, "classifier": {"steps": 2, "batch_size": 2, "options": TINY}}
    return GateConfig.model_validate({**settings, **changes})


def chest(patient: int) -> np.ndarray:
    """(24, 24, 24) HU: body and two lungs within air, with a texture of the patient's own."""
    rng = np.random.default_rng([11, patient])
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in SIZE], indexing="ij")
    hu = np.full(SIZE, -1000.0)
    hu[(x / 0.9) ** 2 + (y / 0.75) ** 2 < 1] = 40
    for side in (-1, 1):
        a, b, c = rng.uniform(0.28, 0.34), rng.uniform(0.4, 0.5), rng.uniform(0.6, 0.75)
        hu[((x - side * 0.42) / a) ** 2 + (y / b) ** 2 + (z / c) ** 2 < 1] = -800
    texture = gaussian_filter(rng.normal(size=SIZE), 3.5, mode="wrap")
    hu = np.where(hu > -1000, hu + 100 * texture / texture.std(), hu + rng.normal(0, 8, SIZE))
    return np.clip(np.rint(hu), -1000, 1000).astype(np.float32)


def again(hu: np.ndarray, seed: int = 0, noise_hu: float = 6, shift: int = 0) -> np.ndarray:
    """The same chest with other noise, moved by whole voxels."""
    moved = np.roll(hu, shift, axis=(0, 1, 2)) if shift else hu
    return np.clip(np.rint(moved + np.random.default_rng(seed).normal(0, noise_hu, SIZE)), -1000, 1000)


def cohort(workspace: Workspace, splits: dict[str, int]) -> pd.DataFrame:
    """A real manifest; every second patient has each finding, and each has two reconstructions."""
    rows, number = [], 0
    for split, count in splits.items():
        for index in range(count):
            number += 1
            for reconstruction in (1, 2):
                patient = f"{split}_{index}"
                name = f"{patient}_a_{reconstruction}.nii.gz"
                path = workspace.path / "real" / "volumes" / name
                volumes.write(volumes.Volume(again(chest(number), seed=reconstruction), AFFINE), path)
                rows.append(
                    {"dataset": "toy", "volume": name, "patient": patient, "scan": f"{patient}_a", "split": split}
                    | {"source": "real", "root": "workspace", "path": f"real/volumes/{name}"}
                    | {finding: float((index + place) % 2) for place, finding in enumerate(FINDINGS)}
                    | {"findings_text": f"Report of {patient}.", "sha256": sha256_file(path)}
                )
    frame = validate(pd.DataFrame(rows), "the test's cohort")
    write_manifest(frame, workspace.run_dir("real") / "manifest.csv")
    return frame


def write_record(workspace: Workspace, run: str, **known: tuple[tuple[str, str], ...]) -> None:
    """A gate's record that names the patients it knows and nothing else."""
    record = GateRecord(
        run=run,
        request_sha256="0" * 64,
        classifier=None,
        trained_on=known.get("trained_on", ()),
        calibrated_on=known.get("calibrated_on", ()),
        config=GateConfig(),
        thresholds=Thresholds(),
        counts=Counts(accepted=0, rejected=0, reasons={}),
        findings={},
        copies=(),
        tries=(),
        unmet=0,
        real_rejected={},
    )
    write_json(workspace.run_dir("synthetic", run) / "gate.json", record.model_dump(mode="json"))


class ChestPack(FakePack):
    @classmethod
    def make(cls, path: Path) -> ChestPack:
        plain = FakePack.write(path, name="chests")
        info = SimpleNamespace(name="chests", defaults=Sampling(steps=3), grid=SIZE, spacing_mm=SPACING)
        return cls(plain.path, plain.sha256, info, AFFINE)

    def has(self, component: str) -> bool:
        return False


def draw_chests(pack, prompts, seeds, *, sampling, device, batch_size):
    """A new patient for each seed, unless the prompt wants mischief."""
    made = []
    for prompt, seed in zip(prompts, seeds, strict=True):
        hu = chest(1000 + seed % 10**6)
        if prompt.startswith(COPY):
            hu = again(chest(1), seed=9, shift=1)  # the first training patient
        if prompt.startswith(TORN):
            hu[:, SIZE[1] // 2 :] = -1000
        made.append(hu)
    return np.stack(made)


def read_prompts(run, rows, workspace, *, device):
    """A classifier that is right about real volumes, and about synthetic ones does what their prompt says."""
    labels = rows[list(FINDINGS)].to_numpy(dtype=float)
    noise = np.random.default_rng(0).random(labels.shape)
    table = np.where(labels == 1, 0.8, 0.1) + 0.05 * noise
    prompts = rows["prompt"] if "prompt" in rows else [""] * len(rows)
    for at, (prompt, dataset) in enumerate(zip(prompts, rows["dataset"], strict=True)):
        asked = labels[at] == 1
        if prompt.startswith(MISSED) or (prompt.startswith(ONCE) and not dataset.endswith("-try2")):
            table[at, asked] = 0.05
        if prompt.startswith(EXTRA):
            table[at, ~asked] = 0.97
    return pd.DataFrame(table, columns=list(FINDINGS)).assign(VolumeName=rows["volume"].tolist())


def synthetic(workspace: Workspace, pack: ChestPack, prompts: list[str], run: str = "made") -> Path:
    """A run of ``synthesize`` whose volumes are asked to show an effusion."""
    table = requests(prompts).assign(**{FINDINGS[0]: 0.0, EFFUSION: 1.0})
    made = augment.synthesize(
        table, pack=pack, workspace=workspace, run=run, generate=draw_chests, batch_size=4, sampling={"steps": 2}
    )
    return Path(made["manifest"])


def read(path: Path | str) -> pd.DataFrame:
    return read_manifest(Path(path))
