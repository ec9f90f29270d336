"""Work spread over processes, which rendering and preprocessing share, and over stages within one."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import Any, TypeVar

from text2ct.errors import UserError

Job = TypeVar("Job")
Result = TypeVar("Result")


def available_cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # absent outside Linux
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def run_all(
    function: Callable[[Job], Result], jobs: Sequence[Job], workers: int, *, chunksize: int = 1
) -> Iterator[Result]:
    """Results in the order of the jobs, computed here or in processes that share nothing but their job.

    Processes are spawned, not forked, since the caller may hold threads of torch or ITK, and end with their
    parent, also when that is killed.

    Args:
        function: Can be pickled; takes one job. A process holds it from the first job to the last, and with it what it
            opens.
        jobs: What it is called with.
        workers: Processes; with one, or one job, all is done here.
        chunksize: Jobs handed to a process at a time.

    Raises:
        UserError: A process was ended from outside.
    """
    if workers <= 1 or len(jobs) < 2:
        yield from map(function, jobs)
        return
    pool = ProcessPoolExecutor(min(workers, len(jobs)), get_context("spawn"), initializer=_begin, initargs=(function,))
    try:
        yield from pool.map(_do, jobs, chunksize=chunksize)
    except BrokenProcessPool as error:
        raise UserError(
            "a worker was ended from outside, most often for lack of memory; "
            "run the same command again with fewer workers: what is done is kept"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_held: list[Callable[[Any], Any]] = []


def _begin(function: Callable[[Any], Any]) -> None:
    end_with_parent()
    _held.append(function)


def _do(job: Any) -> Any:
    return _held[-1](job)


def in_stages(stages: Sequence[Callable[[Any], Any]], jobs: Iterable[Any]) -> Iterator[Any]:
    """Results in the order of the jobs, each passed from stage to stage; every stage works in a thread of its own.

    As many jobs as there are stages are under way at most, so that a fast stage cannot fill the memory. Threads gain
    where the work leaves Python: reading, unpacking, numpy's loops.

    Args:
        stages: Functions of the job, and of what the stage before made of it.
        jobs: What the first is called with.
    """
    pools = [ThreadPoolExecutor(1) for _ in stages]
    under_way: deque[Future[Any]] = deque()
    try:
        for job in jobs:
            future = pools[0].submit(stages[0], job)
            for pool, stage in zip(pools[1:], stages[1:], strict=True):
                future = pool.submit(_after, future, stage)
            under_way.append(future)
            if len(under_way) == len(stages):
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        for pool in pools:
            pool.shutdown(cancel_futures=True)


def _after(future: Future[Any], stage: Callable[[Any], Any]) -> Any:
    return stage(future.result())


def end_with_parent() -> None:
    """End this process when its parent is killed: a worker that waits for its next job would wait for ever."""
    parent = parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
