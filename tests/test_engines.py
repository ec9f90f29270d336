"""Every engine does the same: order, values and errors of tasks, also when workers die."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from text2ct.engines import Engine, EngineSettings, Local
from text2ct.errors import UserError
from text2ct.files import atomic_path

ray = pytest.importorskip("ray", reason="the extra cluster is not installed")

from text2ct.ray_engine import AHEAD, RayEngine, _engine, cluster  # noqa: E402


@pytest.fixture(scope="module")
def on_ray() -> Iterator[RayEngine]:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test
    with ExitStack() as held:
        try:
            engine = held.enter_context(cluster(EngineSettings("ray", workers=2, cpus_per_worker=0.5)))
        except UserError as error:
            pytest.skip(f"Ray does not start on this machine: {error}")
        yield engine


@pytest.fixture(params=["here", "processes", "ray"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return {"here": Local(1), "processes": Local(2)}.get(request.param) or request.getfixturevalue("on_ray")


@dataclass
class Opened:
    """A task that opens something once, and notes by which process."""

    folder: Path
    opened: list[int] = field(default_factory=list)

    def __call__(self, job: int) -> int:
        if not self.opened:
            self.opened.append(job)
            (self.folder / f"opened-{os.getpid()}-{job}").touch()
        return job * job


def test_results_come_in_the_order_of_the_jobs_and_workers_open_once(engine: Engine, tmp_path: Path) -> None:
    assert list(engine.map(Opened(tmp_path), range(20))) == [n * n for n in range(20)]
    pids = [path.name.split("-")[1] for path in tmp_path.iterdir()]
    assert len(pids) == len(set(pids)) <= 2
    assert list(engine.map(Opened(tmp_path), [])) == []


def refuse(job: int) -> int:
    if job == 3:
        raise UserError("three is not allowed", ["it is odd"])
    return job


def test_a_tasks_own_error_is_raised_as_it_is(engine: Engine) -> None:
    with pytest.raises(UserError, match=r"three is not allowed\n  - it is odd"):
        list(engine.map(refuse, range(6)))


def where(job: int) -> str:
    return str(Path("relative").absolute())


def test_relative_paths_begin_where_the_command_was_called(engine: Engine) -> None:
    assert set(engine.map(where, range(3))) == {where(0)}


def die_once(folder: Path, job: int) -> int:
    """Notes each beginning, dies at the first one of every third job, and writes a whole file."""
    with (folder / f"begun-{job}").open("a") as stream:
        stream.write("x")
    if job % 3 == 0 and (folder / f"begun-{job}").stat().st_size == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    with atomic_path(folder / f"done-{job}") as temporary:
        temporary.write_text(str(job))
    return job


def test_a_job_whose_worker_was_killed_is_done_again(on_ray: RayEngine, tmp_path: Path) -> None:
    assert list(on_ray.map(partial(die_once, tmp_path), range(7))) == list(range(7))
    assert sorted(path.name for path in tmp_path.glob("done-*")) == [f"done-{n}" for n in range(7)]
    assert {path.name for path in tmp_path.glob("begun-*") if path.stat().st_size == 2} == {
        "begun-0", "begun-3", "begun-6"
    }  # fmt: skip


def slowly(folder: Path, job: int) -> int:
    (folder / f"{os.getpid()}").touch()
    time.sleep(0.05)
    return job


def test_all_workers_killed_at_once_lose_nothing(on_ray: RayEngine, tmp_path: Path) -> None:
    """As when a node goes."""
    found = []
    for result in on_ray.map(partial(slowly, tmp_path), range(12)):
        found.append(result)
        if len(found) == 4:
            killed = [int(path.name) for path in tmp_path.iterdir()]
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
    assert found == list(range(12))
    assert len(list(tmp_path.iterdir())) > len(killed), "others took their place"


def always_die(job: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return job


def test_a_job_that_kills_every_worker_ends_with_what_to_do(on_ray: RayEngine) -> None:
    with pytest.raises(UserError, match=r"died 4 times at the same job.*fewer workers"):
        list(on_ray.map(always_die, [1]))


def test_jobs_are_not_begun_long_before_their_results_are_asked_for(on_ray: RayEngine, tmp_path: Path) -> None:
    results = iter(on_ray.map(partial(die_once, tmp_path), [n for n in range(200) if n % 3]))
    next(results)
    time.sleep(0.3)
    assert len(list(tmp_path.glob("begun-*"))) <= AHEAD * on_ray.workers
    results.close()


def test_room_is_that_of_whole_nodes_and_cards() -> None:
    """A worker needs its cores in one node and its part of a GPU on one card."""
    nodes = [{"Alive": True, "Resources": {"CPU": 4.0, "GPU": 2.0}}] * 2
    nodes += [{"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}, {"Alive": True, "Resources": {"CPU": 1.0}}]
    for cpus, gpus, room in ((1, 0, 9), (3, 0, 2), (1, 0.6, 4), (1, 0.5, 8), (1, 0.25, 8), (1, 2, 2), (1, None, 4)):
        engine = _engine(EngineSettings("ray", cpus_per_worker=cpus, gpus_per_worker=gpus), nodes)
        assert engine.workers == room, (cpus, gpus)
    with pytest.raises(UserError, match="too few for one worker"):
        _engine(EngineSettings("ray", cpus_per_worker=8), nodes)


def test_jobs_go_on_while_a_place_for_a_worker_is_awaited(on_ray: RayEngine, tmp_path: Path) -> None:
    """As after a node is lost for good: more workers are asked for than fit, and those that are there do it all."""
    crowded = RayEngine(on_ray.workers + 8, 0.5, 0.0)
    try:
        assert list(crowded.map(partial(slowly, tmp_path), range(16))) == list(range(16))
    finally:
        crowded.close()


def test_a_head_that_is_not_there_is_said_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    code = "from text2ct.engines import EngineSettings\n"
    code += f"with EngineSettings('ray', address='127.0.0.1:{port}').open(): pass"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert f"Ray at 127.0.0.1:{port} cannot be joined" in found.stderr


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (EngineSettings("local", address="auto"), "add --engine ray"),
        (EngineSettings("ray", gpus_per_worker=1.0), "too few for one worker"),
        (EngineSettings("ray", gpus_per_worker=1.5), "a part of one GPU, or whole ones"),
        (EngineSettings("ray", cpus_per_worker=1e6), "too few for one worker"),
        (EngineSettings("ray", cpus_per_worker=0), "expected a number above 0"),
        (EngineSettings("ray", cpus_per_worker=float("nan")), "expected a number above 0"),
        (EngineSettings("ray", gpus_per_worker=float("nan")), "a part of one GPU, or whole ones"),
    ],
)
def test_options_that_cannot_be_met_are_refused(on_ray: RayEngine, settings: EngineSettings, message: str) -> None:
    with pytest.raises(UserError, match=message), settings.open():
        pass
