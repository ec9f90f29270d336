"""What the commands share: options, one way to fail, one way to print."""

from __future__ import annotations

import functools
import inspect
import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

from text2ct import console
from text2ct.errors import UserError
from text2ct.logfile import logging_to

WorkspaceOption = Annotated[
    Path, typer.Option("--workspace", envvar="TEXT2CT_WORKSPACE", help="Folder of all runs and manifests.")
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Decides every draw; 0 is a seed like any other.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what, how long and how much disk; write nothing.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")]
RunOption = Annotated[str | None, typer.Option("--run", help="Name of the run's folder; by default from the request.")]
StrictOption = Annotated[bool, typer.Option("--strict", help="Exit with 1 when anything fell short.")]
WorkersOption = Annotated[int | None, typer.Option("--workers", min=1, help="Processes; by default one a core.")]
LogOption = Annotated[
    Path | None,
    typer.Option("--log-file", help="Append a log of JSON lines; also TEXT2CT_LOG_FILE."),
]
WORKSPACE = Path("text2ct-workspace")
_CONTEXT = "context"

Command = TypeVar("Command", bound=Callable[..., Any])


def guarded(function: Command) -> Command:
    """Give a command its log, and turn a user's mistake, a full disk and Ctrl-C into one clear line and exit code 2.

    Every command takes ``--log-file``, as the program itself does before the command's name.
    """
    own = inspect.signature(function, eval_str=True)
    # Typer gives the context to one parameter: the command's own, where it has one.
    name = next((one.name for one in own.parameters.values() if one.annotation is typer.Context), None)

    @functools.wraps(function)
    def run(*args: Any, log_file: Path | None = None, **kwargs: Any) -> None:
        from text2ct.compute import keep_freed_memory

        context = kwargs[name] if name else kwargs.pop(_CONTEXT)
        log = log_file or context.find_root().obj
        # A log that cannot be opened is a mistake too; what the command ends with is seen by the log.
        with _one_clear_line(), logging_to(log, _name(context)), _one_clear_line():
            keep_freed_memory()
            function(*args, **kwargs)

    keyword = functools.partial(inspect.Parameter, kind=inspect.Parameter.KEYWORD_ONLY)
    added = [keyword("log_file", annotation=LogOption, default=None)]
    added += [] if name else [keyword(_CONTEXT, annotation=typer.Context)]
    run.__signature__ = own.replace(parameters=[*own.parameters.values(), *added])  # type: ignore[attr-defined]
    return run  # type: ignore[return-value]


def _name(context: typer.Context) -> str:
    """The command's words after the program's."""
    return context.command_path.removeprefix(context.find_root().command_path).strip()


def end_strictly(strict: bool, **short: object) -> None:
    """End with 1 and say why, under ``--strict``, if anything fell short: by its name, how many or which."""
    said = ", ".join(
        f"{value if isinstance(value, int) and not isinstance(value, bool) else len(value)} {name}"  # type: ignore[arg-type]
        for name, value in short.items()
        if value
    )
    if strict and said:
        console.error(f"{said.replace('_', ' ')}, which --strict makes a failure")
        raise typer.Exit(1)


@contextmanager
def _one_clear_line() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        console.interrupted("interrupted; what was finished is kept, and the same command goes on from there")
        raise typer.Exit(2) from None
    except (UserError, OSError, MemoryError, RuntimeError) as mistake:
        said = _in_words(mistake)
        if said is None:
            raise
        console.error(said)
        raise typer.Exit(2) from None


def _in_words(mistake: Exception) -> str | None:
    """What the user can do about it; None for a defect."""
    if isinstance(mistake, UserError):
        return str(mistake)
    if isinstance(mistake, OSError):
        where = f": {mistake.filename}" if mistake.filename else ""
        return f"{mistake.strerror or mistake}{where}; mend that and run it again"
    if _is_out_of_memory(mistake):
        return (
            "there is too little memory for this; free some, or ask for less at once (as --batch-size 1) "
            "or another --device"
        )
    return None


def _is_out_of_memory(error: Exception) -> bool:
    """Python's own error, torch's on a device, or that of torch's allocator, which is a plain RuntimeError."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in said or "can't allocate memory" in said


def emit(result: dict[str, Any], as_json: bool, lines: Callable[[], None]) -> None:
    """Print the result: one JSON object, or lines for people."""
    if as_json:
        sys.stdout.write(json.dumps(result, allow_nan=False, ensure_ascii=False) + "\n")
    else:
        lines()


def say(*lines: Any) -> None:
    """Print lines of text and rich tables on standard output."""
    out = Console(highlight=False, soft_wrap=True)
    if not out.is_terminal:
        out.width = max(out.width, 110)
    for line in lines:
        out.print(line, markup=False)


def would(what: str, estimate: dict[str, Any]) -> str:
    """What a dry run says: the work, its ``seconds`` and its ``bytes``."""
    return f"would {what} in about {estimate['seconds']:.0f} s and at most {estimate['bytes'] / 1e6:.0f} MB"


def command_line(name: str, **options: object) -> str:
    """A command line with the options that are set, for the report."""
    words = ["text2ct", name]
    for option, value in options.items():
        for one in value if isinstance(value, list) else [value]:
            if one is not None and one is not False:
                words += [f"--{option.replace('_', '-')}", *([] if one is True else [str(one)])]
    return shlex.join(words)


def numbers(text: str, option: str) -> list[float]:
    """Comma-separated numbers of an option."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UserError(f"{option} is '{text}'; expected numbers, as 0.25,0.5,1") from error


def three(text: str, kind: Callable[[str], Any], option: str) -> tuple[Any, Any, Any]:
    """One number for all axes, or three."""
    parts = text.replace("x", ",").split(",")
    try:
        values = [kind(part) for part in parts]
    except ValueError as error:
        raise UserError(f"{option} is '{text}'; expected one number or three, as 64 or 64,64,64") from error
    if len(values) not in (1, 3) or not all(0 < value < 1e5 for value in values):
        raise UserError(f"{option} is '{text}'; expected one positive number or three, as 64 or 64,64,64")
    return tuple(values * 3)[:3]


def pack_name(pack: str, workspace: Path) -> str:
    """A bundled pack's name or the folder of one, packs of the workspace included."""
    from text2ct.manifests import Workspace
    from text2ct.workflow import find_pack

    return find_pack(Workspace.open(workspace), pack)


def open_pack(pack: str, workspace: Path) -> Any:
    """Open a pack by name or folder."""
    from text2ct.diffusion import load_pack

    return load_pack(pack_name(pack, workspace))
