"""The commands ``text2ct core``."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from text2ct._cli_engine import on_engine
from text2ct._cli_shared import (
    WORKSPACE,
    DeviceOption,
    DryRunOption,
    JsonOption,
    SeedOption,
    StrictOption,
    WorkspaceOption,
    emit,
    end_strictly,
    guarded,
    open_pack,
    say,
    would,
)
from text2ct.engines import LOCAL, Engine

core_app = typer.Typer(help="Train the diffusion core.", no_args_is_help=True, rich_markup_mode=None)

ManifestOption = Annotated[
    Path | None,
    typer.Option("--manifest", help="A manifest, or a CT-RATE folder; default the workspace's real data."),
]
ModelOption = Annotated[str, typer.Option("--model", help="The pack to start from: a name or a folder.")]
FromOption = Annotated[
    str, typer.Option("--from", "--model", help="The pack to go on from (fine-tuning): a name or a folder.")
]
DevicesOption = Annotated[int, typer.Option("--devices", min=1, help="Devices of each node; they share each batch.")]
NodesOption = Annotated[int, typer.Option("--nodes", min=1, help="Machines; started by SLURM or torchrun.")]
StrategyOption = Annotated[
    Literal["ddp", "fsdp"],
    typer.Option("--strategy", help="Of several devices: each holds all weights (ddp), or its part of them (fsdp)."),
]
OutOption = Annotated[Path, typer.Option("--out", help="Folder of the new pack.")]
WorkOption = Annotated[
    Path | None, typer.Option("--work", help="Folder of cases, latents and checkpoints; default OUT-work.")
]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="JSON file with the training's settings.")]
StepsOption = Annotated[int | None, typer.Option("--steps", min=1, help="Optimisation steps.")]
BatchOption = Annotated[int | None, typer.Option("--batch-size", min=1, help="Cases a step, of all devices together.")]
ScratchOption = Annotated[bool, typer.Option("--scratch", help="Start from random weights, not from the pack's.")]


@core_app.command("encode")
@guarded
@on_engine()
def core_encode(
    work: Annotated[Path, typer.Option("--work", help="Folder that the latents go to.")],
    manifest: ManifestOption = None,
    model: ModelOption = "simulated-64",
    device: DeviceOption = "auto",
    engine: Engine = LOCAL,
    strict: StrictOption = False,
    workspace: WorkspaceOption = WORKSPACE,
    seed: SeedOption = 0,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Volumes to latents and reports to contexts, once, for `core train-diffusion` with the same --work."""
    from text2ct.diffusion.training.cases import quarantined
    from text2ct.diffusion.training.estimate import estimate_encoding
    from text2ct.diffusion.training.on_manifest import encode_manifest
    from text2ct.locks import working_in

    del seed
    with _training_data(workspace, manifest, dry_run) as (frame, space):
        if dry_run:
            plan = estimate_encoding(frame, space, open_pack(model, workspace), device=device) | {"dry_run": True}
            emit(plan, as_json, lambda: say(would(f"encode {plan['cases']} cases", plan)))
            return
        with working_in(work, instead="choose another --work"):
            encoded = encode_manifest(frame, space, open_pack(model, workspace), work, device=device, engine=engine)
    result = {
        "encoded": str(work / "encoded"),
        "cases": len(encoded.latents),
        "latent_std": encoded.info["std"],
        "quarantined": len(quarantined(work / "cases")),
    }
    left_out = f", {result['quarantined']} quarantined" if result["quarantined"] else ""
    emit(result, as_json, lambda: say(f"{result['cases']} cases encoded in {result['encoded']}{left_out}"))
    end_strictly(strict, quarantined=result["quarantined"])


def _work_of(out: Path) -> Path:
    return out.with_name(f"{out.name}-work")


@contextmanager
def _training_data(workspace: Path, manifest: Path | None, read_only: bool) -> Iterator[tuple[Any, Any]]:
    """Manifest and workspace; a dry run, or a process that follows, declares roots in one that is thrown away."""
    from text2ct import manifests, workflow

    space = manifests.Workspace.open(workspace)
    if not read_only:
        yield workflow.real_manifest(space, manifest)[0], space
    elif manifest is None or (manifest.is_file() and manifest.resolve().is_relative_to(space.path)):
        yield manifests.read_manifest(manifest or space.newest("real")), space
    else:
        with tempfile.TemporaryDirectory() as folder:
            space = manifests.Workspace.open(folder)
            yield manifests.read(manifest, workspace=space), space


def _train(
    component: Any,
    manifest: Path | None,
    model: str,
    out: Path,
    work: Path | None,
    config: Path | None,
    overrides: dict[str, Any],
    scratch: bool,
    place: tuple[str, int, int, Literal["ddp", "fsdp"]],
    workspace: Path,
    dry_run: bool,
    as_json: bool,
) -> None:
    from text2ct.diffusion import load_pack
    from text2ct.diffusion.info import COMPONENTS
    from text2ct.diffusion.training.estimate import estimate_training
    from text2ct.diffusion.training.on_manifest import Machines, train_component

    settings = _settings_in(config) | {k: v for k, v in overrides.items() if v is not None}
    machines = Machines(*place)
    common: dict[str, Any] = {
        "settings": settings,
        "scratch": scratch,
        "architecture": load_pack(),
        "machines": machines,
    }
    with _training_data(workspace, manifest, dry_run or machines.follower) as (frame, space):
        if dry_run:
            plan = estimate_training(component, frame, space, open_pack(model, workspace), **common) | {"dry_run": True}
            what = f"train {component} for {plan['steps']} steps on {plan['cases']} cases"
            emit(plan, as_json, lambda: say(would(what, plan)))
            return
        pack = train_component(
            component, frame, space, open_pack(model, workspace), out, work=work or _work_of(out), **common
        )
    if pack is None:  # a process of several: the first one reports
        return
    missing = [name for name in COMPONENTS if not pack.has(name)]
    result = {"pack": str(pack.path), "trained": component, "missing": missing, "sha256": pack.sha256}
    note = f"; it lacks {', '.join(missing)}: train that next" if missing else ""
    emit(result, as_json, lambda: say(f"pack: {pack.path}{note}"))


@core_app.command("train-vae")
@guarded
def core_train_vae(
    out: OutOption,
    manifest: ManifestOption = None,
    model: FromOption = "simulated-64",
    work: WorkOption = None,
    config: ConfigOption = None,
    steps: StepsOption = None,
    batch_size: BatchOption = None,
    scratch: ScratchOption = False,
    device: DeviceOption = "auto",
    devices: DevicesOption = 1,
    nodes: NodesOption = 1,
    strategy: StrategyOption = "ddp",
    seed: SeedOption = 0,
    workspace: WorkspaceOption = WORKSPACE,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train the autoencoder on a manifest's training patients; the same command resumes."""
    place = (device, devices, nodes, strategy)
    overrides = {"steps": steps, "batch_size": batch_size, "seed": seed}
    _train("vae", manifest, model, out, work, config, overrides, scratch, place, workspace, dry_run, as_json)


@core_app.command("train-clip")
@guarded
def core_train_clip(
    out: OutOption,
    manifest: ManifestOption = None,
    model: FromOption = "simulated-64",
    work: WorkOption = None,
    config: ConfigOption = None,
    steps: StepsOption = None,
    batch_size: BatchOption = None,
    scratch: ScratchOption = False,
    device: DeviceOption = "auto",
    devices: DevicesOption = 1,
    nodes: NodesOption = 1,
    strategy: StrategyOption = "ddp",
    seed: SeedOption = 0,
    workspace: WorkspaceOption = WORKSPACE,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train the 3D CLIP on a manifest's training patients; the same command resumes."""
    place = (device, devices, nodes, strategy)
    overrides = {"steps": steps, "batch_size": batch_size, "seed": seed}
    _train("clip", manifest, model, out, work, config, overrides, scratch, place, workspace, dry_run, as_json)


@core_app.command("train-diffusion")
@guarded
def core_train_diffusion(
    out: OutOption,
    manifest: ManifestOption = None,
    model: FromOption = "simulated-64",
    work: WorkOption = None,
    config: ConfigOption = None,
    steps: StepsOption = None,
    batch_size: BatchOption = None,
    scratch: ScratchOption = False,
    device: DeviceOption = "auto",
    devices: DevicesOption = 1,
    nodes: NodesOption = 1,
    strategy: StrategyOption = "ddp",
    seed: SeedOption = 0,
    workspace: WorkspaceOption = WORKSPACE,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train the velocity or noise network on a manifest's training patients; the same command resumes."""
    place = (device, devices, nodes, strategy)
    overrides = {"steps": steps, "batch_size": batch_size, "seed": seed}
    _train("unet", manifest, model, out, work, config, overrides, scratch, place, workspace, dry_run, as_json)


def _settings_in(config: Path | None) -> dict[str, Any]:
    from text2ct.errors import UserError
    from text2ct.files import read_json

    given = {} if config is None else read_json(config)
    if not isinstance(given, dict):
        raise UserError(f'{config} holds no settings; they are a JSON object, as {{"seed": 1}}')
    return given


@core_app.command("pack")
@guarded
def core_pack(
    out: OutOption,
    work: WorkOption = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="JSON file with what differs from the bundled pack.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option("--start", help="Pack to go on from: its encoders are kept, its velocity network trains on."),
    ] = None,
    reports: Annotated[
        Path | None, typer.Option("--reports", help="CSV of annotated real reports, to measure on; optional.")
    ] = None,
    chest: Annotated[
        Path | None, typer.Option("--chest", help="A real chest CT for the autoencoder's figures; optional.")
    ] = None,
    device: DeviceOption = "auto",
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Build a pack from simulated patients, as the bundled one was, and measure it; each stage resumes."""
    from text2ct.diffusion import load_pack
    from text2ct.diffusion.build import build_pack, estimate_build, run_summary
    from text2ct.diffusion.build_config import BuildConfig, StartPack, check_start
    from text2ct.diffusion.training import parse_config
    from text2ct.evaluation.model_card import write_model_card
    from text2ct.evaluation.pack_figures import MeasureConfig, check_measurable, measure_pack
    from text2ct.evaluation.pack_sections import kept_shares
    from text2ct.evaluation.real_data import RealData
    from text2ct.fidelity import FIDELITY_FILE
    from text2ct.files import write_json
    from text2ct.locks import working_in

    given = _settings_in(config)
    begun = None if start is None else load_pack(start)
    if begun is not None:
        given["start"] = StartPack.of(begun).model_dump()
    measure = parse_config(MeasureConfig, given.pop("measure", {}), config or "the defaults")
    settings = parse_config(BuildConfig, given, config or "the defaults")
    real = RealData(reports, chest)
    check_measurable(settings.grid)
    if dry_run:
        check_start(settings, begun)
        plan = estimate_build(settings, more_patients=measure.rendered, more_minutes=measure.minutes)
        plan |= {"dry_run": True}
        emit(plan, as_json, lambda: say(would(f"render {plan['cases']} patients, train and measure", plan)))
        return
    folder = work or _work_of(out)
    with working_in(folder, instead="choose another --work"):
        pack = build_pack(folder, out, settings, device=device, start=begun)
        figures = measure_pack(pack, folder, measure, real=real, device=device)
        write_json(folder / "figures.json", figures)
        write_json(out / FIDELITY_FILE, kept_shares(figures["factual"]))
    resolved = settings.model_dump(mode="json") | {"measure": measure.model_dump(mode="json")}
    runs = {name: run_summary(folder / name) for name in ("clip", "diffusion")}
    write_model_card(out / "MODEL_CARD.md", pack, resolved, runs, figures)
    result = {"pack": str(pack.path), "sha256": pack.sha256, "figures": figures}
    emit(result, as_json, lambda: say(f"pack: {pack.path}"))
