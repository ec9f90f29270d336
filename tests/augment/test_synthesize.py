from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from augment_fakes import SHAPE, FakeGenerator, FakePack, make_frame, requests, tree

from text2ct import volumes
from text2ct.augment import make_prompts, synthesize
from text2ct.augment._run import volume_seed
from text2ct.errors import UserError
from text2ct.findings import FINDINGS
from text2ct.manifests import Workspace, read_manifest
from text2ct.status import status

TEXTS = ["Normal chest.", "Pleural effusion on the right.", "Cardiomegaly.", "Normal chest.", "A nodule."]
HARD = [
    '=HYPERLINK("x")',
    "+1 nodule",
    "-5 HU, fat",
    "@here",
    'a "quoted" word',
    "two\r\nlines",
    "NA",
    " ü€漢;,\t.",
]


def run(workspace, pack, table=None, **options):
    fakes = {"generate": FakeGenerator(), "estimate": lambda pack, **settings: 0.5}
    options = fakes | {"batch_size": 2} | options
    return synthesize(requests(TEXTS) if table is None else table, pack=pack, workspace=workspace, **options)


def run_folder(workspace: Workspace, result: dict) -> Path:
    return workspace.path / "synthetic" / result["run"]


def test_volumes_sidecars_and_manifest_say_what_was_made(workspace, pack):
    table = make_prompts(make_frame(unknown=0.2), [FINDINGS[9]], 5)
    result = run(workspace, pack, table, seed=0)
    assert {k: result[k] for k in ("volumes", "resumed")} == {"volumes": 5, "resumed": 0}
    assert result["seconds_per_volume"] > 0
    manifest = read_manifest(result["manifest"])
    assert manifest["volume"].tolist() == [f"synthetic_{i:06d}.nii.gz" for i in range(5)]
    assert set(manifest["source"]) == {"synthetic"}
    assert set(manifest["split"]) == {"train"}
    assert set(manifest["dataset"]) == {f"synthetic-{result['run']}"}
    assert manifest["prompt"].tolist() == table["prompt"].tolist()
    assert manifest["prompt_volume"].tolist() == table["volume"].tolist()
    pd.testing.assert_frame_equal(manifest[list(FINDINGS)], table[list(FINDINGS)])
    assert set(manifest["pack_sha256"]) == {pack.sha256}
    assert set(manifest["guidance_scale"]) == {2.5}
    assert set(manifest["steps"]) == {3}
    for row in manifest.to_dict("records"):
        volume = volumes.read(workspace.resolve(row["root"], row["path"]))
        assert volume.hu.shape == SHAPE == (row["size_x"], row["size_y"], row["size_z"])
        np.testing.assert_allclose(volume.affine, pack.affine)
        assert volume.spacing_mm == (row["spacing_x"], row["spacing_y"], row["spacing_z"]) == (5, 4, 3)
        sidecar = json.loads((run_folder(workspace, result) / "sidecars" / f"{row['volume']}.json").read_text("utf-8"))
        assert sidecar["sha256"] == row["sha256"]
        assert sidecar["seed"] == row["seed"]
        assert sidecar["prompt"] == row["prompt"]
        assert [sidecar["hu_min"], sidecar["hu_max"]] == [volume.hu.min(), volume.hu.max()]
        assert sidecar["hu_min"] >= -1000
        assert sidecar["hu_max"] <= 1000


def test_no_file_knows_when_or_where_it_was_made(tmp_path, pack):
    trees = []
    for name in ("one", "two"):
        space = Workspace(tmp_path / name)
        run(space, pack)
        trees.append(tree(space.path))
        time.sleep(0.01)
    assert trees[0] == trees[1]
    assert not any(str(tmp_path).encode() in content for content in trees[0].values())


def test_neither_order_nor_count_nor_batch_neighbours_matter(workspace, pack):
    def by_prompt(result):
        frame = read_manifest(result["manifest"])
        return sorted(zip(frame["prompt"], frame["seed"], frame["sha256"], strict=True))

    straight = by_prompt(run(workspace, pack))
    assert by_prompt(run(workspace, pack, requests(TEXTS[::-1]))) == straight
    fewer = by_prompt(run(workspace, pack, requests(TEXTS[:3])))
    assert set(fewer) <= set(straight)
    assert by_prompt(run(workspace, pack, seed=1)) != straight
    assert len({seed for _, seed, _ in straight}) == len(TEXTS), "a repeated prompt gets another seed"
    assert volume_seed(0, "a", 0) != volume_seed(1, "a", 0) != volume_seed(0, "a", 1) < 2**48


def test_count_goes_round_the_requests(workspace, pack, capsys):
    manifest = read_manifest(run(workspace, pack, count=12)["manifest"])
    assert manifest["prompt"].tolist() == (TEXTS * 3)[:12]
    assert manifest["sha256"].is_unique
    assert "one prompt is used for 5 volumes, more than the 4 of a plan" in capsys.readouterr().err
    run(workspace, pack, requests(TEXTS[:1]), count=4, dry_run=True)
    assert "one prompt is used" not in capsys.readouterr().err


@pytest.mark.parametrize("format", ["nii.gz", "mha"])
def test_an_interrupted_run_ends_in_the_same_bytes(tmp_path, pack, format):
    whole, broken = Workspace(tmp_path / "whole"), Workspace(tmp_path / "broken")
    expected = run(whole, pack, format=format)
    with pytest.raises(KeyboardInterrupt):
        run(broken, pack, format=format, generate=FakeGenerator(fail_at=1))
    assert not (run_folder(broken, expected) / "manifest.csv").exists()
    (row,) = status(broken.path)["runs"]
    assert (row["state"], row["done"], row["left"], row["unit"]) == ("stopped", 2, 3, "volumes")
    again = FakeGenerator()
    result = run(broken, pack, format=format, generate=again)
    assert result["resumed"] == 2
    assert again.batches == [TEXTS[2:4], TEXTS[4:]], "finished batches are not generated again"
    assert tree(whole.path) == tree(broken.path)
    (row,) = status(broken.path)["runs"]
    assert (row["state"], row["done"], row["left"]) == ("done", 5, 0)
    third = run(broken, pack, format=format, generate=FakeGenerator(fail_at=0))
    assert third["resumed"] == 5
    assert third["seconds_per_volume"] is None
    assert tree(whole.path) == tree(broken.path)


@pytest.mark.parametrize("damage", ["truncate", "alter", "remove", "sidecar", "sidecar-lies", "no-sidecar"])
def test_damaged_volumes_are_made_again(workspace, pack, damage, capsys):
    result = run(workspace, pack)
    folder = run_folder(workspace, result)
    before = tree(folder)
    volume, sidecar = (
        folder / "volumes" / "synthetic_000001.nii.gz",
        folder / "sidecars" / "synthetic_000001.nii.gz.json",
    )
    if damage == "truncate":
        volume.write_bytes(volume.read_bytes()[:50])
    elif damage == "alter":
        volume.write_bytes(volume.read_bytes()[:-1] + b"x")
    elif damage == "remove":
        volume.unlink()
    elif damage == "sidecar":
        sidecar.write_text("{", encoding="utf-8")
    elif damage == "sidecar-lies":
        sidecar.write_text(json.dumps(json.loads(sidecar.read_text("utf-8")) | {"prompt": "Else."}), encoding="utf-8")
    else:
        sidecar.unlink()
    again = run(workspace, pack)
    assert again["resumed"] == 4
    assert tree(folder) == before
    assert "again" in capsys.readouterr().err or damage == "no-sidecar"


def test_a_run_that_changes_nothing_does_not_become_the_newest(workspace, pack):
    result = run(workspace, pack, requests(HARD))
    manifest = Path(result["manifest"])
    os.utime(manifest, (1, 1))
    assert run(workspace, pack, requests(HARD))["resumed"] == len(HARD)
    assert manifest.stat().st_mtime == 1
    whole = manifest.read_bytes()
    manifest.write_bytes(whole[:-9])
    run(workspace, pack, requests(HARD))
    assert manifest.read_bytes() == whole


def test_another_request_in_the_same_run_is_refused(workspace, pack, tmp_path):
    run(workspace, pack, run="mine")
    assert run(workspace, pack, run="mine")["resumed"] == 5
    other = FakePack.write(tmp_path / "other", name="other")
    for change in (
        {"seed": 1},
        {"sampling": {"steps": 4}},
        {"sampling": {"solver": "heun"}},
        {"sampling": {"guidance_interval": (0.1, 1.0)}},
        {"sampling": {"decode": "window"}},
        {"sampling": {"time_location": 2.0}},
        {"batch_size": 3},
        {"format": "mha"},
        {"count": 4},
        {"pack": other},
    ):
        with pytest.raises(UserError, match="another request") as error:
            run(workspace, change.pop("pack", pack), run="mine", **change)
        named = change.pop("sampling", {}) | change
        assert all(key.replace("count", "volumes") in str(error.value) for key in named)
    with pytest.raises(UserError, match="another request"):
        run(workspace, pack, requests([*TEXTS[:4], "Else."]), run="mine")
    (workspace.path / "synthetic" / "theirs").mkdir()
    (workspace.path / "synthetic" / "theirs" / "manifest.csv").write_text("precious", encoding="utf-8")
    with pytest.raises(UserError, match=r"no request\.json"):
        run(workspace, pack, run="theirs")


def test_hard_prompts_are_stored_as_they_are(workspace, pack):
    result = run(workspace, pack, requests(HARD))
    manifest = read_manifest(result["manifest"])
    assert manifest["prompt"].tolist() == [text.replace("\r\n", "\n") for text in HARD]
    sidecars = sorted((run_folder(workspace, result) / "sidecars").iterdir())
    assert [json.loads(p.read_text(encoding="utf-8"))["prompt"] for p in sidecars] == manifest["prompt"].tolist()
    assert run(workspace, pack, requests(HARD))["resumed"] == len(HARD)


def test_outputs_take_the_names_asked_for(workspace, pack):
    table = requests(["One.", "Two."], name=["65f4-ed", "b.c"])
    manifest = read_manifest(run(workspace, pack, table, format="mha", count=3)["manifest"])
    assert manifest["volume"].tolist() == ["65f4-ed.mha", "b.c.mha", "65f4-ed_2.mha"]
    assert manifest["patient"].tolist() == ["65f4-ed", "b.c", "65f4-ed_2"]
    clash = requests(["One.", "Two.", "Three."], name=["a", "a", "a_2"])
    with pytest.raises(UserError, match="same file name"):
        run(workspace, pack, clash)


def test_a_dry_run_writes_nothing(workspace, pack):
    result = run(workspace, pack, dry_run=True)
    assert not workspace.path.exists()
    assert result["volumes"] == 5
    assert result["bytes"] == 5 * 2 * np.prod(SHAPE)
    assert result["seconds"] == 2.5


def test_a_volume_without_numbers_is_quarantined_and_made_again_by_the_next_call(workspace, pack, capsys):
    """The others are as if nothing had failed."""
    calls = []

    def sometimes(pack, prompts, seeds, **options):
        volumes = np.stack([np.full(SHAPE, seed % 1000, dtype=np.float32) for seed in seeds])
        if not calls:
            volumes[0] = np.nan
        calls.append(seeds)
        return volumes

    first = run(workspace, pack, generate=sometimes)
    assert (first["volumes"], first["quarantined"]) == (4, 1)
    assert len(read_manifest(first["manifest"])) == 4
    assert "quarantined" in capsys.readouterr().err
    second = run(workspace, pack, generate=sometimes)
    assert (second["volumes"], second["quarantined"], second["resumed"]) == (5, 0, 4)


def test_bad_voxels_and_settings_are_refused(workspace, pack):
    def broken(pack, prompts, seeds, **options):
        return np.full((len(prompts), *SHAPE), np.nan, dtype=np.float32)

    with pytest.raises(UserError, match="no numbers"):
        run(workspace, pack, generate=broken)
    assert not list(workspace.path.rglob("*.nii.gz"))
    for options, message in (
        ({"format": "dcm"}, "format is 'dcm'"),
        ({"batch_size": 0}, "batch size is 0"),
        ({"sampling": {"steps": 0}}, "steps: Input should be greater"),
        ({"sampling": {"guidance_scale": float("nan")}}, "guidance_scale: Input should be a finite"),
        ({"sampling": {"guidance_interval": (0.6, 0.5)}}, "0.6, 0.5 is not an interval"),
        ({"sampling": {"time_scale": 0.0}}, "time_scale: Input should be greater"),
        ({"sampling": {"guidance_interval": (0.6,)}}, "guidance_interval.1: Field required"),
        ({"count": 0}, "--count is 0"),
        ({"run": "../up"}, "cannot name a run"),
    ):
        with pytest.raises(UserError, match=message):
            run(workspace, pack, **options)


def test_a_full_disk_loses_nothing(workspace, pack, monkeypatch):
    written = []

    def full(volume, path):
        if len(written) == 3:
            raise UserError(f"cannot write {path}: No space left on device; free some space")
        written.append(path)
        real_write(volume, path)

    real_write = volumes.write
    with monkeypatch.context() as patch:
        patch.setattr(volumes, "write", full)
        with pytest.raises(UserError, match="No space left"):
            run(workspace, pack)
    assert run(workspace, pack)["resumed"] == 3


SCRIPT = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from augment_fakes import FakeGenerator, FakePack, requests
from text2ct.augment import synthesize
from text2ct.manifests import Workspace

class Slow(FakeGenerator):
    def __call__(self, *args, **options):
        volumes = super().__call__(*args, **options)
        time.sleep(float(sys.argv[3]))
        return volumes

pack = FakePack.write(Path(sys.argv[2]).parent / "pack")
texts = [f"Prompt {i}." for i in range(12)]
space = Workspace(sys.argv[2])
print(synthesize(requests(texts), pack=pack, workspace=space, generate=Slow(), batch_size=2)["resumed"])
"""


def test_sigkill_half_way_gives_the_same_bytes(tmp_path):
    def command(workspace: Path, delay: float) -> list[str]:
        return [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(workspace), str(delay)]

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(whole, 0), check=True, capture_output=True)
    process = subprocess.Popen(command(killed, 0.2), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list(killed.glob("synthetic/*/sidecars/[!.]*.json"))) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not list(killed.glob("synthetic/*/manifest.csv"))
    finished = subprocess.run(command(killed, 0), check=True, capture_output=True, text=True)
    assert 4 <= int(finished.stdout) < 12
    assert tree(killed) == tree(whole)
