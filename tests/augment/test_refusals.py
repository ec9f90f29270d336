"""What `mix` and `train` refuse: each test tries to cheat."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from augment_fakes import RARE, FakePack, requests, synthetic_set
from gate_fakes import write_record

from text2ct.augment import make_prompts, mix
from text2ct.augment._refusals import known_to_makers, refuse_pack, trained_on, training_data
from text2ct.classifiers.rows import check_held_out
from text2ct.diffusion.info import TrainingData
from text2ct.errors import UserError
from text2ct.files import read_json, sha256_file, write_json
from text2ct.manifests import write_manifest
from text2ct.workflow import read_synthetic


def cheat_prompt_of_test_patient(rows, frame):
    rows.loc[rows.index[0], ["prompt_dataset", "prompt_volume"]] = ["clinic", "testp003.nii.gz"]
    return "its prompt comes from testp003"


def cheat_other_reconstruction(rows, frame):
    other = frame["volume"] == "testp003.nii.gz"
    frame.loc[other, ["dataset", "volume", "patient", "scan"]] = [
        "CT",
        "valid_3_a_1.nii.gz",
        "valid_3",
        "valid_3_a",
    ]
    rows.loc[rows.index[0], ["prompt_dataset", "prompt_volume"]] = ["CT", "valid_3_b_2.nii.gz"]
    return "its prompt comes from valid_3_b_2"


def cheat_text_of_validation_report(rows, frame):
    rows.loc[rows.index[0], "prompt"] = (
        "report of VALIDATIONP002, "
        + frame.set_index("patient").loc["validationp002", "findings_text"].split(":")[1].strip(" .")
        + "; see above"
    )
    frame.loc[frame["patient"] == "validationp002", "findings_text"] = frame.loc[
        frame["patient"] == "validationp002", "findings_text"
    ].str.replace(":", ",")
    return "word for word"


def cheat_findings_only(rows, frame):
    rows.loc[rows.index[0], "prompt"] = frame.set_index("patient").loc["testp001", "findings_text"]
    return "word for word"


def cheat_test_split(rows, frame):
    rows.loc[rows.index[0], "split"] = "test"
    return "belong to the training split"


def cheat_source(rows, frame):
    rows.loc[rows.index[0], "source"] = "real"
    return "its source is 'real'"


def cheat_disguised_by_name(rows, frame):
    rows.loc[rows.index[0], ["dataset", "patient"]] = ["clinic", "testp003"]
    return "a validation or test volume"


def cheat_disguised_by_content(rows, frame):
    frame.loc[frame["patient"] == "testp003", "sha256"] = rows.loc[rows.index[0], "sha256"]
    return "a validation or test volume"


def cheat_unknown_data_set(rows, frame):
    rows.loc[rows.index[0], ["prompt_dataset", "prompt_volume"]] = ["prompts", "testp003.nii.gz"]
    return "its prompt comes from testp003"


def cheat_blank_data_set(rows, frame):
    rows.loc[rows.index[0], ["prompt_dataset", "prompt_volume"]] = [np.nan, "testp003.nii.gz"]
    return "its prompt comes from testp003"


def cheat_letter_case(rows, frame):
    rows.loc[rows.index[0], ["prompt_dataset", "prompt_volume"]] = ["Clinic", "TestP003.nii.gz"]
    return "its prompt comes from TestP003"


def cheat_impression_only(rows, frame):
    frame.loc[frame["patient"] == "testp001", "impression_text"] = "Small effusion beside the left lower lobe."
    rows.loc[rows.index[0], ["prompt", "prompt_volume"]] = ["small effusion beside the LEFT lower lobe", ""]
    return "word for word"


def cheat_pack_sum(rows, frame):
    rows["pack_sha256"] = "0" * 64
    return "its training patients cannot be checked"


CHEATS = [value for name, value in list(globals().items()) if name.startswith("cheat_")]


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda cheat: cheat.__name__)
def test_leaks_are_refused_by_name(workspace, frame, synthetic, cheat):
    message = cheat(synthetic, frame)
    with pytest.raises(UserError, match=message) as error:
        mix(frame, synthetic, ratio=0.1, workspace=workspace)
    assert synthetic.loc[synthetic.index[0], "volume"] in str(error.value)
    assert not (workspace.path / "mixed").exists()


def test_the_same_name_in_another_data_set_is_another_person(workspace, frame, synthetic):
    namesake = ["north", "testp003.nii.gz", "testp003"]
    frame.loc[frame["patient"] == "trainp003", ["dataset", "volume", "patient"]] = namesake
    synthetic.loc[:, ["prompt_dataset", "prompt_volume"]] = namesake[:2]
    assert mix(frame, synthetic, ratio=0.1, workspace=workspace)["synthetic"] == 6


@pytest.mark.parametrize(
    ("impression", "shared"), [("No acute finding in the whole chest.", True), ("Pleural effusion.", False)]
)
def test_an_impression_that_anybody_may_have_refuses_nothing(workspace, frame, synthetic, impression, shared):
    frame.loc[frame["patient"] == "testp001", "impression_text"] = impression
    if shared:
        frame.loc[frame["patient"] == "trainp001", "impression_text"] = impression
    synthetic["prompt"] = impression
    assert mix(frame, synthetic, ratio=0.1, workspace=workspace)["synthetic"] == 6


@pytest.mark.parametrize(
    ("origin", "message"),
    [
        ({"split": "test"}, "belongs to the split 'test'"),
        ({"split": "validation", "dataset": "prompts"}, "belongs to the split 'validation'"),
        ({"patient": "testp003"}, "its prompt comes from testp003"),
        ({"dataset": "clinic", "patient": "testp003"}, "its prompt comes from testp003"),
    ],
)
def test_what_only_the_sidecar_knows_is_refused_too(workspace, pack, frame, origin, message, capsys):
    rows = synthetic_set(workspace, pack, requests(["A report and one word more."] * 3, **origin))
    assert ("3 prompts are of validation or test patients" in capsys.readouterr().err) == ("split" in origin)
    with pytest.raises(UserError, match=message):
        mix(frame, rows, ratio=0.1, workspace=workspace)
    sidecar = next(workspace.path.glob("synthetic/*/sidecars/*_000000*"))
    sidecar.write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="is damaged, so nobody can tell whose prompt"):
        mix(frame, rows, ratio=0.1, workspace=workspace)


@pytest.mark.parametrize(
    ("training", "seen"),
    [
        ({"dataset": "clinic", "patients": ["trainp001", "testp003"]}, True),
        ({"dataset": "clinic", "patients": ["validation*"]}, True),
        ({"dataset": "clinic", "first": 0, "last": 3}, True),
        ({"dataset": "clinic", "first": 10**12, "last": 10**12 + 5}, False),
        ({"dataset": "clinic"}, True),
        ({"dataset": "CLINIC", "patients": ["TESTP003"]}, True),
        ({"dataset": "clinic", "patients": ["trainp*"]}, False),
        ({"dataset": "elsewhere", "patients": ["testp003"]}, False),
    ],
    ids=["named", "pattern", "range", "other-range", "whole", "case", "train-only", "elsewhere"],
)
def test_packs_trained_on_held_out_patients_are_refused(tmp_path, workspace, frame, training, seen):
    pack = FakePack.write(tmp_path / "p", name="peeking", trained_on=(training,))
    rows = synthetic_set(workspace, pack, make_prompts(frame, [RARE], 6))
    if not seen:
        assert mix(frame, rows, ratio=0.1, workspace=workspace)["synthetic"] == 6
        return
    with pytest.raises(UserError, match="'peeking', trained on validation or test patients"):
        mix(frame, rows, ratio=0.1, workspace=workspace)


def test_a_pack_record_that_was_edited_is_refused(workspace, frame, synthetic):
    record = next(workspace.path.glob("synthetic/*/pack.json"))
    record.write_text(record.read_text("utf-8").replace("fake", "fair"), encoding="utf-8")
    with pytest.raises(UserError, match="cannot be checked"):
        mix(frame, synthetic, ratio=0.1, workspace=workspace)
    record.unlink()
    with pytest.raises(UserError, match="cannot be checked"):
        mix(frame, synthetic, ratio=0.1, workspace=workspace)


@pytest.mark.parametrize("blank", ["", np.nan])
def test_volumes_of_an_unknown_generator_are_taken_with_a_warning(tmp_path, workspace, frame, blank, capsys):
    pack = FakePack.write(tmp_path / "p", name="peeking", trained_on=({"dataset": "clinic"},))
    rows = synthetic_set(workspace, pack, make_prompts(frame, [RARE], 6))
    rows["pack"] = rows["pack_sha256"] = blank
    with pytest.raises(UserError, match="trained on validation or test patients"):
        mix(frame, rows, ratio=0.1, workspace=workspace)
    next(workspace.path.glob("synthetic/*/pack.json")).unlink()
    assert mix(frame, rows, ratio=0.1, workspace=workspace)["synthetic"] == 6
    assert "do not say which pack" in capsys.readouterr().err


@pytest.mark.parametrize(
    "record", [[], {"trained_on": None}, {"trained_on": "clinic"}, {"trained_on": [{"patients": ["testp003"]}]}]
)
def test_a_pack_that_does_not_tell_whom_it_knows_is_refused(tmp_path, workspace, frame, record):
    pack = FakePack.write(tmp_path / "p")
    write_json(pack.path / "pack.json", record)
    pack.sha256 = sha256_file(pack.path / "pack.json")
    rows = synthetic_set(workspace, pack, make_prompts(frame, [RARE], 6))
    with pytest.raises(UserError, match="does not list whom the pack was trained on"):
        mix(frame, rows, ratio=0.1, workspace=workspace)
    with pytest.raises(UserError, match="does not list whom the pack was trained on"):
        refuse_pack(record, frame)


def test_a_pack_that_lists_nobody_is_warned_of(workspace, frame, synthetic, capsys):
    mix(frame, synthetic, ratio=0.1, workspace=workspace)
    assert "the pack 'fake' lists nobody that it was trained on" in capsys.readouterr().err
    known = {"name": "p", "trained_on": [{"dataset": "clinic", "first": 0, "last": 2}]}
    with pytest.raises(UserError, match=r"clinic/testp000, .* and 1 more.*give another with --model"):
        refuse_pack(known, frame)
    refuse_pack(known | {"trained_on": [{"dataset": "elsewhere"}]}, frame)


def test_ranges_of_patient_numbers_may_be_open():
    for bounds, patient, seen in (({"first": 5}, "p7", True), ({"last": 5}, "p7", False), ({"last": 5}, "x", False)):
        data = training_data({"trained_on": [{"dataset": "a", **bounds}]})
        assert trained_on(data, "a", patient) == seen


@pytest.mark.parametrize(("split", "leaks"), [("test", True), ("validation", True), ("train", False)])
def test_training_refuses_a_manifest_joined_by_hand_whose_generator_knows_held_out_patients(
    tmp_path, workspace, frame, split, leaks
):
    known = {"dataset": "clinic", "patients": [frame.loc[frame["split"] == split, "patient"].iloc[0]]}
    pack = FakePack.write(tmp_path / "p", name="peeking", trained_on=(known,))
    rows = synthetic_set(workspace, pack, make_prompts(frame, [RARE], 6))
    joined = pd.concat([frame, rows], ignore_index=True)
    if not leaks:
        check_held_out(joined, workspace)
        return
    with pytest.raises(UserError, match="'peeking', trained on validation or test patients"):
        check_held_out(joined, workspace)


def test_whom_generators_and_gates_know_is_told_once(tmp_path, workspace, frame):
    known = {"dataset": "elsewhere", "first": 3, "last": 7}
    pack = FakePack.write(tmp_path / "p", name="mine", trained_on=(known,))
    rows = synthetic_set(workspace, pack, make_prompts(frame, [RARE], 6))
    rows["gate"] = "accept@g"
    write_record(workspace, "g", trained_on=(("clinic", "trainp001"), ("clinic", "trainp002")))
    told = known_to_makers(pd.concat([frame, rows], ignore_index=True), workspace)
    assert told == (
        TrainingData(**known),
        TrainingData(dataset="clinic", patients=("trainp001", "trainp002")),
    )
    assert known_to_makers(frame, workspace) == ()


@pytest.mark.parametrize("cheat", ["spaces", "sidecar", "letter-case"])
def test_names_and_sidecars_cannot_be_bent(workspace, frame, synthetic, cheat):
    first = synthetic.index[0]
    if cheat == "spaces":
        synthetic.loc[first, ["prompt_dataset", "prompt_volume"]] = [" clinic", " testp003.nii.gz "]
        message = "a validation or test patient's"
    elif cheat == "sidecar":
        next(workspace.path.glob("synthetic/*/sidecars/*_000000*")).unlink()
        message = "its sidecar is missing"
    else:
        synthetic.loc[first, ["dataset", "patient"]] = ["CLINIC", "TestP003"]
        message = "a validation or test volume"
    with pytest.raises(UserError, match=message):
        mix(frame, synthetic, ratio=0.1, workspace=workspace)


def gated(workspace, synthetic, **known):
    """The synthetic rows with the verdicts of a gate, the first two rejected, the third with a doubt."""
    cells = ["reject@g: label: not seen"] * 2 + [f"accept@g: {RARE} unknown"] + ["accept@g"] * (len(synthetic) - 3)
    rows = synthetic.assign(gate=cells)
    write_record(workspace, "g", **known)
    path = workspace.run_dir("synthetic", "g") / "gate.json"
    names = (rows["dataset"] + "/" + rows["volume"]).tolist()
    write_json(path, read_json(path) | {"verdicts": dict(zip(names, cells, strict=True))})
    return rows


@pytest.mark.parametrize("row", [0, 2], ids=["rejected", "doubted"])
def test_a_verdict_that_was_edited_is_refused(workspace, frame, synthetic, row):
    rows = gated(workspace, synthetic)
    assert mix(frame, rows, ratio=0.1, workspace=workspace)["synthetic"] == 6
    assert mix(frame, rows.iloc[:9], ratio=0.1, workspace=workspace)["synthetic"] == 6, "fewer rows are no edit"
    rows.loc[rows.index[row], "gate"] = "accept@g"
    with pytest.raises(UserError, match="its verdict is not the one of the gate 'g'") as error:
        mix(frame, rows, ratio=0.1, workspace=workspace)
    assert rows["volume"].iloc[row] in str(error.value)
    with pytest.raises(UserError, match="its verdict is not the one of the gate 'g'"):
        check_held_out(pd.concat([frame, rows], ignore_index=True), workspace)


def test_a_gated_manifest_without_its_verdicts_is_refused(workspace, synthetic):
    rows = gated(workspace, synthetic)
    path = workspace.run_dir("synthetic", "g") / "manifest.csv"
    write_manifest(rows, path)
    assert len(read_synthetic(path)) == len(rows)
    for bare in (rows.drop(columns="gate"), rows.assign(gate="")):
        write_manifest(bare, path)
        with pytest.raises(UserError, match=f"{len(rows)} of its rows have no verdict"):
            read_synthetic(path)
    other = workspace.run_dir("synthetic", "plain") / "manifest.csv"
    write_manifest(synthetic, other)
    assert len(read_synthetic(other)) == len(rows), "what no gate judged needs no verdict"


@pytest.mark.parametrize("doubt", [f"{RARE} unk", "Dragon unknown", f"{RARE} unknown; "])
def test_a_damaged_doubt_is_no_verdict(workspace, frame, synthetic, doubt):
    write_record(workspace, "g")
    with pytest.raises(UserError, match="is no verdict of a gate"):
        mix(frame, synthetic.assign(gate=f"accept@g: {doubt}"), ratio=0.1, workspace=workspace)


@pytest.mark.parametrize("named", [True, False])
def test_training_looks_for_the_generator_beside_volumes_that_do_not_name_it(tmp_path, workspace, frame, named):
    pack = FakePack.write(tmp_path / "p", name="peeking", trained_on=({"dataset": "clinic"},))
    rows = synthetic_set(workspace, pack, make_prompts(frame, [RARE], 6))
    if not named:
        rows["pack"] = rows["pack_sha256"] = ""
    joined = pd.concat([frame, rows], ignore_index=True)
    with pytest.raises(UserError, match="trained on validation or test patients"):
        check_held_out(joined, workspace)
    next(workspace.path.glob("synthetic/*/pack.json")).unlink()
    if not named:
        check_held_out(joined, workspace)


def test_a_manifest_without_held_out_patients_is_warned_of(workspace, frame, synthetic, capsys):
    mix(frame[frame["split"] == "train"].reset_index(drop=True), synthetic, ratio=0.1, workspace=workspace)
    assert "nothing can be checked for leaks" in capsys.readouterr().err
    mix(frame, synthetic, ratio=0.1, workspace=workspace)
    assert "nothing can be checked for leaks" not in capsys.readouterr().err


@pytest.mark.parametrize("letters", [str, str.upper])
def test_gates_that_know_held_out_patients_are_refused_in_any_letter_case(workspace, frame, synthetic, letters):
    rows = gated(workspace, synthetic, trained_on=((letters("clinic"), letters("testp003")),))
    with pytest.raises(UserError, match="of the gate 'g', trained on validation or test patients: clinic/testp003"):
        mix(frame, rows, ratio=0.1, workspace=workspace)
