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
    """Actors of a cluster, started when they are first needed and kept for what comes after.

    An actor that dies, alone or with its node, is started again where there is room, and its job is begun again; a
    task writes files as a whole or not at all, so nothing is lost, and what is done twice is the same.

    Args:
        workers: Actors.
        cpus: Cores of each.
        gpus: GPUs of each.
    """

    def __init__(self, workers: int, cpus: float, gpus: float) -> None:
        self.workers, self._cpus, self._gpus = workers, cpus, gpus
        self._actors: list[Any] = []

    def map(self, task: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[Result]:
        """As :meth:`text2ct.engines.Engine.map`."""
        import ray

        if not len(jobs):
            return
        shared = ray.put(task)
        while len(self._actors) < min(self.workers, len(jobs)):
            self._actors.append(self._start())
        idle, running, done = self._actors[: len(jobs)], {}, {}
        ahead = AHEAD * len(idle)
        begun = asked = 0
        try:
            while asked < len(jobs):
                while idle and begun < len(jobs) and begun - asked < ahead:
                    actor = idle.pop()
                    # A task within a list is fetched by the worker that has not got it, and not with every job.
                    running[actor.do.remote(shared.hex(), [shared], jobs[begun])] = (begun, actor)
                    begun += 1
                (ready, *_), _ = ray.wait(list(running), num_returns=1)
                index, actor = running.pop(ready)
                done[index] = _result(ready)
                idle.append(actor)
                while asked in done:
                    yield done.pop(asked)
                    asked += 1
        finally:
            # Whoever is still at a job that nobody asks for any more starts anew next time.
            self._stop([actor for _, actor in running.values()])

    def close(self) -> None:
        """Stop the actors."""
        self._stop(self._actors)

    def _start(self) -> Any:
        import ray

        options: dict[str, Any] = {
            "num_cpus": self._cpus, "num_gpus": self._gpus, "max_restarts": -1, "max_task_retries": RETRIES,
        }  # fmt: skip
        # As many threads as the driver has: arithmetic can depend on them.
        return ray.remote(_Worker).options(**options).remote(str(Path.cwd()), _threads())

    def _stop(self, actors: Sequence[Any]) -> None:
        import ray

        for actor in actors:
            ray.kill(actor)
        self._actors = [actor for actor in self._actors if actor not in actors]


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
    """Holds a task until another one comes.

    Args:
        folder: Where relative paths begin.
        threads: Of torch.
    """

    def __init__(self, folder: str, threads: int | None) -> None:
        self._held: tuple[str, Callable[[Any], Any]] | None = None
        if Path(folder).is_dir():
            os.chdir(folder)
        if threads is not None:
            import torch

            torch.set_num_threads(threads)
        from text2ct.compute import keep_freed_memory

        keep_freed_memory()

    def do(self, key: str, shared: list[Any], job: Any) -> Any:
        """One job of the task that ``shared`` holds a reference to and ``key`` names."""
        if self._held is None or self._held[0] != key:
            import ray

            self._held = None  # what the last one opened makes room first
            self._held = key, ray.get(shared[0])
        return self._held[1](job)


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
    engine = None
    try:
        engine = _engine(settings, ray.cluster_resources())
        yield engine
    finally:
        if engine is not None:
            engine.close()
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
