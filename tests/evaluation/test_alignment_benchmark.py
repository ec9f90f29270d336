"""The ablation's script: arms that differ in the text encoder alone, kept, and read by the same judges."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from tiny_build import CONFIG

from text2ct.diffusion import load_pack
from text2ct.diffusion.build import build_pack
from text2ct.diffusion.training.encode import Encoded
from text2ct.evaluation.pack_figures import MeasureConfig
from text2ct.files import read_json

from .conftest import load_benchmark

MEASURE = MeasureConfig(patients=8, generated=4, judge_patients=16, judge_minutes=0.01)
STEPS, BATCH, PATIENTS = 2, 3, 4


@pytest.fixture(scope="module")
def alignment() -> ModuleType:
    return load_benchmark("alignment")


@pytest.fixture(scope="module")
def work(alignment: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alignment")
    build_pack(folder, folder / "pack", CONFIG, device="cpu")
    alignment.study(folder, STEPS, BATCH, PATIENTS, alignment.ENCODERS, MEASURE)
    return folder


def test_every_arm_has_its_figures_and_its_trainings(alignment: ModuleType, work: Path) -> None:
    found = read_json(alignment.result_file(work, STEPS, BATCH, PATIENTS))
    assert (found["steps"], found["batch_size"], found["patients"]) == (STEPS, BATCH, PATIENTS)
    assert set(found["encoders"]) == set(alignment.ENCODERS)
    for name, arm in found["encoders"].items():
        assert arm["trainings"]["diffusion"]["steps"] == STEPS
        encoder = arm["trainings"]["text_encoder"]
        assert encoder is None if name == "untrained" else encoder["steps"] == CONFIG.train_clip.steps
        assert len(arm["judges"]) == 2


def test_arms_share_all_but_the_text(alignment: ModuleType, work: Path) -> None:
    folder = alignment.study_folder(work, STEPS, BATCH)
    first, *others = (Encoded.open(folder / name / "encoded") for name in alignment.ENCODERS)
    for other in others:
        np.testing.assert_array_equal(first.latents, other.latents)
        assert not np.array_equal(first.contexts, other.contexts)
    settings = [read_json(folder / name / "diffusion" / "config.json")["training"] for name in alignment.ENCODERS]
    assert settings[0] == settings[1] == settings[2]
    aligned = load_pack(folder / "aligned" / "pack")
    built = load_pack(work / "pack")
    for name, value in built.text_tower.state_dict().items():
        assert torch.equal(value, aligned.text_tower.state_dict()[name])


def test_the_same_command_trains_nothing_again(alignment: ModuleType, work: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in work.rglob("last.ckpt")}
    alignment.study(work, STEPS, BATCH, PATIENTS, ["aligned"], MEASURE)
    assert {path: path.stat().st_mtime_ns for path in work.rglob("last.ckpt")} == before


@pytest.mark.parametrize(
    ("option", "message"),
    [(("--patients", "1001"), "--patients is 1001; there are 1000 new"), (("--steps", "0"), "expected 1 or more")],
)
def test_impossible_options_are_refused(
    alignment: ModuleType,
    option: tuple[str, str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["alignment.py", "--work", str(tmp_path), *option])
    with pytest.raises(SystemExit, match="2"):
        alignment.main()
    assert message in capsys.readouterr().err
