"""The gate as a whole, on a tiny cohort: what it writes, what it refuses, and what it makes again."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from augment_fakes import tree
from gate_fakes import (
    COPY,
    EFFUSION,
    EXTRA,
    MISSED,
    ONCE,
    TORN,
    ChestPack,
    cohort,
    config,
    draw_chests,
    read,
    read_prompts,
    synthetic,
    write_record,
)
from typer.testing import CliRunner

from text2ct import classifiers, scoring, workflow
from text2ct.augment.gate import (
    GateRecord,
    gate,
    gates_of,
    known_labels,
    newest_ungated,
    newest_usable,
    read_record,
    refuse_same_judge,
)
from text2ct.augment.gate.judges import Judges
from text2ct.augment.mix import mix
from text2ct.augment.selection import usable
from text2ct.classifiers.rows import usable_rows
from text2ct.cli import app
from text2ct.errors import UserError
from text2ct.files import read_json, write_json
from text2ct.findings import FINDINGS
from text2ct.manifests import Workspace

PROMPTS = ["a chest", COPY, TORN, MISSED, ONCE, EXTRA, "another chest"]
NAMES = [f"synthetic_{index:06d}.nii.gz" for index in range(len(PROMPTS))]


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """A cohort, a run of seven volumes, and the gate's own classifier; the run is gated once."""
    folder = tmp_path_factory.mktemp("gate")
    workspace = Workspace(folder / "ws")
    real = cohort(workspace, {"train": 6, "validation": 10, "test": 2})
    pack = ChestPack.make(folder / "pack")
    source = synthetic(workspace, pack, PROMPTS)
    before = tree(source.parent)
    result = gate(source, real, workspace, config=config(), predict=read_prompts, pack=pack, device="cpu")
    assert tree(source.parent) == before, "the input stays as it is"
    return workspace, real, pack, source, result


@pytest.fixture
def space(judged, tmp_path):
    """The same, to be tampered with."""
    workspace, real, pack, _, result = judged
    shutil.copytree(workspace.path, tmp_path / "ws")
    copy = Workspace(tmp_path / "ws")
    return copy, real.copy(), pack, copy.run_dir("synthetic", "made") / "manifest.csv", result


def verdicts(manifest: pd.DataFrame) -> list[str]:
    return [cell.split("@")[0] for cell in manifest["gate"]]


def test_each_volume_is_rejected_for_what_is_wrong_with_it(judged) -> None:
    workspace, _, _, source, result = judged
    manifest, offered = read(result["manifest"]), read(source)
    assert verdicts(manifest) == ["accept", "reject", "reject", "reject", "reject", "reject", "accept"]
    pd.testing.assert_frame_equal(manifest.drop(columns="gate"), offered.drop(columns="gate"))
    cells = dict(zip(PROMPTS, manifest["gate"], strict=True))
    assert cells["a chest"] == "accept@made-gated"
    assert cells[COPY].startswith("reject@made-gated: memorised: copy of toy/train_0_a_")
    assert "geometry: impossible volume of aerated lung" in cells[TORN]
    assert f"label: {EFFUSION} is not seen" in cells[MISSED]
    assert cells[EXTRA].count("is seen and was not asked for") == len(FINDINGS) - 1
    assert result["reasons"] == {"label": 3, "geometry": 1, "intensity": cells[TORN].count("intensity"), "memorised": 1}
    assert (result["accepted"], result["rejected"], result["unmet"]) == (2, 5, 5)
    assert result["findings"] == {EFFUSION: {"asked": 7, "accepted": 2, "shown": 5, "unknown": 0}}
    assert gates_of(offered, workspace) == []


def test_labels_in_doubt_are_named_and_not_learnt(space) -> None:
    workspace, real, pack, source, _ = space
    how = {"config": config(label={"max_doubts": 18}), "predict": read_prompts, "pack": pack, "device": "cpu"}
    result = gate(source, real, workspace, run="patient", **how)
    manifest, offered = read(result["manifest"]), read(source)
    pd.testing.assert_frame_equal(manifest.drop(columns="gate"), offered.drop(columns="gate"))
    cells = dict(zip(PROMPTS, manifest["gate"], strict=True))
    others = [name for name in FINDINGS if name != EFFUSION]
    assert cells["a chest"] == "accept@patient"
    assert cells[EXTRA] == "accept@patient: " + "; ".join(f"{name} unknown" for name in others)
    assert result["findings"][EFFUSION] == {"asked": 7, "accepted": 3, "shown": 5, "unknown": 0}
    known, asked = known_labels(manifest).set_index("prompt"), offered.set_index("prompt")
    assert known.loc[EXTRA, others].isna().all()
    assert known.loc[EXTRA, EFFUSION] == 1
    pd.testing.assert_frame_equal(known.drop(index=EXTRA).drop(columns="gate"), asked.drop(index=EXTRA, columns="gate"))
    learnt, _ = usable(manifest, workspace)
    assert learnt.set_index("prompt").loc[EXTRA, others].isna().all()
    train_rows, _ = usable_rows(manifest)
    assert train_rows.set_index("prompt").loc[EXTRA, others].isna().all()


def test_the_scores_tell_the_verdict(judged) -> None:
    workspace, real, _, _, result = judged
    folder = workspace.run_dir("synthetic", "made-gated")
    scores, manifest = pd.read_csv(folder / "gate.csv"), read(result["manifest"])
    assert set(scores["volume"]) == set(NAMES)
    passed = scores.groupby("volume", sort=False)["passed"].all()
    assert [name for name in NAMES if passed[name]] == manifest.loc[
        manifest["gate"].str.startswith("acc"), "volume"
    ].tolist()
    bounded = scores[scores["value"].notna()]
    inside = bounded["value"].between(bounded["low"].fillna(-np.inf), bounded["high"].fillna(np.inf))
    unknown = bounded["reason"].str.startswith("unknown: ", na=False)
    assert (inside == bounded["passed"] & ~unknown).all()
    assert scores.loc[~scores["passed"], "reason"].notna().all()
    record = read_record(folder)
    assert record.classifier is not None
    assert (record.classifier.name, record.classifier.seed) == ("slices", 7919)
    assert (workspace.path / record.classifier.run / "model.safetensors").is_file()
    for patients, split in ((record.trained_on, "train"), (record.calibrated_on, "validation")):
        assert set(patients) == {("toy", name) for name in real.loc[real["split"] == split, "patient"]}
    assert set(record.patients) == {*record.trained_on, *record.calibrated_on}
    assert set(record.real_rejected) == set(record.config.tests)
    assert {record.real_rejected[test] for test in ("geometry", "intensity", "memorised")} == {0}


def test_a_copy_is_listed_and_shown_beside_the_patient(judged) -> None:
    workspace, _, _, _, result = judged
    (copy,) = result["copies"]
    assert copy["volume"] == f"synthetic-made/{NAMES[1]}"
    assert copy["copy_of"].startswith("toy/train_0_a_")
    picture = workspace.run_dir("synthetic", "made-gated") / copy["picture"]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_same_request_again_does_nothing(space) -> None:
    workspace, real, pack, source, result = space
    before = {path: path.stat().st_mtime_ns for path in workspace.path.rglob("*")}
    again = gate(source, real, workspace, config=config(), pack=pack, device="cpu")  # predicts nothing
    assert again == result | {"manifest": again["manifest"]}
    assert {path: path.stat().st_mtime_ns for path in workspace.path.rglob("*")} == before


def test_an_interrupted_gate_ends_in_the_same(space) -> None:
    workspace, real, pack, source, _ = space
    folder = workspace.run_dir("synthetic", "made-gated")
    before = tree(folder)
    for name in ("manifest.csv", "gate.json"):
        (folder / name).unlink()
    gate(source, real, workspace, config=config(), pack=pack, predict=read_prompts, device="cpu")
    assert tree(folder) == before


def test_another_request_is_refused(space) -> None:
    workspace, real, pack, source, _ = space
    with pytest.raises(UserError, match="was judged otherwise"):
        gate(source, real, workspace, config=config(label={"pass_share": 0.5}), pack=pack, device="cpu")
    with pytest.raises(UserError, match=r"7 volumes of .* were judged already"):
        gate(workspace.run_dir("synthetic", "made-gated") / "manifest.csv", real, workspace, config=config())
    with pytest.raises(UserError, match="never changes its input"):
        gate(source, real, workspace, run="made", config=config())
    with pytest.raises(UserError, match="no manifest of synthetic volumes"):
        gate(workspace.run_dir("real") / "manifest.csv", real, workspace, config=config())
    with pytest.raises(UserError, match="needs the pack that made them"):
        gate(source, real, workspace, run="x", config=config(), best_of=2)
    other = dataclasses.replace(pack, sha256="0" * 64)
    with pytest.raises(UserError, match="did not make these volumes"):
        gate(source, real, workspace, run="x", config=config(), pack=other)
    with pytest.raises(UserError, match="no validation volumes"):
        gate(source, real[real["split"] == "train"], workspace, run="x", config=config(tests=("geometry",)))


def test_a_verdict_does_not_depend_on_the_other_volumes(judged) -> None:
    workspace, real, _, source, _ = judged
    judges = Judges(real, workspace, config(tests=("geometry", "intensity", "memorised")), classifier=None)
    rows = read(source)
    whole = judges.judge(rows)
    for at in (0, 1, 2):
        assert judges.judge(rows.iloc[[at]]) == [whole[at]]


def test_a_file_that_was_changed_is_rejected_and_the_rest_is_judged(space) -> None:
    workspace, real, _, source, _ = space
    rows = read(source)
    damaged = workspace.resolve("workspace", rows["path"].iloc[0])
    damaged.write_bytes(workspace.resolve("workspace", rows["path"].iloc[6]).read_bytes())
    workspace.resolve("workspace", rows["path"].iloc[6]).unlink()
    result = gate(source, real, workspace, run="again", config=config(), predict=read_prompts, device="cpu")
    cells = read(result["manifest"])["gate"].tolist()
    assert "intensity: unusable: " in cells[0]
    assert "is not the file that the manifest was made of" in cells[0]
    assert "intensity: unusable: " in cells[6]
    assert result["accepted"] == 0


def test_best_of_makes_rejected_volumes_again_with_new_seeds(space) -> None:
    workspace, real, pack, source, _ = space
    options = {"config": config(), "pack": pack, "predict": read_prompts, "device": "cpu", "generate": draw_chests}
    result = gate(source, real, workspace, run="best", best_of=3, **options)
    assert [(one["run"], one["judged"], one["accepted"]) for one in result["tries"]] == [
        ("made", 7, 2),
        ("best-try2", 5, 1),
        ("best-try3", 4, 0),
    ]
    assert (result["accepted"], result["rejected"], result["unmet"]) == (3, 13, 4)
    manifest, first = read(result["manifest"]), read(source)
    accepted = manifest[manifest["gate"].str.startswith("accept")]
    assert accepted["prompt"].tolist() == ["a chest", "another chest", ONCE]
    again = manifest[manifest["dataset"] == "synthetic-best-try2"]
    assert not set(again["seed"]) & set(first["seed"])
    assert again["prompt"].tolist() == [prompt for prompt in PROMPTS if "chest" not in prompt]
    assert again["pack_sha256"].unique().tolist() == [pack.sha256]
    assert (again["steps"] == 2).all(), "the run's own settings, not the pack's"
    before = tree(workspace.path / "synthetic")
    gate(source, real, workspace, run="best", best_of=3, **options)
    assert tree(workspace.path / "synthetic") == before
    mixed = mix(real, manifest, ratio=0.25, workspace=workspace)
    assert mixed["synthetic"] == 3
    assert mixed["left_out"] == {"rejected by the gate": 13}


def test_real_volumes_are_judged_as_synthetic_ones_are(judged) -> None:
    workspace, real, *_ = judged
    narrow = config(tests=("geometry",), geometry={"min_field_mm": [300, 150, 150]})
    assert Judges(real, workspace, narrow, classifier=None).real_rejected == {"geometry": 1.0}


def test_a_killed_gate_leaves_no_try_for_others_to_take(space) -> None:
    workspace, real, pack, source, _ = space
    shutil.rmtree(workspace.run_dir("synthetic", "made-gated"))
    options = {"config": config(), "pack": pack, "device": "cpu", "generate": draw_chests, "best_of": 2}

    def killed_in_the_second_try(run, rows, workspace, *, device):
        if (rows["dataset"] == "synthetic-made-try2").any():
            raise KeyboardInterrupt
        return read_prompts(run, rows, workspace, device=device)

    with pytest.raises(KeyboardInterrupt):
        gate(source, real, workspace, predict=killed_in_the_second_try, **options)
    assert (workspace.run_dir("synthetic", "made-try2") / "manifest.csv").is_file()
    assert newest_usable(workspace) == newest_ungated(workspace) == source
    result = gate(source, real, workspace, predict=read_prompts, **options)
    assert newest_usable(workspace) == Path(result["manifest"])
    shutil.rmtree(workspace.run_dir("synthetic", "made-gated"))
    shutil.rmtree(source.parent)
    with pytest.raises(UserError, match="a gate's result or one of its tries"):
        newest_usable(workspace)


def test_mix_takes_what_the_gate_made_of_a_run(space, capsys) -> None:
    workspace, _, _, source, _ = space
    source.touch()  # as if it were the newest
    mixed = workflow.mix(workspace, ratio=0.2)
    assert "leaving out made: judged" in capsys.readouterr().err
    assert mixed["left_out"]["rejected by the gate"] == 5
    assert workflow.mix(workspace, ratio=0.2, synthetic=source)["left_out"].keys() == {"beyond the ratio"}


def test_a_run_that_a_user_calls_a_try_is_judged_like_any(space) -> None:
    workspace, _, pack, source, _ = space
    mine = synthetic(workspace, pack, PROMPTS[:2], run="mine-try2")
    os.utime(source, (1, 1))
    assert newest_ungated(workspace) == newest_usable(workspace) == mine


# --- who may judge


def cheat_synthetic(seen: dict) -> str:
    seen["prompts"] = [{"dataset": "toy", "volume": "train_0_a_1.nii.gz"}]
    return "train_0_a_1.nii.gz: the report of a synthetic training volume"


def cheat_validation(seen: dict) -> str:
    seen["training"].append({"dataset": "toy", "patient": "validation_3"})
    return "toy/validation_3: trained on, and in the split 'validation'"


def cheat_test(seen: dict) -> str:
    seen["training"].append({"dataset": "toy", "patient": "test_1"})
    return "toy/test_1: trained on, and in the split 'test'"


def cheat_stranger(seen: dict) -> str:
    seen["training"].append({"dataset": "synthetic-made", "patient": "synthetic_000000"})
    return "synthetic-made/synthetic_000000: trained on, and not in the real manifest"


def cheat_chosen_on_test(seen: dict) -> str:
    seen["validation"].append({"dataset": "toy", "patient": "test_0"})
    return "toy/test_0: chosen on, and in the split 'test'"


@pytest.mark.parametrize("cheat", [v for k, v in list(globals().items()) if k.startswith("cheat_")])
def test_a_classifier_that_knows_more_cannot_be_the_gate(space, cheat) -> None:
    workspace, real, _, source, result = space
    run = workspace.path / result["classifier"]["run"]
    seen = read_json(run / "patients.json")
    message = cheat(seen)
    write_json(run / "patients.json", seen)
    with pytest.raises(UserError, match="trained on the real training split and on nothing else") as error:
        gate(source, real, workspace, run="x", config=config(), classifier=run, device="cpu")
    assert message in str(error.value)
    assert not workspace.run_dir("synthetic", "x").exists()


def test_a_finished_run_can_be_the_gate_by_name(space) -> None:
    workspace, real, _, source, result = space
    name = Path(result["classifier"]["run"]).relative_to("classifiers")
    options = {"config": config(), "classifier": name, "predict": read_prompts, "device": "cpu"}
    again = gate(source, real, workspace, run="named", **options)
    assert again["classifier"] == result["classifier"]
    assert again["reasons"] == result["reasons"]
    with pytest.raises(UserError, match="neither a run"):
        gate(source, real, workspace, run="x", config=config(), classifier=Path("nothing"))


def test_one_model_does_not_judge_and_get_judged(space) -> None:
    workspace, _, _, _, result = space
    gated = read(result["manifest"])
    with pytest.raises(UserError, match="with a classifier 'slices' too"):
        refuse_same_judge(gated, workspace, "slices", 0)
    with pytest.raises(UserError, match="with a classifier of seed 7919 too"):
        refuse_same_judge(gated, workspace, "cnn3d", 7919)
    refuse_same_judge(gated, workspace, "cnn3d", 0)
    refuse_same_judge(gated.assign(gate=""), workspace, "slices", 7919)
    manifest = read(mix(read(workspace.run_dir("real")), gated, ratio=0.2, workspace=workspace)["manifest"])
    with pytest.raises(UserError, match="train another architecture"):
        classifiers.train(manifest, workspace, workspace.run_dir("classifiers", "twin"), name="slices", device="cpu")
    with pytest.raises(UserError, match="give another --seed"):
        classifiers.train(manifest, workspace, workspace.run_dir("classifiers", "twin"), seed=7919, device="cpu")
    with pytest.raises(UserError, match="is the gate of synthetic/made-gated"):
        scoring.score_run(workspace, workspace.path / result["classifier"]["run"], device="cpu")


def test_rows_must_name_a_gate_that_is_there(space) -> None:
    workspace, _, _, _, result = space
    gated = read(result["manifest"])
    assert [record.run for record in gates_of(gated, workspace)] == ["made-gated"]
    with pytest.raises(UserError, match=r"do not name the gate that judged them.*\n.*'accept'"):
        gates_of(gated.assign(gate="accept"), workspace)
    shutil.copytree(workspace.run_dir("synthetic", "made-gated"), workspace.run_dir("synthetic", "other"))
    with pytest.raises(UserError, match="is the record of the gate 'made-gated'"):
        mix(read(workspace.run_dir("real")), gated.assign(gate="accept@other"), ratio=0.2, workspace=workspace)
    record = workspace.run_dir("synthetic", "made-gated") / "gate.json"
    record.write_text(record.read_text("utf-8").replace('"version": 1', '"version": 7'), encoding="utf-8")
    with pytest.raises(UserError, match=r"gate\.json is damaged"):
        gates_of(gated, workspace)
    record.unlink()
    with pytest.raises(UserError, match="nobody can tell who judged these volumes"):
        gates_of(gated, workspace)
    with pytest.raises(UserError, match="nobody can tell who judged these volumes"):
        mix(read(workspace.run_dir("real")), gated, ratio=0.2, workspace=workspace)


@pytest.mark.parametrize(
    ("known", "patient", "message"),
    [
        ("trained_on", "test_1", "'made-gated', trained on validation or test patients: toy/test_1"),
        ("trained_on", "validation_1", "trained on validation or test patients: toy/validation_1"),
        ("calibrated_on", "test_0", "'made-gated', calibrated on test patients: toy/test_0"),
    ],
)
def test_a_gate_that_knows_held_out_patients_is_not_mixed(space, known, patient, message) -> None:
    workspace, real, _, _, result = space
    path = workspace.run_dir("synthetic", "made-gated") / "gate.json"
    record = json.loads(path.read_text("utf-8"))
    record[known].append(["toy", patient])
    path.write_text(json.dumps(record), encoding="utf-8")
    assert isinstance(read_record(path.parent), GateRecord)
    gated = read(result["manifest"])
    other = gated.assign(dataset="elsewhere", gate="accept@made-gated-2")
    write_record(workspace, "made-gated-2")
    with pytest.raises(UserError, match=message) as error:
        mix(real, [gated, other], ratio=0.2, workspace=workspace)
    assert NAMES[0] in str(error.value)
    assert f"{len(NAMES)} volumes, " in str(error.value), "not those of a gate whose name begins alike"
    assert not (workspace.path / "mixed").exists()


# --- the command


def run(workspace: Workspace, *words: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["gate", *words, "--workspace", str(workspace.path)], catch_exceptions=False)
    assert done.exit_code == code, done.stderr
    return done.stdout if code != 2 else done.stderr


def test_the_command_judges_the_newest_run_that_was_not_judged(space, tmp_path) -> None:
    workspace, *_ = space
    write_json(tmp_path / "c.json", config(tests=("geometry",)).model_dump(mode="json"))
    options = ("--config", str(tmp_path / "c.json"), "--run", "cli", "--json")
    before = tree(workspace.path)
    planned = json.loads(run(workspace, *options, "--dry-run"))
    assert tree(workspace.path) == before
    assert (planned["volumes"], planned["dry_run"]) == (7, True)
    result = json.loads(run(workspace, *options, "--strict", code=1))
    assert result["reasons"] == {"label": 0, "geometry": 1, "intensity": 0, "memorised": 0}
    assert read_json(workspace.run_dir("synthetic", "cli") / "gate.json")["classifier"] is None
    lines = run(workspace, *options[:-1])
    assert "6 volumes accepted, 1 rejected by: geometry 1" in lines
    assert f"{EFFUSION}: 6 of 7 accepted" in lines
    assert "expected" not in run(workspace, "--config", "nothing.json", code=2)
