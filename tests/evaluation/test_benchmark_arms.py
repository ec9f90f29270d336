"""The registry of arms, and arms whose volumes or first weights are made by (here: faked) helpers."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import ModuleType

import pandas as pd
import pytest

from text2ct import augment
from text2ct.diffusion.info import PackInfo, TrainingData
from text2ct.errors import UserError
from text2ct.evaluation.arm_volumes import OwnBudget
from text2ct.evaluation.benchmark import ARMS, BenchmarkSettings
from text2ct.evaluation.benchmark.arms import build_arm, expand_arms, split_name
from text2ct.evaluation.benchmark.building import Material, shuffle_labels
from text2ct.evaluation.benchmark.settings import table_digest
from text2ct.files import write_json
from text2ct.findings import FINDINGS
from text2ct.manifests import write_manifest

from .benchmark_fakes import FakeClassifier, run

USUAL = ["real", "real+oversampled", "real+classical", "real+synthetic@0.25", "real+synthetic@2", "real+synthetic@0.75"]
EVERYTHING = {"synthetic", "gate", "pack", "autoencoder", "pack patients", "simulated", "reports"}
RATIOS = (0.25, 2, 0.75)


class FakePack:
    """A pack of simulated patients, or of those named."""

    sha256 = "a" * 64

    def __init__(self, *patients: str, dataset: str = "simulated", components: tuple[str, ...] = ("vae",)) -> None:
        data = {"first": 10**12, "last": 10**12 + 9} if not patients else {"patients": patients}
        self.info = PackInfo(
            name="fake",
            version="1",
            licence="none",
            components=dict.fromkeys(components, "any"),
            trained_on=(TrainingData(dataset=dataset, **data),),
            grid=(8, 8, 8),
            spacing_mm=(5.0, 5.0, 5.0),
            latent_scale_factor=1.0,
        )

    def has(self, component: str) -> bool:
        return component in self.info.components


@pytest.fixture
def makers(monkeypatch, synthetic):
    """Stands in for the module that makes volumes; ``calls`` says what it was asked for."""
    module = ModuleType("text2ct.evaluation.arm_volumes")
    calls = []

    def reconstructed(rows, workspace, pack, folder, *, device):
        calls.append(("reconstructed", len(rows), pack))
        return rows.assign(volume="decoded-" + rows["volume"], path="decoded/" + rows["path"])

    def oracle(rows, workspace, real, folder, *, seed, workers):
        calls.append(("oracle", len(rows), folder.name))
        names = [f"o{k}" for k in range(len(rows))]
        return rows.assign(dataset="simulated-oracle", volume=names, patient=names, scan=names)

    def pretrained_classifier(pack, workspace, folder, **options):
        calls.append(("pretrained", options))
        place = folder / f"seed{options['seed']}"
        training = [{"dataset": dataset, "patient": patient} for dataset, patient in module.known]
        write_json(place / "patients.json", {"training": training, "validation": [], "prompts": []})
        return place

    def own_generator(train_rows, workspace, folder, *, device, budget):
        calls.append(("own", sorted(train_rows["patient"]), folder))
        module.budgets.append(budget)
        return folder / "pack"

    module.OwnBudget = OwnBudget
    for function in (reconstructed, oracle, pretrained_classifier, own_generator):
        setattr(module, function.__name__, function)
    module.budgets = []
    module.calls, module.known = calls, [("simulated", "1000000000000")]
    monkeypatch.setitem(sys.modules, "text2ct.evaluation.arm_volumes", module)
    return module


@pytest.fixture
def material(workspace, real, synthetic):
    train, validation = (real[real["split"] == split].reset_index(drop=True) for split in ("train", "validation"))
    return Material(real, train, validation, synthetic, workspace, BenchmarkSettings(), pack=FakePack())


def test_the_usual_arms_run_at_every_ratio_and_the_rest_at_one():
    usual, notes = expand_arms(BenchmarkSettings(ratios=RATIOS), {"synthetic"})
    assert (usual, notes) == (USUAL, [])
    full, notes = expand_arms(BenchmarkSettings(ratios=RATIOS, full=True), EVERYTHING)
    assert notes == []
    assert {split_name(name)[0] for name in full} == set(ARMS)
    assert [name for name in full if name.startswith("real+oracle")] == ["real+oracle@0.75"], "the nearest to 1"
    named, _ = expand_arms(
        BenchmarkSettings(ratios=RATIOS, arms=("real", "real+oracle@R", "real+shuffled@3")), EVERYTHING
    )
    assert named == ["real", "real+oracle@0.25", "real+oracle@2", "real+oracle@0.75", "real+shuffled@3"]


def test_what_full_cannot_build_is_left_out_and_said():
    full, notes = expand_arms(BenchmarkSettings(full=True, train_options={"augment": True}), {"synthetic"})
    left = [
        "real+classical",
        "real+reconstructed",
        "real+ungated@R",
        "real+oracle@R",
        "real+classifier-pretrained",
        "real+own-generator@R",
    ]
    assert [note.split(":")[0] for note in notes] == [f"without the arm {name}" for name in left]
    assert not {split_name(name)[0] for name in full} & set(left)
    with pytest.raises(UserError, match=r"'real\+synthetic@R' cannot be built: there are no synthetic"):
        expand_arms(BenchmarkSettings(), set())


@pytest.mark.parametrize("key", ARMS)
def test_every_entry_builds_an_arm_that_keeps_validation_as_it_is(key, material):
    arm = build_arm(key.replace("@R", "@0.5"), material, 0)
    validation = arm.frame[arm.frame["split"] == "validation"]
    assert validation["volume"].tolist() == material.validation["volume"].tolist()
    assert len(arm.frame) - len(validation) == arm.real + arm.synthetic > 0
    assert arm.synthetic == (0 if "synthetic" not in ARMS[key].needs else 30 if key == "synthetic" else 20)
    assert (arm.make is None) or arm.made_with, "what decides made volumes is part of the request"


def test_labels_that_the_gate_doubts_are_unknown_where_its_volumes_are_learnt_from(material):
    doubted = FINDINGS[:2]
    cell = "accept@run: " + "; ".join(f"{name} unknown" for name in doubted)
    gated = replace(material, synthetic=material.pool.assign(gate=cell))
    for key in ("real+synthetic@0.5", "real+shuffled@0.5", "synthetic"):
        rows = build_arm(key, gated, 0).frame.query("split == 'train' and source == 'synthetic'")
        assert rows[list(doubted)].isna().all(axis=None), key
        assert rows[list(FINDINGS[2:])].notna().all(axis=None), key
    asked = material.pool.set_index("volume")[list(FINDINGS)]
    for key in ("real+ungated@0.5", "real+oracle@0.5", "real+own-generator@0.5"):
        rows = build_arm(key, gated, 0).frame.query("split == 'train' and source == 'synthetic'").set_index("volume")
        pd.testing.assert_frame_equal(rows[list(FINDINGS)], asked.loc[rows.index])


@pytest.mark.parametrize("key", ARMS)
def test_synthetic_until_is_for_arms_with_real_and_synthetic_volumes(key, material):
    settings = material.settings.model_copy(update={"synthetic_until": 0.5})
    arm = build_arm(key.replace("@R", "@0.5"), replace(material, settings=settings), 0)
    assert arm.options.get("synthetic_until") == (0.5 if arm.real and arm.synthetic else None)
    assert "synthetic_until" not in build_arm(key.replace("@R", "@0.5"), material, 0).options


def test_rejected_volumes_are_in_the_ungated_arm_only(material):
    gate = ["reject@run: label"] * 15 + ["accept@run"] * 15
    material = Material(**{**vars(material), "synthetic": material.pool.assign(gate=gate)})
    rejected = set(material.pool["volume"].head(15))
    keys = ("real+synthetic@1", "synthetic")
    shown = {key: set(build_arm(key, material, 0).frame["volume"]) & rejected for key in keys}
    assert shown == {"real+synthetic@1": set(), "synthetic": set()}
    assert set(build_arm("real+ungated@1", material, 0).frame["volume"]) >= rejected


DRAWING = [f"real+{kind}@0.25" for kind in ("synthetic", "ungated", "shuffled", "oracle", "own-generator")]


@pytest.mark.parametrize("name", [*DRAWING, "real+oversampled"])
def test_what_an_arm_draws_is_the_luck_of_its_seed(name, material):
    def training(seed):
        arm = build_arm(name, material, seed)
        weights = None if arm.sampling_weights is None else arm.sampling_weights.tolist()
        return table_digest(arm.frame), weights

    assert len({str(training(seed)) for seed in range(4)}) == 4
    assert training(3) == training(3)
    assert {build_arm(name, material, seed).synthetic for seed in range(4)} == {10 if name in DRAWING else 0}


def test_arms_of_a_seed_draw_the_same_volumes(material):
    for seed in range(3):
        frames = [build_arm(name, material, seed).frame for name in DRAWING]
        assert len({tuple(frame["volume"]) for frame in frames}) == 1
    labels = [build_arm("real+shuffled@2", material, seed).frame[list(FINDINGS)] for seed in range(2)]
    assert not labels[0].equals(labels[1]), "where all volumes are taken, labels are permuted anew"


def test_oversampling_does_not_know_the_ratios(material):
    def clones(**options):
        settings = BenchmarkSettings(**options)
        return build_arm("real+oversampled", replace(material, settings=settings), 0).sampling_weights.tolist()

    assert clones() == clones(ratios=(0.1,)) == clones(ratios=(0.5, 4))
    assert sum(clones()) - len(clones()) <= len(material.train)


def test_made_volumes_and_first_weights_reach_the_training(workspace, real, synthetic, makers, monkeypatch):
    fake = FakeClassifier()
    arms = ("real", "real+reconstructed", "real+oracle@0.25", "real+classifier-pretrained", "real+class-weights")
    options = {"arms": arms, "pack": FakePack(), "pretrain_patients": 30}
    result = run(workspace, real, synthetic, fake, **options)
    by_arm = {name: fake.trainings[2 * k : 2 * k + 2] for k, name in enumerate(result["arms"])}
    decoded = by_arm["real+reconstructed"][0]["manifest"]
    assert decoded["volume"].str.startswith("decoded-").sum() == 40
    assert len(decoded) == 120
    assert (by_arm["real+oracle@0.25"][1]["manifest"]["dataset"] == "simulated-oracle").sum() == 10
    assert [t["init"].name for t in by_arm["real+classifier-pretrained"]] == ["seed0", "seed1"]
    assert [t.get("class_weights") for t in by_arm["real+class-weights"]] == [True, True]
    asked = [call[1] for call in makers.calls if call[0] == "pretrained"]
    assert [(o["seed"], o["steps"], o["patients"], o["classifier"]) for o in asked] == [
        (0, 7, 30, "cnn3d"),
        (1, 7, 30, "cnn3d"),
    ]
    assert [call[0] for call in makers.calls] == [
        kind for kind in ("reconstructed", "oracle", "pretrained") for _ in (0, 1)
    ]
    makers.calls.clear()
    assert run(workspace, real, synthetic, **options)["resumed"] == 10
    assert makers.calls == [], "nothing is made for trainings that are done"
    other = FakePack()
    other.sha256 = "b" * 64
    with pytest.raises(UserError, match=r"pack: then a+, now b+"):
        run(workspace, real, synthetic, **options | {"pack": other, "run": result["run"]})


def test_first_weights_that_know_a_test_patient_are_refused(workspace, real, synthetic, makers):
    test = real[real["split"] == "test"].iloc[0]
    makers.known.append((test["dataset"], test["patient"]))
    with pytest.raises(UserError, match="trained on validation or test patients"):
        run(workspace, real, synthetic, arms=("real", "real+classifier-pretrained"), pack=FakePack())


def test_the_own_generator_sees_the_regimes_training_patients_and_the_same_prompts(
    workspace, real, synthetic, makers, monkeypatch
):
    asked = []

    def synthesize(requests, *, pack, workspace, run, seed, device):
        asked.append((requests["prompt"].tolist(), pack, run, seed))
        made = synthetic.iloc[: len(requests)].assign(dataset=f"synthetic-{run.replace('/', '-')}")
        path = workspace.run_dir("synthetic", run) / "manifest.csv"
        write_manifest(made, path)
        return {"manifest": str(path)}

    monkeypatch.setattr(augment, "synthesize", synthesize)
    fake = FakeClassifier()
    arms = ("real", "real+synthetic@0.25", "real+own-generator@0.25")
    run(workspace, real, synthetic, fake, arms=arms, seeds=(0, 1), run="own")
    assert makers.calls[0] == makers.calls[1], "one generator serves all seeds"
    _, patients, folder = makers.calls[0]
    assert patients == sorted(real.loc[real["split"] == "train", "patient"])
    for seed, (prompts, pack, name, drawn) in enumerate(asked):
        assert prompts == fake.trainings[2 + seed]["manifest"].query("source == 'synthetic'")["prompt"].tolist()
        assert (pack, drawn) == (folder / "pack", seed)
        assert name.startswith(f"benchmark/{folder.name}-seed{seed}-")
        assert fake.trainings[4 + seed]["manifest"]["dataset"].str.startswith("synthetic-benchmark-").sum() == 10
    asked.clear()
    arms = ("real", "real+own-generator@0.25", "real+own-generator@0.5")
    run(workspace, real, synthetic, FakeClassifier(), arms=arms, seeds=(0, 1), run="both")
    assert len({name for _, _, name, _ in asked}) == 2, "another ratio asks for other volumes: another run"
    assert {len(prompts) for prompts, *_ in asked} == {20}
    longer = OwnBudget(clip_steps=500)
    run(workspace, real, synthetic, FakeClassifier(), arms=arms[:2], seeds=(0, 1), run="long", own_generator=longer)
    assert makers.calls[-1][2] != folder, "a generator that is trained for longer is another"
    assert makers.budgets == [*makers.budgets[:-2], longer, longer]
    assert OwnBudget() in makers.budgets


@pytest.mark.parametrize(
    ("cheat", "message"),
    [
        (lambda rows: rows.assign(patient=["test3", *rows["patient"][1:]]), "its patient is in validation or test"),
        (lambda rows: rows.assign(split="validation"), "its validation rows are not the real"),
        (lambda rows: rows.assign(split="test"), "neither training nor validation"),
    ],
    ids=["test-patient", "validation", "test"],
)
def test_made_volumes_that_would_leak_are_refused(workspace, real, synthetic, makers, cheat, message):
    honest = makers.reconstructed
    makers.reconstructed = lambda *args, **options: cheat(honest(*args, **options))
    with pytest.raises(UserError, match=message):
        run(workspace, real, synthetic, arms=("real", "real+reconstructed"), pack=FakePack())


def test_a_pack_that_cannot_serve_an_arm_is_said_before_any_training(workspace, real, synthetic, makers):
    fake = FakeClassifier()
    arms = ("real", "real+reconstructed")
    with pytest.raises(UserError, match="the pack has no autoencoder"):
        run(workspace, real, synthetic, fake, arms=arms, pack=FakePack(components=("clip",)))
    of_patients, arms = FakePack(dataset="CT-RATE"), ("real", "real+classifier-pretrained")
    with pytest.raises(UserError, match="was not trained on simulated patients"):
        run(workspace, real, synthetic, fake, arms=arms, pack=of_patients)
    silent = real.assign(findings_text="", impression_text="")
    with pytest.raises(UserError, match="training rows have no reports"):
        run(workspace, silent, synthetic, fake, arms=("real", "real+own-generator@0.25"))
    assert fake.trainings == []


def test_a_pack_that_knows_a_test_patient_is_refused(workspace, real, synthetic, makers):
    test = real[real["split"] == "test"].iloc[0]
    pack = FakePack(test["patient"], dataset=test["dataset"])
    with pytest.raises(UserError, match=f"trained on validation or test patients .*{test['patient']}"):
        run(workspace, real, synthetic, arms=("real", "real+reconstructed"), pack=pack)


def test_shuffling_keeps_the_label_sets_and_breaks_the_pairs(synthetic):
    shuffled = shuffle_labels(synthetic, 0)
    names = list(FINDINGS)
    assert sorted(map(tuple, shuffled[names].to_numpy())) == sorted(map(tuple, synthetic[names].to_numpy()))
    assert not shuffled[names].equals(synthetic[names])
    assert shuffled["volume"].tolist() == synthetic["volume"].tolist()
