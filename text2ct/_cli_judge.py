"""The commands that train classifiers and judge them: train, score, benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from text2ct._cli_shared import (
    WORKSPACE,
    DeviceOption,
    JsonOption,
    RunOption,
    SeedOption,
    WorkspaceOption,
    emit,
    guarded,
    numbers,
    say,
    three,
)
from text2ct.console import info
from text2ct.errors import UserError

judge_app = typer.Typer(rich_markup_mode=None)


@judge_app.command()
@guarded
def train(
    manifest: Annotated[
        Path | None, typer.Argument(help="Default: the newest mixed manifest, else the real one.")
    ] = None,
    classifier: Annotated[str, typer.Option("--classifier", help="cnn3d, ctnet or slices.")] = "cnn3d",
    steps: Annotated[int, typer.Option("--steps", min=1, help="Optimisation steps.")] = 300,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1)] = 8,
    grid: Annotated[str, typer.Option("--grid", help="Voxels, as 64 or 64,64,64.")] = "64",
    spacing: Annotated[str, typer.Option("--spacing", help="Voxel size in mm.")] = "5",
    class_weights: Annotated[bool, typer.Option(help="Weigh rare positives up.")] = False,
    classical: Annotated[bool, typer.Option("--classical", help="Classical augmentation.")] = False,
    device: DeviceOption = "auto",
    run: RunOption = None,
    workspace: WorkspaceOption = WORKSPACE,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """A 3D multi-label classifier, a fixed number of steps, the checkpoint chosen on validation patients."""
    from text2ct import classifiers, manifests

    space = manifests.Workspace.open(workspace)
    path = manifest or _training_manifest(space)
    info(f"training {classifier} on {path}")
    name = run or f"{classifier}-{path.parent.name or path.stem}-seed{seed}"
    result = classifiers.train(
        manifests.read_manifest(path),
        space,
        space.run_dir("classifiers", name),
        name=classifier,
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        size=three(grid, int, "--grid"),
        spacing_mm=three(spacing, float, "--spacing"),
        class_weights=class_weights,
        augment=classical,
        cache_dir=space.path / "cache",
        device=device,
    )
    auc = result["validation_macro_auc"]
    emit(
        result,
        as_json,
        lambda: say(
            f"validation macro AUC {'undefined' if auc is None else f'{auc:.3f}'} after {result['steps']} steps",
            f"run: {result['run']}",
        ),
    )


def _training_manifest(space: Any) -> Path:
    from text2ct import workflow

    try:
        return space.newest("mixed")
    except UserError:
        return workflow.real_manifest(space)[1]


@judge_app.command()
@guarded
def score(
    run: Annotated[Path | None, typer.Argument(help="A trained classifier; default the newest.")] = None,
    manifest: Annotated[Path | None, typer.Option("--manifest", help="Default: the workspace's real manifest.")] = None,
    split: Annotated[str, typer.Option("--split", help="Split of the manifest that is scored.")] = "test",
    predictions: Annotated[Path | None, typer.Option("--predictions", help="CSV of probabilities.")] = None,
    labels: Annotated[Path | None, typer.Option("--labels", help="CSV of labels, with --predictions.")] = None,
    bootstrap: Annotated[int, typer.Option("--bootstrap", min=1, help="Bootstrap samples, by patient.")] = 1000,
    device: DeviceOption = "auto",
    workspace: WorkspaceOption = WORKSPACE,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """AUC and its relatives with intervals: of a classifier on a test split, or of a table of predictions."""
    from text2ct import scoring
    from text2ct.manifests import Workspace
    from text2ct.tables import score_table

    space = Workspace.open(workspace)
    if (predictions is None) != (labels is None):
        raise UserError("--predictions and --labels belong together; give both")
    if predictions is not None and labels is not None:
        result = scoring.score_tables(predictions, labels, n_bootstrap=bootstrap, seed=seed)
    else:
        result = scoring.score_run(
            space, run, manifest=manifest, split=split, n_bootstrap=bootstrap, seed=seed, device=device
        )
    emit(result, as_json, lambda: say(score_table(result)))


@judge_app.command()
@guarded
def benchmark(
    ratios: Annotated[str, typer.Option("--ratios", help="Synthetic per real training volume, as 0.25,0.5,1.")] = "0.5",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Training seeds per arm.")] = 3,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Optimisation steps, equal for every arm.")] = 300,
    classifier: Annotated[str, typer.Option("--classifier", help="cnn3d, ctnet or slices.")] = "cnn3d",
    real: Annotated[Path | None, typer.Option("--real", help="Real manifest; default the workspace's.")] = None,
    synthetic: Annotated[
        Path | None, typer.Option("--synthetic", help="Synthetic manifest; default the newest.")
    ] = None,
    device: DeviceOption = "auto",
    run: RunOption = None,
    workspace: WorkspaceOption = WORKSPACE,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Arms x ratios x seeds at equal steps, paired statistics, one verdict per finding, a report."""
    from text2ct import scoring
    from text2ct.manifests import Workspace
    from text2ct.tables import auc_table

    result = scoring.benchmark(
        Workspace.open(workspace),
        ratios=numbers(ratios, "--ratios"),
        seeds=seeds,
        steps=steps,
        classifier=classifier,
        real=real,
        synthetic=synthetic,
        run=run,
        seed=seed,
        device=device,
    )
    emit(result, as_json, lambda: say(auc_table(result), f"report: {result['report']}"))
