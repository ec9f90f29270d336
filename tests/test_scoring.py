"""Scores of a run and of tables, as the commands give them; the network itself is replaced by a table."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from text2ct import classifiers, scoring
from text2ct.cli import app
from text2ct.errors import UserError
from text2ct.findings import FINDINGS
from text2ct.manifests import Workspace, read_manifest, validate, write_manifest


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


def make_run(workspace: Workspace, name: str = "run", prompts: tuple[tuple[str, str], ...] = ()) -> Path:
    seen = [{"dataset": "clinic", "patient": f"train_{index}"} for index in range(12)]
    told = [{"dataset": dataset, "volume": volume} for dataset, volume in prompts]
    folder = workspace.run_dir("classifiers") / name
    folder.mkdir(parents=True)
    (folder / "patients.json").write_text(json.dumps({"training": seen, "validation": [], "prompts": told}))
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
    assert json.loads((workspace.path / "scores" / "run.json").read_text()) == result


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
    with pytest.raises(UserError, match="trained on 12 of the patients"):
        scoring.score_run(workspace, make_run(workspace), split="train")
    told = make_run(workspace, "told", prompts=(("clinic", "test_3_a_1.nii.gz"), ("clinic", "train_1_a_1.nii.gz")))
    with pytest.raises(UserError, match=r"made from the reports of 1 of .*\n.*test_3_a_1"):
        scoring.score_run(workspace, told)
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
