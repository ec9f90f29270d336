"""The commands ``text2ct models``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from text2ct._cli_shared import (
    WORKSPACE,
    JsonOption,
    SeedOption,
    WorkspaceOption,
    emit,
    guarded,
    open_pack,
    pack_name,
    say,
)

models_app = typer.Typer(
    help="Model packs: list, describe, verify, import, check.", no_args_is_help=True, rich_markup_mode=None
)

PackArgument = Annotated[
    str, typer.Argument(help="Name of a bundled pack or of one in WORKSPACE/packs, or a pack's folder.")
]


@models_app.command("list")
@guarded
def list_models(workspace: WorkspaceOption = WORKSPACE, seed: SeedOption = 0, as_json: JsonOption = False) -> None:
    """The bundled packs and those in the workspace's folder `packs`."""
    from text2ct.diffusion import list_packs

    del seed  # nothing is drawn here; every command takes it

    packs = list_packs(workspace / "packs")
    result = {"packs": [{"name": pack.name, "version": pack.version, "grid": list(pack.grid)} for pack in packs]}
    emit(result, as_json, lambda: say(*(f"{p.name} {p.version}: {p.description}" for p in packs)))


@models_app.command("info")
@guarded
def model_info(
    pack: PackArgument = "simulated-64",
    workspace: WorkspaceOption = WORKSPACE,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """What a pack is, what it was trained on, and what it cannot do."""
    from text2ct.diffusion.info import COMPONENTS

    del seed
    loaded = open_pack(pack, workspace)
    result: dict[str, Any] = loaded.info.model_dump(mode="json") | {
        "sha256": loaded.sha256,
        "path": str(loaded.path),
    }
    missing = [name for name in COMPONENTS if not loaded.has(name)]
    lines = [f"{key}: {value}" for key, value in result.items() if key != "files"]
    emit(
        result | {"missing": missing},
        as_json,
        lambda: say(*lines, f"missing components: {', '.join(missing) or 'none'}"),
    )


@models_app.command("verify")
@guarded
def verify_model(
    pack: PackArgument = "simulated-64",
    workspace: WorkspaceOption = WORKSPACE,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Check every file of a pack against its checksum, and that its weights load."""
    from text2ct.diffusion import verify_pack

    del seed
    info = verify_pack(pack_name(pack, workspace))
    emit(
        {"pack": info.name, "verified": True},
        as_json,
        lambda: say(f"{info.name} {info.version}: every file is as it was made"),
    )


OutArgument = Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the new pack; absent or empty.")]


@models_app.command("init")
@guarded
def init_model(
    out: OutArgument,
    preset: Annotated[
        Literal["tiny", "text2ct"],
        typer.Option("--preset", help="tiny: a toy; text2ct: the released model's sizes and settings (2 GB)."),
    ] = "tiny",
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """A pack with random weights, for trying and measuring: it generates noise, and its name says random."""
    from text2ct.diffusion import init_pack

    pack = init_pack(out, preset, seed=seed)
    emit(
        {"pack": str(pack.path), "name": pack.info.name, "sha256": pack.sha256},
        as_json,
        lambda: say(f"{pack.info.name}: {pack.path}"),
    )
