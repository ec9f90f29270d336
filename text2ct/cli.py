"""The command line: one thin function a command. Heavy imports happen inside the functions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from text2ct import __version__
from text2ct._cli_core import core_app
from text2ct._cli_engine import on_engine
from text2ct._cli_evaluate import evaluate_app
from text2ct._cli_fetch import fetch_app
from text2ct._cli_judge import judge_app
from text2ct._cli_mix import mix_app
from text2ct._cli_models import models_app
from text2ct._cli_observe import observe_app
from text2ct._cli_shared import (
    WORKSPACE,
    DeviceOption,
    DryRunOption,
    JsonOption,
    RunOption,
    SeedOption,
    StrictOption,
    WorkersOption,
    WorkspaceOption,
    emit,
    end_strictly,
    guarded,
    numbers,
    say,
    three,
    would,
)
from text2ct.engines import LOCAL, Engine

app = typer.Typer(
    name="text2ct",
    help="Synthetic data augmentation for chest CT: from a label manifest to an honest AUC table.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(mix_app)
app.add_typer(judge_app)
app.add_typer(evaluate_app)
app.add_typer(observe_app)
app.add_typer(models_app, name="models")
app.add_typer(core_app, name="core")
app.add_typer(fetch_app, name="fetch")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"text2ct {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    log_file: Annotated[
        Path | None,
        typer.Option("--log-file", envvar="TEXT2CT_LOG_FILE", help="As the option of every command."),
    ] = None,
) -> None:
    del version
    context.obj = log_file


@app.command()
@guarded
def demo(
    workspace: WorkspaceOption = WORKSPACE,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """The whole loop on a simulated cohort and the bundled pack: cohort, plan, volumes, mix, benchmark, report."""
    from text2ct.demo import run_demo
    from text2ct.manifests import Workspace
    from text2ct.tables import auc_table

    result = run_demo(Workspace.open(workspace), seed=seed, device=device)
    emit(result, as_json, lambda: say(auc_table(result), f"report: {result['report']}"))


@app.command()
@guarded
def simulate(
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the cohort, in CT-RATE's layout; default WORKSPACE/cohorts/..."),
    ] = None,
    patients: Annotated[int, typer.Option("--patients", help="How many patients.")] = 100,
    grid: Annotated[str, typer.Option("--grid", help="Voxels, as 64 or 64,64,64.")] = "64",
    spacing: Annotated[str, typer.Option("--spacing", help="Voxel size in mm, as 5 or 5,5,5.")] = "5",
    valid_fraction: Annotated[float, typer.Option(help="Share of patients in CT-RATE's `valid` folder.")] = 0.4,
    workers: WorkersOption = None,
    workspace: WorkspaceOption = WORKSPACE,
    seed: SeedOption = 0,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """A simulated chest CT cohort with labels, reports, metadata and reconstructions."""
    from text2ct import workflow

    result = workflow.simulate(
        out or workspace / "cohorts" / f"simulated-{patients}-seed{seed}",
        patients,
        seed=seed,
        grid=three(grid, int, "--grid"),
        spacing_mm=three(spacing, float, "--spacing"),
        valid_fraction=valid_fraction,
        workers=workers,
        dry_run=dry_run,
    )
    emit(
        result,
        as_json,
        lambda: say(
            f"{'would hold ' if dry_run else ''}{result['volumes']} volumes of {result['scans']} scans of "
            f"{result['patients']} patients: {result['root']}"
        ),
    )


@app.command()
@guarded
def report(
    source: Annotated[
        Path | None,
        typer.Argument(help="A manifest, a CT-RATE or RAD-ChestCT folder, a label table or annotated reports."),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option("--labels", help="Findings to plan for; default the under-represented that the pack renders."),
    ] = None,
    target_prevalence: Annotated[
        float | None, typer.Option(help="Prevalence that the plan aims at; default 0.15.")
    ] = None,
    target_irlbl: Annotated[
        float | None,
        typer.Option(help="Instead of a prevalence: bring each target's IRLbl (commonest over own) down to this."),
    ] = None,
    max_ratio: Annotated[float, typer.Option(help="At most this many synthetic volumes per training scan.")] = 1.0,
    max_association: Annotated[
        float, typer.Option(help="Largest phi of being synthetic and having a finding; 1 plans the fewest volumes.")
    ] = 0.1,
    expected_gain: Annotated[
        float, typer.Option(help="AUC to gain; findings whose test scans cannot show it are marked.")
    ] = 0.05,
    unseen: Annotated[
        bool, typer.Option("--unseen", help="Also plan plausible label sets that no training scan has.")
    ] = False,
    model: Annotated[str, typer.Option("--model", help="Name or folder of the pack to plan for.")] = "simulated-64",
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Measure how long the pack takes for a volume on this device.")
    ] = False,
    device: DeviceOption = "auto",
    max_prevalence: Annotated[float, typer.Option(help="A finding below this prevalence is under-represented.")] = 0.10,
    max_irlbl: Annotated[
        float | None,
        typer.Option(help="A finding with IRLbl above this is under-represented; default MeanIR."),
    ] = None,
    names: Annotated[Path | None, typer.Option(help="Table of CT-RATE names of annotated reports.")] = None,
    run: RunOption = None,
    workspace: WorkspaceOption = WORKSPACE,
    seed: SeedOption = 0,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Which findings are under-represented, a plan to mend it, and radiology reports to use as prompts."""
    from text2ct import planning
    from text2ct.manifests import UnderrepresentedRule, Workspace
    from text2ct.tables import imbalance_table

    result = planning.report(
        Workspace.open(workspace),
        source,
        rule=UnderrepresentedRule(max_prevalence=max_prevalence, max_irlbl=max_irlbl),
        labels=labels,
        target_prevalence=target_prevalence,
        target_irlbl=target_irlbl,
        max_ratio=max_ratio,
        max_association=max_association,
        expected_gain=expected_gain,
        unseen=unseen,
        model=model,
        estimate=estimate,
        device=device,
        seed=seed,
        names=names,
        run=run,
        dry_run=dry_run,
    )
    written = [
        f"to look at: {entry['volumes']:,} volumes where {entry['what']}, such as {entry['examples'][0]}"
        for entry in result.get("hygiene", {}).values()
        if entry["volumes"]
    ]
    written += [f"{key}: {result[key]}" for key in ("report", "plan", "prompts", "hygiene_csv") if result.get(key)]
    planned = [f"would write a page, a plan and prompts, in seconds and under 20 MB, beside {result['report']}"]
    emit(result, as_json, lambda: say(imbalance_table(result), *(planned if dry_run else written)))


@app.command()
@guarded
@on_engine()
def synthesize(
    labels: Annotated[str | None, typer.Option("--labels", help="Findings, as effusion or 'effusion,nodule'.")] = None,
    plan: Annotated[Path | None, typer.Option("--plan", help="plan.json of `text2ct report`.")] = None,
    prompts: Annotated[
        Path | None, typer.Option("--prompts", help="prompts.csv, VLM3D prompts.json or annotated reports.")
    ] = None,
    text: Annotated[str | None, typer.Option("--text", help="One report in your own words.")] = None,
    count: Annotated[int | None, typer.Option("--count", min=1, help="Volumes to make.")] = None,
    source: Annotated[
        Literal["reports", "edited", "composed"] | None,
        typer.Option(
            "--source",
            help="Texts for --labels and --plan: `reports` (default), reports `edited` to show the finding, or "
            "`composed` from labels.",
        ),
    ] = None,
    max_uses: Annotated[
        int | None, typer.Option("--max-uses", min=1, help="Most volumes of one of these texts; default 4.")
    ] = None,
    model: Annotated[str, typer.Option("--model", help="Name or folder of a model pack.")] = "simulated-64",
    guidance: Annotated[float | None, typer.Option("--guidance", help="Guidance scale; default the pack's.")] = None,
    interval: Annotated[
        str | None,
        typer.Option("--guidance-interval", help="Guide only at these times, as 0.2,0.9; 1 is noise."),
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Sampling steps; default the pack's.")] = None,
    solver: Annotated[
        Literal["euler", "heun", "adams-bashforth", "dpm-solver"] | None,
        typer.Option("--solver", help="How the flow is integrated; default the pack's."),
    ] = None,
    decode: Annotated[
        Literal["exact", "window"] | None,
        typer.Option("--decode", help="exact, or window as the released Text2CT code joins windows."),
    ] = None,
    file_format: Annotated[Literal["nii.gz", "mha"], typer.Option("--format", help="nii.gz or mha.")] = "nii.gz",
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, help="Volumes computed together; by default by the grid.")
    ] = None,
    device: DeviceOption = "auto",
    engine: Engine = LOCAL,
    strict: StrictOption = False,
    run: RunOption = None,
    workspace: WorkspaceOption = WORKSPACE,
    seed: SeedOption = 0,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Volumes that match findings, a plan, reports or a text. The same command goes on after an interruption."""
    from text2ct import augment, planning, workflow
    from text2ct.manifests import Workspace

    space = Workspace.open(workspace)
    requests = planning.requests_for(
        space,
        labels=labels,
        plan=plan,
        prompts=prompts,
        text=text,
        count=count,
        seed=seed,
        source=source,
        max_uses=max_uses,
        dry_run=dry_run,
    )
    result = augment.synthesize(
        requests,
        pack=workflow.find_pack(space, model),
        workspace=space,
        run=run,
        count=count,
        seed=seed,
        sampling={
            "guidance_scale": guidance,
            "guidance_interval": None if interval is None else numbers(interval, "--guidance-interval"),
            "steps": steps,
            "solver": solver,
            "decode": decode,
        },
        format=file_format,
        batch_size=batch_size,
        device=device,
        engine=engine,
        dry_run=dry_run,
    )
    emit(result, as_json, lambda: say(*_synthesis_lines(result)))
    end_strictly(strict, quarantined=result.get("quarantined"))


def _synthesis_lines(result: dict[str, Any]) -> list[str]:
    if result.get("dry_run"):
        left = result["volumes"] - result["resumed"]
        return [f"{would(f'make {left} volumes', result)}: {result['manifest']}"]
    speed = result["seconds_per_volume"]
    made = result["volumes"] - result["resumed"]
    return [
        f"{result['volumes']} volumes ({made} made now{f', {speed:.1f} s each' if speed else ''}, "
        f"{result['resumed']} were there already"
        f"{', ' + str(result['quarantined']) + ' quarantined' if result['quarantined'] else ''})",
        f"manifest: {result['manifest']}",
    ]


@app.command()
@guarded
@on_engine(a_core_each=True)
def preprocess(
    inputs: Annotated[list[Path], typer.Argument(help="Volumes, DICOM folders, or one manifest.csv.")],
    out: Annotated[Path | None, typer.Option("--out", help="Output folder; default WORKSPACE/preprocessed.")] = None,
    grid: Annotated[str, typer.Option("--grid", help="Voxels, as 64 or 512,512,128.")] = "64",
    spacing: Annotated[str, typer.Option("--spacing", help="Voxel size in mm, as 5 or 0.75,0.75,1.5.")] = "5",
    fit: Annotated[
        Literal["crop-pad", "resize"],
        typer.Option("--fit", help="crop-pad keeps the spacing; resize fills the grid."),
    ] = "crop-pad",
    file_format: Annotated[
        Literal["nii.gz", "zarr", "mha"],
        typer.Option("--format", help="nii.gz, zarr (a cache that is read several times as fast) or mha."),
    ] = "nii.gz",
    metadata: Annotated[
        Path | None, typer.Option("--metadata", help="CT-RATE's metadata CSV, which its v1 volumes need.")
    ] = None,
    leave_out_non_chest: Annotated[
        bool, typer.Option("--leave-out-non-chest", help="Quarantine what seems to show no chest; else only flagged.")
    ] = False,
    strict: StrictOption = False,
    engine: Engine = LOCAL,
    workspace: WorkspaceOption = WORKSPACE,
    seed: SeedOption = 0,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """CT volumes to one grid, in HU and RAS, with a true affine; files that fail are quarantined and named."""
    from text2ct import workflow
    from text2ct.manifests import Workspace

    del seed  # nothing is drawn here; every command takes it
    result = workflow.preprocess(
        Workspace.open(workspace),
        inputs,
        out=out,
        size=three(grid, int, "--grid"),
        spacing_mm=three(spacing, float, "--spacing"),
        fit=fit,
        file_format=file_format,
        metadata=metadata,
        engine=engine,
        leave_out_non_chest=leave_out_non_chest,
        dry_run=dry_run,
    )
    flagged = f", {result['not_chest']} seem to show no chest" if result.get("not_chest") else ""
    emit(
        result,
        as_json,
        lambda: say(
            would(f"write {result['volumes']} volumes", result)
            if dry_run
            else f"{result['volumes']} volumes, {result['quarantined']} quarantined{flagged}",
            f"manifest: {result['manifest']}",
        ),
    )
    end_strictly(strict, quarantined=result["quarantined"], without_a_chest=result.get("not_chest"))


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
