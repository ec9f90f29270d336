"""The commands that look: status, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from text2ct._cli_shared import WORKSPACE, JsonOption, SeedOption, WorkspaceOption, emit, guarded, say

observe_app = typer.Typer(rich_markup_mode=None)


@observe_app.command()
@guarded
def status(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="Runs outside the workspace too, as a work folder of `core`.")
    ] = None,
    workspace: WorkspaceOption = WORKSPACE,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """The runs of a workspace: done, failed and left, how long still, and disk."""
    from text2ct.status import status as look
    from text2ct.tables import status_lines

    del seed  # nothing is drawn here; every command takes it
    result = look(workspace, folders or ())
    emit(result, as_json, lambda: say(*status_lines(result)))


@observe_app.command()
@guarded
def doctor(
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask whether the hub is reachable.")] = False,
    workspace: WorkspaceOption = WORKSPACE,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Versions, devices, memory, disk, packs and the hub, and what each means here; 1 if nothing can work."""
    from text2ct.doctor import examine

    del seed
    result = examine(workspace, offline=offline)
    lines = [
        line for check in result["checks"] for line in (f"{check['name']}: {check['found']}", f"  {check['means']}")
    ]
    emit(result, as_json, lambda: say(*lines))
    if not result["usable"]:
        raise typer.Exit(1)
