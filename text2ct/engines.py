"""Where independent jobs are done: in this process, in several on this machine, or on a Ray cluster.

A task is what is done to every job: a callable that can be pickled and that opens what it needs (a pack, a
classifier) when it is first called, so that a worker opens it once. The same task runs on every engine, and its results
depend on the job alone. What a task writes, it writes where every worker finds it: a workspace lies on a disk that all
nodes share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from text2ct.errors import UserError
from text2ct.workers import available_cores, run_all

Job = TypeVar("Job")
Result = TypeVar("Result")
EngineName = Literal["local", "ray"]


class Engine(Protocol):
    """Does a task to every job.

    Attributes:
        workers: Jobs that are done at a time.
    """

    @property
    def workers(self) -> int:
        """Jobs that are done at a time."""
        ...

    def map(self, task: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[Result]:
        """Results in the order of the jobs; a job is begun only when its result will soon be asked for.

        Raises:
            UserError: A task's own, or workers that died again and again.
        """
        ...


@dataclass(frozen=True)
class Local:
    """This machine.

    Attributes:
        workers: Processes; with 1 all is done in this one.
    """

    workers: int = 1

    def map(self, task: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[Result]:
        """As :meth:`Engine.map`."""
        return run_all(task, jobs, self.workers)


LOCAL = Local()


@dataclass(frozen=True)
class EngineSettings:
    """Which engine, as the command line says it.

    Attributes:
        name: ``local`` or ``ray``.
        workers: Processes or actors; if None, one locally (or a core's worth where a command says so), and with Ray as
            many as the cluster has room for.
        address: Of a running Ray cluster; if None that of ``RAY_ADDRESS``, otherwise Ray is started on this machine.
        cpus_per_worker: Cores that an actor is given.
        gpus_per_worker: GPUs that an actor is given, also a part of one; if None, one where the cluster has any.
    """

    name: EngineName = "local"
    workers: int | None = None
    address: str | None = None
    cpus_per_worker: float = 1.0
    gpus_per_worker: float | None = None

    def check(self) -> None:
        """Refuse options that do not go together.

        Raises:
            UserError: Options of Ray without it.
        """
        if self.name == "local" and (self.address is not None or self.gpus_per_worker is not None):
            raise UserError("--address and --gpus-per-worker are of a Ray cluster; add --engine ray")

    def local(self, *, a_core_each: bool = False) -> Local:
        """This machine, with as many processes as these settings say; ``a_core_each`` as for :meth:`open`."""
        return Local(self.workers or (available_cores() if a_core_each else 1))

    @contextmanager
    def open(self, *, a_core_each: bool = False) -> Iterator[Engine]:
        """The engine, while the block lasts.

        Args:
            a_core_each: Local work takes one core, so there is a process for each unless told otherwise.

        Raises:
            UserError: Ray is asked for and not installed or not there, or its options without it.
        """
        self.check()
        if self.name == "local":
            yield self.local(a_core_each=a_core_each)
            return
        from text2ct.ray_engine import cluster

        with cluster(self) as engine:
            yield engine
