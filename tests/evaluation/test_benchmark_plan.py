"""What is declared before the run, what validation chooses, nested subsets of patients, and the gate."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from text2ct.augment.gate.config import GateConfig
from text2ct.augment.gate.record import Counts, FindingCount, GateClassifier, GateRecord, Thresholds
from text2ct.errors import UserError
from text2ct.evaluation.benchmark.data import known_to, nested_patients, pack_fidelity
from text2ct.evaluation.benchmark.outcome import choose, endpoint
from text2ct.evaluation.benchmark.settings import BenchmarkSettings, Endpoint, declare
from text2ct.files import sha256_file, write_json
from text2ct.findings import FINDINGS
from text2ct.manifests import UnderrepresentedRule, Workspace, summarise

from .benchmark_fakes import FakeClassifier, make_real, make_synthetic, run

BOTH = ("real", "real+synthetic@R")


def test_the_endpoint_is_declared_before_the_first_training(workspace, real, synthetic):
    seen = []

    class Watching(FakeClassifier):
        def train(self, manifest, workspace, out_dir, **options):
            seen.append(json.loads((workspace.path / "reports" / "mine" / "benchmark-plan.json").read_text("utf-8")))
            return super().train(manifest, workspace, out_dir, **options)

    result = run(workspace, real, synthetic, Watching(), run="mine", arms=BOTH)
    declared = seen[0]
    assert all(one == declared for one in seen)
    rare = summarise(real[real["split"] == "train"], UnderrepresentedRule()).underrepresented
    assert set(declared["endpoint"]["findings"]) == set(rare)
    assert declared["endpoint"]["test_patients"] == 40
    assert declared["settings"]["arms"] == ["real", "real+synthetic@0.25", "real+synthetic@0.5"]
    assert result["endpoint"] | declared["endpoint"] | {"declared": declared["declared"]} == result["endpoint"]
    assert [result["endpoint"]["arm"], result["endpoint"]["against"]] == result["primary"]
    primary = next(c for c in result["comparisons"] if [c["arm"], c["against"]] == result["primary"])
    assert result["endpoint"]["delta"] == primary["delta_underrepresented_auc"]
    assert result["underrepresented"] == declared["endpoint"]["findings"]
    assert any("40 test patients are fewer than the 1,500" in note for note in result["notes"])


def test_test_labels_choose_nothing_of_the_endpoint(workspace, real, synthetic):
    first = run(workspace, real, synthetic, arms=("real",), run="first")
    flipped = real.copy()
    test = flipped["split"] == "test"
    flipped.loc[test, list(FINDINGS)] = 1 - flipped.loc[test, list(FINDINGS)]
    assert (
        run(workspace, flipped, synthetic, arms=("real",), run="second")["endpoint"]["findings"]
        == (first["endpoint"]["findings"])
    )


def test_what_the_generator_does_not_render_is_not_in_the_endpoint(workspace, real, synthetic):
    rare = run(workspace, real, synthetic, arms=BOTH)["endpoint"]["findings"]
    fidelity = {rare[0]: 0.84, rare[1]: 0.85, "Interlobular septal thickening": 0.1}
    result = run(workspace, real, synthetic, arms=BOTH, fidelity=fidelity)
    assert result["endpoint"]["findings"] == rare[1:]
    assert result["endpoint"]["unfaithful"] == rare[:1]
    assert any(rare[0] in note for note in result["notes"])


def test_fidelity_is_what_the_packs_of_the_volumes_say(workspace, synthetic):
    folder = workspace.path / "synthetic" / "r"
    write_json(folder / "pack.json", {"name": "p"})
    write_json(folder / "fidelity.json", {"Emphysema": 0.7})
    digest = sha256_file(folder / "pack.json")
    assert pack_fidelity(synthetic.assign(pack="p", pack_sha256=digest), workspace) == {"Emphysema": 0.7}
    assert pack_fidelity(synthetic.assign(pack="p", pack_sha256="0" * 64), workspace) == {}
    assert pack_fidelity(synthetic, workspace) == {}


def test_ratio_and_comparator_are_the_best_on_validation():
    def trained(**auc):
        return {name.replace("_", "+"): {"validation_macro_auc": [value, value]} for name, value in auc.items()}

    training = trained(real=0.6, real_oversampled=0.65, real_classical=0.63, synthetic=0.9)
    assert choose(training) is None
    training |= {"real+synthetic@0.5": {"validation_macro_auc": [0.61, 0.63]}}
    training |= {"real+synthetic@1": {"validation_macro_auc": [0.64, None]}}
    training |= {"real+oracle@1": {"validation_macro_auc": [0.9, 0.9]}}
    assert choose(training) == {
        "primary": ["real+synthetic@1", "real+oversampled"],
        "chosen_ratio": {"arm": "real+synthetic@1", "validation_macro_auc": 0.64},
    }


def test_the_test_set_chooses_neither_ratio_nor_comparator(workspace, real, synthetic):
    """Two benchmarks whose trainings rank test scans in opposite ways choose the same."""

    class Reversed(FakeClassifier):
        def predict(self, run_dir, manifest, workspace, **options):
            table = super().predict(run_dir, manifest, workspace, **options)
            if (manifest["split"] == "test").all():
                table[list(FINDINGS)] = 1 - table[list(FINDINGS)]
            return table

    arms = ("real", "real+oversampled", "real+classical", "real+synthetic@R")
    elsewhere = Workspace(workspace.path.parent / "elsewhere")
    results = [
        run(workspace, real, synthetic, FakeClassifier(), arms=arms),
        run(elsewhere, real, make_synthetic(elsewhere), Reversed(), arms=arms),
    ]
    assert results[0]["primary"] == results[1]["primary"]
    assert results[0]["arms"] != results[1]["arms"]


def test_several_regimes_stand_beside_the_largest(workspace, real, synthetic):
    fake = FakeClassifier()
    synthetic.loc[:9, ["prompt_dataset", "prompt_volume"]] = [["clinic", f"train{k}.nii.gz"] for k in range(10)]
    synthetic.loc[10:, list(FINDINGS)] = 0.0
    arms = ("real", "real+synthetic@0.5")
    result = run(workspace, real, synthetic, fake, arms=arms, train_patients=(40, 10, 20))
    assert [regime["train_patients"] for regime in result["regimes"]] == [10, 20, 40]
    for key in ("arms", "comparisons", "training", "primary", "chosen_ratio"):
        assert result[key] == result["regimes"][-1][key]
    for regime in result["regimes"]:
        assert regime["endpoint"]["arm"] == "real+synthetic@0.5"
        short = regime["training"]["real+synthetic@0.5"]["synthetic"] < regime["train_patients"] / 2
        assert any("synthetic volumes to use" in note for note in regime["notes"]) == short
    of_seed = {}
    for seed in (0, 1):
        patients = []
        for training in fake.trainings[seed::4]:
            train = training["manifest"].query("split == 'train'")
            patients.append(set(train["patient"]))
            assert (training["manifest"]["split"] == "validation").sum() == 40
        assert [len(one) for one in patients] == [10, 20, 40]
        assert patients[0] < patients[1] < patients[2]
        of_seed[seed] = patients
    assert of_seed[0][0] != of_seed[1][0], "each training draws its own, so that their luck is in the intervals"
    for training in (one for one in fake.trainings if (one["manifest"]["source"] == "synthetic").any()):
        train = training["manifest"].query("split == 'train'")
        own = set(train.query("source != 'synthetic'")["volume"])
        origins = set(train["prompt_volume"].fillna("")) - {""}
        assert origins <= own, "no prompt of a patient that the regime does not have"
    assert run(workspace, real, synthetic, arms=arms, train_patients=(10, 20, 40), dry_run=True)["resumed"] == 12


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 5))
def test_subsets_of_patients_are_nested(few, many, seed):
    train = make_real().query("split == 'train'")
    twice = pd.concat([train, train.assign(volume="b" + train["volume"])], ignore_index=True)
    few, many = sorted((few, many))
    small, large = (nested_patients(twice, count, seed) for count in (few, many))
    assert set(small["patient"]) <= set(large["patient"])
    assert (small["patient"].nunique(), len(small)) == (few, 2 * few)


def test_a_composed_prompt_is_known_where_its_label_set_occurs(real, synthetic):
    subset = nested_patients(real[real["split"] == "train"].reset_index(drop=True), 5)
    outside = real[(real["split"] == "train") & ~real["patient"].isin(subset["patient"])]
    pool = synthetic.head(4).copy()
    names = list(FINDINGS)
    pool.loc[0, names] = subset.loc[0, names].to_numpy(dtype=float)
    pool.loc[1, names] = np.where(subset.loc[0, names] == 1, np.nan, 1.0).astype(float)
    pool.loc[2, ["prompt_dataset", "prompt_volume"]] = ["clinic", subset.loc[3, "volume"]]
    pool.loc[3, ["prompt_dataset", "prompt_volume"]] = ["clinic", outside.iloc[0]["volume"]]
    assert known_to(pool, subset, real)["volume"].tolist() == ["s0.nii.gz", "s2.nii.gz"]


@pytest.fixture
def gates(workspace):
    """Two gates' records, whose classifier was a ctnet of seed 7."""
    for run_name in ("g", "h"):
        record = GateRecord(
            run=run_name,
            request_sha256="0" * 64,
            classifier=GateClassifier(name="ctnet", seed=7, sha256="0" * 64, run="classifiers/gate/ctnet"),
            trained_on=(),
            calibrated_on=(),
            config=GateConfig(),
            thresholds=Thresholds(),
            counts=Counts(accepted=20, rejected=10, reasons={"label": 9, "memorised": 1}),
            findings={"Emphysema": FindingCount(asked=4, accepted=3)},
            copies=(),
            tries=(),
            unmet=0,
            real_rejected={},
        )
        write_json(workspace.run_dir("synthetic", run_name) / "gate.json", record.model_dump(mode="json"))


def test_what_the_gate_accepted_is_in_the_result(workspace, real, synthetic, gates):
    judged = synthetic.assign(gate=["accept@g"] * 10 + ["accept@h"] * 10 + ["reject@g: label"] * 10)
    result = run(workspace, real, judged, arms=(*BOTH, "real+ungated@0.75"), ratios=(0.75,))
    assert (result["gate"]["accepted"], result["gate"]["rejected"]) == (40, 20)
    assert result["gate"]["reasons"] == {"label": 18, "memorised": 2}
    assert result["gate"]["findings"] == {"Emphysema": {"asked": 8, "accepted": 6}}
    assert not any("not gated" in note for note in result["notes"])
    volumes = {name: entry["synthetic"] for name, entry in result["training"].items()}
    assert volumes == {"real": 0, "real+synthetic@0.75": 20, "real+ungated@0.75": 30}
    half = run(workspace, real, synthetic.assign(gate=["accept@g"] * 20 + [""] * 10), arms=BOTH)
    assert any("10 of 30 synthetic volumes were not gated" in note for note in half["notes"])


def test_the_gates_classifier_is_not_the_one_that_is_scored(workspace, real, synthetic, gates):
    judged = synthetic.assign(gate="accept@g")
    with pytest.raises(UserError, match="with a classifier 'ctnet' too"):
        run(workspace, real, judged, arms=BOTH, classifier="ctnet")
    with pytest.raises(UserError, match="of seed 7 too"):
        run(workspace, real, judged, arms=BOTH, seeds=(6, 7))
    assert not workspace.run_dir("classifiers").exists()
    assert "gate" not in run(workspace, real, synthetic, arms=BOTH, seeds=(7, 8)), "without a gate nothing is asked"


def test_arms_carry_their_calibration(workspace, real, synthetic):
    result = run(workspace, real, synthetic, arms=BOTH)
    for arm in result["arms"].values():
        table = arm["calibration"]
        assert table["temperature"] > 0
        assert 0 <= table["ece"] <= 1
        assert sum(row["count"] for row in table["bins"]) == 2 * 40 * 18
        assert [row["predicted"] for row in table["bins"]] == sorted(row["predicted"] for row in table["bins"])


def test_the_endpoint_is_met_by_a_margin_over_every_arm_without_generated_volumes() -> None:
    def comparison(against: str, delta: float, verdict: str = "no evidence") -> dict:
        numbers = {"delta_underrepresented_auc": delta, "underrepresented_ci": [0.01, 0.09], "underrepresented_p": 0.01}
        findings = {name: {"verdict": "no evidence"} for name in FINDINGS} | {"Emphysema": {"verdict": verdict}}
        return {"arm": "real+synthetic@0.5", "against": against, "findings": findings, **numbers}

    declaration = declare(Endpoint(findings=FINDINGS[:2], test_patients=9), BenchmarkSettings(), {})
    names = ("real", "real+classical", "real+oversampled", "real+synthetic@0.5")
    arms = {name: {"per_seed": [0.7, 0.7]} for name in names}

    def met(*comparisons: dict) -> dict:
        primary = ["real+synthetic@0.5", "real"]
        return endpoint(declaration, {"primary": primary, "arms": arms, "comparisons": list(comparisons)})

    good = met(comparison("real", 0.05), comparison("real+classical", 0.031))
    assert (good["met"], good["against"], good["delta"], good["harmed"]) == (True, "real", 0.05, [])
    assert [one["against"] for one in good["against_each"]] == ["real", "real+classical"]
    assert not met(comparison("real", 0.05), comparison("real+classical", 0.029))["met"]
    harmed = met(comparison("real", 0.05), comparison("real+classical", 0.05, "harm"))
    assert (harmed["met"], harmed["harmed"]) == (False, ["Emphysema"])
    del arms["real+oversampled"]
    open_ = met(comparison("real", 0.05), comparison("real+classical", 0.031))
    assert (open_["met"], open_["untrained"]) == (None, ["real+oversampled"])


def test_a_damaged_declaration_is_refused(workspace, real):
    run(workspace, real, None, arms=("real",), run="mine")
    path = workspace.path / "reports" / "mine" / "benchmark-plan.json"
    write_json(path, json.loads(path.read_text("utf-8")) | {"endpoints": []})
    with pytest.raises(UserError, match="endpoints: Extra inputs"):
        run(workspace, real, None, arms=("real",), run="mine")
    assert Path(path).is_file()
