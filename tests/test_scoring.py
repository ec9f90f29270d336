"""Scores of a run and of tables, as the commands give them; the network itself is replaced by a table."""

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from text2ct import classifiers, reports, scoring, volumes
from text2ct.cli import app
from text2ct.errors import UserError
from text2ct.evaluation import benchmark as benchmarking
from text2ct.findings import FINDINGS
from text2ct.manifests import Workspace, read_manifest, validate, write_manifest
from text2ct.simulation import simulate_cohort


def make_manifest(dataset: str = "clinic", n: int = 12) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for split in ("train", "validation", "test"):
        labels = rng.integers(0, 2, (n, len(FINDINGS))).astype(float)
        labels[0], labels[1] = 1, 0
        for index, row in enumerate(labels):
            patient = f"{split}_{index}"
            rows.append(
                {"dataset": dataset, "volume": f"{patient}_a_1.nii.gz", "patient": patient, "scan": f"{patient}_a"}
                | {"split": split, "source": "real", "root": "workspace", "path": f"real/{patient}.nii.gz"}
                | dict(zip(FINDINGS, row, strict=True))
            )
    return validate(pd.DataFrame(rows), "the test")


def make_run(
    workspace: Workspace,
    name: str = "run",
    prompts: tuple[tuple[str, str], ...] = (),
    makers: tuple[dict[str, object], ...] = (),
) -> Path:
    seen = [{"dataset": "clinic", "patient": f"train_{index}"} for index in range(12)]
    told = [{"dataset": dataset, "volume": volume} for dataset, volume in prompts]
    folder = workspace.run_dir("classifiers") / name
    folder.mkdir(parents=True)
    known = {"training": seen, "validation": [], "prompts": told, "makers": makers}
    (folder / "patients.json").write_text(json.dumps(known))
    return folder


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace with real data, whose classifiers are right with a probability of at most 0.3."""

    def predict(run: Path, rows: pd.DataFrame, *_: object, **__: object) -> pd.DataFrame:
        noise = np.random.default_rng(len(rows)).random((len(rows), len(FINDINGS)))
        table = pd.DataFrame(0.2 * rows[list(FINDINGS)].to_numpy() + 0.1 * noise, columns=list(FINDINGS))
        return table.assign(VolumeName=rows["volume"].tolist())

    monkeypatch.setattr(classifiers, "predict", predict)
    space = Workspace(tmp_path / "ws")
    write_manifest(make_manifest(), space.run_dir("real") / "manifest.csv")
    return space


def test_thresholds_come_from_validation_patients(workspace: Workspace) -> None:
    result = scoring.score_run(workspace, make_run(workspace), n_bootstrap=10)
    assert result["macro_f1"] == 1.0, "at 0.5 nothing would be found"
    assert all(0.1 < entry["threshold"] < 0.3 for entry in result["findings"].values())
    assert json.loads((workspace.path / "scores" / "run.json").read_text("utf-8")) == result


def test_another_test_set_does_not_become_the_workspaces_real_data(workspace: Workspace, tmp_path: Path) -> None:
    other = make_manifest("elsewhere")
    write_manifest(other[other["split"] == "test"], tmp_path / "other.csv")
    before = read_manifest(workspace.run_dir("real") / "manifest.csv")
    result = scoring.score_run(workspace, make_run(workspace), manifest=tmp_path / "other.csv", n_bootstrap=10)
    pd.testing.assert_frame_equal(read_manifest(workspace.run_dir("real") / "manifest.csv"), before)
    assert result["macro_f1"] == 1.0, "thresholds are the workspace's, since the table has no validation patients"
    (workspace.run_dir("real") / "manifest.csv").unlink()
    alone = scoring.score_run(workspace, Path("run"), manifest=tmp_path / "other.csv", n_bootstrap=10)
    assert {entry["threshold"] for entry in alone["findings"].values()} == {0.5}
    assert "at 0.5" in alone["notes"][-1]


def test_what_a_classifier_knows_is_not_scored(workspace: Workspace) -> None:
    with pytest.raises(UserError, match="knows patients that are to be scored") as error:
        scoring.score_run(workspace, make_run(workspace), split="train")
    assert error.value.problems[0] == "clinic/train_0: it was trained on"
    assert error.value.problems[10:] == ("and 2 more",)
    told = make_run(workspace, "told", prompts=(("clinic", "test_3_a_1.nii.gz"), ("clinic", "train_1_a_1.nii.gz")))
    with pytest.raises(UserError, match=r"test_3_a_1.nii.gz: it was trained on a volume made from the report of"):
        scoring.score_run(workspace, told)
    peeked = make_run(workspace, "peeked", makers=({"dataset": "clinic", "first": 2, "last": 2},))
    with pytest.raises(UserError, match=r"clinic/test_2: it was trained on volumes whose generator or gate"):
        scoring.score_run(workspace, peeked)
    frame = make_manifest()
    frame.loc[frame["volume"] == "test_0_a_1.nii.gz", "source"] = "synthetic"
    write_manifest(frame, workspace.run_dir("real") / "manifest.csv")
    with pytest.raises(UserError, match="holds synthetic volumes"):
        scoring.score_run(workspace, Path("run"))
    with pytest.raises(UserError, match="no volume with a file in the split 'tset'"):
        scoring.score_run(workspace, Path("run"), split="tset")


def test_models_of_a_benchmark_have_scores_of_their_own(workspace: Workspace) -> None:
    for arm in ("real-seed0", "real-seed1"):
        scoring.score_run(workspace, make_run(workspace, f"bench/{arm}/model"), n_bootstrap=10)
    names = {path.name for path in (workspace.path / "scores").iterdir()}
    assert names == {"bench-real-seed0-model.json", "bench-real-seed1-model.json"}


def test_the_benchmark_says_what_is_missing_before_it_makes_anything(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no synthetic volumes yet"):
        scoring.benchmark(Workspace(tmp_path / "empty"))
    assert not (tmp_path / "empty").exists()


def make_synthetic(workspace: Workspace, run: str = "made", gates: tuple[str, ...] = ("", "")) -> Path:
    """A run of synthetic volumes of 8 voxels a side, one for each gate's word."""
    rows = []
    for index, gate in enumerate(gates):
        path = f"synthetic/{run}/{index}.nii.gz"
        hu = np.full((8, 8, 8), -1000.0, dtype=np.float32)
        volumes.write(volumes.Volume(hu, np.diag([5.0, 5.0, 5.0, 1.0])), workspace.path / path)
        rows.append(
            {"dataset": f"synthetic-{run}", "volume": f"{index}.nii.gz", "patient": str(index), "scan": str(index)}
            | {"split": "train", "source": "synthetic", "root": "workspace", "path": path, "prompt": f"Text {index}."}
            | {"gate": gate}
            | dict.fromkeys(FINDINGS, 0.0)
            | {FINDINGS[index]: 1.0}
        )
    manifest = workspace.run_dir("synthetic", run) / "manifest.csv"
    write_manifest(validate(pd.DataFrame(rows), "the test"), manifest)
    return manifest


def run_benchmark(workspace: str | Path, *words: str | Path, code: int = 0) -> str:
    found = CliRunner().invoke(app, ["benchmark", "--workspace", str(workspace), *map(str, words)])
    assert found.exit_code == code, found.output
    return found.stdout if code == 0 else found.stderr


@pytest.fixture
def benchmarked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the command hands to the benchmark and to its page, both of which are replaced."""
    seen: dict[str, Any] = {}

    def judge(real: object, made: object, space: object, settings: object, run: object, **_: object) -> dict[str, Any]:
        seen["settings"] = settings
        result = {"run": "run", "arms": {}, "comparisons": [], "test": {"patients": 12}, "notes": []}
        return result | {"settings": settings.model_dump(mode="json")}  # type: ignore[attr-defined]

    def page(result: object, folder: Path, **told: object) -> Path:
        seen.update(told)
        return folder / "report.html"

    monkeypatch.setattr(benchmarking, "run_benchmark", judge)
    monkeypatch.setattr(reports, "write_benchmark_report", page)
    return seen


def test_run_it_again_names_the_workspace_and_the_volumes(
    workspace: Workspace, benchmarked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_synthetic(workspace)
    monkeypatch.chdir(workspace.path.parent)
    run_benchmark("ws", "--seed", "4", "--option", "width=8", "--option", "blocks=[1, 2]", "--loss", "asymmetric")
    (again,) = benchmarked["rerun"]
    assert "--synthetic ws/synthetic/made/manifest.csv --workspace ws --seed 4" in again
    asked = benchmarked["settings"]
    make_synthetic(workspace, "newer")
    assert CliRunner().invoke(app, shlex.split(again)[1:]).exit_code == 0
    assert benchmarked["settings"] == asked
    assert benchmarked["rerun"] == [again]
    given = Path("ws/synthetic/newer/manifest.csv")
    run_benchmark("ws", "--synthetic", given)
    assert f"--synthetic {given} " in benchmarked["rerun"][0]


def test_without_synthetic_volumes_none_are_named(workspace: Workspace, benchmarked: dict[str, Any]) -> None:
    run_benchmark(workspace.path, "--arms", "real,real+oversampled")
    assert "--synthetic" not in benchmarked["rerun"][0]


def test_options_and_loss_are_the_same_for_every_arm(workspace: Workspace, benchmarked: dict[str, Any]) -> None:
    arms = ("--arms", "real,real+oversampled")
    run_benchmark(workspace.path, *arms, "--option", "width=8", "--option", "style=mc3", "--loss", "asymmetric")
    options = benchmarked["settings"].train_options
    assert options["options"] == {"width": 8, "style": "mc3"}
    assert options["recipe"] == {"loss": "asymmetric"}
    assert "expected key=value" in run_benchmark(workspace.path, *arms, "--option", "width", code=2)


def test_the_page_shows_no_volume_that_no_arm_may_learn_from(workspace: Workspace, benchmarked: dict[str, Any]) -> None:
    make_synthetic(workspace, gates=("accept@g", "reject@g: label", ""))
    run_benchmark(workspace.path)
    assert [volume["name"] for volume in benchmarked["volumes"]] == ["0.nii.gz", "2.nii.gz"]
    make_synthetic(workspace, "worse", gates=("reject@g: label", "reject@g: geometry"))
    run_benchmark(workspace.path)
    assert benchmarked["volumes"] == []


@pytest.mark.parametrize("words", [(), ("--dry-run",)], ids=["", "dry-run"])
def test_an_unknown_arm_is_refused_before_anything_is_made(tmp_path: Path, words: tuple[str, ...]) -> None:
    said = run_benchmark(tmp_path / "empty", "--arms", "real,real+sythetic@R", *words, code=2)
    assert "unknown arm 'real+sythetic@R'" in said
    assert not (tmp_path / "empty").exists()


def test_a_dry_run_without_real_data_makes_no_cohort(tmp_path: Path) -> None:
    words = ("--arms", "real,real+classical", "--seeds", "2", "--train-patients", "20,40,60", "--dry-run")
    found = json.loads(run_benchmark(tmp_path / "empty", *words, "--json"))
    assert (found["trainings"], found["left"], found["resumed"]) == (12, 12, 0)
    assert (found["seconds"], found["bytes"]) == (None, None)
    assert "the embedded cohort is simulated first" in found["notes"][0]
    assert "would make 12 of 12 trainings of 300 steps\n" in run_benchmark(tmp_path / "empty", *words)
    pack = ("--arms", "real,real+reconstructed", "--dry-run")
    assert "no pack is given" in run_benchmark(tmp_path / "empty", *pack, code=2)
    assert not (tmp_path / "empty").exists()


def test_a_dry_run_adopts_no_real_data(tmp_path: Path) -> None:
    cohort, place = tmp_path / "cohort", tmp_path / "ws"
    simulate_cohort(cohort, 3, size=(28, 28, 28), spacing_mm=(12.0, 12.0, 12.0), workers=1)
    words = ("--arms", "real,real+oversampled", "--dry-run", "--json", "--real")
    found = json.loads(run_benchmark(place, *words, cohort))
    assert (found["trainings"], found["seconds"]) == (6, None)
    assert f"{cohort} becomes data of the workspace first" in found["notes"][0]
    write_manifest(make_manifest().assign(root="elsewhere"), tmp_path / "manifest.csv")
    said = run_benchmark(place, *words, tmp_path / "manifest.csv", code=2)
    assert "the root 'elsewhere'" in said, "a manifest declares no root, in a dry run or not"
    assert not place.exists()


def score_tables(tmp_path: Path, *words: str, labels: float | None = None) -> tuple[int, str]:
    table = make_manifest()[["volume", *FINDINGS]].rename(columns={"volume": "VolumeName"})
    table.to_csv(tmp_path / "p.csv", index=False)
    if labels is not None:
        table[list(FINDINGS)] = labels
    table.to_csv(tmp_path / "l.csv", index=False)
    files = ("--predictions", str(tmp_path / "p.csv"), "--labels", str(tmp_path / "l.csv"))
    result = CliRunner().invoke(app, ["score", *files, "--bootstrap", "10", *words])
    return result.exit_code, result.stdout + result.stderr


def test_a_run_beside_tables_is_a_mistake(tmp_path: Path) -> None:
    code, text = score_tables(tmp_path, "--manifest", "m.csv")
    assert code == 2
    assert "leave out the run and --manifest" in text


def test_scores_that_do_not_exist_are_explained(tmp_path: Path) -> None:
    code, text = score_tables(tmp_path, labels=0.0)
    assert code == 0
    assert "nothing could be scored: no finding has both a positive and a negative scan" in text
