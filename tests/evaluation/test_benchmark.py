from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from text2ct.classifiers.registry import CLASSIFIERS
from text2ct.errors import UserError
from text2ct.evaluation.benchmark import BenchmarkSettings, run_benchmark
from text2ct.files import sha256_file, write_json
from text2ct.findings import FINDINGS
from text2ct.manifests import Workspace
from text2ct.status import status

from .benchmark_fakes import FakeClassifier, make_synthetic, run

FEW = ("real", "real+oversampled")


def test_every_arm_is_trained_alike_and_judged_on_real_volumes(workspace, real, synthetic):
    fake = FakeClassifier()
    result = run(workspace, real, synthetic, fake, seeds=(3, 4))
    names = ["real", "real+oversampled", "real+synthetic@0.25", "real+synthetic@0.5", "real+shuffled@0.25"]
    names += ["real+shuffled@0.5", "synthetic"]
    assert list(result["arms"]) == names
    assert {(t["steps"], t["batch_size"], t["name"]) for t in fake.trainings} == {(7, 8, "cnn3d")}
    assert [t["seed"] for t in fake.trainings] == [3, 4] * len(names)
    volumes = {name: (t["real"], t["synthetic"]) for name, t in result["training"].items()}
    assert volumes == dict(zip(names, [(40, 0), (40, 0), (40, 10), (40, 20), (40, 10), (40, 20), (0, 30)], strict=True))
    for training in fake.trainings:
        frame = training["manifest"]
        assert set(frame["split"]) == {"train", "validation"}
        held = frame[frame["split"] == "validation"]
        assert held["volume"].tolist() == real.loc[real["split"] == "validation", "volume"].tolist()
        weights = training["sampling_weights"]
        assert weights is None or (len(weights) == len(frame) and (weights[frame["split"] == "validation"] == 1).all())
    oversampled = fake.trainings[2]["sampling_weights"]
    assert oversampled.sum() - len(oversampled) == result["training"]["real+oversampled"]["clones"] > 0
    for name in names:
        arm = result["arms"][name]
        assert len(arm["per_seed"]) == 2
        assert arm["ci"][0] <= arm["macro_auc"] <= arm["ci"][1]
        assert 0 <= arm["scores"]["macro_f1"] <= 1
    pairs = [(c["arm"], c["against"]) for c in result["comparisons"]]
    assert pairs[: len(names) - 1] == [(name, "real") for name in names[1:]]
    assert (result["chosen_ratio"]["arm"], "real+oversampled") in pairs
    findings = result["comparisons"][0]["findings"]
    assert {entry["verdict"] for entry in findings.values()} <= {"gain", "no evidence", "harm"}
    stored = json.loads(Path(result["benchmark"]).read_text(encoding="utf-8"))
    assert stored == {k: v for k, v in json.loads(json.dumps(result)).items() if k not in ("benchmark", "resumed")}
    assert str(workspace.path) not in json.dumps(stored)


def test_finished_trainings_are_skipped_and_the_result_is_the_same(workspace, real, synthetic):
    with pytest.raises(KeyboardInterrupt):
        run(workspace, real, synthetic, FakeClassifier(fail_after=3), arms=FEW)
    (row,) = [one for one in status(workspace.path)["runs"] if one["kind"] == "benchmark"]
    assert (row["state"], row["done"], row["left"], row["unit"]) == ("stopped", 3, 1, "trainings")
    fake = FakeClassifier()
    assert run(workspace, real, synthetic, arms=FEW, dry_run=True)["resumed"] == 3
    result = run(workspace, real, synthetic, fake, arms=FEW)
    assert result["resumed"] == 3
    assert len(fake.trainings) == 4 - 3
    idle = FakeClassifier()
    again = run(workspace, real, synthetic, idle, arms=FEW)
    assert idle.trainings == []
    assert again == result | {"resumed": 4}
    (row,) = [one for one in status(workspace.path)["runs"] if one["kind"] == "benchmark"]
    assert (row["state"], row["done"], row["left"]) == ("done", 4, 0)
    whole = Workspace(workspace.path.parent / "whole")
    path = whole.path / "reports" / result["run"] / "benchmark.json"
    at_once = run(whole, real, make_synthetic(whole), arms=FEW)
    hour = {"declared": at_once["endpoint"]["declared"]}
    assert at_once == result | {"resumed": 0, "benchmark": str(path), "endpoint": result["endpoint"] | hour}


def test_trainings_from_before_the_declaration_are_counted(workspace, real, synthetic):
    """Trainings are shared between benchmarks, so a declaration may be younger than what it is about."""
    first = run(workspace, real, synthetic, arms=("real",), seeds=(0, 1))
    assert first["endpoint"]["trained_before"] == 0
    for path in workspace.path.glob("classifiers/benchmark/*/done.json"):
        done = json.loads(path.read_text(encoding="utf-8"))
        begun = "2000-01-01T00:00:00+00:00" if "seed0" in str(path) else None
        path.write_text(json.dumps(done | {"begun": begun}), encoding="utf-8")
    later = run(workspace, real, synthetic, arms=("real", "synthetic"), seeds=(0, 1))
    assert (later["resumed"], later["endpoint"]["trained_before"]) == (2, 2)


def test_damaged_predictions_are_made_again(workspace, real, synthetic):
    result = run(workspace, real, synthetic, arms=("real",))
    (table,) = workspace.path.glob("classifiers/benchmark/real-seed0-*/predictions-test.csv")
    table.write_text(table.read_text(encoding="utf-8")[:-20], encoding="utf-8")
    fake = FakeClassifier()
    assert run(workspace, real, synthetic, fake, arms=("real",))["arms"] == result["arms"]
    assert len(fake.trainings) == 1


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"train": null, "predictions": {}}'])
def test_a_damaged_record_is_a_training_that_is_not_done(workspace, real, synthetic, content, capsys):
    result = run(workspace, real, synthetic, arms=("real",), seeds=(0,))
    (record,) = workspace.path.glob("classifiers/benchmark/real-seed0-*/done.json")
    record.write_text(content, encoding="utf-8")
    fake = FakeClassifier()
    assert run(workspace, real, synthetic, fake, arms=("real",), seeds=(0,))["arms"] == result["arms"]
    assert len(fake.trainings) == 1
    assert "is damaged; this training is made again" in capsys.readouterr().err


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_volumes_that_were_replaced_are_trained_on_again(workspace, real, synthetic, split):
    file = workspace.path / real.loc[real["split"] == split, "path"].iloc[0]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"voxels")
    mine = partial(run, workspace, real, synthetic, arms=("real",), seeds=(0,))
    mine()
    assert mine()["resumed"] == 1
    file.write_bytes(b"other voxels")
    fake = FakeClassifier()
    assert mine(fake)["resumed"] == 0
    assert len(fake.trainings) == 1


def test_what_cannot_be_trained_declares_nothing(workspace, real, synthetic):
    """The name would be taken, and the corrected benchmark refused under it."""
    settings = {"steps": 1, "seeds": (0,), "arms": ("real",)}
    for options, device, message in (({"size": (4, 4, 4)}, "cpu", "the grid cannot be used"), ({}, "cuda:99", "cuda")):
        asked = BenchmarkSettings.of("the test", settings | {"train_options": options})
        with pytest.raises(UserError, match=message):
            run_benchmark(real, None, workspace, asked, "mine", device=device)
    assert not (workspace.path / "reports").exists()


def test_other_settings_under_the_same_name_are_refused(workspace, real, synthetic):
    mine = partial(run, arms=("real", "synthetic"), seeds=(0,), run="mine")
    mine(workspace, real, synthetic)
    for change in (
        {"steps": 8},
        {"classifier": "ctnet"},
        {"batch_size": 4},
        {"train_options": {"augment": True}},
    ):
        with pytest.raises(UserError, match="other data or settings"):
            mine(workspace, real, synthetic, **change)
    real.loc[real["split"] == "train", FINDINGS[0]] = 0.0
    with pytest.raises(UserError, match="train: then"):
        mine(workspace, real, synthetic)


def test_benchmarks_share_the_trainings_that_both_ask_for(workspace, real, synthetic, monkeypatch):
    run(workspace, real, synthetic, arms=("real", "synthetic"), seeds=(0, 1))
    fake = FakeClassifier()
    result = run(workspace, real, synthetic, fake, arms=("real", "synthetic", "real+oversampled"), seeds=(0, 1, 2))
    assert (result["resumed"], len(fake.trainings)) == (4, 5)
    monkeypatch.setitem(CLASSIFIERS, "cnn3d", replace(CLASSIFIERS["cnn3d"], learning_rate=0.5))
    fake = FakeClassifier()
    assert run(workspace, real, synthetic, fake, arms=("real",), seeds=(0,))["resumed"] == 0, "another recipe"
    other = synthetic.assign(prompt=synthetic["prompt"] + " Again.")
    assert run(workspace, real, other, fake, arms=("real", "synthetic"), seeds=(0,))["resumed"] == 1, "other prompts"


def test_a_single_seed_gives_no_verdict(workspace, real, synthetic):
    result = run(workspace, real, synthetic, seeds=(0,), arms=("real", "synthetic"))
    verdicts = {e["verdict"] for c in result["comparisons"] for e in c["findings"].values()}
    assert verdicts == {"no evidence"}


def test_arms_without_synthetic_volumes_need_none(workspace, real):
    result = run(workspace, real, None, arms=("real", "real+oversampled"))
    assert list(result["arms"]) == ["real", "real+oversampled"]


def test_a_dry_run_writes_nothing(workspace, real):
    fake = FakeClassifier()
    result = run(workspace, real, None, fake, arms=FEW, seeds=(1, 2, 3), dry_run=True)
    assert result["trainings"] == 6
    assert (result["seconds"], result["bytes"]) == (100.0 + 6 * 2.0, 1000 + 6 * 10)
    assert (result["left"], result["hours"]) == (6, 112.0 / 3600)
    assert set(fake.foreseen["volume"]) == set(real["volume"]), "every volume that is read, once"
    assert len(fake.foreseen) == len(real)
    assert not workspace.path.exists()


def test_an_arm_short_of_its_ratio_says_so(workspace, real, synthetic):
    result = run(workspace, real, synthetic, ratios=(0.5, 2), arms=("real", "real+synthetic@R"))
    reached = {name: arm["ratio"] for name, arm in result["training"].items()}
    assert reached == {"real": 0.0, "real+synthetic@0.5": 0.5, "real+synthetic@2": 0.75}
    notes = [note for note in result["notes"] if "its ratio is" in note]
    assert notes == ["real+synthetic@2 had only 30 synthetic volumes to use: its ratio is 0.75"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arms": ("real", "real+magic")}, r"unknown arm 'real\+magic'"),
        ({"arms": ("synthetic",)}, "arm 'real' is missing"),
        ({"ratios": (0,)}, r"ratios\.0: .*greater than 0"),
        ({"ratios": ()}, "needs at least one ratio"),
        ({"seeds": ()}, "seeds: .*at least 1 item"),
        ({"steps": 0}, "steps: .*greater than or equal to 1"),
        ({"stepps": 3}, "stepps: Extra inputs"),
        ({"full": True}, "--full and --arms exclude each other"),
        ({"arms": ("real", "real+reconstructed")}, r"'real\+reconstructed' cannot be built: no pack is given"),
        ({"arms": ("real", "real+ungated@R")}, "no gate has judged"),
        ({"arms": ("real", "real+classical"), "train_options": {"augment": True}}, "every arm is trained so already"),
        ({"train_patients": (41,)}, "asks for 41 training patients; there are 40"),
    ],
    ids=["arm", "no-real", "ratio", "no-ratio", "seeds", "steps", "key", "full", "pack", "gate", "twice", "patients"],
)
def test_bad_settings_are_refused(workspace, real, synthetic, change, message):
    with pytest.raises(UserError, match=message):
        run(workspace, real, synthetic, **change)


def test_leaks_and_missing_splits_are_refused(workspace, real, synthetic):
    with pytest.raises(UserError, match="split 'test' has no labelled volumes"):
        run(workspace, real[real["split"] != "test"], synthetic)
    with pytest.raises(UserError, match="there are no synthetic volumes"):
        run(workspace, real, None)
    with pytest.raises(UserError, match="holds synthetic rows"):
        run(workspace, pd.concat([real, synthetic]), synthetic)
    with pytest.raises(UserError, match=r"s4\.nii\.gz: synthetic volumes belong to the training split, not to 'test'"):
        run(workspace, real, synthetic.assign(split=synthetic["split"].where(synthetic.index != 4, "test")))
    write_json(
        workspace.path / "synthetic" / "r" / "pack.json", {"trained_on": [{"dataset": "clinic", "patients": ["test3"]}]}
    )
    made_by = {"pack": "p", "pack_sha256": sha256_file(workspace.path / "synthetic" / "r" / "pack.json")}
    with pytest.raises(UserError, match="trained on validation or test patients: clinic/test3"):
        run(workspace, real, synthetic.assign(**made_by))
    synthetic.loc[0, ["prompt_dataset", "prompt_volume"]] = ["clinic", "test3.nii.gz"]
    with pytest.raises(UserError, match=r"its prompt comes from test3\.nii\.gz"):
        run(workspace, real, synthetic)
