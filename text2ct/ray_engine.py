"""The engine on Ray: actors that hold a task each and do one job at a time."""

from __future__ import annotations

import logging
import math
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from text2ct.console import info
from text2ct.errors import UserError

if TYPE_CHECKING:
    from text2ct.engines import EngineSettings, Job, Result

RETRIES = 3
"""How often a job is begun again whose worker died."""
_TOO_OFTEN = (
    "a worker died {} times at the same job, most often for lack of memory; run the same command again with fewer "
    "workers or more --cpus-per-worker: what is done is kept"
)
# A cluster that is full says nothing; so often the user hears that it is waited for.
_PATIENCE_S = 60.0
# A head node answers at once or not at all.
_ANSWER_S = 10.0
AHEAD = 4
"""Jobs of each worker that may be done before the result that is asked for next."""


class RayEngine:
    """Actors of a cluster, started when they are first needed and kept for what comes after.

    A job is given to an actor that has started, and to another one if that dies, alone or with its node; another actor
    is asked for in its place and takes part as soon as there is room. A task writes files as a whole or not at all, so
    nothing is lost, and what is done twice is the same.

    Args:
        workers: Actors.
        cpus: Cores of each.
        gpus: GPUs of each.
    """

    def __init__(self, workers: int, cpus: float, gpus: float) -> None:
        self.workers, self._cpus, self._gpus = workers, cpus, gpus
        self._idle: list[Any] = []
        self._starting: dict[Any, Any] = {}

    def map(self, task: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[Result]:
        """As :meth:`text2ct.engines.Engine.map`."""
        import ray

        if not len(jobs):
            return
        shared = ray.put(task)
        wanted = min(self.workers, len(jobs))
        while len(self._idle) + len(self._starting) < wanted:
            self._start()
        ahead = AHEAD * wanted
        left, tried = deque(range(len(jobs))), [0] * len(jobs)
        running: dict[Any, tuple[int, Any]] = {}
        done: dict[int, Any] = {}
        asked = unable = 0
        try:
            while asked < len(jobs):
                while self._idle and left and left[0] - asked < ahead:
                    index, actor = left.popleft(), self._idle.pop()
                    # A task within a list is fetched by the worker that has not got it, and not with every job.
                    running[actor.do.remote(shared.hex(), [shared], jobs[index])] = (index, actor)
                ready, _ = ray.wait([*running, *self._starting], num_returns=1, timeout=_PATIENCE_S)
                if not ready and not running:
                    info("waiting for room in the cluster")
                for one in ready:
                    if one in self._starting:
                        unable = 0 if self._started(one) else unable + 1
                        if unable > RETRIES:
                            raise UserError(f"{unable} workers in a row could not start; see Ray's logs")
                        continue
                    index, actor = running.pop(one)
                    try:
                        done[index] = _result(one)
                    except _Died as error:
                        tried[index] += 1
                        if tried[index] > RETRIES:
                            raise UserError(_TOO_OFTEN.format(tried[index])) from error
                        left.appendleft(index)
                        self._start()
                        continue
                    self._idle.append(actor)
                while asked in done:
                    yield done.pop(asked)
                    asked += 1
        finally:
            # Whoever is still at a job that nobody asks for any more starts anew next time.
            for _, actor in running.values():
                ray.kill(actor)

    def close(self) -> None:
        """Stop the actors."""
        import ray

        for actor in (*self._idle, *self._starting.values()):
            ray.kill(actor)
        self._idle, self._starting = [], {}

    def _start(self) -> None:
        """Ask for an actor; it is given no job before it has started."""
        import ray

        made = ray.remote(_Worker).options(num_cpus=self._cpus, num_gpus=self._gpus)
        # As many threads as the driver has: arithmetic can depend on them.
        actor = made.remote(str(Path.cwd()), _threads())
        self._starting[actor.ready.remote()] = actor

    def _started(self, ready: Any) -> bool:
        """Take an actor that answers; ask for another in the place of one that cannot."""
        actor = self._starting.pop(ready)
        try:
            _result(ready)
        except _Died:
            self._start()
            return False
        self._idle.append(actor)
        return True


class _Died(Exception):
    """A worker is gone."""


def _result(ready: Any) -> Any:
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        return ray.get(ready)
    except RayTaskError as error:
        raise (error.cause or error) from error
    except RayError as error:
        raise _Died from error


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

    def ready(self) -> None:
        """Answers once the actor has started."""

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
        # Without an address Ray would join what another command, perhaps long dead, left a note of.
        address = settings.address or os.environ.get("RAY_ADDRESS") or "local"
        where = "this machine" if address == "local" else address
        try:
            _check_answers(address)
            # Ray prints what it says of workers on standard output, which is the command's own.
            ray.init(address=address, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
        except (ConnectionError, TimeoutError, ValueError, RuntimeError, OSError) as error:
            raise UserError(f"Ray at {where} cannot be joined: {str(error).splitlines()[0]}") from error
    engine = None
    try:
        engine = _engine(settings, ray.nodes())
        yield engine
    finally:
        if engine is not None:
            engine.close()
        if not joined:
            ray.shutdown()


def _check_answers(address: str) -> None:
    """Ask whether anybody listens at HOST:PORT; Ray itself would ask for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "://" not in address:
        socket.create_connection((host, int(port)), timeout=_ANSWER_S).close()


def _engine(settings: EngineSettings, nodes: Sequence[Mapping[str, Any]]) -> RayEngine:
    """As many actors as are asked for and fit: each into one node, and a part of a GPU into one card."""
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    cards = sum(one.get("GPU", 0) for one in resources)
    gpus = settings.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if cards >= 1 else 0.0
    # Ray gives an actor whole GPUs, or a part of one.
    if not 0 <= gpus < math.inf or (gpus > 1 and gpus != int(gpus)):
        raise UserError(f"--gpus-per-worker is {gpus:g}; expected a part of one GPU, or whole ones")
    if not 0 < settings.cpus_per_worker < math.inf:
        raise UserError(f"--cpus-per-worker is {settings.cpus_per_worker:g}; expected a number above 0")
    room = sum(_room(one, settings.cpus_per_worker, gpus) for one in resources)
    if room < 1:
        cores = sum(one.get("CPU", 0) for one in resources)
        raise UserError(
            f"the cluster has {cores:g} cores and {cards:g} GPUs on {len(resources)} nodes, too few for one worker of "
            f"{settings.cpus_per_worker:g} cores and {gpus:g} GPUs"
        )
    if settings.workers and settings.workers > room:
        info(f"the cluster has room for {room} of {settings.workers} workers")
    return RayEngine(min(settings.workers or room, room), settings.cpus_per_worker, gpus)


def _room(resources: Mapping[str, float], cpus: float, gpus: float) -> int:
    """Actors that fit into a node."""
    by_cores = int(resources.get("CPU", 0) / cpus + 1e-9)
    if gpus == 0:
        return by_cores
    cards = int(resources.get("GPU", 0))
    return min(by_cores, cards * int(1 / gpus + 1e-9) if gpus < 1 else int(cards / gpus))
