"""Jobs in processes: results in order, one clear error for a lost worker, none left behind by a killed parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from text2ct.errors import UserError
from text2ct.workers import available_cores, in_stages, run_all


def end_at_three(job: int) -> int:
    if job == 3:
        os._exit(1)
    return job


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order(workers: int) -> None:
    assert list(run_all(abs, [-3, 2, -1, 0], workers)) == [3, 2, 1, 0]
    assert list(run_all(abs, [], workers)) == []


def test_a_lost_worker_is_one_clear_error() -> None:
    with pytest.raises(UserError, match="run the same command again with fewer workers"):
        list(run_all(end_at_three, range(6), 2))


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")
def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, signal\n"
        "from text2ct.workers import run_all\n"
        "def mine(job):\n"
        "    return os.getpid()\n"
        "if __name__ == '__main__':\n"
        "    for worker in run_all(mine, range(2), 2):\n"
        "        print(worker, flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    # Its output ends only when the workers, which share it, have ended too.
    done = subprocess.run([sys.executable, script], stdout=subprocess.PIPE, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert int(done.stdout) > 0


def test_cores_are_counted_where_no_affinity_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    assert available_cores() >= 1
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert available_cores() == 3


def test_stages_keep_the_order_and_overlap() -> None:
    first_done, second_begun = threading.Event(), threading.Event()

    def read(job: int) -> int:
        if job == 1:  # is read while 0 is converted
            assert second_begun.wait(10)
            first_done.set()
        return job

    def convert(job: int) -> int:
        if job == 0:
            second_begun.set()
            assert first_done.wait(10)
        return job * 10

    assert list(in_stages((read, convert), range(5))) == [0, 10, 20, 30, 40]
    assert list(in_stages((read, convert), [])) == []


def test_no_more_jobs_under_way_than_stages() -> None:
    begun: list[int] = []
    results = in_stages((lambda job: begun.append(job) or job, abs, abs), range(100))
    for number, result in enumerate(results):
        assert result == number
        assert max(begun) <= number + 2


def test_an_error_in_a_stage_ends_the_work() -> None:
    begun: list[int] = []

    def convert(job: int) -> int:
        if job == 2:
            raise UserError("no")
        return job

    results = in_stages((lambda job: begun.append(job) or job, convert, abs), range(100))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(UserError, match="no"):
        next(results)
    assert max(begun) <= 4
