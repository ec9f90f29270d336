"""The commands as users type them, on a small embedded cohort and the bundled pack."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from text2ct import manifests, planning, volumes, workflow
from text2ct.cli import app
from text2ct.findings import FINDINGS

HELP = Path(__file__).parent / "help"
COMMANDS = [
    *((name,) for name in ("demo", "simulate", "report", "synthesize", "gate", "mix", "preprocess", "train", "score")),
    ("benchmark",),
    ("evaluate",),
    ("fetch", "ct-rate"),
    ("status",),
    ("doctor",),
    *(("models", name) for name in ("list", "info", "verify", "init", "import", "pull", "check-parity")),
    *(("core", name) for name in ("encode", "train-vae", "train-clip", "train-diffusion", "pack")),
]

SYNTHESIZE = ("synthesize", "--labels", "cardiomegaly", "--count", "3", "--steps", "2", "--batch-size", "2")


def run(*words: str | Path, code: int = 0) -> str:
    """Run a command; return its standard output, or its standard error for a mistake."""
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == code, result.stderr
    assert "Traceback" not in result.stderr
    return result.stdout if code == 0 else result.stderr


def run_json(*words: str | Path) -> dict:
    return json.loads(run(*words, "--json"))


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    """A workspace with a small embedded cohort, made by the first command that needs it."""
    folder = tmp_path_factory.mktemp("cli") / "workspace"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workflow, "EMBEDDED_PATIENTS", 140)
        workflow.real_manifest(manifests.Workspace.open(folder))
    return folder


@pytest.fixture(scope="module")
def synthetic(space):
    return run_json(
        "synthesize",
        "--labels",
        "cardiomegaly",
        "--count",
        "3",
        "--steps",
        "2",
        "--batch-size",
        "2",
        "--workspace",
        space,
    )


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_is_the_committed_one(words, monkeypatch):
    """A change of an option is a change for users: it shows in the committed help and belongs in the changelog."""
    monkeypatch.setenv("COLUMNS", "100")
    found = run(*words, "--help")
    committed = HELP / f"{'-'.join(words)}.txt"
    if os.environ.get("UPDATE_HELP"):
        committed.parent.mkdir(exist_ok=True)
        committed.write_text(found)
    assert found == committed.read_text("utf-8"), "run the tests once with UPDATE_HELP=1 and review the difference"


def test_version_and_no_heavy_import():
    code = (
        "import sys, text2ct.cli; print([m for m in ('torch', 'monai', 'matplotlib', 'SimpleITK') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert run("--version").startswith("text2ct ")


def test_report_json_and_files(space):
    result = run_json("report", "--workspace", space)
    frame = manifests.read_manifest(space / "real" / "manifest.csv")
    assert result["volumes"] == len(frame)
    assert set(result["findings"]) == set(FINDINGS)
    assert Path(result["report"]).is_file()
    prompts = pd.read_csv(result["prompts"])
    training = set(frame.loc[frame["split"] == "train", "patient"])
    assert set(prompts["patient"].dropna()) <= training


def test_label_alone_makes_volumes_and_mix_follows(space, synthetic):
    frame = manifests.read_manifest(Path(synthetic["manifest"]))
    assert len(frame) == synthetic["volumes"] == 3
    assert (frame["Cardiomegaly"] == 1).all()
    workspace = manifests.Workspace.open(space)
    for row in frame.to_dict("records"):
        volume = volumes.read(workspace.resolve(row["root"], row["path"]))
        assert volumes.check(volume) == []
        assert np.allclose(volume.spacing_mm, 5.0)
    mixed = run_json("mix", "--ratio", "0.1", "--workspace", space)
    made = manifests.read_manifest(Path(mixed["manifest"]))
    assert (made["source"] == "synthetic").sum() == mixed["synthetic"] > 0
    assert mixed["ratio_requested"] == 0.1


def test_effusion_is_explained(space):
    result = CliRunner().invoke(app, ["synthesize", "--labels", "effusion", "--dry-run", "--workspace", str(space)])
    assert "Pleural effusion" in result.stderr
    assert "Pericardial effusion" in result.stderr
    assert not any("pleural" in path.name for path in (space / "synthetic").glob("*"))


def test_the_same_command_resumes(space, synthetic):
    again = run_json(
        "synthesize",
        "--labels",
        "cardiomegaly",
        "--count",
        "3",
        "--steps",
        "2",
        "--batch-size",
        "2",
        "--workspace",
        space,
    )
    assert again["resumed"] == 3
    assert again["manifest"] == synthetic["manifest"]


def test_train_score_round_trip(space):
    trained = run_json(
        "train",
        space / "real" / "manifest.csv",
        "--steps",
        "2",
        "--batch-size",
        "2",
        "--run",
        "tiny",
        "--workspace",
        space,
    )
    assert trained["steps"] == 2
    scored = run_json("score", "--bootstrap", "20", "--workspace", space)
    assert set(scored["findings"]) == set(FINDINGS)
    assert scored["split"] == "test"
    assert (space / "scores" / "tiny.json").is_file()
    assert "trained on" in run("score", "--split", "train", "--workspace", space, code=2)


def test_benchmark_report(space, synthetic):
    result = run_json(
        "benchmark", "--ratios", "0.1", "--seeds", "2", "--steps", "2", "--workspace", space, "--run", "tiny-benchmark"
    )
    assert list(result["arms"]) == ["real", "real+oversampled", "real+classical", "real+synthetic@0.1"]
    page = Path(result["report"]).read_text("utf-8")
    assert "simulated" in page
    assert "Traceback" not in page


def test_score_of_tables(tmp_path):
    rng = np.random.default_rng(0)
    labels = pd.DataFrame(rng.integers(0, 2, (40, 18)), columns=list(FINDINGS))
    labels.insert(0, "VolumeName", [f"valid_{i}_a_1.nii.gz" for i in range(40)])
    probabilities = labels.copy()
    probabilities[list(FINDINGS)] = rng.random((40, 18)).round(3)
    labels.to_csv(tmp_path / "labels.csv", index=False)
    probabilities.to_csv(tmp_path / "predictions.csv", index=False)
    words = ("score", "--predictions", tmp_path / "predictions.csv", "--labels", tmp_path / "labels.csv")
    assert run_json(*words, "--bootstrap", "10")["volumes"] == 40
    assert "macro" in run(*words, "--bootstrap", "10")
    assert "belong together" in run(*words[:3], code=2)


def test_preprocess_quarantines_and_strict_says_so(tmp_path, space):
    good = next((space / "cohorts").rglob("*.nii.gz"))
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(good, folder / "good.nii.gz")
    (folder / "bad.nii.gz").write_bytes(good.read_bytes()[:2000])
    words = ("preprocess", folder, "--grid", "32", "--spacing", "10", "--workspace", tmp_path / "w")
    result = run_json(*words)
    assert (result["volumes"], result["quarantined"], result["not_chest"]) == (1, 1, 0)
    run(*words, "--strict", code=1)


def test_preprocess_flags_what_is_no_chest(tmp_path, space):
    chest = volumes.read(next((space / "cohorts").rglob("*.nii.gz")))
    airless = np.where((chest.hu > -960) & (chest.hu < -450), chest.hu + 880, chest.hu)
    volumes.write(replace(chest, hu=airless), tmp_path / "in/airless.nii.gz")
    words = ("preprocess", tmp_path / "in", "--grid", "32", "--spacing", "10", "--workspace", tmp_path / "w")
    kept = run_json(*words)
    assert (kept["volumes"], kept["quarantined"], kept["not_chest"]) == (1, 0, 1)
    run(*words, "--strict", code=1)
    left_out = run_json(*words, "--leave-out-non-chest")
    assert (left_out["volumes"], left_out["quarantined"], left_out["not_chest"]) == (0, 1, 1)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("synthesize", "--labels", "efusion typo xyz"), "unknown"),
        (("synthesize",), "say what to make"),
        (("synthesize", "--text", "a", "--plan", "p.json"), "exclude each other"),
        (("synthesize", "--prompts", "missing.csv"), "missing.csv"),
        (("synthesize", "--text", "normal chest", "--model", "no-such-pack"), "no-such-pack"),
        (("synthesize", "--text", "normal chest", "--device", "cuda:99"), "cuda:99"),
        (("synthesize", "--text", "normal chest", "--device", "abacus"), "abacus"),
        (("synthesize", "--text", "  "), "empty"),
        (("report", "missing-folder"), "missing-folder"),
        (("mix", "--ratio", "-1"), "ratio"),
        (("train", "missing.csv"), "missing.csv"),
        (("benchmark", "--ratios", "a,b"), "--ratios"),
        (("preprocess", "nothing-here"), "nothing-here"),
        (("preprocess", ".", "--grid", "1,2"), "--grid"),
        (("simulate", "--patients", "0", "--out", "x"), "patients"),
        (("models", "info", "no-such-pack"), "no-such-pack"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_mistake_is_one_clear_line(words, says, space, tmp_path, monkeypatch, request):
    if words[0] == "mix":
        request.getfixturevalue("synthetic")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TEXT2CT_WORKSPACE", str(space))
    assert says in run(*words, code=2)


def test_four_problems_of_a_label_table_in_one_message(tmp_path):
    table = pd.DataFrame(0, index=range(3), columns=[f for f in FINDINGS if f != "Emphysema"])
    table.insert(0, "VolumeName", ["train_1_a_1.nii.gz", "train_2_a_1.nii.gz", "train_1_a_1.nii.gz"])
    table.loc[1, "Cardiomegaly"] = 2
    table["Pneumothorax"] = [0, 1, 0]
    table.to_csv(tmp_path / "labels.csv", index=False)
    message = run("report", tmp_path / "labels.csv", "--workspace", tmp_path / "w", code=2)
    for part in ("'Cardiomegaly' is 2", "Emphysema", "train_1_a_1.nii.gz", "Pneumothorax"):
        assert part in message


def test_interrupt_is_no_traceback(monkeypatch, tmp_path):
    def stop(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(planning, "report", stop)
    assert "the same command goes on" in run("report", "--workspace", tmp_path, code=2)


def test_models(space):
    assert any(pack["name"] == "simulated-64" for pack in run_json("models", "list")["packs"])
    assert run_json("models", "info")["missing"] == []
    assert run_json("models", "verify")["verified"] is True


def test_a_random_pack_is_made_estimated_and_never_overwritten(tmp_path):
    would = run_json("models", "init", tmp_path / "pack", "--preset", "text2ct", "--dry-run")
    assert would["bytes"] > 2e9
    assert not (tmp_path / "pack").exists()
    made = run_json("models", "init", tmp_path / "pack", "--seed", "3")
    assert made["name"] == "random-tiny"
    assert made["missing"] == []
    assert run_json("models", "info", made["pack"])["sha256"] == made["sha256"]
    assert "finished pack" in run("models", "init", tmp_path / "pack", code=2)


def test_core_trains_a_pack_that_synthesizes(space, tmp_path):
    """Each training takes a pack and gives a new one; the last one generates, and says whom it has seen."""
    from text2ct.diffusion import init_pack

    base = init_pack(tmp_path / "random")
    few = ("--steps", "2", "--batch-size", "2", "--workspace", space)
    config = tmp_path / "vae.json"
    config.write_text('{"patch": 8}')
    vae = run_json("core", "train-vae", "--model", base.path, "--out", tmp_path / "vae", "--config", config, *few)
    assert vae["missing"] == ["unet"]
    clip = run_json("core", "train-clip", "--model", vae["pack"], "--out", tmp_path / "clip", *few)
    assert "unet" in run("synthesize", "--text", "normal chest", "--model", clip["pack"], "--workspace", space, code=2)
    work = tmp_path / "work"
    encoded = run_json("core", "encode", "--model", base.path, "--work", work, "--workspace", space)
    frame = manifests.read_manifest(space / "real" / "manifest.csv")
    assert encoded["cases"] == (frame["split"] == "train").sum()
    other = ("core", "encode", "--model", clip["pack"], "--work", work, "--workspace", space)
    assert "another pack" in run(*other, code=2)
    words = ("core", "train-diffusion", "--model", base.path, "--out", tmp_path / "unet", "--work", work, *few)
    unet = run_json(*words)
    assert unet["missing"] == []
    assert run_json(*words)["sha256"] == unet["sha256"]
    seen = run_json("models", "info", unet["pack"])["trained_on"]
    assert set(seen[-1]["patients"]) == set(frame.loc[frame["split"] == "train", "patient"])
    made = run_json("synthesize", "--text", "normal chest", "--model", unet["pack"], "--workspace", space)
    assert made["volumes"] == 1


@pytest.mark.parametrize("name", ["encode", "train-vae", "train-clip", "train-diffusion", "pack"])
def test_core_dry_runs_estimate_and_write_nothing(space, tmp_path, name):
    from text2ct.diffusion import init_pack

    base = init_pack(tmp_path / "random")
    config = tmp_path / "vae.json"
    config.write_text('{"patch": 8}')
    place = ("--work", tmp_path / "made") if name == "encode" else ("--out", tmp_path / "made")
    options = () if name == "pack" else ("--model", base.path, "--workspace", space)
    if name == "train-vae":
        options += ("--config", config)
    if name.startswith("train"):
        options += ("--steps", "40", "--batch-size", "2")
    before = sorted(space.rglob("*"))
    would = run_json("core", name, *place, *options, "--dry-run")
    assert would["dry_run"]
    assert would["seconds"] > 0
    assert would["bytes"] > 0
    assert would["cases"] > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["random", "vae.json"]
    assert sorted(space.rglob("*")) == before


def test_an_autoencoder_in_closed_form_is_fitted_to_a_manifest(space, tmp_path):
    fitted = run_json("core", "train-vae", "--out", tmp_path / "own", "--workspace", space)
    assert fitted["missing"] == ["unet"]
    assert fitted["sha256"] != run_json("models", "info")["sha256"]


def test_a_pack_in_the_workspace_is_found_by_name(tmp_path):
    from text2ct.diffusion import init_pack

    init_pack(tmp_path / "packs" / "mine")
    place = ("--workspace", tmp_path)
    assert run_json("models", "info", "mine", *place)["path"] == str(tmp_path / "packs" / "mine")
    assert run_json("models", "verify", "mine", *place)["verified"]
    made = run_json("synthesize", "--text", "normal chest", "--model", "mine", *place)
    assert made["volumes"] == 1
    assert "bundled: simulated-64" in run("models", "info", "mine", "--workspace", tmp_path / "other", code=2)
