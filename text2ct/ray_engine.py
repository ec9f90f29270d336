"""The engine on Ray: actors that hold a task each and do one job at a time."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from text2ct.errors import UserError

if TYPE_CHECKING:
    from text2ct.engines import EngineSettings, Job, Result

RETRIES = 3
"""How often a job is begun again whose worker died."""
AHEAD = 4
"""Jobs of each worker that may be done before the result that is asked for next."""


class RayEngine:
    """Actors of a cluster.

    An actor that dies, alone or with its node, is started again where there is room, and its job is begun again; a
    task writes files as a whole or not at all, so nothing is lost, and what is done twice is the same.

    Args:
        workers: Actors.
        cpus: Cores of each.
        gpus: GPUs of each.
    """

    def __init__(self, workers: int, cpus: float, gpus: float) -> None:
        self.workers, self._cpus, self._gpus = workers, cpus, gpus

    def map(self, task: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[Result]:
        """As :meth:`text2ct.engines.Engine.map`."""
        import ray

        # As many threads as the driver has: arithmetic can depend on them.
        shared = ray.put(task)
        options: dict[str, Any] = {
            "num_cpus": self._cpus, "num_gpus": self._gpus, "max_restarts": -1, "max_task_retries": RETRIES,
        }  # fmt: skip
        made = ray.remote(_Worker).options(**options)
        actors = [made.remote(shared, str(Path.cwd()), _threads()) for _ in range(min(self.workers, len(jobs)))]
        try:
            yield from _in_order(actors, jobs)
        finally:
            for actor in actors:
                ray.kill(actor)


def _in_order(actors: Sequence[Any], jobs: Sequence[Job]) -> Iterator[Any]:
    import ray

    idle, running, done = list(actors), {}, {}
    begun = asked = 0
    while asked < len(jobs):
        while idle and begun < len(jobs) and begun - asked < AHEAD * len(actors):
            actor = idle.pop()
            running[actor.do.remote(jobs[begun])] = (begun, actor)
            begun += 1
        (ready, *_), _ = ray.wait(list(running), num_returns=1)
        index, actor = running.pop(ready)
        done[index] = _result(ready)
        idle.append(actor)
        while asked in done:
            yield done.pop(asked)
            asked += 1


def _result(ready: Any) -> Any:
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        return ray.get(ready)
    except RayTaskError as error:
        raise error.cause from error
    except RayError as error:
        raise UserError(
            f"a worker died {RETRIES + 1} times at the same job, most often for lack of memory; run the same command "
            "again with fewer workers or more --cpus-per-worker: what is done is kept"
        ) from error


class _Worker:
    """Holds a task.

    Args:
        task: What is done to a job.
        folder: Where relative paths begin.
        threads: Of torch.
    """

    def __init__(self, task: Callable[[Any], Any], folder: str, threads: int | None) -> None:
        self._task = task
        if Path(folder).is_dir():
            os.chdir(folder)
        if threads is not None:
            import torch

            torch.set_num_threads(threads)
        from text2ct.compute import keep_freed_memory

        keep_freed_memory()

    def do(self, job: Any) -> Any:
        """One job."""
        return self._task(job)


def _threads() -> int | None:
    """Threads of torch, where it is loaded."""
    import sys

    return sys.modules["torch"].get_num_threads() if "torch" in sys.modules else None


@contextmanager
def cluster(settings: EngineSettings) -> Iterator[RayEngine]:
    """Join a cluster, or start one on this machine that ends with the block.

    Raises:
        UserError: Ray is not installed, the cluster is not there, or it has no room for one worker.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    try:
        import ray
    except ImportError as error:
        raise UserError('the engine ray needs Ray; install it with pip install "text2ct[cluster]"') from error
    joined = ray.is_initialized()
    if not joined:
        try:
            ray.init(address=settings.address, include_dashboard=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            where = settings.address or os.environ.get("RAY_ADDRESS") or "this machine"
            raise UserError(f"Ray at {where} cannot be joined: {str(error).splitlines()[0]}") from error
    try:
        yield _engine(settings, ray.cluster_resources())
    finally:
        if not joined:
            ray.shutdown()


def _engine(settings: EngineSettings, resources: dict[str, float]) -> RayEngine:
    gpus = settings.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if resources.get("GPU", 0) >= 1 else 0.0
    # Ray gives an actor whole GPUs, or a part of one.
    if gpus < 0 or (gpus > 1 and gpus != int(gpus)):
        raise UserError(f"--gpus-per-worker is {gpus:g}; expected a part of one GPU, or whole ones")
    if settings.cpus_per_worker <= 0:
        raise UserError(f"--cpus-per-worker is {settings.cpus_per_worker:g}; expected a number above 0")
    room = int(resources.get("CPU", 0) / settings.cpus_per_worker + 1e-9)
    if gpus > 0:
        room = min(room, int(resources.get("GPU", 0) / gpus + 1e-9))
    if room < 1:
        raise UserError(
            f"the cluster has {resources.get('CPU', 0):g} cores and {resources.get('GPU', 0):g} GPUs, too few for one "
            f"worker of {settings.cpus_per_worker:g} cores and {gpus:g} GPUs"
        )
    return RayEngine(min(settings.workers or room, room), settings.cpus_per_worker, gpus)
