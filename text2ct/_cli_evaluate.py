"""The command that measures a generator: evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from text2ct._cli_shared import (
    WORKSPACE,
    DeviceOption,
    DryRunOption,
    JsonOption,
    RunOption,
    SeedOption,
    WorkspaceOption,
    command_line,
    emit,
    guarded,
    say,
    three,
    would,
)
from text2ct.errors import UserError

evaluate_app = typer.Typer(rich_markup_mode=None)


@evaluate_app.command()
@guarded
def evaluate(
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
        str | None, typer.Option("--backbone", help="Of 2.5D FIDs: simulated, a folder, timm:NAME, radimagenet:FILE.")
    ] = None,
    backbone_3d: Annotated[
        str | None, typer.Option("--backbone-3d", help="Of 3D FID: clip, classifier:RUN, medicalnet:FILE or DEPTH.")
    ] = None,
    clip: Annotated[
        str | None, typer.Option("--clip", help="Pack whose 3D CLIP scores; default the bundled one.")
    ] = None,
    classifier: Annotated[
        Path | None, typer.Option("--classifier", help="Run that reads findings; default the newest.")
    ] = None,
    every: Annotated[int, typer.Option("--every", min=1, help="Describe every how manyth slice.")] = 1,
    windows: Annotated[
        str, typer.Option("--windows", help="Of FIDs by window: lung,bone or NAME:CENTRE:WIDTH in HU; default four.")
    ] = "",
    bootstrap: Annotated[int, typer.Option("--bootstrap", min=0, help="Bootstrap samples, over volumes.")] = 200,
    device: DeviceOption = "auto",
    run: RunOption = None,
    workspace: WorkspaceOption = WORKSPACE,
    seed: SeedOption = 0,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Fidelity, alignment, factual correctness, privacy and diversity of a synthetic set beside a real one."""
    from text2ct import evaluating
    from text2ct.augment.gate import newest_ungated
    from text2ct.diffusion.training import parse_config
    from text2ct.evaluation.generator import METRICS, Settings
    from text2ct.evaluation.generator.evaluate import window_settings
    from text2ct.manifests import Workspace
    from text2ct.tables import evaluation_table

    way = evaluating.profile(profile, backbone)
    where: dict[str, Any] = {
        "grid": three(grid, int, "--grid") if grid else way.grid,
        "spacing_mm": three(spacing, float, "--spacing") if spacing else way.spacing_mm,
    }
    names = evaluating.Names(backbone or way.backbone, backbone_3d or way.backbone_3d, clip, classifier, device)
    space = Workspace.open(workspace)
    if profile == "vlm3d":
        if real is None or synthetic is None:
            raise UserError("the profile 'vlm3d' compares two folders of volumes: give --synthetic and --real")
        scores = evaluating.evaluate_vlm3d(
            space, synthetic, real, prompts=prompts, names=names, run=run, dry_run=dry_run, **where
        )
        _show(scores, as_json, dry_run, lambda: say(*_lines(scores)))
        return
    source = None if synthetic is None else synthetic.resolve()
    again = command_line(
        "evaluate", real=real, synthetic=source or newest_ungated(space).resolve(), profile=profile, prompts=prompts,
        metrics=metrics or None, split=split, grid=grid, spacing=spacing, backbone=backbone, backbone_3d=backbone_3d,
        clip=clip, classifier=classifier, every=every, windows=windows or None, bootstrap=bootstrap, device=device,
        run=run, workspace=workspace, seed=seed,
    )  # fmt: skip
    chosen: dict[str, Any] = where | {
        "metrics": tuple(name.strip() for name in metrics.split(",") if name.strip()) or METRICS,
        "split": split,
        "every": every,
        **({"windows": window_settings(windows)} if windows else {}),
        "n_bootstrap": bootstrap,
        "seed": seed,
    }
    result = evaluating.evaluate_sets(
        space,
        parse_config(Settings, chosen, "the options"),
        names,
        real=real,
        synthetic=source,
        prompts=prompts,
        run=run,
        command=again,
        whole=not metrics,
        dry_run=dry_run,
    )

    def show() -> None:
        notes = [f"note: {note}" for note in result["notes"]]
        say(evaluation_table(result), *notes, f"report: {result['report']}")

    _show(result, as_json, dry_run, show)


def _show(result: dict[str, Any], as_json: bool, dry_run: bool, show: Any) -> None:
    what = f"measure {result['n_synthetic']} synthetic volumes beside {result['n_real']} real ones"
    emit(result, as_json, (lambda: say(would(what, result))) if dry_run else show)


def _lines(scores: dict[str, Any]) -> list[str]:
    """What is said of a challenge's scores."""
    lines = [f"{key:<16} {value:.4f}" for key, value in scores["metrics"].items()]
    return [*lines, *(f"note: {note}" for note in scores["notes"]), f"written: {scores['metrics_file']}"]
