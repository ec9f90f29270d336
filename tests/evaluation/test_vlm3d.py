"""A challenge's submission beside its ground truth: pairing, keys, and what the published scorer does."""

from __future__ import annotations

import json
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from monai.metrics.fid import get_fid_score
from typer.testing import CliRunner

from text2ct.cli import app
from text2ct.errors import UserError
from text2ct.evaluation.generator.folders import frames_of_folders, is_folder_of_volumes
from text2ct.evaluation.slice_network import SliceNetwork
from text2ct.evaluation.slices import slices_of
from text2ct.evaluation.vlm3d import fid_planes, fvd_of_chunks, rounded
from text2ct.manifests import Workspace
from text2ct.volumes import Volume, write

from .volumes import stand_in

SIZE, N = 16, 6
KEYS = ["CLIPScore", "CLIPScore_I2I", "CLIPScore_mean", "FID_2p5D_Avg", "FID_2p5D_XY", "FID_2p5D_XZ", "FID_2p5D_YZ"]


def folder(path: Path, first: int, suffix: str = ".mha") -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for i in range(N):
        volume = Volume(stand_in(first + i, SIZE).astype(np.float32), np.diag([20.0, 20.0, 20.0, 1.0]))
        write(volume, path / f"valid_{i}_a_1{suffix}")
    return path


@pytest.fixture
def exchange(tmp_path: Path) -> tuple[Path, Path, Path]:
    prompts = [{"input_image_name": f"valid_{i}_a_1.mha", "report": f"Report {i}."} for i in range(N)]
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    return folder(tmp_path / "made", 0), folder(tmp_path / "truth", 100, ".nii.gz"), tmp_path / "prompts.json"


def command(exchange: tuple[Path, Path, Path], workspace: Path, *more: str) -> list[str]:
    made, truth, prompts = exchange
    words = [
        "evaluate",
        "--profile",
        "vlm3d",
        "--synthetic",
        str(made),
        "--real",
        str(truth),
        "--prompts",
        str(prompts),
    ]
    return [*words, "--grid", str(SIZE), "--spacing", "20", "--workspace", str(workspace), "--json", *more]


def test_the_command_writes_the_challenges_keys(exchange, tmp_path) -> None:
    words = command(exchange, tmp_path / "ws")
    tried = CliRunner().invoke(app, [*words, "--dry-run"])
    assert tried.exit_code == 0, tried.stderr
    assert json.loads(tried.stdout)["n_synthetic"] == N
    assert not (tmp_path / "ws").exists()
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    metrics = json.loads(Path(found["metrics_file"]).read_text("utf-8"))
    assert list(metrics) == KEYS
    assert all(value == round(value, 4) for value in metrics.values())
    assert metrics["CLIPScore_mean"] == pytest.approx((metrics["CLIPScore"] + metrics["CLIPScore_I2I"]) / 2, abs=1e-4)
    assert metrics["FID_2p5D_Avg"] == pytest.approx(np.mean([metrics[key] for key in KEYS[-3:]]), abs=1e-4)
    assert any("FVD_CTNet is left out" in note for note in found["notes"])
    assert "slice-network" in found["computed_with"]["slices"]
    assert json.loads(CliRunner().invoke(app, words).stdout) == found


def test_a_zip_is_the_folder_that_it_holds(exchange, tmp_path) -> None:
    made, truth, prompts = exchange
    with zipfile.ZipFile(tmp_path / "submission.zip", "w") as archive:
        for path in made.iterdir():
            archive.write(path, f"../../../{path.name}" if path.name.startswith("valid_0") else f"deep/{path.name}")
    before = {path for path in tmp_path.rglob("*.mha")}
    assert is_folder_of_volumes(tmp_path / "submission.zip")
    scores = []
    for given in (made, tmp_path / "submission.zip"):
        words = command((given, truth, prompts), tmp_path / "ws")
        scores.append(json.loads(CliRunner().invoke(app, words).stdout)["metrics"])
    assert scores[0] == scores[1]
    new = [path.relative_to(tmp_path / "ws" / "cache" / "unzipped") for path in {*tmp_path.rglob("*.mha")} - before]
    assert len(new) == N
    assert all(len(path.parts) == 2 for path in new), "side by side, whatever folders they name"


def test_the_default_profile_reads_the_same_folders(exchange, tmp_path) -> None:
    words = command(exchange, tmp_path / "ws", "--bootstrap", "40")
    words[words.index("vlm3d")] = "default"
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["pairs"] == N
    assert found["clip_score"]["prompts"] == N
    assert found["fid_3d_rests_on"]["n_real"] == N
    left_out = [note for note in found["notes"] if "was not measured" in note]
    assert [note.split()[0] for note in left_out] == ["factual", "privacy"]
    assert "zero_shot" not in found, "labels are unknown"
    tried = CliRunner().invoke(app, [*words, "--dry-run"])
    assert json.loads(tried.stdout)["n_real"] == N


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda made, truth: (made / "valid_0_a_1.mha").unlink(), "valid_0_a_1: no prediction"),
        (lambda made, truth: (truth / "valid_1_a_1.nii.gz").unlink(), "valid_1_a_1: no ground truth"),
        (lambda made, truth: (made / "valid_2_a_1.nii").write_bytes(b"x"), "two predictions have one name"),
        (lambda made, truth: [path.unlink() for path in truth.iterdir()], "nor a zip"),
        (lambda made, truth: (made / "valid_3_a_1.mha").write_bytes(b"x"), "cannot be read"),
    ],
    ids=["prediction", "truth", "twice", "empty", "broken"],
)
def test_what_does_not_belong_together_is_refused(exchange, tmp_path, change, message: str) -> None:
    change(*exchange[:2])
    result = CliRunner().invoke(app, command(exchange, tmp_path / "ws"))
    assert result.exit_code == 2
    assert message in result.stderr


def test_prompts_and_archives_that_are_wrong_are_refused(exchange, tmp_path) -> None:
    made, truth, prompts = exchange
    workspace = Workspace.open(tmp_path / "ws")
    prompts.write_text(json.dumps(json.loads(prompts.read_text("utf-8"))[1:]))
    with pytest.raises(UserError, match="has no prompt for 1 volumes"):
        frames_of_folders(made, truth, prompts, workspace)
    (tmp_path / "bad.zip").write_bytes(b"PK nothing")
    with pytest.raises(UserError, match="cannot be unpacked"):
        frames_of_folders(tmp_path / "bad.zip", truth, None, workspace)
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive:
        for name in ("a/x.mha", "b/x.mha"):
            archive.writestr(name, "x")
    with pytest.raises(UserError, match="one name in several folders"):
        frames_of_folders(tmp_path / "twice.zip", truth, None, workspace)
    for words, message in (
        (["--synthetic", str(made)], "give --real, the folder"),
        (["--profile", "vlm3d"], "give --synthetic and --real"),
        (["--profile", "mine"], "there is no profile 'mine'"),
        (["--profile", "paper"], "give --backbone radimagenet:FILE"),
    ):
        result = CliRunner().invoke(app, ["evaluate", "--workspace", str(tmp_path / "ws"), *words])
        assert result.exit_code == 2
        assert message in result.stderr


def published_fvd(fake: np.ndarray, real: np.ndarray) -> float:
    """The definition of the published scorer, with SciPy's root."""
    a, b = (np.cov(rows, rowvar=False) for rows in (fake, real))
    ridge = 1e-6 * np.trace(a + b) / len(a) * np.eye(len(a))
    root = scipy.linalg.sqrtm((a + ridge) @ (b + ridge))
    return float(np.square(fake.mean(0) - real.mean(0)).sum() + np.real(np.trace(a + b + 2 * ridge - 2 * root)))


def test_fvd_is_the_mean_over_chunks_of_four() -> None:
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(11, 18)), rng.normal(0.3, size=(11, 18))
    parts = [published_fvd(fake[i : i + 4], real[i : i + 4]) for i in (0, 4, 8)]
    assert fvd_of_chunks(real, fake) == pytest.approx(np.mean(parts), rel=1e-4)
    assert fvd_of_chunks(real[:9], fake[:9]) == pytest.approx(np.mean(parts[:2]), rel=1e-4), (
        "one pair has no covariance"
    )
    assert fvd_of_chunks(real[:1], fake[:1]) is None
    assert fvd_of_chunks(real, real) == pytest.approx(0, abs=1e-6)


def test_distances_of_planes_are_monais_of_slices_scaled_by_volume() -> None:
    torch.manual_seed(0)
    network = SliceNetwork().eval()
    sets = [[stand_in(first + i, SIZE) for i in range(8)] for first in (0, 50)]
    found = fid_planes(*sets, network, torch.device("cpu"))
    for plane, key in (("axial", "FID_2p5D_XY"), ("coronal", "FID_2p5D_XZ"), ("sagittal", "FID_2p5D_YZ")):
        features = []
        for volumes in sets:
            scaled = [(v - v.min()) / (v.max() - v.min()) for v in (v.astype(np.float32) for v in volumes)]
            slices = np.concatenate([slices_of(np.broadcast_to(v, (3, *v.shape)), plane) for v in scaled])
            with torch.inference_mode():
                features.append(network(torch.from_numpy(np.ascontiguousarray(slices))).double())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MONAI calls SciPy's sqrtm as of old, and features are few
            theirs = float(get_fid_score(features[1], features[0]))
        assert found[key] == pytest.approx(theirs, rel=1e-2, abs=1e-4)


def test_only_what_has_a_value_is_written_and_in_the_challenges_order() -> None:
    assert rounded({"FID_2p5D_XY": 1.23456, "CLIPScore": None, "FVD_CTNet": 2.0}) == {
        "FVD_CTNet": 2.0,
        "FID_2p5D_XY": 1.2346,
    }
