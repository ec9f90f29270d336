"""The commands ``text2ct models``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from text2ct._cli_shared import (
    WORKSPACE,
    DryRunOption,
    JsonOption,
    SeedOption,
    WorkspaceOption,
    emit,
    guarded,
    open_pack,
    pack_name,
    say,
    would,
)
from text2ct.errors import UserError

models_app = typer.Typer(
    help="Model packs: list, describe, verify, make, import, check.", no_args_is_help=True, rich_markup_mode=None
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
NameOption = Annotated[str, typer.Option("--name", help="The pack's name.")]
CleaningOption = Annotated[
    Literal["bert", "ftfy", "tokenizer"],
    typer.Option(
        "--text-cleaning",
        help="How texts are cleaned before CLIP's tokenizer. Which one the released text tower was trained with is not "
        "known: its code takes ftfy where that is installed and bert otherwise, and its requirements leave ftfy out.",
    ),
]


def _made(pack: Any, as_json: bool) -> None:
    from text2ct.diffusion.info import COMPONENTS

    missing = [name for name in COMPONENTS if not pack.has(name)]
    result = {"pack": str(pack.path), "name": pack.info.name, "sha256": pack.sha256, "missing": missing}
    emit(
        result,
        as_json,
        lambda: say(f"{pack.info.name}: {pack.path}", f"missing components: {', '.join(missing) or 'none'}"),
    )


def _would(what: str, estimate: dict[str, Any], as_json: bool) -> None:
    emit({"dry_run": True} | estimate, as_json, lambda: say(would(what, estimate)))


@models_app.command("init")
@guarded
def init_model(
    out: OutArgument,
    preset: Annotated[
        Literal["tiny", "text2ct"],
        typer.Option("--preset", help="tiny: a toy; text2ct: the released model's sizes and settings."),
    ] = "tiny",
    workspace: WorkspaceOption = WORKSPACE,
    seed: SeedOption = 0,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """A pack with random weights, for trying and measuring: it generates noise, and its name says random."""
    from text2ct.diffusion.init import estimate_init, init_pack

    del workspace  # the pack goes to OUT; every command takes it
    if dry_run:
        _would(f"make a pack with random weights in {out}", estimate_init(preset), as_json)
        return
    _made(init_pack(out, preset, seed=seed), as_json)


@models_app.command("import")
@guarded
def import_model(
    out: OutArgument,
    autoencoder: Annotated[Path | None, typer.Option("--autoencoder", help="The autoencoder's .pt file.")] = None,
    unet: Annotated[
        Path | None, typer.Option("--unet", help="The velocity network's .pt file, with or without its scale factor.")
    ] = None,
    clip: Annotated[Path | None, typer.Option("--clip", help="3D CLIP's .pt file.")] = None,
    name: NameOption = "text2ct",
    text_cleaning: CleaningOption = "bert",
    workspace: WorkspaceOption = WORKSPACE,
    seed: SeedOption = 0,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """The released Text2CT checkpoints to a pack: the same numbers, in files that hold no code."""
    from text2ct.diffusion.importing import estimate_import, import_pack

    del workspace, seed
    given = {"vae": autoencoder, "unet": unet, "clip": clip}
    files = {component: path for component, path in given.items() if path is not None}
    if dry_run:
        _would(f"import {len(files)} files to {out}", estimate_import(files), as_json)
        return
    _made(import_pack(out, files, name=name, text_cleaning=text_cleaning), as_json)


@models_app.command("pull")
@guarded
def pull_model(
    where: Annotated[
        list[str],
        typer.Argument(
            metavar="[REPO] OUT",
            help="The hub's repository, by default dmolino/text2ct-weights, and the folder of the new pack.",
        ),
    ],
    revision: Annotated[str, typer.Option("--revision", help="Branch, tag or commit.")] = "main",
    endpoint: Annotated[
        str | None, typer.Option("--endpoint", envvar="HF_ENDPOINT", help="Address of the hub or of a mirror.")
    ] = None,
    name: NameOption = "text2ct",
    text_cleaning: CleaningOption = "bert",
    workspace: WorkspaceOption = WORKSPACE,
    seed: SeedOption = 0,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Download the released Text2CT weights from the Hugging Face hub and import them; it goes on after a stop."""
    from text2ct.console import info
    from text2ct.diffusion.pulling import check_pull, estimate_pull, find_remote, pull_pack
    from text2ct.diffusion.released import REPOSITORY

    del workspace, seed
    if len(where) > 2:
        raise UserError(f"expected [REPO] OUT, not {len(where)} words")
    out, repository = Path(where[-1]), where[0] if len(where) == 2 else REPOSITORY
    check_pull(out, repository, name=name, text_cleaning=text_cleaning)
    remote = find_remote(repository, revision=revision, endpoint=endpoint)
    what = f"download {remote.bytes / 1e9:.2f} GB in {len(remote.files)} files of {repository} to {out}"
    if dry_run:
        _would(what, estimate_pull(remote), as_json)
        return
    info(f"to {what}")
    _made(pull_pack(out, remote, name=name, text_cleaning=text_cleaning), as_json)


@models_app.command("check-parity")
@guarded
def check_model_parity(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder below which fixtures are looked for.")],
    workspace: WorkspaceOption = WORKSPACE,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Ours against arrays that the released code computed; exit code 1 if one is further off than rounding."""
    from text2ct.diffusion.parity import check_parity
    from text2ct.tables import parity_table

    del workspace, seed
    report = check_parity(folder)
    result = {"arrays": [row.as_json() for row in report.arrays], "holds": report.holds}
    emit(result, as_json, lambda: say(parity_table(report.arrays)))
    if report.damaged:
        raise UserError("not everything could be compared", report.damaged)
    if not report.holds:
        raise typer.Exit(1)
