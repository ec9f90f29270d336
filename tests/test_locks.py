"""One command at a time in a folder, whatever becomes of the one before; several in one workspace."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from text2ct.errors import UserError
from text2ct.files import atomic_path, write_text
from text2ct.locks import LOCK, holder, innermost, working_in
from text2ct.manifests import Workspace

ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
HOLD = """
import sys
from pathlib import Path
from text2ct.locks import working_in
with working_in(Path(sys.argv[1])):
    print("working", flush=True)
    sys.stdin.read()
"""


def start(code: str, *words: object) -> subprocess.Popen[str]:
    """A process that runs the code and is read and told by pipes."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, words)]
    return subprocess.Popen(command, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.fixture
def other(tmp_path: Path):
    """Another process that works in ``run``."""
    process = start(HOLD, tmp_path / "run")
    assert read_line(process) == "working"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_told_who_works_there(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    run = tmp_path / "run"
    with (
        pytest.raises(
            UserError, match=rf"another text2ct command \(pid {other.pid} on .*, since 20.*choose another --run"
        ),
        working_in(run),
    ):
        pytest.fail("entered")
    held, note = holder(run)
    assert held
    assert note["pid"] == other.pid
    with working_in(tmp_path / "another"), working_in(run, unless=True):
        pass


@pytest.mark.parametrize("way", ["ended", "killed"])
def test_what_is_over_holds_nobody_up(tmp_path: Path, other: subprocess.Popen[str], way: str) -> None:
    run = tmp_path / "run"
    (run / "volume").touch()
    if way == "killed":
        other.send_signal(signal.SIGKILL)
    other.communicate()
    assert (run / LOCK).exists() == (way == "killed")
    held, note = holder(run)
    assert not held
    assert bool(note) == (way == "killed")
    with working_in(run):
        assert holder(run)[1]["pid"] == os.getpid()
    assert [path.name for path in run.iterdir()] == ["volume"]


def test_of_many_threads_one_is_inside(tmp_path: Path) -> None:
    inside, most, refused = [], [], []
    enter = threading.Barrier(8)

    def work() -> None:
        enter.wait()
        for _ in range(20):
            try:
                with working_in(tmp_path / "run"):
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()
            except UserError:
                refused.append(1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(most) + len(refused) == 160


def test_a_folder_that_nothing_came_into_is_removed_and_one_that_was_there_stays(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for name in ("new", "mine"):
        with pytest.raises(UserError, match="bad request"), working_in(tmp_path / name):
            raise UserError("bad request")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="choose another folder"), working_in(tmp_path / "file"):
        pass


def test_the_note_of_the_innermost_folder_is_the_one_that_work_is_noted_in(tmp_path: Path) -> None:
    assert innermost() is None
    with working_in(tmp_path / "outer"):
        outer = innermost()
        with working_in(tmp_path / "inner"):
            note = innermost()
            assert note is not None
            note.add(done=3, total=1000)
            note.add(done=10)
            assert json.loads((tmp_path / "inner" / LOCK).read_text("utf-8"))["done"] == 10
        assert innermost() is outer


DECLARE = """
import sys
from pathlib import Path
from text2ct.manifests import Workspace
workspace, name, folders = sys.argv[1], sys.argv[2], Path(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for number in range(15):
    folder = folders / f"{name}-{number}"
    folder.mkdir()
    Workspace.open(workspace).add_root(folder.name, folder)
    shared = folders / f"{name}-shared-{number}"
    shared.mkdir()
    Workspace.open(workspace).root_for(shared, "shared")
"""


def test_two_commands_that_declare_roots_at_once_lose_none(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    two = [start(DECLARE, tmp_path / "space", name, tmp_path / "data") for name in ("a", "b")]
    for process in two:
        assert read_line(process) == "ready"
    for process in two:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in two:
        process.communicate()
        assert process.returncode == 0
    roots = Workspace.open(tmp_path / "space").roots
    assert {f"{name}-{number}" for name in "ab" for number in range(15)} <= roots.keys()
    shared = {path for name, path in roots.items() if name.startswith("shared")}
    assert shared == {tmp_path / "data" / f"{name}-shared-{number}" for name in "ab" for number in range(15)}
    assert [path.name for path in (tmp_path / "space").iterdir()] == ["workspace.json"]


def test_a_known_root_is_declared_again_without_writing(tmp_path: Path) -> None:
    """A shared workspace may be read-only."""
    (tmp_path / "data").mkdir()
    space = Workspace.open(tmp_path / "space")
    space.add_root("data", tmp_path / "data")
    before = (space.path / "workspace.json").stat()
    space.add_root("data", tmp_path / "data")
    assert space.root_for(tmp_path / "data", "other") == ("data", "")
    assert (space.path / "workspace.json").stat().st_mtime_ns == before.st_mtime_ns


def test_two_writers_of_one_file_have_a_file_each(tmp_path: Path) -> None:
    """As two commands that fill one cache: neither sees the other's half, and nothing is left."""
    path = tmp_path / "entry.txt"
    with atomic_path(path) as first:
        first.write_text("whole")
        with atomic_path(path) as second:
            assert second != first
            assert second.suffix == ".txt"
            second.write_text("who")
            assert first.read_text("utf-8") == "whole"
        assert path.read_text("utf-8") == "who"
    assert path.read_text("utf-8") == "whole"
    write_text(path, "again")
    with pytest.raises(ValueError, match="half"), atomic_path(path) as third:
        raise ValueError("half")
    assert [one.name for one in tmp_path.iterdir()] == ["entry.txt"]
    assert path.read_text("utf-8") == "again"
    assert third.name == ".partial-entry.txt"
