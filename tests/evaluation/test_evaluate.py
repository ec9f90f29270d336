"""A synthetic set beside a real one: what is found, what is refused, and that nothing is computed twice."""

from __future__ import annotations

import html
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from text2ct import manifests
from text2ct.classifiers.cache import VolumeCache
from text2ct.classifiers.config import Preprocessing
from text2ct.cli import app
from text2ct.errors import UserError
from text2ct.evaluation.generator import Measures, Settings, evaluate, factual, fidelity
from text2ct.evaluation.generator.backbones import TimmEncoder, slice_encoder
from text2ct.evaluation.generator.kept_features import KeptFeatures
from text2ct.evaluation.generator.scorers import PackScorer
from text2ct.evaluation.generator.sets import measured, pairs, real_rows, synthetic_rows
from text2ct.evaluation.slice_network import SliceNetwork
from text2ct.files import sha256_file, write_json
from text2ct.findings import FINDINGS
from text2ct.manifests import Workspace, validate
from text2ct.reports.evaluation import evaluation_rows

from .evaluated_sets import CPU, SETTINGS, SIZE, Encoder, N, row

WHOLE = "text2ct.evaluation.generator.evaluate"


def test_every_row_is_there_with_what_it_rests_on(sets, workspace, tiny_pack) -> None:
    real, made = sets
    found = evaluate(
        real, made, workspace, SETTINGS, Measures(encoder=Encoder(), scorer=PackScorer(tiny_pack, CPU), device="cpu")
    )
    assert (found["n_real"], found["n_synthetic"], found["pairs"]) == (N, N, N)
    fid = found["fid_2p5d"]
    assert fid["mean"] == pytest.approx(np.mean([fid[plane] for plane in ("axial", "coronal", "sagittal")]))
    assert fid["backbone"] == "a test's"
    assert fid["floor"]["n_each"] == N // 2
    for one in (fid, *found["fid_window"].values()):
        assert one["floor"]["n_each"] == N // 2
        for plane in ("axial", "coronal", "sagittal"):
            assert one[f"{plane}_ci"][0] <= one[plane] <= one[f"{plane}_ci"][1]
    for name in ("kid", "precision", "recall", "density", "coverage"):
        assert found[name]["floor"]["n_each"] == N // 2
    for one in evaluation_rows(found):
        spread = one.group in ("Fidelity", "Fidelity by window", "Alignment", "3D CLIP")
        assert not spread or one.ci is not None, one.name
    assert set(found["fid_window"]) == {"lung", "soft_tissue", "bone", "vessel"}
    assert {"kid", "precision", "recall", "density", "coverage"} <= set(found)
    assert 0 <= found["clip_score"]["text_image"] <= 100
    assert found["clip_score"]["pairs"] == N
    assert set(found["report_to_volume_recall"]["chance"]) == {"5", "10", "50", "100"}
    assert found["clip_score"]["scores_its_own"] is None, "the generator's pack names no 3D CLIP"
    assert "whether the 3D CLIP that scores conditioned the generator is not known" in " ".join(found["notes"])
    assert found["zero_shot"]["chance"]["precision"] == pytest.approx(found_prevalence(real))
    assert found["made_by"] == [
        {"pack": "a test's", "pack_sha256": made.loc[0, "pack_sha256"], "guidance_scale": "", "steps": "", "volumes": N}
    ]
    assert found["privacy"]["memorised"] == 0
    assert found["privacy"]["n_known_training"] == N
    assert 0 <= found["privacy"]["membership_auc"] <= 1
    assert found["diversity"]["one_prompt"]["groups"] == 6
    assert found["diversity"]["one_prompt"]["embedding_spread"] > 0


def test_a_set_is_no_distance_from_itself_and_its_copies_are_found(sets, workspace, tiny_pack) -> None:
    """Synthetic volumes that are the test patients: no distance. That are the training patients: copies."""
    real, made = sets
    settings = SETTINGS.model_copy(update={"metrics": ("fidelity", "privacy")})
    for split in ("test", "train"):
        copied = real[real["split"] == split].reset_index(drop=True)
        for source, target in zip(copied["path"], made["path"], strict=True):
            shutil.copy(workspace.path / source, workspace.path / target)
        copies = made.assign(sha256=copied["sha256"])
        if split == "test":
            found = evaluate(real, copies, workspace, settings.model_copy(update={"metrics": ("fidelity",)}),
                             Measures(encoder=Encoder(), device="cpu"))  # fmt: skip
            assert found["fid_2p5d"]["mean"] == pytest.approx(0, abs=1e-6)
            assert found["precision"]["value"] == found["coverage"]["value"] == 1
            few = evaluate(real, copies.iloc[:3], workspace, settings.model_copy(update={"metrics": ("fidelity",)}),
                           Measures(encoder=Encoder(), device="cpu"))  # fmt: skip
            assert "too few volumes for the distance of infinitely many volumes, precision" in few["notes"][-1]
        else:
            found = evaluate(
                real,
                copies,
                workspace,
                settings,
                Measures(encoder=Encoder(), scorer=PackScorer(tiny_pack, CPU), device="cpu"),
            )
            assert found["privacy"]["memorised"] == N
            assert found["privacy"]["nearest"][0]["distance_hu"] == 0
            assert found["privacy"]["authenticity"] == 0
            assert found["privacy"]["membership_auc"] == 1


def found_prevalence(real: pd.DataFrame) -> float:
    """Mean share of the test volumes that have a finding, of the findings that some have and some have not."""
    shares = real.loc[real["split"] == "test", list(FINDINGS)].mean()
    return float(shares[(shares > 0) & (shares < 1)].mean())


def test_floors_are_of_real_volumes_and_stand_beside_as_many_synthetic_ones() -> None:
    """A set that is far off is worse than the floor by every measure; one of the real kind is as good as it."""
    rng = np.random.default_rng(0)
    real, alike, far = rng.normal(size=(40, 4)), rng.normal(size=(20, 4)), rng.normal(size=(20, 4)) + 6
    good, bad = (fidelity._floors_of_volumes(real, made, 0) for made in (alike, far))
    for name in ("kid", "precision", "recall", "coverage"):
        assert good[name]["mean"] == bad[name]["mean"]
        assert abs(good[name]["at_n_each"] - good[name]["mean"]) < 0.3
    assert bad["kid"]["at_n_each"] > bad["kid"]["mean"] + 1
    for name in ("precision", "recall", "density", "coverage"):
        assert bad[name]["at_n_each"] < 0.1 < bad[name]["mean"]


def test_a_network_that_describes_nothing_is_refused_and_nothing_is_kept(sets, workspace) -> None:
    class Broken(Encoder):
        def forward(self, slices: torch.Tensor) -> torch.Tensor:
            return super().forward(slices) * float("nan")

    kept = KeptFeatures(workspace.path / "kept")
    cache = VolumeCache(workspace.path / "cache", Preprocessing(size=(SIZE,) * 3, spacing_mm=(20.0,) * 3))
    volumes = measured(real_rows(sets[0], "test"), workspace, cache, "real").volumes
    with pytest.raises(UserError, match="not finite"):
        kept.of(volumes, "broken", lambda hu: (np.array([np.nan], dtype=np.float32),), "x")
    assert not list((workspace.path / "kept").rglob("*.npz"))
    with pytest.raises(UserError, match="not finite"):
        kept.of(volumes, "slices", fidelity.describer(Broken(), "full_range", 1, torch.device("cpu")), "x")


def test_members_are_whom_the_pack_names_and_strangers_gave_no_prompt(sets, workspace, tiny_pack, monkeypatch) -> None:
    real, made = sets
    record = workspace.path / "synthetic" / "r" / "pack.json"
    write_json(record, {"trained_on": [{"dataset": "clinic", "patients": ["train0", "train1"]}], "files": {}})
    made = made.assign(pack_sha256=sha256_file(record))
    seen = []
    monkeypatch.setattr(
        sys.modules[WHOLE], "membership_section",
        lambda *sides, **_: seen.append([one.rows["volume"].tolist() for one, _ in sides]) or {},
    )  # fmt: skip
    settings = SETTINGS.model_copy(update={"metrics": ("privacy",)})
    measures = Measures(scorer=PackScorer(tiny_pack, CPU), device="cpu")
    found = evaluate(real, made, workspace, settings, measures)["privacy"]
    assert found["n_known_training"] == 2
    assert seen[0][1] == ["train0.nii.gz", "train1.nii.gz"]
    assert seen[0][2] == [f"validation{i}.nii.gz" for i in range(N)]
    without = real[real["split"] != "validation"]
    assert "membership is not measured" in evaluate(without, made, workspace, settings, measures)["notes"][-1]


def test_features_are_computed_once(sets, workspace) -> None:
    settings = SETTINGS.model_copy(update={"metrics": ("fidelity",)})
    encoder = Encoder()
    first = evaluate(*sets, workspace, settings, Measures(encoder=encoder, device="cpu"))
    asked = encoder.asked
    assert asked == 5 * 3 * 2 * N, "five views, three planes, two sets"
    assert evaluate(*sets, workspace, settings, Measures(encoder=encoder, device="cpu")) == first
    assert encoder.asked == asked
    flipped = sorted((workspace.path / "cache" / "features").rglob("*.npz"))[-1]
    content = bytearray(flipped.read_bytes())
    content[len(content) // 2] ^= 255
    flipped.write_bytes(content)
    assert evaluate(*sets, workspace, settings, Measures(encoder=encoder, device="cpu")) == first
    asked += 3
    damaged = next((workspace.path / "cache" / "features").rglob("*.npz"))
    damaged.write_bytes(damaged.read_bytes()[:50])
    assert evaluate(*sets, workspace, settings, Measures(encoder=encoder, device="cpu")) == first
    assert encoder.asked == asked + 3, "a half-written file is made again"
    encoder.name = "another's"
    evaluate(*sets, workspace, settings, Measures(encoder=encoder, device="cpu"))
    assert encoder.asked == 2 * asked


def test_factual_correctness_compares_volumes_of_the_same_reports(sets, workspace, monkeypatch) -> None:
    """A classifier that knows all labels reads both sets perfectly; one that guesses reads neither."""
    real, made = sets
    made.loc[:, list(FINDINGS)] = (
        real[real["split"] == "test"].iloc[[i % 6 for i in range(N)]][list(FINDINGS)].to_numpy()
    )

    def predict(run: Path, rows: pd.DataFrame, workspace: Workspace, *, device: str) -> pd.DataFrame:
        scores = rows[list(FINDINGS)].to_numpy() if run.name == "all" else np.full((len(rows), 18), 0.5)
        return pd.DataFrame(scores, columns=list(FINDINGS)).assign(VolumeName=rows["volume"].to_numpy())

    monkeypatch.setattr(factual, "predict", predict)
    checked = []
    monkeypatch.setattr(sys.modules[WHOLE], "check_reader", lambda run, rows, workspace: checked.append(run.name))
    settings = SETTINGS.model_copy(update={"metrics": ("factual",)})
    for run, expected in (("all", 1.0), ("guesses", 0.5)):
        found = evaluate(real, made, workspace, settings, Measures(classifier=Path(run), device="cpu"))["factual"]
        assert found["macro_auc_real"] == found["macro_auc_synthetic"] == expected
        assert found["ratio"] == 1
        assert (found["pairs"], found["reports"]) == (N, 6)
    assert checked == ["all", "guesses"]
    other = settings.model_copy(update={"split": "validation"})
    asked = made.assign(prompt_volume=[f"validation{i % 6}.nii.gz" for i in range(N)])
    found = evaluate(real, asked, workspace, other, Measures(classifier=Path("all"), device="cpu"))
    assert "precision is at 0.5" in found["notes"][0], "thresholds are not tuned on the split that is scored"
    found = evaluate(
        real, made.assign(prompt_volume=""), workspace, settings, Measures(classifier=Path("all"), device="cpu")
    )
    assert "factual" not in found
    assert "no synthetic volume was made from a report" in found["notes"][0]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"training": [{"dataset": "clinic", "patient": "test3"}]}, "knows patients that judge"),
        ({"prompts": [{"dataset": "clinic", "volume": "train0.nii.gz"}]}, "has learnt from synthetic volumes"),
    ],
    ids=["patient", "synthetic"],
)
def test_a_classifier_that_is_no_stranger_reads_nothing(sets, workspace, record: dict, message: str) -> None:
    run = workspace.run_dir("classifiers") / "run"
    write_json(run / "patients.json", {"training": [], "validation": [], "prompts": []} | record)
    with pytest.raises(UserError, match=message):
        factual.check_reader(run, real_rows(sets[0], "test"), workspace)


def test_a_generator_that_knows_who_it_is_compared_with_is_refused(sets, workspace) -> None:
    real, made = sets
    settings = SETTINGS.model_copy(update={"metrics": ("fidelity",), "split": "train"})
    with pytest.raises(UserError, match="has learnt from patients of the train split"):
        evaluate(real, made, workspace, settings, Measures(encoder=Encoder(), device="cpu"))
    stranger = made.assign(pack_sha256="", path=made["path"].str.replace("/r/", "/q/"))
    for path in stranger["path"]:
        target = workspace.path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((workspace.path / path.replace("/q/", "/r/")).read_bytes())
    settings = SETTINGS.model_copy(update={"metrics": ("privacy",)})
    found = evaluate(real, stranger, workspace, settings, Measures(device="cpu"))
    assert found["privacy"]["n_known_training"] == 0
    assert "of 12 volumes have learnt from is not known here" in found["notes"][0]
    assert "12 strangers set the threshold" in found["notes"][1]
    assert "cannot be looked for" in found["notes"][2]


def test_another_reconstructions_report_has_the_scans_pair(sets, workspace) -> None:
    real, made = sets
    second = real[real["split"] == "test"].assign(volume=lambda frame: "second-" + frame["volume"])
    both = pd.concat([real, second], ignore_index=True)
    asked = made.assign(prompt_volume="second-" + made["prompt_volume"])
    cache = VolumeCache(workspace.path / "cache", Preprocessing(size=(SIZE,) * 3, spacing_mm=(20.0,) * 3))
    own, kept = (measured(rows, workspace, cache, "") for rows in (real_rows(both, "test"), synthetic_rows(asked)))
    assert pairs(both, own, kept)[:, 1].tolist() == [i % 6 for i in range(N)]


def test_what_a_gate_rejected_and_second_reconstructions_do_not_count(sets, workspace) -> None:
    real, made = sets
    cache = VolumeCache(workspace.path / "cache", Preprocessing(size=(SIZE,) * 3, spacing_mm=(20.0,) * 3))
    twice = pd.concat([real, real[real["split"] == "test"].assign(volume="again.nii.gz")], ignore_index=True)
    assert len(real_rows(twice, "test")) == N
    made["gate"] = ["reject by g: label", *["accept by g"] * (N - 1)]
    settings = SETTINGS.model_copy(update={"metrics": ("fidelity",)})
    judged = made.assign(gate=["reject by g: label", *[""] * (N - 1)])
    notes = evaluate(real, judged, workspace, settings, Measures(encoder=Encoder(), device="cpu"))["notes"]
    assert "1 volumes that a gate rejected are left out" in notes
    kept = measured(synthetic_rows(made), workspace, cache, "synthetic")
    assert len(kept) == N - 1
    assert pairs(real, measured(real_rows(real, "test"), workspace, cache, "real"), kept)[0].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda real, made: (real[real["split"] != "test"], made), "no test volumes with files"),
        (lambda real, made: (real, made.iloc[:0]), "no synthetic volumes with files"),
        (lambda real, made: (real, made.iloc[:1]), "one synthetic volume is no set"),
        (
            lambda real, made: (real, made.assign(path="synthetic/none.nii.gz")),
            "synthetic volumes cannot be read, and too few",
        ),
    ],
    ids=["split", "empty", "one", "missing"],
)
def test_sets_that_cannot_be_compared_are_refused(sets, workspace, change, message: str) -> None:
    settings = SETTINGS.model_copy(update={"metrics": ("fidelity",)})
    with pytest.raises(UserError, match=message):
        evaluate(*change(*sets), workspace, settings, Measures(encoder=Encoder(), device="cpu"))


def test_a_volume_of_air_is_refused_by_name(sets, workspace) -> None:
    """Left out, it would flatter its generator."""
    real, made = sets
    air = row(workspace, "s0", np.full((SIZE,) * 3, -1000), "train", "synthetic")
    made = pd.concat([validate(pd.DataFrame([air]), "the test"), made.iloc[1:]], ignore_index=True)
    settings = SETTINGS.model_copy(update={"metrics": ("fidelity",)})
    with pytest.raises(UserError, match=r"nothing but air(.|\n)*s0\.nii\.gz"):
        evaluate(real, made, workspace, settings, Measures(encoder=Encoder()))


def test_volumes_that_cannot_be_read_are_quarantined_by_name(sets, workspace) -> None:
    """The rest is measured as if they had never been there."""
    real, made = sets
    (workspace.path / made.loc[0, "path"]).write_bytes(b"half")
    missing = real["volume"] == real[real["split"] == "test"]["volume"].iloc[-1]
    lacking = real.assign(path=real["path"].mask(missing, "real/none.nii.gz"))
    settings, measures = SETTINGS.model_copy(update={"metrics": ("fidelity",)}), Measures(encoder=Encoder())
    found = evaluate(lacking, made, workspace, settings, measures)
    assert (found["quarantined"], found["n_real"], found["n_synthetic"]) == (2, N - 1, N - 1)
    assert any("1 synthetic volumes are quarantined" in note and "s0.nii.gz" in note for note in found["notes"])
    assert any("1 real volumes are quarantined" in note and "none.nii.gz" in note for note in found["notes"])
    without = evaluate(real[~missing], made.iloc[1:], workspace, settings, measures)
    assert found["fid_2p5d"] == without["fid_2p5d"]


def test_what_a_metric_needs_is_said_at_once(sets, workspace) -> None:
    with pytest.raises(UserError, match=r"fidelity needs(.|\n)*alignment needs(.|\n)*factual needs"):
        evaluate(*sets, workspace, Settings())
    with pytest.raises(UserError, match="no metric is asked for"):
        evaluate(*sets, workspace, Settings(metrics=()))


def test_the_command_writes_a_page_and_takes_names(sets, workspace, tiny_pack, tmp_path) -> None:
    """With a network's folder as backbone: the page holds every measure, and the same command again says the same."""
    real, made = sets
    SliceNetwork().save(tmp_path / "network")
    for name, frame in (("real", real), ("synthetic/r", made)):
        (workspace.path / name).mkdir(parents=True, exist_ok=True)
        manifests.write_manifest(frame, workspace.path / name / "manifest.csv")
    words = ["evaluate", "--workspace", str(workspace.path), "--grid", str(SIZE), "--spacing", "20", "--json"]
    words += ["--clip", str(tiny_pack.path), "--backbone", str(tmp_path / "network"), "--bootstrap", "40"]
    words += ["--metrics", "fidelity,alignment,privacy,diversity"]
    before = {path: path.stat().st_mtime_ns for path in workspace.path.rglob("*")}
    would = json.loads(CliRunner().invoke(app, [*words, "--dry-run"]).stdout)
    assert {path: path.stat().st_mtime_ns for path in workspace.path.rglob("*")} == before
    assert (would["n_real"], would["n_synthetic"], would["volumes_to_read"]) == (N, N, (4 + 3) * N), "on two grids"
    assert would["bytes"] > 3 * N * 2 * SIZE**3
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.stderr
    later = json.loads(CliRunner().invoke(app, [*words, "--dry-run"]).stdout)
    assert (later["volumes_to_read"], later["bytes"]) == (0, 0)
    found = json.loads(result.stdout)
    page = Path(found["report"]).read_text("utf-8")
    for one in evaluation_rows(found):
        assert one.name in html.unescape(page)
    assert "text2ct evaluate" in page
    assert found["fid_2p5d"]["backbone"] in page
    assert json.loads(CliRunner().invoke(app, words).stdout) == found
    without = [word for word in words if word not in ("--metrics", "fidelity,alignment,privacy,diversity")]
    whole = json.loads(CliRunner().invoke(app, without).stdout)
    assert "factual was not measured" in whole["notes"][-1], "there is no classifier"
    named = shutil.copy(workspace.path / "synthetic" / "r" / "manifest.csv", tmp_path / "set.csv")
    other = json.loads(CliRunner().invoke(app, [*words, "--synthetic", str(named)]).stdout)
    assert Path(other["report"]).parent.name == "evaluation-set"
    table = CliRunner().invoke(app, [word for word in words if word != "--json"])
    assert "membership inference AUC" in table.stdout

    refused = CliRunner().invoke(app, [*words, "--backbone", "nothing"])
    assert refused.exit_code == 2
    assert "'nothing' is no backbone" in refused.stderr
    refused = CliRunner().invoke(app, [*words, "--metrics", "beauty"])
    assert refused.exit_code == 2
    refused = CliRunner().invoke(app, [*words, "--metrics", "fidelity,factual", "--classifier", "nobody"])
    assert refused.exit_code == 2
    assert "'nobody' is neither a run's folder" in refused.stderr


def test_the_bundled_network_is_there_and_was_trained() -> None:
    encoder = slice_encoder(device=torch.device("cpu"))
    assert encoder.config.steps > 0
    assert encoder.config.trained_on
    features = encoder(torch.rand(4, 3, 64, 64))
    assert features.shape == (4, 48)
    assert features.std(dim=0).max() > 0


def test_a_timm_network_describes_slices_by_its_own_size_and_scale() -> None:
    encoder = TimmEncoder("resnet18", pretrained=False).eval()
    assert "random, 224x224" in encoder.name
    features = encoder(torch.rand(2, 3, 20, 24))
    assert features.shape == (2, 512)
    assert encoder.name != TimmEncoder("resnet18", pretrained=False).name, "other weights have another name"
    with pytest.raises(UserError, match="timm has no backbone"):
        slice_encoder("timm:resnet-of-nobody", device=torch.device("cpu"))
