"""The options that say where independent work is done, for every command that has such work."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer

from text2ct.engines import LOCAL, EngineName, EngineSettings

_OPTIONS: dict[str, tuple[Any, Any]] = {
    "engine": (
        Annotated[EngineName, typer.Option("--engine", help="local, or ray: actors on a cluster or on this machine.")],
        "local",
    ),
    "workers": (
        Annotated[int | None, typer.Option("--workers", min=1, help="Processes or actors; default: what has room.")],
        None,
    ),
    "address": (
        Annotated[
            str | None,
            typer.Option("--address", help="Ray cluster, as auto or HOST:6379; default RAY_ADDRESS, or this machine."),
        ],
        None,
    ),
    "gpus_per_worker": (
        Annotated[
            float | None,
            typer.Option("--gpus-per-worker", help="Of each actor, as 0.5; default 1 where the cluster has GPUs."),
        ],
        None,
    ),
    "cpus_per_worker": (Annotated[float, typer.Option("--cpus-per-worker", help="Cores of each actor.")], 1.0),
}  # fmt: skip
_OWN = "engine"

Command = TypeVar("Command", bound=Callable[..., Any])


def on_engine(*, a_core_each: bool = False) -> Callable[[Command], Command]:
    """Give a command the options of :class:`text2ct.engines.EngineSettings`, and its ``engine`` the open engine.

    Args:
        a_core_each: Without ``--workers`` there is a local process a core; otherwise all is done in this one.
    """

    def decorate(function: Command) -> Command:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> None:
            given = {name: kwargs.pop(name) for name in _OPTIONS}
            settings = EngineSettings(name=given.pop("engine"), **given)
            if kwargs.get("dry_run"):
                settings.check()
                function(*args, engine=LOCAL, **kwargs)
                return
            with settings.open(a_core_each=a_core_each) as engine:
                function(*args, engine=engine, **kwargs)

        own = inspect.signature(function, eval_str=True)
        kept = [one for one in own.parameters.values() if one.name != _OWN]
        added = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
            for name, (annotation, default) in _OPTIONS.items()
        ]
        run.__signature__ = own.replace(parameters=[*kept, *added])  # type: ignore[attr-defined]
        return run  # type: ignore[return-value]

    return decorate
