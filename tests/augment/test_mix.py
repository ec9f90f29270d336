from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from augment_fakes import FakeGenerator, FakePack, make_frame, requests, tree
from gate_fakes import write_record
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from text2ct.augment import make_prompts, mix, synthesize
from text2ct.augment._refusals import known_to_makers, refuse_pack, trained_on, training_data
from text2ct.augment.association import source_label_association
from text2ct.augment.mix import sampling_weights
from text2ct.classifiers.rows import check_held_out
from text2ct.diffusion.info import TrainingData
from text2ct.errors import UserError
from text2ct.files import sha256_file, write_json
from text2ct.findings import FINDINGS
from text2ct.manifests import read_manifest, validate

RARE = FINDINGS[0]


def synthetic_set(workspace, pack, table) -> pd.DataFrame:
    result = synthesize(table, pack=pack, workspace=workspace, generate=FakeGenerator(), batch_size=8)
    return read_manifest(result["manifest"])


@pytest.fixture
def synthetic(workspace, pack, frame):
    table = pd.concat([make_prompts(frame, [RARE], 12), make_prompts(frame, [FINDINGS[-1]], 12)], ignore_index=True)
    return synthetic_set(workspace, pack, table)


@given(ratio=st.floats(0, 1.2), strategy=st.sampled_from(["targeted", "uniform"]), seed=st.integers(0, 99))
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_ratio_is_kept(workspace, frame, synthetic, ratio, strategy, seed):
    result = mix(frame, synthetic, ratio=ratio, strategy=strategy, seed=seed, workspace=workspace, strict=True)
    assert result["real"] == 60
    wanted = round(ratio * 60)
    assert result["synthetic"] == min(wanted, 24)
    assert result["ratio"] == pytest.approx(result["synthetic"] / 60)
    assert result["failed"] == (wanted > 24)
    assert sum(result["left_out"].values()) == 24 - result["synthetic"]
    manifest = read_manifest(result["manifest"])
    assert len(manifest) == len(frame) + result["synthetic"]
    assert (manifest["source"] == "synthetic").sum() == result["synthetic"]
    assert set(manifest.loc[manifest["split"] != "train", "source"]) == {"real"}
    pd.testing.assert_frame_equal(manifest[frame.columns].iloc[: len(frame)], frame)


def test_a_mix_is_replayed_whatever_the_order(workspace, frame, synthetic):
    def chosen(**options):
        result = mix(frame, options.pop("rows", synthetic), ratio=0.2, workspace=workspace, **options)
        return read_manifest(result["manifest"]).iloc[len(frame) :]["volume"].tolist()

    assert chosen() == chosen(rows=synthetic.sample(frac=1, random_state=0))
    assert chosen() != chosen(seed=1)
    first = mix(frame, synthetic, ratio=0.2, workspace=workspace, run="one")
    second = mix(frame, synthetic, ratio=0.2, workspace=workspace, run="two")
    trees = [tree(workspace.path / "mixed" / name) for name in ("one", "two")]
    assert trees[0]["manifest.csv"] == trees[1]["manifest.csv"]
    assert first["prevalence_after"] == second["prevalence_after"]


def test_targeted_prefers_rare_findings_and_adds_volumes_without_them(workspace, frame, synthetic):
    targeted = mix(frame, synthetic, ratio=0.2, workspace=workspace)
    uniform = mix(frame, synthetic, ratio=0.2, workspace=workspace, strategy="uniform")
    before, after = targeted["prevalence_before"][RARE], targeted["prevalence_after"][RARE]
    assert after > before
    assert after >= uniform["prevalence_after"][RARE]
    rows = read_manifest(targeted["manifest"])
    added = rows[rows["source"] == "synthetic"]
    assert (added[RARE] == 0).sum() >= len(added) // 2 - 1


def test_prevalence_and_association_are_those_of_the_training_rows(workspace, frame, synthetic):
    result = mix(frame, synthetic, ratio=0.4, workspace=workspace)
    manifest = read_manifest(result["manifest"])
    train = manifest[manifest["split"] == "train"]
    for name in FINDINGS:
        assert result["prevalence_before"][name] == pytest.approx(frame.loc[frame["split"] == "train", name].mean())
        assert result["prevalence_after"][name] == pytest.approx(train[name].mean())
        expected = np.corrcoef(train["source"] == "synthetic", train[name])[0, 1]
        assert result["source_label_association"][name] == pytest.approx(expected, abs=1e-5)
    constant = train.assign(**{RARE: 1.0, FINDINGS[1]: np.nan})
    association = source_label_association(constant)
    assert association[RARE] is None
    assert association[FINDINGS[1]] is None


def test_rows_that_teach_nothing_are_left_out_with_their_reason(workspace, frame, synthetic):
    rows = synthetic.copy()
    rows.loc[rows.index[:3], list(FINDINGS)] = np.nan
    rows.loc[rows.index[3:5], "gate"] = "reject@g: label: not seen; geometry: no lungs"
    rows.loc[rows.index[5], "gate"] = "accept@g"
    write_record(workspace, "g", trained_on=(("clinic", "trainp001"),), calibrated_on=(("clinic", "validationp001"),))
    workspace.resolve("workspace", rows.loc[rows.index[6], "path"]).unlink()
    result = mix(frame, rows, ratio=1, workspace=workspace)
    assert result["left_out"] == {"no known label": 3, "rejected by the gate": 2, "file is missing": 1}
    assert result["synthetic"] == 18
    assert not result["failed"]
    assert mix(frame, rows, ratio=1, workspace=workspace, strict=True)["failed"]
    stored = json.loads((workspace.path / "mixed" / result["run"] / "mix.json").read_text())
    assert stored["ratio"] == result["ratio"] == 0.3


@given(
    real=st.integers(1, 30),
    synthetic=st.integers(1, 30),
    share=st.floats(0, 0.99),
    unusable=st.integers(0, 5),
)
def test_synthetic_volumes_make_up_the_share_of_the_draws(real, synthetic, share, unusable):
    table = make_frame(n_train=real + unusable, n_validation=2, n_test=2)
    table.loc[: unusable - 1, list(FINDINGS)] = np.nan  # rows of which training draws none
    known = table.loc[table["split"] == "train", list(FINDINGS)].notna().any(axis=1).sum()
    made = table.iloc[[-1] * synthetic].assign(split="train", source="synthetic")
    frame = pd.concat([table, made], ignore_index=True)
    weights = sampling_weights(frame, share)
    train, is_made = frame["split"] == "train", frame["source"] == "synthetic"
    assert weights[train & is_made].sum() / weights[train].sum() == pytest.approx(share)
    assert (weights[train & ~is_made] == 1).sum() == known == real
    assert (weights[is_made] == weights[is_made].iloc[0]).all()
    assert weights[~train].isna().all()


def test_the_share_is_written_and_survives_the_file(workspace, frame, synthetic, capsys):
    result = mix(frame, synthetic, ratio=0.2, synthetic_share=0.5, workspace=workspace)
    assert "each synthetic volume is drawn 5 times as often as a real one" in capsys.readouterr().err
    manifest = read_manifest(result["manifest"])
    train = manifest[manifest["split"] == "train"]
    share = train.loc[train["source"] == "synthetic", "sampling_weight"].sum() / train["sampling_weight"].sum()
    assert share == pytest.approx(0.5) == pytest.approx(result["synthetic_share"])
    plain = mix(frame, synthetic, ratio=0.2, workspace=workspace)
    assert "sampling_weight" not in read_manifest(plain["manifest"])
    assert plain["synthetic_share"] == pytest.approx(12 / 72)
    assert plain["run"] != result["run"]
    for share, ratio, message in ((1.0, 0.2, "share is 1;"), (-0.1, 0.2, "share is -0.1"), (0.5, 0, "raise --ratio")):
        with pytest.raises(UserError, match=message):
            mix(frame, synthetic, ratio=ratio, synthetic_share=share, workspace=workspace)


@pytest.mark.parametrize("weight", [-1.0, np.inf, "often"])
def test_weights_that_cannot_be_drawn_by_are_no_manifest(frame, weight):
    with pytest.raises(UserError, match=r"'sampling_weight' is .*; expected a number of at least 0"):
        validate(frame.assign(sampling_weight=weight), "the test's table")


def test_more_synthetic_than_real_volumes_are_warned_of(workspace, synthetic, capsys):
    mix(make_frame(n_train=20), synthetic, ratio=1, workspace=workspace)
    assert "gains were not seen" not in capsys.readouterr().err
    mix(make_frame(n_train=20), synthetic, ratio=1.2, workspace=workspace)
    assert "gains were not seen above 1. The generator's mistakes" in capsys.readouterr().err


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
    record.write_text(record.read_text().replace("fake", "fair"), encoding="utf-8")
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


def test_other_labels_or_prompts_are_another_run(workspace, frame, synthetic):
    def run(real, rows):
        return mix(real, rows, ratio=1, workspace=workspace)["run"]

    runs = {run(frame, synthetic), run(frame, synthetic.assign(**{RARE: 0.0}))}
    runs |= {run(frame, synthetic.assign(prompt="Else.")), run(frame.assign(**{RARE: 1.0}), synthetic)}
    assert len(runs) == 4
    assert run(frame, synthetic) in runs


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_prevalence_and_association_are_those_of_the_draws(workspace, frame, synthetic, share):
    synthetic.loc[synthetic.index[:4], FINDINGS[3]] = np.nan
    result = mix(frame, synthetic, ratio=0.4, synthetic_share=share, workspace=workspace)
    manifest = read_manifest(result["manifest"])
    train = manifest[manifest["split"] == "train"]
    for name in FINDINGS:
        known = train[train[name].notna()]
        weights = known["sampling_weight"]
        assert result["prevalence_after"][name] == pytest.approx(np.average(known[name], weights=weights))
        (a, b), (_, d) = np.cov(known["source"] == "synthetic", known[name], aweights=weights)
        assert result["source_label_association"][name] == pytest.approx(b / np.sqrt(a * d), abs=1e-5)
    assert result["prevalence_before"][RARE] == pytest.approx(frame.loc[frame["split"] == "train", RARE].mean())


def test_tables_that_cannot_be_joined_are_refused(workspace, frame, synthetic):
    for real, rows, ratio, message in (
        (frame, [], 0.5, "no synthetic volumes"),
        (frame, frame, 0.5, "no synthetic volumes"),
        (frame, [synthetic, synthetic], 0.5, "given twice"),
        (pd.concat([frame, synthetic]), synthetic, 0.5, "holds synthetic rows"),
        (frame, synthetic, -1, "the ratio is -1"),
        (frame, synthetic, float("nan"), "the ratio is nan"),
        (frame[frame["split"] == "test"], synthetic, 1, "no training volumes"),
    ):
        with pytest.raises(UserError, match=message):
            mix(real, rows, ratio=ratio, workspace=workspace)
    with pytest.raises(UserError, match="strategy is 'greedy'"):
        mix(frame, synthetic, ratio=1, strategy="greedy", workspace=workspace)  # type: ignore[arg-type]


def test_ranges_of_patient_numbers_may_be_open():
    for bounds, patient, seen in (({"first": 5}, "p7", True), ({"last": 5}, "p7", False), ({"last": 5}, "x", False)):
        data = training_data({"trained_on": [{"dataset": "a", **bounds}]})
        assert trained_on(data, "a", patient) == seen


def test_the_ratio_counts_volumes_with_files(workspace, synthetic):
    frame = make_frame()
    frame.loc[frame.index[:40], "path"] = ""
    frame.loc[frame.index[:40], "root"] = ""
    assert mix(validate(frame, "t"), synthetic, ratio=0.5, workspace=workspace)["synthetic"] == 10


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
