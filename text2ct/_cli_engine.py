"""The options that say where independent work is done, for every command that has such work."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer

from text2ct.engines import EngineName, EngineSettings

_OWN = "engine"

Command = TypeVar("Command", bound=Callable[..., Any])


def _options(local: str) -> dict[str, tuple[Any, Any]]:
    """Annotation and default of each field of `EngineSettings`; ``local`` says how many processes there are."""
    where = typer.Option("--engine", help="local, or ray: actors on a cluster or on this machine.")
    workers = typer.Option("--workers", min=1, help=f"Processes, default {local}; Ray actors, default all that fit.")
    address = typer.Option("--address", help="Ray cluster, as auto or HOST:6379; default RAY_ADDRESS, or this machine.")
    cpus = typer.Option("--cpus-per-worker", help="Cores of each actor.")
    gpus = typer.Option("--gpus-per-worker", help="Of each actor, as 0.5; default 1 where the cluster has GPUs.")
    return {
        "name": (Annotated[EngineName, where], "local"),
        "workers": (Annotated[int | None, workers], None),
        "address": (Annotated[str | None, address], None),
        "cpus_per_worker": (Annotated[float, cpus], 1.0),
        "gpus_per_worker": (Annotated[float | None, gpus], None),
    }


def on_engine(*, a_core_each: bool = False) -> Callable[[Command], Command]:
    """Give a command the options of :class:`text2ct.engines.EngineSettings`, and its ``engine`` the open engine.

    Args:
        a_core_each: Without ``--workers`` there is a local process a core; otherwise all is done in this one.
    """
    options = _options("one a core" if a_core_each else "1")

    def decorate(function: Command) -> Command:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> None:
            given = {name: kwargs.pop(_OWN if name == "name" else name) for name in options}
            settings = EngineSettings(**given)
            if kwargs.get("dry_run"):
                settings.check()
                function(*args, engine=settings.local(a_core_each=a_core_each), **kwargs)
                return
            with settings.open(a_core_each=a_core_each) as engine:
                function(*args, engine=engine, **kwargs)

        own = inspect.signature(function, eval_str=True)
        kept = [one for one in own.parameters.values() if one.name != _OWN]
        added = [
            inspect.Parameter(
                _OWN if name == "name" else name,
                inspect.Parameter.KEYWORD_ONLY,
                annotation=annotation,
                default=default,
            )
            for name, (annotation, default) in options.items()
        ]
        run.__signature__ = own.replace(parameters=[*kept, *added])  # type: ignore[attr-defined]
        return run  # type: ignore[return-value]

    return decorate
