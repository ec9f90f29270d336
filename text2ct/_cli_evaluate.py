"""The command that measures a generator: evaluate."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from text2ct._cli_engine import on_engine
from text2ct._cli_shared import (
    WORKSPACE,
    DeviceOption,
    DryRunOption,
    JsonOption,
    RunOption,
    SeedOption,
    StrictOption,
    WorkspaceOption,
    command_line,
    emit,
    end_strictly,
    guarded,
    numbers,
    say,
    three,
    would,
)
from text2ct.engines import LOCAL, Engine
from text2ct.errors import UserError

evaluate_app = typer.Typer(rich_markup_mode=None)
# Options that decide what is measured; the others say where it is shown.
_REPEATED = (
    "real", "compare", "guidance", "profile", "prompts", "metrics", "split", "grid", "spacing", "backbone",
    "backbone_3d", "clip", "classifier", "model", "count", "every", "windows", "bootstrap", "device", "run",
    "workspace", "seed",
)  # fmt: skip


# Options that a way of asking does not know: given all the same, they are refused.
_UNKNOWN_TO = {
    "--compare": ("synthetic", "prompts", "model", "count"),
    "--guidance": ("synthetic", "prompts"),
    "--profile vlm3d": ("metrics", "split", "backbone_3d", "model", "count", "every", "windows", "bootstrap", "seed"),
    "an evaluation of one set": ("model", "count"),
}


@evaluate_app.command()
@guarded
@on_engine()
def evaluate(
    context: typer.Context,
    runs: Annotated[
        list[str] | None, typer.Argument(help="Synthetic runs or manifests, or NAME=either, with --compare.")
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Compare sets of the same prompts: RUN1 RUN2 ...")] = False,
    guidance: Annotated[
        str, typer.Option("--guidance", help="Make --count volumes of the split's reports at each: 0,1.5,3,5.")
    ] = "",
    real: Annotated[
        Path | None, typer.Option("--real", help="Real manifest, or a folder of volumes; default the workspace's.")
    ] = None,
    synthetic: Annotated[
        Path | None,
        typer.Option("--synthetic", help="Synthetic manifest, folder or zip; default the newest of `synthesize`."),
    ] = None,
    profile: Annotated[str, typer.Option("--profile", help="Whose way: default, paper or vlm3d.")] = "default",
    prompts: Annotated[Path | None, typer.Option("--prompts", help="prompts.json of a folder of volumes.")] = None,
    metrics: Annotated[
        str, typer.Option("--metrics", help="Of fidelity,fid_3d,alignment,factual,privacy,diversity; default all.")
    ] = "",
    split: Annotated[str, typer.Option("--split", help="Split of the real manifest that is compared.")] = "test",
    grid: Annotated[
        str | None, typer.Option("--grid", help="Voxels of the common grid; default the profile's.")
    ] = None,
    spacing: Annotated[str | None, typer.Option("--spacing", help="Its voxel size in mm.")] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            "--backbone", help="Of 2.5D FIDs: simulated, a folder, timm:NAME, radimagenet: or squeezenet:FILE."
        ),
    ] = None,
    backbone_3d: Annotated[
        str | None, typer.Option("--backbone-3d", help="Of 3D FID: clip, classifier:RUN, medicalnet:FILE or DEPTH.")
    ] = None,
    clip: Annotated[
        str | None,
        typer.Option("--clip", help="Pack whose 3D CLIP scores, or ctclip:FOLDER; default the bundled."),
    ] = None,
    classifier: Annotated[
        Path | None, typer.Option("--classifier", help="Run that reads findings; default the newest.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Pack that generates, with --guidance; default the bundled one.")
    ] = None,
    count: Annotated[int, typer.Option("--count", min=2, help="Volumes at each scale, with --guidance.")] = 100,
    every: Annotated[int, typer.Option("--every", min=1, help="Describe every how manyth slice.")] = 1,
    windows: Annotated[
        str, typer.Option("--windows", help="Of FIDs by window: lung,bone or NAME:CENTRE:WIDTH in HU; default four.")
    ] = "",
    bootstrap: Annotated[int, typer.Option("--bootstrap", min=0, help="Bootstrap samples, over volumes.")] = 200,
    device: DeviceOption = "auto",
    engine: Engine = LOCAL,
    strict: StrictOption = False,
    run: RunOption = None,
    workspace: WorkspaceOption = WORKSPACE,
    seed: SeedOption = 0,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Fidelity, alignment, factual correctness, privacy and diversity of a synthetic set beside a real one."""
    given = {name: value for name, value in locals().items() if name != "context"}

    from text2ct import evaluating
    from text2ct.augment.gate import newest_ungated
    from text2ct.diffusion.training import parse_config
    from text2ct.evaluation.generator import METRICS, Settings
    from text2ct.evaluation.generator.evaluate import window_settings
    from text2ct.manifests import Workspace
    from text2ct.tables import comparison_table, evaluation_table, guidance_table

    kinds = (("--compare", compare), ("--guidance", guidance), ("--profile vlm3d", profile == "vlm3d"))
    asked = [name for name, on in kinds if on]
    if len(asked) > 1:
        raise UserError(f"{' and '.join(asked)} are different questions; ask one at a time")
    way_of_asking = asked[0] if asked else "an evaluation of one set"
    told = [name for name in _UNKNOWN_TO[way_of_asking] if _is_told(context, name)]
    if told:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in told)
        raise UserError(f"{way_of_asking} does not know {options}; leave that out")
    if runs and not compare:
        raise UserError(f"'{runs[0]}' stands alone: name a set with --synthetic, or compare several with --compare")
    measured = tuple(name.strip() for name in metrics.split(",") if name.strip()) if metrics else METRICS
    unused = [f"--{name}" for name in ("backbone", "every", "windows") if _is_told(context, name)]
    if unused and "fidelity" not in measured and profile != "vlm3d":
        raise UserError(f"{', '.join(unused)} decide fidelity, which --metrics does not ask for; leave them out")
    way = evaluating.profile(profile, backbone, measured)
    where: dict[str, Any] = {
        "grid": three(grid, int, "--grid") if grid else way.grid,
        "spacing_mm": three(spacing, float, "--spacing") if spacing else way.spacing_mm,
    }
    names = evaluating.Names(backbone or way.backbone, backbone_3d or way.backbone_3d, clip, classifier, device, engine)
    space = Workspace.open(workspace)
    if profile == "vlm3d":
        if real is None or synthetic is None:
            raise UserError("the profile 'vlm3d' compares two folders of volumes: give --synthetic and --real")
        result = evaluating.evaluate_vlm3d(
            space, synthetic, real, prompts=prompts, names=names, run=run, dry_run=dry_run, **where
        )
        _show(result, as_json, dry_run, None)
        return
    chosen: dict[str, Any] = where | {
        "metrics": measured,
        "split": split,
        "every": every,
        **({"windows": window_settings(windows)} if windows else {}),
        "n_bootstrap": bootstrap,
        "seed": seed,
    }
    settings = parse_config(Settings, chosen, "the options")
    source = None if synthetic is None else synthetic.resolve()
    if not (compare or guidance):
        source = source or newest_ungated(space).resolve()
    common: dict[str, Any] = {
        "real": real, "run": run, "command": _again(given, source), "whole": not metrics, "dry_run": dry_run
    }  # fmt: skip
    if compare:
        result = evaluating.compare_sets(space, settings, runs or [], names, **common)
        _show(result, as_json, dry_run, comparison_table)
    elif guidance:
        scales = numbers(guidance, "--guidance")
        result = evaluating.sweep_guidance(space, settings, scales, names, count=count, model=model, **common)
        _show(result, as_json, dry_run, guidance_table)
    else:
        result = evaluating.evaluate_sets(space, settings, names, synthetic=source, prompts=prompts, **common)
        _show(result, as_json, dry_run, evaluation_table)
    end_strictly(strict, quarantined=result.get("quarantined"))


def _is_told(context: typer.Context, name: str) -> bool:
    """Whether an option stands on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _again(given: dict[str, Any], source: Path | None) -> str:
    """The command line that asks the same."""
    kept = {name: value for name, value in given.items() if name in _REPEATED and value not in ("", None, [])}
    line = command_line("evaluate", **(kept | {"synthetic": source}))
    return " ".join([line, *map(shlex.quote, given["runs"] or [])])


def _show(result: dict[str, Any], as_json: bool, dry_run: bool, table: Callable[[dict[str, Any]], Any] | None) -> None:
    def show() -> None:
        if dry_run:
            what = f"measure {result['n_synthetic']} synthetic volumes beside {result['n_real']} real ones"
            say(would(what, result), *(f"note: {note}" for note in result.get("notes", [])))
            return
        notes = [f"note: {note}" for note in result.get("notes", [])]
        if table is not None:
            say(table(result), *notes, f"report: {result['report']}")
            return
        scores = [f"{key:<16} {value:.4f}" for key, value in result["metrics"].items()]
        say(*scores, *notes, f"written: {result['metrics_file']}")

    emit(result, as_json, show)
