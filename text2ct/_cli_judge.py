"""The commands that train classifiers and judge them: train, score, benchmark."""

from __future__ import annotations

import json
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
    WorkspaceOption,
    command_line,
    emit,
    guarded,
    numbers,
    say,
    three,
    would,
)
from text2ct.console import info
from text2ct.engines import LOCAL, Engine
from text2ct.errors import UserError
from text2ct.files import read_json

judge_app = typer.Typer(rich_markup_mode=None)

ClassifierOption = Annotated[str, typer.Option("--classifier", help="cnn3d, ctnet, slices, r3d or densenet.")]
BatchOption = Annotated[int, typer.Option("--batch-size", min=1, help="Volumes a step.")]
GridOption = Annotated[str, typer.Option("--grid", help="Voxels, as 64 or 64,64,64.")]
SpacingOption = Annotated[str, typer.Option("--spacing", help="Voxel size in mm.")]
WeightsOption = Annotated[bool, typer.Option("--class-weights", help="Weigh rare positives up.")]
ClassicalOption = Annotated[bool, typer.Option("--classical", help="Classical augmentation.")]
OwnOption = Annotated[
    list[str] | None, typer.Option("--option", help="The classifier's own, as pooling=transformer; again for more.")
]
UntilOption = Annotated[
    float, typer.Option("--synthetic-until", help="Share of the steps after which only real volumes are drawn.")
]
LossOption = Annotated[str, typer.Option("--loss", help="bce or asymmetric.")]
EmaOption = Annotated[float, typer.Option("--ema", help="Decay a step of averaged weights, as 0.99; 0 for none.")]


@judge_app.command()
@guarded
def train(
    manifest: Annotated[
        Path | None, typer.Argument(help="Default: the newest mixed manifest, else the real one.")
    ] = None,
    classifier: ClassifierOption = "cnn3d",
    steps: Annotated[int, typer.Option("--steps", min=1, help="Optimisation steps.")] = 300,
    batch_size: BatchOption = 8,
    grid: GridOption = "64",
    spacing: SpacingOption = "5",
    option: OwnOption = None,
    loss: LossOption = "bce",
    ema: EmaOption = 0.0,
    class_weights: WeightsOption = False,
    classical: ClassicalOption = False,
    synthetic_until: UntilOption = 1.0,
    accumulate: Annotated[int, typer.Option("--accumulate", min=1, help="Parts of a step, for less memory.")] = 1,
    init: Annotated[
        Path | None, typer.Option("--init", help="A finished run of the same network whose weights it starts from.")
    ] = None,
    device: DeviceOption = "auto",
    run: RunOption = None,
    workspace: WorkspaceOption = WORKSPACE,
    seed: SeedOption = 0,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """A 3D multi-label classifier, a fixed number of steps, the checkpoint chosen on validation patients."""
    from text2ct import classifiers, manifests

    space = manifests.Workspace.open(workspace)
    init = None if init is None else space.find_run("classifiers", init)
    path = manifest or _training_manifest(space, dry_run)
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
        device=device,
        options=_settings(option or []),
        recipe=_recipe(loss, ema) | {"accumulate": accumulate},
        init=init,
        synthetic_until=synthetic_until,
        dry_run=dry_run,
    )
    what = f"train {classifier} for {steps} steps"
    emit(
        result,
        as_json,
        lambda: say(
            would(what, result)
            if dry_run
            else f"validation macro AUC {result['validation_macro_auc']:.3f} after {result['steps']} steps",
            f"run: {result['run']}",
        ),
    )


def _settings(options: list[str]) -> dict[str, Any]:
    """``key=value`` texts as settings: a value is JSON where it can be read so, else text."""
    settings: dict[str, Any] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or key in settings:
            raise UserError(f"--option is '{option}'; expected key=value, each key once, as pooling=transformer")
        try:
            settings[key] = json.loads(value)
        except ValueError:
            settings[key] = value
    return settings


def _recipe(loss: str, ema: float) -> dict[str, Any]:
    """What differs from the recipe's defaults; an average that is off is not named, so that it renames no training."""
    return {"loss": loss} | ({"ema_decay": ema} if ema else {})


def _training_manifest(space: Any, dry_run: bool) -> Path:
    from text2ct import workflow

    try:
        return space.newest("mixed")
    except UserError:
        return space.newest("real") if dry_run else workflow.real_manifest(space)[1]


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
    if predictions is not None and (run is not None or manifest is not None):
        raise UserError("tables of predictions are scored without a classifier: leave out the run and --manifest")
    if predictions is not None and labels is not None:
        result = scoring.score_tables(predictions, labels, n_bootstrap=bootstrap, seed=seed)
    else:
        result = scoring.score_run(
            space, run, manifest=manifest, split=split, n_bootstrap=bootstrap, seed=seed, device=device
        )
    reason = [f"nothing could be scored: {result['reason']}"] if "reason" in result else []
    notes = [f"note: {note}" for note in result["notes"]]
    emit(result, as_json, lambda: say(score_table(result), *notes, *reason))


@judge_app.command()
@guarded
@on_engine()
def benchmark(
    ratios: Annotated[str, typer.Option("--ratios", help="Synthetic per real training volume, as 0.25,0.5,1.")] = "0.5",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Training seeds per arm.")] = 3,
    full: Annotated[bool, typer.Option("--full", help="All arms that can be built here, not only the usual.")] = False,
    arms: Annotated[
        str | None, typer.Option("--arms", help="Arms by name, as real,real+oversampled,real+synthetic@R.")
    ] = None,
    train_patients: Annotated[
        str | None, typer.Option("--train-patients", help="Sizes of nested training subsets, as 100,300,1000.")
    ] = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Optimisation steps, equal for every arm.")] = 300,
    classifier: ClassifierOption = "cnn3d",
    batch_size: BatchOption = 8,
    grid: GridOption = "64",
    spacing: SpacingOption = "5",
    option: OwnOption = None,
    loss: LossOption = "bce",
    ema: EmaOption = 0.0,
    class_weights: WeightsOption = False,
    classical: ClassicalOption = False,
    synthetic_until: UntilOption = 1.0,
    own_generator: Annotated[
        Path | None, typer.Option("--own-generator", help="JSON of the steps of real+own-generator; default few.")
    ] = None,
    real: Annotated[Path | None, typer.Option("--real", help="Real manifest; default the workspace's.")] = None,
    synthetic: Annotated[
        Path | None, typer.Option("--synthetic", help="Synthetic manifest; default the newest.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Pack of the arms that need one; default the volumes' own.")
    ] = None,
    device: DeviceOption = "auto",
    engine: Engine = LOCAL,
    run: RunOption = None,
    workspace: WorkspaceOption = WORKSPACE,
    seed: SeedOption = 0,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Arms x ratios x seeds at equal steps, paired statistics, one verdict per finding, a report."""
    from text2ct import scoring
    from text2ct.evaluation.benchmark import BenchmarkSettings
    from text2ct.manifests import Workspace
    from text2ct.tables import auc_table

    asked = {
        "ratios": numbers(ratios, "--ratios"),
        "seeds": tuple(range(seed, seed + seeds)),
        "full": full,
        "arms": [arm.strip() for arm in arms.split(",")] if arms else (),
        "train_patients": numbers(train_patients, "--train-patients") if train_patients else (),
        "steps": steps,
        "classifier": classifier,
        "batch_size": batch_size,
        "synthetic_until": synthetic_until,
        "own_generator": {} if own_generator is None else read_json(own_generator),
        "train_options": {
            "size": three(grid, int, "--grid"),
            "spacing_mm": three(spacing, float, "--spacing"),
            "class_weights": class_weights,
            "augment": classical,
            "options": _settings(option or []),
            "recipe": _recipe(loss, ema),
        },
    }
    space, settings = Workspace.open(workspace), BenchmarkSettings.of("the benchmark's options", asked)
    source = scoring.synthetic_source(space, settings, synthetic)
    newest = None if source is None or synthetic else workspace / source.relative_to(space.path)
    again = command_line(
        "benchmark",
        ratios=ratios,
        seeds=seeds,
        full=full,
        arms=arms,
        train_patients=train_patients,
        steps=steps,
        classifier=classifier,
        batch_size=batch_size,
        grid=grid,
        spacing=spacing,
        option=option,
        loss=loss,
        ema=ema or None,
        class_weights=class_weights,
        classical=classical,
        synthetic_until=None if synthetic_until == 1 else synthetic_until,
        own_generator=own_generator,
        real=real,
        synthetic=synthetic or newest,
        model=model,
        workspace=workspace,
        seed=seed,
    )
    result = scoring.benchmark(
        space,
        settings,
        real=real,
        synthetic=source,
        model=model,
        run=run,
        device=device,
        engine=engine,
        rerun=[again],
        dry_run=dry_run,
    )
    notes = [f"note: {note}" for note in result["notes"]]
    if dry_run:
        what = f"make {result['left']} of {result['trainings']} trainings of {steps} steps"
        measured = result["seconds"] is not None
        foreseen = would(f"{what} ({result['hours']:.1f} h)", result) if measured else f"would {what}"
        emit(result, as_json, lambda: say(foreseen, *notes))
        return
    emit(result, as_json, lambda: say(auc_table(result), *notes, f"report: {result['report']}"))
