"""``text2ct doctor``: what is here and what it means; a hub that is away is no illness."""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from typer.testing import CliRunner

from text2ct import doctor
from text2ct.cli import app
from text2ct.diffusion import pack


def examine(workspace: Path, *words: str, code: int = 0) -> dict:
    result = CliRunner().invoke(app, ["doctor", "--workspace", str(workspace), "--json", *words])
    assert result.exit_code == code, result.stderr
    return json.loads(result.stdout)


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> str:
    """A hub at a port of this machine where nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{one.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return address


def test_without_a_network_all_is_well(tmp_path: Path, closed: str) -> None:
    found = examine(tmp_path / "none")
    assert found["usable"]
    assert found["hub"] == {"endpoint": closed, "asked": True, "reachable": False}
    assert all(check["means"] for check in found["checks"])
    assert found["versions"]["torch"]
    cpu = found["devices"][0]
    assert cpu["device"] == "cpu"
    assert cpu["bfloat16_generation"] or not cpu["bfloat16_training"]
    assert found["cores"] >= 1
    assert found["disk_bytes"] > 0
    assert [one["whole"] for one in found["packs"] if one["name"] == "simulated-64"] == [True]
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("way", ["--offline", "environment"])
def test_offline_the_hub_is_not_asked(tmp_path: Path, closed: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_answer", lambda address: pytest.fail("asked"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", way == "environment")
    found = examine(tmp_path, *(["--offline"] if way == "--offline" else []))
    assert found["hub"] == {"endpoint": closed, "asked": False, "reachable": None}


@pytest.mark.parametrize("code", [200, 404])
def test_a_hub_that_answers_is_reachable_whatever_it_says(code: int) -> None:
    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(code)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        assert doctor._answer(f"http://127.0.0.1:{server.server_port}") == ""
        server.shutdown()
        thread.join()


def test_a_hub_that_says_nothing_is_waited_for_no_longer_than_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "HUB_TIMEOUT_S", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        assert doctor._answer(f"http://127.0.0.1:{silent.getsockname()[1]}")


def test_an_address_is_shown_without_its_password(tmp_path: Path, closed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", closed.replace("://", "://me:secret@"))
    assert "secret" not in json.dumps(examine(tmp_path, "--offline"))


def test_a_damaged_pack_is_named_and_only_the_bundled_one_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "packs" / "mine"
    shutil.copytree(pack.BUNDLED / pack.DEFAULT_PACK, own)
    (own / "unet" / "config.json").write_text("{}")
    next(own.glob("vae/*.safetensors")).unlink()
    (mine,) = [one for one in examine(tmp_path, "--offline")["packs"] if one["name"] == "mine"]
    assert not mine["whole"]
    assert "unet/config.json is damaged" in mine["problem"]
    assert "vae/model.safetensors is missing" in mine["problem"]
    monkeypatch.setattr(pack, "BUNDLED", tmp_path / "packs")
    found = examine(tmp_path / "other", "--offline", code=1)
    assert [check["name"] for check in found["checks"] if not check["usable"]] == ["pack mine"]


def test_a_folder_that_may_not_be_looked_into_does_not_end_the_examination(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = os.stat

    def refuse(path: Any, *words: Any, **more: Any) -> os.stat_result:
        if str(path).startswith(str(tmp_path / "closed") + "/"):
            raise PermissionError(13, "Permission denied")
        return stat(path, *words, **more)

    monkeypatch.setattr(os, "stat", refuse)
    found = examine(tmp_path / "closed" / "space", "--offline")
    assert [one["name"] for one in found["packs"]] == ["simulated-64"]
    assert found["disk_bytes"] > 0


def test_a_package_that_is_missing_or_too_old_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wanted = ["numpy>=999", "no-such-package-here>=1", "ray>=2; extra == 'cluster'", "torch"]
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: wanted)
    found = examine(tmp_path, "--offline", code=1)
    said = found["checks"][0]["means"]
    assert "numpy>=999" in said
    assert "no-such-package-here>=1 (here: none)" in said
    assert "ray" not in said


@pytest.mark.parametrize(
    ("generation", "training", "word"),
    [(True, True, "AMX"), (True, False, "trainings in float32"), (False, False, "all runs in float32")],
)
def test_what_the_processor_can_do_decides_what_is_said(generation: bool, training: bool, word: str) -> None:
    device = {"device": "cpu", "name": "a processor", "bfloat16_generation": generation, "bfloat16_training": training}
    check = doctor._of_device(device)
    assert word in f"{check.found} {check.means}"


def test_people_read_a_line_and_its_meaning(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["doctor", "--workspace", str(tmp_path), "--offline"])
    lines = result.stdout.splitlines()
    assert lines[0].startswith("packages: text2ct ")
    assert all(line.startswith("  ") for line in lines[1::2])
    assert any(line.startswith("hub: ") and line.endswith("not asked") for line in lines)
