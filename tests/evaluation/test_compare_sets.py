"""Sets of the same prompts beside one another, and guidance scales: laws of paired differences, and the commands."""

from __future__ import annotations

import html
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from text2ct import manifests
from text2ct.cli import app
from text2ct.errors import UserError
from text2ct.evaluation.generator import Measures, fidelity, leading
from text2ct.evaluation.generator.compare import compare
from text2ct.evaluation.generator.scorers import PackScorer
from text2ct.findings import FINDINGS
from text2ct.manifests import Workspace
from text2ct.reports.guidance import guidance_chart
from text2ct.volumes import Volume, read, write

from .evaluated_sets import CPU, SETTINGS, SIZE, Encoder, N

PLAIN = SETTINGS.model_copy(update={"metrics": ("fidelity", "alignment"), "n_bootstrap": 50})


class Whole:
    """Describes a volume by its octants' means."""

    name, grid = "octants", None

    def __call__(self, volume_hu: np.ndarray) -> tuple[np.ndarray]:
        half = SIZE // 2
        return (volume_hu.reshape(2, half, 2, half, 2, half).mean(axis=(1, 3, 5), dtype=np.float32).ravel(),)


def noisier(made: pd.DataFrame, workspace: Workspace, hu: float) -> pd.DataFrame:
    """The same set in another run, with noise on its volumes."""
    rng = np.random.default_rng(0)
    moved = made.assign(path=made["path"].str.replace("/r/", f"/n{hu:g}/"))
    for source, target in zip(made["path"], moved["path"], strict=True):
        volume = read(workspace.path / source)
        (workspace.path / target).parent.mkdir(parents=True, exist_ok=True)
        write(Volume(volume.hu + hu * rng.normal(size=volume.hu.shape).astype(np.float32), volume.affine),
              workspace.path / target)  # fmt: skip
    shutil.copy(workspace.path / "synthetic/r/pack.json", workspace.path / f"synthetic/n{hu:g}/pack.json")
    return moved


def test_a_set_differs_from_itself_by_nothing_and_from_noise_by_more(sets, workspace, tiny_pack) -> None:
    real, made = sets
    measures = Measures(encoder=Encoder(), encoder_3d=Whole(), scorer=PackScorer(tiny_pack, CPU), device="cpu")
    others = {"made": made, "again": made, "noisy": noisier(made, workspace, 300.0)}
    settings = PLAIN.model_copy(update={"metrics": ("fidelity", "fid_3d", "alignment")})
    found = compare(real, others, workspace, settings, measures)
    assert found["prompts"] == 6
    assert (found["against"], list(found["sets"])) == ("made", ["made", "again", "noisy"])
    of = {(one["set"], one["measure"]): one for one in found["differences"]}
    assert {measure for _, measure in of} == {"fid_2p5d", "fid_3d", "text_image", "image_image"}
    assert of["noisy", "fid_3d"]["value"] == pytest.approx(found["sets"]["noisy"]["fid_3d"], rel=1e-9)
    for measure in ("fid_2p5d", "fid_3d", "text_image", "image_image"):
        same = of["again", measure]
        assert same["difference"] == 0
        assert same["ci"] == pytest.approx([0, 0], abs=1e-9)
        assert of["noisy", measure]["base"] == same["value"]
    fid = of["noisy", "fid_2p5d"]
    assert fid["value"] == pytest.approx(found["sets"]["noisy"]["fid_2p5d"]["mean"], rel=1e-9)
    assert fid["ci"][0] <= fid["difference"] <= fid["ci"][1]
    assert fid["difference"] > 0
    assert fid["better"] == "lower"


def test_a_wide_network_is_compared_by_its_leading_components(sets, workspace, monkeypatch) -> None:
    real, made = sets
    others = {"made": made, "noisy": noisier(made, workspace, 300.0)}
    settings = PLAIN.model_copy(update={"metrics": ("fidelity",)})
    (whole,) = compare(real, others, workspace, settings, Measures(encoder=Encoder(), device="cpu"))["differences"]
    for module in (fidelity, leading):
        monkeypatch.setattr(module, "LEADING", 4)
    (few,) = compare(real, others, workspace, settings, Measures(encoder=Encoder(), device="cpu"))["differences"]
    assert few["difference"] == pytest.approx(whole["difference"], rel=1e-9)
    assert few["ci"][0] <= few["difference"] <= few["ci"][1]


def test_sets_are_read_for_what_the_real_scan_shows(sets, workspace, monkeypatch) -> None:
    """A set whose own labels are wrong is judged as the table beside the differences judges it."""
    real, made = sets
    monkeypatch.setattr(sys.modules["text2ct.evaluation.generator.evaluate"], "check_reader", lambda *_: None)
    for module in ("factual", "compare"):
        monkeypatch.setattr(sys.modules[f"text2ct.evaluation.generator.{module}"], "predict", brightness)
    flipped = made.assign(**{name: 1 - made[name] for name in FINDINGS})
    settings = PLAIN.model_copy(update={"metrics": ("factual",)})
    found = compare(real, {"own": made, "flipped": flipped}, workspace, settings, Measures(classifier=Path("any")))
    (one,) = found["differences"]
    assert one["difference"] == 0
    assert one["value"] == pytest.approx(found["sets"]["flipped"]["factual"]["macro_auc_synthetic"])


def brightness(run: Path, rows: pd.DataFrame, workspace: Workspace, **_: object) -> pd.DataFrame:
    """A classifier that says of every finding how bright a volume is."""
    means = [
        float(read(workspace.resolve(root, path)).hu.mean())
        for root, path in zip(rows["root"], rows["path"], strict=True)
    ]
    return pd.DataFrame({name: 1 / (1 + np.exp(-(np.array(means) + 800) / 100)) for name in FINDINGS}).assign(
        VolumeName=rows["volume"].tolist()
    )


def test_prompts_that_not_all_have_are_left_out_and_said(sets, workspace, tiny_pack) -> None:
    real, made = sets
    some = made[made["prompt"] != "Report of test0."]
    measures = Measures(encoder=Encoder(), scorer=PackScorer(tiny_pack, CPU), device="cpu")
    found = compare(real, {"all": made, "some": some}, workspace, PLAIN, measures)
    assert found["prompts"] == 5
    assert "all: 2 volumes of other prompts, or more of a prompt, are left out" in found["notes"]
    assert any(note.startswith("some: whether the 3D CLIP") for note in found["notes"])
    told = made.assign(prompt_volume=["", *made["prompt_volume"].iloc[1:]])
    found = compare(real, {"untold": told, "all": made}, workspace, PLAIN, measures)
    assert [one["clip_score"]["pairs"] for one in found["sets"].values()] == [N, N], "a prompt's scan is one for all"
    assert {one["difference"] for one in found["differences"]} == {0.0}
    with pytest.raises(UserError, match="1 set is nothing to compare"):
        compare(real, {"all": made}, workspace, PLAIN, measures)
    with pytest.raises(UserError, match="0 prompts in common"):
        compare(real, {"a": made, "b": made.assign(prompt="Another.")}, workspace, PLAIN, measures)


@pytest.fixture
def stored(sets, workspace, tiny_pack) -> list[str]:
    real, made = sets
    for name, frame in (("real", real), ("synthetic/r", made), ("synthetic/n50", noisier(made, workspace, 50.0))):
        manifests.write_manifest(frame, workspace.path / name / "manifest.csv")
    words = ["evaluate", "--workspace", str(workspace.path), "--grid", str(SIZE), "--spacing", "20"]
    return [*words, "--clip", str(tiny_pack.path), "--bootstrap", "40", "--json"]


def test_the_command_shows_the_same_prompts_side_by_side(stored, workspace) -> None:
    tried = json.loads(CliRunner().invoke(app, [*stored, "--compare", "r", "n50", "--dry-run"]).stdout)
    assert (tried["n_real"], tried["n_synthetic"]) == (N, 2 * N)
    assert not (workspace.path / "reports").exists()
    result = CliRunner().invoke(app, [*stored, "--compare", "r", "n50"])
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    page = html.unescape(Path(found["report"]).read_text("utf-8"))
    assert page.count('<article class="card volume"') == 2 * 6
    assert "text2ct evaluate" in page
    assert "n50" in page
    assert "factual was not compared" in page
    assert "CLIP score, text to image" in Path(found["report"]).with_suffix(".md").read_text("utf-8")
    manifest = str(workspace.path / "synthetic" / "r" / "manifest.csv")
    named = json.loads(CliRunner().invoke(app, [*stored, "--compare", "r", f"again={manifest}"]).stdout)
    assert list(named["sets"]) == ["r", "again"]
    table = CliRunner().invoke(app, [word for word in [*stored, "--compare", "r", "n50"] if word != "--json"])
    assert "difference" in table.stdout
    for words, message in (
        (["--compare", "r"], "1 set is nothing to compare"),
        (["--compare", "r", "r"], "give each its own"),
        (["--compare", "r", "nobody"], "'nobody' is neither"),
        (["r"], "'r' stands alone"),
        (["--compare", "r", "n50", "--guidance", "1"], "ask one at a time"),
        (["--compare", "r", "n50", "--synthetic", "r"], "--compare does not know --synthetic"),
        (["--compare", "r", "n50", "--metrics", "privacy"], "ask privacy of each set by itself"),
        (["--count", "5"], "an evaluation of one set does not know --count"),
        (["--profile", "vlm3d", "--metrics", "fidelity"], "--profile vlm3d does not know --metrics, --bootstrap"),
        (["--guidance", "1", "--prompts", "p.json"], "--guidance does not know --prompts"),
        (["--prompts", "p.json"], "a manifest holds its prompts itself"),
        (["--bootstrap", "3"], "40 or more"),
        (["--metrics", ","], "no metric is asked for"),
        (["--metrics", "alignment", "--windows", "lung"], "--windows decide fidelity"),
        (["--windows", "lung,lung"], "windows of one name"),
        (["--compare", "r", "--dry-run"], "1 set is nothing to compare"),
        (["--run", "../x", "--dry-run"], "cannot name a run"),
    ):
        refused = CliRunner().invoke(app, [*stored, *words])
        assert refused.exit_code == 2, words
        assert message in refused.stderr


def test_guidance_scales_are_measured_on_the_splits_own_reports(stored, workspace, tiny_pack) -> None:
    words = [*stored, "--guidance", "3,1", "--count", "6", "--model", str(tiny_pack.path), "--run", "g"]
    words += ["--metrics", "fidelity,alignment"]
    tried = CliRunner().invoke(app, [*words, "--dry-run"])
    assert tried.exit_code == 0, tried.stderr
    assert json.loads(tried.stdout)["n_synthetic"] == 12
    assert not (workspace.path / "synthetic" / "g").exists()
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert [row["guidance"] for row in found["sweep"]] == [1, 3]
    assert found["sweep"][0]["fid_2p5d"] != found["sweep"][1]["fid_2p5d"]
    made = [manifests.read_manifest(workspace.path / f"synthetic/g/{scale}/manifest.csv") for scale in (1, 3)]
    assert made[0]["prompt"].tolist() == made[1]["prompt"].tolist()
    assert made[0]["seed"].tolist() == made[1]["seed"].tolist(), "from the same noise"
    assert set(made[0]["prompt_volume"]) < {f"test{i}.nii.gz" for i in range(N)}
    assert "guidance" in Path(found["report"]).read_text("utf-8")
    rows = Path(found["report"]).with_suffix(".md").read_text("utf-8").split("\n\n")
    assert sum(part.count("\n|") for part in rows if part.startswith("| guidance")) == 3, "one table, without gaps"
    assert json.loads(CliRunner().invoke(app, words).stdout) == found
    table = CliRunner().invoke(app, [word for word in words if word != "--json"])
    assert "FID/floor" in table.stdout
    for more, message in ((["--guidance", "-1"], "0 and more"), (["--guidance", "a"], "expected numbers"),
                          (["--split", "nowhere"], "no reports in the split")):  # fmt: skip
        refused = CliRunner().invoke(app, [*words, *more])
        assert refused.exit_code == 2
        assert message in refused.stderr


def test_the_plot_has_both_figures_of_each_scale() -> None:
    rows = [{"guidance": g, "fid_2p5d": 1 + g, "macro_precision": 0.5 - g / 10} for g in (0.0, 1.0, 2.0)]
    chart = guidance_chart(rows)
    assert chart is not None
    assert [row["guidance"] for row in chart.rows] == [0, 1, 2]
    assert guidance_chart([rows[0] | {"macro_precision": None}, *rows[1:2]]) is None
