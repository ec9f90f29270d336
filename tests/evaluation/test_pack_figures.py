"""Every figure of a pack, measured by one call that goes on where it was stopped, and the card that holds them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_build import CONFIG
from typer.testing import CliRunner

from text2ct.cli import app
from text2ct.diffusion import Pack, load_pack
from text2ct.diffusion.build import TRAINED_ON
from text2ct.diffusion.info import TrainingData
from text2ct.errors import UserError
from text2ct.evaluation import pack_figures
from text2ct.evaluation._kept import CHUNK, Kept
from text2ct.evaluation.judges import macro, trained_judges
from text2ct.evaluation.model_card import _place
from text2ct.evaluation.pack_figures import MeasureConfig, _training_cases, measure_pack
from text2ct.evaluation.pack_sections import autoencoder_figures, factual_figures, kept_shares, psnr
from text2ct.evaluation.real_data import RealData
from text2ct.files import read_json, write_json
from text2ct.findings import FINDINGS
from text2ct.simulation.patients import FIRST_JUDGED, FIRST_MEASURED
from text2ct.volumes import Volume, write

MEASURE = MeasureConfig(
    patients=16, generated=8, judge_patients=24, judge_minutes=0.02, slice_steps=2, one_prompt=2, alone=("Lung nodule",)
)


@pytest.fixture(scope="module")
def real_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Invented reports and a chest of noise, in the forms that real ones have."""
    folder = tmp_path_factory.mktemp("real")
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (400, len(FINDINGS)))
    texts = [" ".join(f"{name}." for name, one in zip(FINDINGS, row, strict=True) if one) for row in labels]
    table = pd.DataFrame(labels, columns=list(FINDINGS))
    table.insert(0, "report_text", [f"{text} Case {number}." for number, text in enumerate(texts)])
    table.to_csv(folder / "reports.csv", index=False)
    affine = np.diag([8.0, 8.0, 8.0, 1.0])
    write(Volume(rng.normal(0, 300, (40, 40, 40)).astype(np.float32), affine), folder / "chest.nii.gz")
    return folder


@pytest.fixture(scope="module")
def real(real_files: Path) -> RealData:
    return RealData(real_files / "reports.csv", real_files / "chest.nii.gz")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, real_files: Path) -> tuple[Path, Pack, dict[str, Any]]:
    """What ``core pack`` makes and says."""
    folder = tmp_path_factory.mktemp("measured")
    settings = CONFIG.model_dump(mode="json") | {"measure": MEASURE.model_dump(mode="json")}
    (folder / "settings.json").write_text(json.dumps(settings))
    given = ("--config", folder / "settings.json", "--work", folder, "--device", "cpu")
    real = ("--reports", real_files / "reports.csv", "--chest", real_files / "chest.nii.gz")
    words = [str(word) for word in ("core", "pack", "--out", folder / "pack", *given, *real, "--json")]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["figures"] == read_json(folder / "figures.json")
    return folder, load_pack(found["pack"]), found["figures"]


def test_every_section_is_measured(measured: tuple[Path, Pack, dict[str, Any]]) -> None:
    _, _, figures = measured
    assert figures["autoencoder"]["n"] == 16
    assert figures["autoencoder"]["real_chest_psnr_db"] > 0
    assert figures["clip"]["n"] == 16
    assert figures["clip"]["report_to_volume_recall_chance"]["5"] == pytest.approx(5 / 16, abs=1e-3)
    assert figures["clip"]["real_reports_probe"]["train"] == 100
    assert figures["real_reports"]["n"] == 300
    assert figures["memorisation"]["training"] == 24
    assert figures["diversity"]["findings"].keys() == {"Lung nodule"}
    for judge in figures["factual"]["judges"].values():
        assert judge["macro_auc_real"] == macro(judge["auc_real"])
        assert judge["macro_auc_synthetic"] == macro(judge["auc_synthetic"])
        low, high = judge["macro_auc_synthetic_ci"]
        assert low <= judge["macro_auc_synthetic"] <= high


def test_what_is_measured_is_kept(measured: tuple[Path, Pack, dict[str, Any]], real: RealData) -> None:
    folder, pack, figures = measured
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.npy")}
    assert measure_pack(pack, folder, MEASURE, real=real, device="cpu") == figures
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.npy")} == before


def test_an_interrupted_measurement_goes_on(measured: tuple[Path, Pack, dict[str, Any]], real: RealData) -> None:
    folder, pack, figures = measured
    for name in ("factual.json", "reports/00000.npy"):
        next(folder.glob(f"measured/*/{name}")).unlink()
    again = measure_pack(pack, folder, MEASURE, real=real, device="cpu")
    assert again["factual"] == figures["factual"]


def test_other_code_and_other_judges_are_measured_again(
    measured: tuple[Path, Pack, dict[str, Any]], real: RealData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, pack, _ = measured
    work = tmp_path / "work"
    shutil.copytree(folder, work)
    asked: list[str] = []
    for name in ("autoencoder", "clip", "factual", "fidelity", "diversity", "memorisation"):
        monkeypatch.setattr(pack_figures, f"{name}_figures", lambda *_, name=name, **__: asked.append(name) or {})
    monkeypatch.setattr(pack_figures, "trained_judges", lambda *_, **__: [])
    monkeypatch.setattr(pack_figures, "_slice_network", lambda *_: None)

    def measured_again() -> list[str]:
        asked.clear()
        measure_pack(pack, work, MEASURE, real=real, device="cpu")
        return sorted(asked)

    measured_again()
    assert measured_again() == []
    texts = work / "judge-cases" / "chunk-00000" / "cases.json"
    records = read_json(texts)
    records[0]["impression"] += " As another simulator says."
    write_json(texts, records)
    assert measured_again() == ["factual", "factual", "fidelity"]  # of simulated and of real reports
    monkeypatch.setattr(pack_figures, "MEASURE_VERSION", pack_figures.MEASURE_VERSION + 1)
    assert measured_again() == [
        "autoencoder", "clip", "diversity", "factual", "factual", "fidelity", "memorisation"
    ]  # fmt: skip
    assert measured_again() == []


@pytest.mark.parametrize(
    ("count", "files", "expected", "row"),
    [
        (40, [("CPU", 2, 1.0)], (40, 1.0, "CPU", 2), "on CPU, 2 cores"),
        (80, [("CPU", 1, 1.0), ("CPU", 1, 3.0)], (80, 2.0, "CPU", 1), "on CPU, 1 core"),
        (80, [("Some GPU", 8, 0.1), ("CPU", 8, 3.0)], (40, 0.1, "Some GPU", 8), "on Some GPU"),
        (90, [("CPU", 1, 3.0), ("CPU", 2, 1.0), ("CPU", 2, 2.0)], (50, 1.5, "CPU", 2), "on CPU, 2 cores"),
        (40, [(None, None, 3.0)], (40, 3.0, None, None), "on a machine that was not recorded"),
    ],
    ids=["one", "two-files", "a-gpu", "the-most", "unknown"],
)
def test_times_of_different_machines_are_not_mixed(
    count: int, files: list[tuple[Any, ...]], expected: tuple[Any, ...], row: str, tmp_path: Path
) -> None:
    for number, (device, cores, seconds) in enumerate(files):
        record = {"seconds_per_volume": seconds} | ({"device": device, "cores": cores} if device else {})
        write_json(tmp_path / "reports" / f"{CHUNK * number:05d}.json", record)
    speed = Kept(tmp_path, {}).speed("reports", count)
    assert tuple(speed.values()) == expected
    assert _place(speed) == row


def test_the_card_holds_what_was_measured(measured: tuple[Path, Pack, dict[str, Any]]) -> None:
    _, pack, figures = measured
    card = (pack.path / "MODEL_CARD.md").read_text("utf-8")
    assert f"{figures['autoencoder']['psnr_db']} dB" in card
    assert "| diffusion | 3 |" in card
    assert f"| generation on CPU, {figures['generation']['cores']} core" in card
    judges = figures["factual"]["judges"].values()
    for name in next(iter(judges))["auc_real"]:
        cells = [value for judge in judges for value in (judge["auc_real"][name], judge["auc_synthetic"][name])]
        assert f"| {name} | {' | '.join(map(str, cells))} |" in card


def test_without_real_data_their_figures_are_left_out(measured: tuple[Path, Pack, dict[str, Any]]) -> None:
    folder, pack, _ = measured
    before = {path: path.stat().st_mtime_ns for path in folder.glob("measured/*/*/*.npy")}
    figures = measure_pack(pack, folder, MEASURE, device="cpu")
    assert "real_reports" not in figures
    assert "real_chest_psnr_db" not in figures["autoencoder"]
    assert "real_reports_probe" not in figures["clip"]
    assert {path: path.stat().st_mtime_ns for path in before} == before, "the volumes stay, the sections do not"


def test_copies_of_cases_that_the_pack_never_saw_are_not_looked_for(
    measured: tuple[Path, Pack, dict[str, Any]], tmp_path: Path
) -> None:
    folder, pack, _ = measured
    for name in ("cases", "clip"):
        shutil.copytree(folder / name, tmp_path / name)
    assert _training_cases(pack, tmp_path) is not None
    write_json(tmp_path / TRAINED_ON, {"cases": "another"})
    assert _training_cases(pack, tmp_path) is None


@pytest.mark.parametrize("first", [FIRST_JUDGED, FIRST_MEASURED])
def test_a_pack_of_the_measured_or_the_judges_patients_is_refused(
    measured: tuple[Path, Pack, dict[str, Any]], first: int
) -> None:
    folder, pack, _ = measured
    seen = TrainingData(dataset="simulated", first=first, last=first + 5)
    other = Pack(path=pack.path, info=pack.info.model_copy(update={"trained_on": (seen,)}), sha256=pack.sha256)
    with pytest.raises(UserError, match="was trained on patients that it would be measured on"):
        measure_pack(other, folder, MEASURE, device="cpu")


def test_judges_of_other_patients_are_refused(measured: tuple[Path, Pack, dict[str, Any]], tmp_path: Path) -> None:
    folder, pack, _ = measured
    for name in ("judge-blocks", "judge-cases"):
        shutil.copytree(folder / name, tmp_path / name)
    record = read_json(tmp_path / "judge-blocks" / "judge.json")
    record["trained_on"]["digest"] = "another"
    write_json(tmp_path / "judge-blocks" / "judge.json", record)
    grid: dict[str, Any] = {"size": pack.info.grid, "spacing_mm": pack.info.spacing_mm}
    with pytest.raises(UserError, match="learnt from other patients"):
        trained_judges(tmp_path, MEASURE.judge_patients, minutes=0.02, device="cpu", **grid)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alone": ["Nodule"]}, "Nodule is none of the 18 findings"),
        ({"patients": 400}, "500 of 400 patients' reports"),
        ({"judge_patients": 10**7}, "judge_patients"),
    ],
)
def test_impossible_measurements_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text(json.dumps({"measure": change}))
    words = ["core", "pack", "--out", str(tmp_path / "pack"), "--config", str(tmp_path / "settings.json")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert message in result.stderr.replace("\n", " ")
    assert not (tmp_path / "pack").exists()


@pytest.mark.parametrize("grid", [(64, 64, 56), (16, 32, 32)])
def test_grids_that_cannot_be_measured_are_refused_before_the_training(
    grid: tuple[int, int, int], tmp_path: Path
) -> None:
    (tmp_path / "settings.json").write_text(json.dumps({"grid": grid}))
    words = ["core", "pack", "--out", str(tmp_path / "pack"), "--config", str(tmp_path / "settings.json")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert "cannot be measured" in result.stderr
    assert not (tmp_path / "pack").exists()


def test_a_chest_without_dense_voxels_has_no_bias(measured: tuple[Path, Pack, dict[str, Any]]) -> None:
    _, pack, _ = measured
    soft = Volume(np.zeros((40, 40, 40), np.float32), np.diag([8.0, 8.0, 8.0, 1.0]))
    found = autoencoder_figures(pack, [np.zeros(pack.info.grid, np.int16)], soft, torch.device("cpu"))
    assert found["dense_bias_hu"] is None
    assert found["real_chest_dense_bias_hu"] is None


def test_reports_without_labels_are_refused(tmp_path: Path) -> None:
    (tmp_path / "reports.csv").write_text("report_text\nNormal.\n")
    with pytest.raises(UserError, match="lacks the columns Medical material"):
        RealData(tmp_path / "reports.csv")


class _Oracle:
    """Reads a finding from the voxel that holds it."""

    name, size = "oracle", (4, 4, 4)

    def scores(self, volumes_hu: Any) -> np.ndarray:
        return np.stack([volume.reshape(-1)[: len(FINDINGS)] for volume in volumes_hu]).astype(np.float32)

    def save(self, folder: Path) -> None:
        raise NotImplementedError


def test_shares_compare_generated_with_own_volumes() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (60, len(FINDINGS))).astype(np.float32)
    own = np.zeros((60, 64), np.float32)
    own[:, : len(FINDINGS)] = labels
    made = own.copy()
    made[:, 4] = rng.random(60)  # one finding is not rendered
    found = factual_figures([_Oracle()], labels, list(own.reshape(60, 4, 4, 4)), list(made.reshape(60, 4, 4, 4)))[
        "judges"
    ]["oracle"]
    assert found["macro_auc_real"] == 1.0
    assert found["least_share"][0] == FINDINGS[4]
    assert found["share"] == pytest.approx((17 + found["auc_synthetic"][FINDINGS[4]]) / 18, abs=2e-3)


def test_the_judge_that_reads_least_says_what_is_kept() -> None:
    def judge(own: float, made: float) -> dict[str, Any]:
        return {"auc_real": dict.fromkeys(FINDINGS, own), "auc_synthetic": dict.fromkeys(FINDINGS, made)}

    one, other = judge(0.9, 0.9), judge(0.8, 0.6)
    other["auc_real"][FINDINGS[2]] = None  # a finding that this judge cannot score is not vouched for
    shares = kept_shares({"judges": {"one": one, "other": other}})
    assert set(shares) == set(FINDINGS) - {FINDINGS[2]}
    assert set(shares.values()) == {0.75}


def test_the_bundled_pack_keeps_what_its_card_says() -> None:
    pack = load_pack("simulated-64")
    rows = [
        line.strip("| ").split(" | ")
        for line in (pack.path / "MODEL_CARD.md").read_text(encoding="utf-8").splitlines()
        if line.count("|") == 6 and line.split("|")[1].strip() in FINDINGS
    ]
    assert len(rows) == len(FINDINGS)
    for name, *values in rows:
        own_a, made_a, own_b, made_b = map(float, values)
        assert pack.fidelity[name] == pytest.approx(min(made_a / own_a, made_b / own_b), abs=6e-4)


def test_psnr_of_a_known_error() -> None:
    zero = np.zeros((4, 4, 4), np.int16)
    assert psnr(zero, zero + 20) == pytest.approx(40.0)


def test_an_estimate_names_all_patients_and_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text(json.dumps({"measure": MEASURE.model_dump(mode="json"), "patients": 24}))
    words = ["core", "pack", "--out", str(tmp_path / "pack"), "--config", str(tmp_path / "settings.json")]
    result = CliRunner().invoke(app, [*words, "--dry-run", "--json"])
    assert json.loads(result.stdout)["cases"] == 24 + 16 + 24
    assert [path.name for path in tmp_path.iterdir()] == ["settings.json"]


@pytest.mark.parametrize("written", ["[1, 2]", "5", "null", '"abc"', '{"patients": 3,', "", "\xff"])
def test_settings_that_are_no_json_object_are_refused(written: str, tmp_path: Path) -> None:
    settings = tmp_path / "settings.json"
    settings.write_text(written, encoding="latin-1")
    for command in ("pack", "train-clip"):
        words = ["core", command, "--out", str(tmp_path / "out"), "--config", str(settings), "--dry-run"]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 2
        assert str(settings) in result.stderr.replace("\n", "")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--reports", "nothing.csv"), "No such file or directory: nothing.csv"),
        (("--reports", "empty.csv"), "empty.csv is no table"),
        (("--reports", "scan.nii.gz"), "scan.nii.gz is no table"),
        (("--reports", "few.csv"), "300 of 2 reports cannot be reserved"),
        (("--reports", "unsure.csv"), "unsure.csv holds other labels than 0 and 1 in the columns Medical material"),
        (("--chest", "nothing.nrrd"), "nothing.nrrd"),
        (("--chest", "scan.nii.gz"), "scan.nii.gz"),
    ],
)
def test_bad_real_data_are_refused_before_anything_is_trained(
    given: tuple[str, str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = pd.DataFrame({"report_text": ["One.", "Two."]} | {name: [0, 1] for name in FINDINGS})
    rows.to_csv("few.csv", index=False)
    rows.assign(**{FINDINGS[0]: [0, -1]}).to_csv("unsure.csv", index=False)
    Path("empty.csv").touch()
    Path("scan.nii.gz").write_bytes(b"\x1f\x8b\xff\xfe")
    result = CliRunner().invoke(app, ["core", "pack", "--out", "pack", *given])
    assert result.exit_code == 2
    assert message in result.stderr.replace("\n", " ")
    assert not Path("pack").exists()


def test_an_unknown_setting_of_the_measurement_is_refused(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text(json.dumps({"measure": {"patient": 3}}))
    words = ["core", "pack", "--out", str(tmp_path / "pack"), "--config", str(tmp_path / "settings.json")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert "patient: Extra inputs are not permitted" in result.stderr


def test_equal_reports_are_drawn_together() -> None:
    """A text that stands twice is one observation: the interval is that of half as many."""

    class Reader:
        name = "scores that are given"

        def scores(self, volumes: list[np.ndarray]) -> np.ndarray:
            return np.stack([volume[0, 0] for volume in volumes]).astype(np.float32)

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (60, len(FINDINGS))).astype(np.float32)
    made = list((0.5 * labels + rng.random(labels.shape))[:, None, None])
    twice, groups = np.repeat(labels, 2, axis=0), np.repeat(np.arange(60), 2)
    widths = []
    for truth, volumes, drawn in ((labels, made, None), (twice, [v for v in made for _ in "ab"], groups)):
        found = factual_figures([Reader()], truth, None, volumes, drawn)["judges"]  # type: ignore[list-item]
        low, high = found[Reader.name]["macro_auc_synthetic_ci"]
        widths.append(high - low)
    assert widths[1] == pytest.approx(widths[0], abs=0.002)
