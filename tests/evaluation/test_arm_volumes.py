"""Volumes and weights of a benchmark's arms: what they are made of, that they resume, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_build import CONFIG

from text2ct import augment
from text2ct.augment._refusals import trained_on, training_data
from text2ct.augment.mix import gather
from text2ct.augment.requests import text_request
from text2ct.augment.selection import usable
from text2ct.classifiers import runs, train
from text2ct.diffusion import Pack, init_pack, verify_pack
from text2ct.diffusion.info import TrainingData
from text2ct.errors import UserError
from text2ct.evaluation.arm_volumes import (
    ORACLE_DATASET,
    OwnBudget,
    _oracle,
    oracle,
    own_generator,
    pretrained_classifier,
    reconstructed,
)
from text2ct.evaluation.arm_volumes._oracle import oracle_patient
from text2ct.files import read_json
from text2ct.findings import FINDINGS
from text2ct.manifests import Workspace, read_manifest, validate
from text2ct.simulation import simulate_cohort
from text2ct.simulation.labels import fitted, scan_labels
from text2ct.simulation.patients import ORACLE_PATIENTS, PACK_PATIENTS, draw_patient
from text2ct.simulation.render import render
from text2ct.volumes import Volume, read, to_grid, write

NAMES = list(FINDINGS)
SIZE, SPACING = (16, 16, 16), (12.0, 12.0, 12.0)
TINY: dict[str, Any] = {
    "batch_size": 2, "size": SIZE, "spacing_mm": SPACING, "options": {"width": 4, "blocks": [1, 1]},
}  # fmt: skip
BUDGET = OwnBudget(clip_steps=4, clip_batch=2, diffusion_steps=2, diffusion_batch=2)


@dataclasses.dataclass(frozen=True)
class Study:
    workspace: Workspace
    real: pd.DataFrame

    @property
    def train(self) -> pd.DataFrame:
        return self.real[self.real["split"] == "train"].reset_index(drop=True)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A cohort of sixteen patients in a workspace, half of them for validation and test."""
    workspace = Workspace(tmp_path_factory.mktemp("study"))
    folder = workspace.path / "cohort"
    simulate_cohort(folder, 16, seed=5, size=SIZE, spacing_mm=SPACING, valid_fraction=0.5, workers=1)
    frame = read_manifest(folder / "manifest.csv")
    root, prefix = workspace.root_for(folder, "cohort")
    return Study(workspace, frame.assign(root=root, path=prefix + frame["path"]))


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    return init_pack(tmp_path / "pack")


class Identity(torch.nn.Module):
    """An autoencoder that loses nothing; counts its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.shapes.append(tuple(x.shape))
        return x, torch.zeros_like(x)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return z


def synthetic(labels: np.ndarray, first: int = 0) -> pd.DataFrame:
    """Rows as of `synthesize`, one for each row of (n, 18) labels."""
    rows = [
        {
            "dataset": "synthetic-run", "volume": f"made_{number}.nii.gz", "patient": f"made_{number}",
            "scan": f"made_{number}", "split": "train", "source": "synthetic", "root": "workspace",
            "path": f"synthetic/run/volumes/made_{number}.nii.gz", **dict(zip(NAMES, row, strict=True)),
            "prompt": "Pleural effusion.", "pack": "some", "pack_sha256": "a" * 64, "gate": "reject@run: label",
        }
        for number, row in enumerate(labels, start=first)
    ]  # fmt: skip
    return validate(pd.DataFrame(rows), "the test's rows")


def some_labels(count: int, seed: int = 0, unknown: float = 0.3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    labels = (rng.random((count, len(NAMES))) < 0.3).astype(float)
    labels[rng.random(labels.shape) < unknown] = np.nan
    return labels


def path_of(workspace: Workspace, row: Any) -> Path:
    return workspace.resolve(row["root"], row["path"])


def times(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}


# reconstructed


def test_an_autoencoder_that_loses_nothing_changes_nothing(study: Study, pack: Pack, tmp_path: Path) -> None:
    """On the pack's grid, at its true place, with everything else of the row kept."""
    lossless = Identity()
    pack._loaded["vae"] = lossless
    made = reconstructed(study.train, study.workspace, pack, study.workspace.path / tmp_path.name, device="cpu")
    assert set(lossless.shapes) == {(pack.usual_batch, 1, *pack.info.grid)}, "batches are padded"
    geometry = [f"{what}_{axis}" for what in ("size", "spacing") for axis in "xyz"]
    changed = ["volume", "root", "path", "sha256", *geometry]
    pd.testing.assert_frame_equal(made.drop(columns=changed), study.train.drop(columns=changed))
    assert not set(made["volume"]) & set(study.train["volume"]), "both may stand in one training set"
    validate(pd.concat([study.train, made]), "both")
    for before, after in zip(study.train.to_dict("records"), made.to_dict("records"), strict=True):
        wanted = to_grid(read(path_of(study.workspace, before)), pack.info.grid, pack.info.spacing_mm)
        found = read(path_of(study.workspace, after))
        np.testing.assert_allclose(found.affine, wanted.affine, atol=1e-4)
        np.testing.assert_allclose(found.hu, wanted.hu, atol=0.51)
        assert (after["size_x"], after["spacing_x"]) == (pack.info.grid[0], pack.info.spacing_mm[0])


def test_a_flipped_and_shifted_volume_keeps_its_place(study: Study, pack: Pack, tmp_path: Path) -> None:
    """The affine is the one of the result, not the pack's own."""
    pack._loaded["vae"] = Identity()
    folder = study.workspace.path / tmp_path.name
    affine = np.diag([7.0, 9.0, 11.0, 1.0])
    affine[:3, 3] = [30.0, -40.0, 500.0]
    write(Volume(np.full((30, 20, 10), 40.0), affine), folder / "odd.nii.gz")
    row = study.train.iloc[[0]].assign(root="workspace", path=f"{tmp_path.name}/odd.nii.gz", sha256="")
    made = reconstructed(row, study.workspace, pack, folder / "arm", device="cpu")
    found = read(path_of(study.workspace, made.iloc[0]))
    np.testing.assert_allclose(found.centre_mm, read(folder / "odd.nii.gz").centre_mm, atol=1e-3)
    assert found.spacing_mm == pytest.approx(pack.info.spacing_mm)


def test_reconstruction_goes_on_and_neighbours_do_not_matter(study: Study, pack: Pack, tmp_path: Path) -> None:
    folder, rows = study.workspace.path / tmp_path.name, study.train.iloc[:5]
    whole = reconstructed(rows, study.workspace, pack, folder / "whole", device="cpu")
    before = times(folder)
    pd.testing.assert_frame_equal(reconstructed(rows, study.workspace, pack, folder / "whole", device="cpu"), whole)
    assert times(folder) == before, "nothing is made twice"
    alone = reconstructed(rows.iloc[[3]], study.workspace, pack, folder / "alone", device="cpu")
    assert alone["sha256"].tolist() == [whole["sha256"].iloc[3]]
    damaged = path_of(study.workspace, whole.iloc[1])
    damaged.write_bytes(damaged.read_bytes()[:-40])
    again = reconstructed(rows, study.workspace, pack, folder / "whole", device="cpu")
    pd.testing.assert_frame_equal(again, whole)
    after = times(folder / "whole")
    assert {Path(name).name for name, time in after.items() if before[name] != time} == {
        damaged.name,
        f"{damaged.name}.json",
    }
    other = init_pack(tmp_path / "other", seed=1)
    others = reconstructed(rows, study.workspace, other, folder / "whole", device="cpu")
    assert not set(others["sha256"]) & set(whole["sha256"]), "another pack's volumes are no leftovers of this one"


def test_what_cannot_be_reconstructed_is_refused(study: Study, pack: Pack, tmp_path: Path) -> None:
    folder = study.workspace.path / tmp_path.name

    def refused(rows: pd.DataFrame, message: str, with_pack: Pack = pack) -> None:
        with pytest.raises(UserError, match=message):
            reconstructed(rows, study.workspace, with_pack, folder, device="cpu")
        assert not folder.exists()

    one = study.train.iloc[[0]]
    kept = {name: kind for name, kind in pack.info.components.items() if name != "vae"}
    blind = dataclasses.replace(pack, info=pack.info.model_copy(update={"components": kept}))
    refused(one, "has no component 'vae'", blind)
    refused(one.assign(sha256="0" * 64), "not the file that the manifest was made of")
    refused(one.assign(path="gone.nii.gz"), "does not exist")
    refused(one.assign(path=""), "is refused")
    refused(pd.concat([one, one]), "1 volumes are given twice")
    refused(one.iloc[:0], "there are none")


# oracle


def test_every_row_has_a_new_patient_with_its_findings(study: Study, tmp_path: Path) -> None:
    """Rendered on the cohort's grid, as the simulator draws that patient with these findings."""
    labels = some_labels(5)
    rows = synthetic(labels)
    made = oracle(rows, study.workspace, study.real, study.workspace.path / tmp_path.name, seed=3, workers=1)
    shown = made[NAMES].to_numpy()
    assert np.isin(shown, [0, 1]).all()
    assert (shown == labels)[~np.isnan(labels)].all()
    assert made["seed"].nunique() == 5
    assert all(int(number) in ORACLE_PATIENTS for number in made["seed"])
    assert set(made["split"]) == {"train"}
    assert set(made["source"]) == {"synthetic"}
    assert set(made["dataset"]) == {ORACLE_DATASET}
    assert set(made["gate"]) == set(made["pack"]) == {""}, "no gate has judged it and no pack has made it"
    assert made["prompt"].tolist() == rows["prompt"].tolist()
    assert len(usable(made, study.workspace)[0]) == 5
    for row in made.to_dict("records"):
        found = read(path_of(study.workspace, row))
        patient = draw_patient(int(row["seed"]), labels=np.array([row[name] for name in NAMES]) == 1)
        expected = [render(patient, 0, index, SIZE, SPACING) for index in range(len(patient.scans[0].reconstructions))]
        assert any(np.abs(found.hu - np.clip(one, -1000, 1000)).max() <= 0.5 for one in expected)
        np.testing.assert_allclose(found.affine, read(path_of(study.workspace, study.real.iloc[0])).affine)


def test_an_oracle_goes_on_and_its_patients_depend_on_the_row_alone(study: Study, tmp_path: Path) -> None:
    folder, rows = study.workspace.path / tmp_path.name, synthetic(some_labels(4))
    whole = oracle(rows, study.workspace, study.real, folder, workers=1)
    before = times(folder)
    backwards = oracle(rows.iloc[::-1].iloc[:2], study.workspace, study.real, folder, workers=1)
    assert backwards["sha256"].tolist() == whole["sha256"].iloc[[3, 2]].tolist()
    assert times(folder) == before, "nothing is made twice"
    damaged = path_of(study.workspace, whole.iloc[0])
    damaged.unlink()
    pd.testing.assert_frame_equal(oracle(rows, study.workspace, study.real, folder, workers=1), whole)
    other = oracle(rows, study.workspace, study.real, folder, seed=1, workers=1)
    assert not set(other["seed"]) & set(whole["seed"])


def test_patients_may_be_rendered_in_other_processes(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What travels there can be pickled, and the bytes do not depend on who rendered what before."""
    folder, rows, asked = study.workspace.path / tmp_path.name, synthetic(some_labels(3)), []
    here = oracle(rows, study.workspace, study.real, folder / "here", workers=1)

    def elsewhere(function: Any, jobs: Any, workers: int) -> list[None]:
        asked.append(workers)
        function, jobs = pickle.loads(pickle.dumps((function, jobs)))
        return [function(job) for job in reversed(jobs)]

    monkeypatch.setattr("text2ct.evaluation.arm_volumes._rendered.run_all", elsewhere)
    there = oracle(rows, study.workspace, study.real, folder / "there", workers=3)
    assert asked == [3]
    assert there["sha256"].tolist() == here["sha256"].tolist()


@settings(deadline=None, max_examples=30)
@given(labels=st.lists(st.sampled_from([0.0, 1.0, np.nan]), min_size=18, max_size=18), seed=st.integers(0, 10**6))
def test_what_is_known_of_a_patient_is_kept(labels: list[float], seed: int) -> None:
    known = np.array(labels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_oracle, "CANDIDATES", 8)
        number, found = oracle_patient(known, [seed])
        assert oracle_patient(known, [seed])[0] == number
    assert number in ORACLE_PATIENTS
    assert ((known == 1) == found)[~np.isnan(known)].all()
    own = scan_labels(draw_patient(number).scans[0])
    assert (found == own)[np.isnan(known)].all()


def test_unknown_findings_and_age_are_those_of_patients_who_have_the_known_ones() -> None:
    effusion, atelectasis = NAMES.index("Pleural effusion"), NAMES.index("Atelectasis")
    known = np.full(len(NAMES), np.nan)
    shares, ages = [], []
    for value in (1.0, 0.0):
        known[effusion] = value
        found = [oracle_patient(known, [value, number]) for number in range(300)]
        shares.append(np.mean([labels[atelectasis] for _, labels in found]))
        ages.append(np.mean([draw_patient(number).age for number, _ in found]))
    numbers = fitted()
    joint, alone = numbers.joint[effusion, atelectasis], numbers.prevalence[effusion]
    assert shares[0] == pytest.approx(joint / alone, abs=0.09)
    assert shares[1] == pytest.approx((numbers.prevalence[atelectasis] - joint) / (1 - alone), abs=0.09)
    assert ages[0] > ages[1] + 4


def test_a_classifier_learns_from_the_oracle(study: Study, tmp_path: Path) -> None:
    """Its rows stand in the place of synthetic ones in a training manifest."""
    folder = study.workspace.path / tmp_path.name
    made = oracle(synthetic(some_labels(3)), study.workspace, study.real, folder, workers=1)
    frame = pd.concat([study.real, made], ignore_index=True)
    result = train(frame, study.workspace, tmp_path / "run", steps=2, device="cpu", **TINY)
    assert result["train_volumes"] == len(study.train) + 3
    assert (ORACLE_DATASET, made["patient"].iloc[0]) in runs.training_patients(tmp_path / "run")


def test_what_no_oracle_can_show_is_refused(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, rows = study.workspace.path / tmp_path.name, synthetic(some_labels(2))

    def refused(message: str, rows: pd.DataFrame = rows, real: pd.DataFrame = study.real, **more: Any) -> None:
        with pytest.raises(UserError, match=message):
            oracle(rows, study.workspace, real, folder, **{"workers": 1, **more})
        assert not folder.exists()

    refused(r"not simulated \(real\)", real=study.real.assign(source="real"))
    mixed = study.real.assign(source=["real", *["simulated"] * (len(study.real) - 1)])
    refused(r"not simulated \(real\)", real=mixed)
    refused(r"not simulated \(no rows\)", real=study.real.iloc[:0])
    refused("lie on 2 grids", real=study.real.assign(size_x=[32.0, *[16.0] * (len(study.real) - 1)]))
    refused("some of them unknown", real=study.real.assign(size_x=np.nan))
    refused("has no files", real=study.real.assign(path=""))
    refused("no synthetic volumes", rows=rows.iloc[:0])
    refused("1 volumes are given twice", rows=pd.concat([rows, rows.iloc[[0]]]))
    refused("0 worker processes", workers=0)
    wrong = SimpleNamespace(labels=np.full(len(NAMES), 2.0))
    monkeypatch.setattr(
        "text2ct.diffusion.training.cases.simulated_case", lambda *_: (np.zeros(SIZE, dtype=np.int16), wrong)
    )
    refused("other findings than asked: Medical material")


# pretrained_classifier


def seen(pack: Pack, *data: TrainingData) -> Pack:
    """The pack with other training patients, on a grid that shows a chest."""
    update = {"trained_on": data, "grid": SIZE, "spacing_mm": SPACING}
    return dataclasses.replace(pack, info=pack.info.model_copy(update=update))


def test_a_classifier_is_pretrained_on_the_packs_own_patients(study: Study, pack: Pack, tmp_path: Path) -> None:
    first = PACK_PATIENTS.start + 50
    ranges = [(first, first + 3), (first + 100, first + 199)]
    trained = seen(pack, *(TrainingData(dataset="simulated", first=a, last=b) for a, b in ranges))
    folder = study.workspace.path / tmp_path.name
    ask: dict[str, Any] = {"classifier": "cnn3d", "steps": 2, "patients": 20, "device": "cpu", "workers": 1, **TINY}
    run = pretrained_classifier(trained, study.workspace, folder, **ask)
    runs.load_classifier(run)
    frame = read_manifest(folder / "manifest.csv")
    assert frame["patient"].tolist() == [str(n) for n in [*range(first, first + 4), *range(first + 100, first + 116)]]
    assert frame["split"].value_counts().to_dict() == {"train": 16, "validation": 4}
    for row in frame.to_dict("records"):
        labels = [row[name] == 1 for name in NAMES]
        assert labels == scan_labels(draw_patient(int(row["patient"])).scans[0]).tolist()
    record = json.loads(trained.info.model_dump_json())
    assert all(trained_on(training_data(record), *patient) for patient in runs.training_patients(run))
    before = times(folder / "volumes")
    assert pretrained_classifier(trained, study.workspace, folder, **ask) == run
    other = pretrained_classifier(trained, study.workspace, folder, seed=1, **ask)
    assert other != run
    assert times(folder / "volumes") == before


@pytest.mark.parametrize(
    ("data", "patients", "message"),
    [
        ((), 4, "trained on nothing that it names, not on simulated"),
        ((TrainingData(dataset="ct-rate", patients=("train_*",)),), 4, "trained on ct-rate, not on simulated"),
        ((TrainingData(dataset="simulated", patients=("a",)),), 4, "trained on simulated, not on simulated"),
        ((TrainingData(dataset="simulated", first=10**12, last=10**12 + 2),), 4, "on 3 patients; ask for that many"),
        ((TrainingData(dataset="simulated", first=10**12, last=10**12 + 2),), 1, "ask for 2 or more"),
    ],
    ids=["none", "real", "named", "fewer", "one"],
)
def test_a_pack_of_other_patients_pretrains_nothing(
    data: tuple[TrainingData, ...], patients: int, message: str, study: Study, pack: Pack, tmp_path: Path
) -> None:
    ask: dict[str, Any] = {"classifier": "cnn3d", "steps": 2, "patients": patients, "device": "cpu"}
    with pytest.raises(UserError, match=message):
        pretrained_classifier(seen(pack, *data), study.workspace, tmp_path / "arm", **ask)
    assert not (tmp_path / "arm").exists()


# own_generator


@pytest.fixture(scope="module")
def own(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    return own_generator(study.train, study.workspace, folder, device="cpu", budget=BUDGET, config=CONFIG)


def test_an_own_generator_is_whole_and_names_its_patients(study: Study, own: Path) -> None:
    info = verify_pack(own)
    record = read_json(own / "pack.json")
    assert "simulated patients" not in info.description
    for dataset, patient, split in study.real[["dataset", "patient", "split"]].itertuples(index=False):
        assert trained_on(training_data(record), dataset, patient) == (split == "train")
    assert {(data.dataset, name) for data in info.trained_on for name in data.patients} == set(
        zip(study.train["dataset"], study.train["patient"], strict=True)
    )
    assert info.components == {
        "clip": "clip3d", "vae": "linear_blocks", "unet": "gaussian_unet", "scheduler": "rectified_flow"
    }  # fmt: skip


def test_an_own_generator_goes_on(study: Study, own: Path) -> None:
    before = times(own.parent / "work" / "diffusion"), read_json(own / "pack.json")
    again = own_generator(study.train, study.workspace, own.parent, device="cpu", budget=BUDGET, config=CONFIG)
    assert again == own
    assert (times(own.parent / "work" / "diffusion"), read_json(own / "pack.json")) == before


def test_a_folder_of_other_rows_or_another_budget_does_not_go_on(study: Study, own: Path) -> None:
    ask: dict[str, Any] = {"device": "cpu", "budget": BUDGET, "config": CONFIG}
    with pytest.raises(UserError, match="belongs to another manifest"):
        own_generator(study.train.iloc[:-1], study.workspace, own.parent, **ask)
    more = BUDGET.model_copy(update={"diffusion_steps": 3})
    with pytest.raises(UserError, match="begun with another configuration"):
        own_generator(study.train, study.workspace, own.parent, **ask | {"budget": more})


def test_nobody_who_judges_and_nothing_generated_teaches_an_own_generator(study: Study, tmp_path: Path) -> None:
    ask: dict[str, Any] = {"device": "cpu", "budget": BUDGET, "config": CONFIG}
    with pytest.raises(UserError, match=r"its split is '(test|validation)', not train"):
        own_generator(study.real, study.workspace, tmp_path / "own", **ask)
    made = study.train.assign(source=["synthetic", *["simulated"] * (len(study.train) - 1)])
    with pytest.raises(UserError, match="it is synthetic"):
        own_generator(made, study.workspace, tmp_path / "own", **ask)
    silent = study.train.assign(findings_text="", impression_text="")
    with pytest.raises(UserError, match="has both a volume and a report"):
        own_generator(silent, study.workspace, tmp_path / "own", **ask)
    assert not (tmp_path / "own").exists()


def test_a_test_patient_smuggled_into_an_own_generator_is_found(study: Study, tmp_path: Path) -> None:
    """The rows say train, the pack says who it was, and the mix compares."""
    spy = study.real[study.real["split"] == "test"].iloc[:1].assign(split="train")
    rows = pd.concat([study.train.iloc[:6], spy], ignore_index=True)
    pack = own_generator(rows, study.workspace, tmp_path / "own", device="cpu", budget=BUDGET, config=CONFIG)
    request = text_request("Pleural effusion.", ["Pleural effusion"])
    run = augment.synthesize(request, pack=pack, workspace=study.workspace, run=tmp_path.name, device="cpu")
    with pytest.raises(UserError, match=f"trained on validation or test patients: .*{spy['patient'].iloc[0]}"):
        gather(study.real, read_manifest(run["manifest"]), study.workspace)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"clip_steps": 0}, "greater than or equal to 1"), ({"minuets": 1}, "Extra inputs are not permitted")],
    ids=["none", "misspelt"],
)
def test_a_budget_is_checked(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OwnBudget(**change)
