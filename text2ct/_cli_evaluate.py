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

evaluate_app = typer.Typer(rich_markup_mode=None)


@evaluate_app.command()
@guarded
def evaluate(
    real: Annotated[Path | None, typer.Option("--real", help="Real manifest; default the workspace's.")] = None,
    synthetic: Annotated[
        Path | None, typer.Option("--synthetic", help="Synthetic manifest; default the newest of `synthesize`.")
    ] = None,
    metrics: Annotated[
        str, typer.Option("--metrics", help="Of fidelity,fid_3d,alignment,factual,privacy,diversity; default all.")
    ] = "",
    split: Annotated[str, typer.Option("--split", help="Split of the real manifest that is compared.")] = "test",
    grid: Annotated[str, typer.Option("--grid", help="Voxels of the common grid, as 64 or 64,64,64.")] = "64",
    spacing: Annotated[str, typer.Option("--spacing", help="Its voxel size in mm.")] = "5",
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
    from text2ct.augment.gate import newest_ungated
    from text2ct.diffusion.training import parse_config
    from text2ct.evaluating import evaluate_sets
    from text2ct.evaluation.generator import METRICS, Settings
    from text2ct.evaluation.generator.evaluate import window_settings
    from text2ct.manifests import Workspace
    from text2ct.tables import evaluation_table

    chosen: dict[str, Any] = {
        "metrics": tuple(name.strip() for name in metrics.split(",") if name.strip()) or METRICS,
        "grid": three(grid, int, "--grid"),
        "spacing_mm": three(spacing, float, "--spacing"),
        "split": split,
        "every": every,
        **({"windows": window_settings(windows)} if windows else {}),
        "n_bootstrap": bootstrap,
        "seed": seed,
    }
    space = Workspace.open(workspace)
    source = None if synthetic is None else synthetic.resolve()
    again = command_line(
        "evaluate",
        real=real,
        synthetic=source or newest_ungated(space).resolve(),
        metrics=metrics or None,
        split=split,
        grid=grid,
        spacing=spacing,
        backbone=backbone,
        backbone_3d=backbone_3d,
        clip=clip,
        classifier=classifier,
        every=every,
        windows=windows or None,
        bootstrap=bootstrap,
        device=device,
        run=run,
        workspace=workspace,
        seed=seed,
    )
    result = evaluate_sets(
        space,
        parse_config(Settings, chosen, "the options"),
        real=real,
        synthetic=source,
        backbone=backbone,
        backbone_3d=backbone_3d,
        clip=clip,
        classifier=classifier,
        run=run,
        device=device,
        command=again,
        whole=not metrics,
        dry_run=dry_run,
    )
    if dry_run:
        what = f"measure {result['n_synthetic']} synthetic volumes beside {result['n_real']} real ones"
        emit(result, as_json, lambda: say(would(what, result)))
        return
    notes = [f"note: {note}" for note in result["notes"]]
    emit(result, as_json, lambda: say(evaluation_table(result), *notes, f"report: {result['report']}"))
