"""A small version of each scenario of `make soak`, and what it found in packs, JSON and tables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from text2ct.diffusion import init_pack
from text2ct.diffusion.checkpoints import read_checkpoint
from text2ct.diffusion.pack import load_pack, verify_pack
from text2ct.errors import UserError
from text2ct.files import read_json, sha256_file
from text2ct.findings import FINDINGS
from text2ct.manifests import read

REPOSITORY = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the soak forks, mounts and reads /proc")


@pytest.mark.parametrize(
    "words",
    [
        ["kills", "--rounds", "1"],
        ["disks"],
        ["fuzz", "--files", "100"],
        ["bombs"],
        ["quarantine"],
        ["pipeline", "--volumes", "20", "--patients", "14"],
    ],
    ids=lambda words: words[0],
)
def test_a_small_soak(words: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    command = [sys.executable, "-m", "benchmarks.soak", "--only", *words, "--quick", "--out", str(out)]
    done = subprocess.run(command, cwd=REPOSITORY, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    outcomes = json.loads(out.read_text("utf-8"))["outcomes"]
    assert outcomes
    assert all(one["tried"] or one["skipped"] for one in outcomes)


@pytest.mark.parametrize(
    ("text", "message"),
    [("[" * 100_000, "nested too deeply"), ("1" * 5000, "not valid JSON"), ('{"a": \ud800}', "not valid JSON")],
    ids=["nested", "digits", "surrogate"],
)
def test_json_that_leads_python_astray_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(UserError, match=message):
        read_json(path)


def test_a_cell_of_thousands_of_digits_and_of_megabytes_is_refused_in_a_short_line(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    columns = ",".join(("VolumeName", *FINDINGS))
    rest = ",0" * (len(FINDINGS) - 1)
    path.write_text(f"{columns}\na.nii.gz,{'9' * 5000}{rest}\n")
    with pytest.raises(UserError, match=r"more than a thousand digits \(line 2\)"):
        read(path)
    path.write_text(f"{columns}\na.nii.gz,{'a' * 1_000_000}{rest}\n")
    with pytest.raises(UserError) as refused:
        read(path)
    assert len(str(refused.value)) < 10_000


def _change(pack: Path, name: str, change: dict[str, object]) -> None:
    """Change a configuration and its checksum, as whoever makes a pack may."""
    path = pack / name
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | change))
    described = json.loads((pack / "pack.json").read_text("utf-8"))
    described["files"][name] = sha256_file(path)
    (pack / "pack.json").write_text(json.dumps(described))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("vae/config.json", {"num_res_blocks": [99999999999]}, "less than or equal to 256"),
        ("unet/config.json", {"num_channels": [99999999999, 16]}, "that can be built"),
    ],
)
def test_a_pack_of_impossible_networks_is_refused(tmp_path: Path, name: str, change: dict, message: str) -> None:
    init_pack(tmp_path / "pack")
    _change(tmp_path / "pack", name, change)
    with pytest.raises(UserError, match=message):
        verify_pack(tmp_path / "pack")


@pytest.mark.parametrize("name", ["../elsewhere", "/etc/passwd", "a" * 5000])
def test_a_pack_that_names_files_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    init_pack(tmp_path / "pack")
    described = json.loads((tmp_path / "pack" / "pack.json").read_text("utf-8"))
    described["files"][name] = "0" * 64
    (tmp_path / "pack" / "pack.json").write_text(json.dumps(described))
    with pytest.raises(UserError, match="no file of a pack"):
        load_pack(tmp_path / "pack")


def test_a_compressed_checkpoint_is_not_mapped_as_weights(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1000)}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as whole, zipfile.ZipFile(tmp_path / "b.pt", "w", 8) as packed:
        for one in whole.infolist():
            packed.writestr(one.filename, whole.read(one))
    with pytest.raises(UserError, match="compressed archive"):
        read_checkpoint(tmp_path / "b.pt")
