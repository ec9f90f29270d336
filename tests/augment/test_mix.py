from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from augment_fakes import RARE, make_frame, tree
from gate_fakes import write_record
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from text2ct.augment import mix
from text2ct.augment.association import source_label_association
from text2ct.augment.mix import sampling_weights
from text2ct.errors import UserError
from text2ct.findings import FINDINGS
from text2ct.manifests import Workspace, read_manifest, validate


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
    stored = json.loads((workspace.path / "mixed" / result["run"] / "mix.json").read_text("utf-8"))
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


def test_evidence_of_real_volumes_goes_through(workspace, frame, synthetic):
    told = frame.assign(intensity="HU as stored: 20% at air or lung level", notes="")
    manifest = read_manifest(mix(told, synthetic, ratio=0.2, workspace=workspace)["manifest"])
    made = manifest["source"] == "synthetic"
    assert set(manifest.loc[made, "intensity"]) == {""}
    assert set(manifest.loc[~made, "intensity"]) == {"HU as stored: 20% at air or lung level"}


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


def test_the_ratio_counts_volumes_with_files(workspace, synthetic):
    frame = make_frame()
    frame.loc[frame.index[:40], "path"] = ""
    frame.loc[frame.index[:40], "root"] = ""
    assert mix(validate(frame, "t"), synthetic, ratio=0.5, workspace=workspace)["synthetic"] == 10


def test_another_mix_of_the_same_name_is_refused(workspace, frame, synthetic):
    first = mix(frame, synthetic, ratio=0.1, workspace=workspace, run="mine")
    before = tree(workspace.path / "mixed")
    assert mix(frame, synthetic, ratio=0.1, workspace=workspace, run="mine") == first
    for dry_run in (False, True):
        with pytest.raises(UserError, match="holds another mix; give another --run"):
            mix(frame, synthetic, ratio=0.2, workspace=workspace, run="mine", dry_run=dry_run)
    assert tree(workspace.path / "mixed") == before


def test_a_manifest_of_another_workspace_is_said_to_be_one(tmp_path, frame, synthetic):
    with pytest.raises(UserError, match=r"none of the 24 synthetic volumes is in .*other: .* give that --workspace"):
        mix(frame, synthetic, ratio=0.1, workspace=Workspace(tmp_path / "other"))
