"""``text2ct status``: what is done, running and stopped, from what lies on disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from text2ct.cli import app
from text2ct.locks import LOCK
from text2ct.status import status

ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
WORK = """
import sys
from pathlib import Path
from text2ct import console
from text2ct.locks import working_in
console.TELL_S = 0
with working_in(Path(sys.argv[1])), console.progress("volumes to the grid", 100) as advance:
    advance(40)
    for _ in range(10):
        advance(1)
    print("working", flush=True)
    sys.stdin.read()
"""


def show(workspace: Path, *words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["status", "--workspace", str(workspace), *map(str, words)])
    assert result.exit_code == code, result.stderr
    return result.stdout if code == 0 else result.stderr


def put(folder: Path, **files: object) -> None:
    """Write files; the first `_` of a name is its dot, a dict is JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name.replace("_", ".", 1)).write_text(text)


@pytest.fixture
def space(tmp_path: Path) -> Path:
    """A workspace with a run of every kind."""
    space = tmp_path / "space"
    put(space / "cohorts" / "c", simulation_json={}, manifest_csv="")
    put(space / "cohorts" / "c" / "dataset" / "train_1", a_nii="", one="")
    (space / "cohorts" / "c" / "dataset" / "train_1" / "train_1_a_1.nii.gz").touch()
    put(space / "synthetic" / "half", request_json={"volumes": 4})
    put(space / "synthetic" / "half" / "sidecars", a_json={}, b_json={})
    (space / "synthetic" / "half" / "sidecars" / ".partial-c.json").touch()
    put(space / "synthetic" / "half-gated", gate_json={"counts": {"accepted": 3, "rejected": 1}}, manifest_csv="")
    put(space / "synthetic" / "sweep" / "1.5", request_json={"volumes": 1}, manifest_csv="")
    put(space / "synthetic" / "sweep" / "1.5" / "sidecars", a_json={})
    put(space / "mixed" / "m", manifest_csv="")
    put(space / "mixed" / "notes", readme_txt="somebody's own")
    put(space / "classifiers" / "t", config_json={"training": {"steps": 30}, "model": None})
    put(space / "classifiers" / "t", metrics_csv="step,loss\n1,0.7\n10,0.6\n")
    put(space / "classifiers" / "benchmark" / "real-seed0", request_json={}, done_json={})
    put(space / "classifiers" / "benchmark" / "real-seed1", request_json={})
    put(space / "scores", t_json={})
    put(space / "reports" / "imbalance", report_html="")
    put(space / "preprocessed", quarantine_csv='volume,reasons\na,"two\nlines"\nb,x\n')
    put(space / "preprocessed" / "records" / "local", c_json={})
    (space / "packs" / "next-work" / "cases").mkdir(parents=True)  # stopped before the first step
    put(space / "packs" / "mine-work" / "diffusion", config_json={"training": {"steps": 8}})
    put(space / "packs" / "mine-work" / "diffusion", metrics_csv="step,seconds\n2,1.0\n")
    return space


def test_every_kind_of_run_and_what_is_left_of_it(space: Path) -> None:
    found = {
        row["name"]: (row["kind"], row["state"], row["done"], row["failed"], row["left"])
        for row in status(space)["runs"]
    }
    assert found == {
        "cohorts/c": ("cohort", "done", 1, 0, 0),
        "synthetic/half": ("synthetic", "stopped", 2, 0, 2),
        "synthetic/half-gated": ("gated", "done", 4, 0, 0),
        "synthetic/sweep/1.5": ("synthetic", "done", 1, 0, 0),
        "mixed/m": ("mixed", "done", None, 0, 0),
        "mixed/notes": ("mixed", "unknown", None, 0, None),
        "classifiers/t": ("classifier", "stopped", 10, 0, 20),
        "classifiers/benchmark": ("trainings", "stopped", 1, 0, 1),
        "scores/t": ("score", "done", None, 0, 0),
        "reports/imbalance": ("report", "done", None, 0, 0),
        "preprocessed": ("preprocessed", "stopped", 1, 2, None),
        "packs/mine-work": ("core training", "stopped", 2, 0, 6),
        "packs/next-work": ("core training", "stopped", None, 0, None),
    }


def test_bytes_are_those_of_the_files(space: Path) -> None:
    (space / "cache").mkdir()
    (space / "cache" / "entry").write_bytes(b"x" * 1000)
    (space / "mixed" / "m" / "manifest.csv").write_bytes(b"x" * 500)
    found = status(space)
    assert found["cache_bytes"] == 1000
    assert found["bytes"] == sum(path.stat().st_size for path in space.rglob("*") if path.is_file())
    assert {row["name"]: row["bytes"] for row in found["runs"]}["mixed/m"] == 500
    assert found["free_bytes"] > 0


@pytest.fixture
def working(space: Path) -> Iterator[subprocess.Popen[str]]:
    """A process at work in ``preprocessed``, half done."""
    command = [sys.executable, "-c", WORK, str(space / "preprocessed")]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "working"
    yield process
    process.kill()
    process.communicate()


def test_who_holds_the_lock_is_running_and_who_was_killed_is_stopped(
    space: Path, working: subprocess.Popen[str]
) -> None:
    def row() -> dict:
        return next(one for one in status(space)["runs"] if one["name"] == "preprocessed")

    held = row()
    assert (held["state"], held["doing"], held["done"], held["left"]) == ("running", "volumes to the grid", 50, 48)
    assert held["pid"] == working.pid
    assert held["seconds_left"] is not None
    assert f"pid {working.pid}" in show(space)
    working.kill()
    working.communicate()
    killed = row()
    assert (killed["state"], killed["done"], killed["seconds_left"], killed["doing"]) == ("stopped", 50, None, None)
    assert "killed; it goes on with: " in show(space)


def test_a_benchmark_is_timed_by_its_trainings(space: Path) -> None:
    report = space / "reports" / "bench"
    put(report, trainings_json={"trainings": ["real-seed0", "real-seed1", "real-seed2"]})
    (report / "benchmark-plan.json").write_text("{}")
    (row,) = [one for one in status(space)["runs"] if one["kind"] == "benchmark"]
    assert (row["state"], row["done"], row["left"], row["unit"]) == ("stopped", 1, 2, "trainings")


@pytest.mark.parametrize("there", [False, True], ids=["absent", "empty"])
def test_a_workspace_without_runs_is_one_sentence(tmp_path: Path, there: bool) -> None:
    if there:
        (tmp_path / "none").mkdir()
    assert show(tmp_path / "none").startswith(f"{tmp_path / 'none'} holds no run yet; ")
    assert json.loads(show(tmp_path / "none", "--json"))["runs"] == []
    assert (tmp_path / "none").exists() == there


def test_mistakes_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "is a file" in show(tmp_path / "file", code=2)
    assert str(tmp_path / "gone") in show(tmp_path, tmp_path / "gone", code=2)


def test_damaged_records_stop_nothing(space: Path) -> None:
    for path in (*space.rglob("*.json"), *space.rglob("*.csv")):
        path.write_bytes(b"[\xff")
    (space / "synthetic" / "half" / LOCK).write_bytes(b"{")
    assert len(status(space)["runs"]) == 13


@pytest.mark.parametrize(
    "note",
    ['{"total": 5}', '{"since": "yesterday"}', '{"done": "a", "total": [1]}', '{"seconds_left": 3}', "[]", "\x00"],
)
def test_a_file_that_is_no_lock_of_ours_hides_no_run(space: Path, note: str) -> None:
    before = {row["name"] for row in status(space)["runs"]}
    for folder in (space / "synthetic").iterdir():
        (folder / ".lock").write_text(note)
    assert {row["name"] for row in status(space)["runs"]} == before


def test_a_large_workspace_takes_no_time_and_no_torch(tmp_path: Path) -> None:
    put(tmp_path / "synthetic" / "r", request_json={"volumes": 8_000})
    for name in ("volumes", "sidecars"):
        (tmp_path / "synthetic" / "r" / name).mkdir()
        for number in range(4_000):
            (tmp_path / "synthetic" / "r" / name / f"{number}.json").touch()
    begun = time.perf_counter()
    (row,) = status(tmp_path)["runs"]
    assert time.perf_counter() - begun < 3
    assert (row["done"], row["left"]) == (4_000, 4_000)
    code = "import sys, text2ct.status; print([m for m in ('torch', 'pandas', 'numpy', 'rich') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
