"""The commands between synthetic volumes and a training: gate, mix."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

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
    emit,
    end_strictly,
    guarded,
    say,
    would,
)
from text2ct.engines import LOCAL, Engine

mix_app = typer.Typer(rich_markup_mode=None)

RealOption = Annotated[Path | None, typer.Option("--real", help="Real manifest; default the workspace's.")]
# The default of `gate` in text2ct.augment.gate, which is not imported for a help text.
_GATE_SEED = 7919


@mix_app.command()
@guarded
@on_engine()
def gate(
    synthetic: Annotated[
        Path | None, typer.Option("--synthetic", help="Manifest of `synthesize`; default the newest not judged.")
    ] = None,
    real: RealOption = None,
    config: Annotated[Path | None, typer.Option("--config", help="JSON of thresholds; default docs/gate.md.")] = None,
    classifier: Annotated[
        Path | None, typer.Option("--classifier", help="A run that judges labels; default one trained here.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="The pack; default the one in the manifest.")] = None,
    best_of: Annotated[
        int, typer.Option("--best-of", min=1, help="Make rejected volumes again, this often in all.")
    ] = 1,
    strict: StrictOption = False,
    device: DeviceOption = "auto",
    engine: Engine = LOCAL,
    run: RunOption = None,
    workspace: WorkspaceOption = WORKSPACE,
    seed: SeedOption = _GATE_SEED,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Accept or reject synthetic volumes: label, geometry, intensity, copies of real patients; with reasons."""
    from text2ct import workflow
    from text2ct.manifests import Workspace

    result = workflow.gate(
        Workspace.open(workspace),
        real=real,
        synthetic=synthetic,
        config=config,
        classifier=classifier,
        model=model,
        best_of=best_of,
        run=run,
        seed=seed,
        device=device,
        engine=engine,
        dry_run=dry_run,
    )
    emit(result, as_json, lambda: say(*_gate_lines(result)))
    end_strictly(strict, unmet=result.get("unmet"), quarantined=result.get("quarantined"))


def _gate_lines(result: dict[str, Any]) -> list[str]:
    if result.get("dry_run"):
        return [f"{would('judge the volumes', result)}: {result['manifest']}"]
    reasons = ", ".join(f"{test} {count}" for test, count in result["reasons"].items() if count) or "none"
    tries = result["tries"]
    lines = [
        f"{result['accepted']} volumes accepted, {result['rejected']} rejected by: {reasons}",
        *(_accepted(name, one) for name, one in result["findings"].items()),
        *(f"  copy: {one['volume']} repeats {one['copy_of']}: {one['picture']}" for one in result["copies"]),
    ]
    if len(tries) > 1:
        made = ", ".join(f"{one['accepted']} of {one['judged']}" for one in tries)
        lines.append(f"accepted in {len(tries)} tries: {made}; {result['unmet']} prompts without an accepted volume")
    if result["quarantined"]:
        lines.append(f"{result['quarantined']} real volumes quarantined: they cannot be read")
    return [*lines, f"manifest: {result['manifest']}"]


def _accepted(name: str, one: dict[str, Any]) -> str:
    doubts = f"; its label is unknown in {one['unknown']} accepted volumes" if one["unknown"] else ""
    return f"  {name}: {one['accepted']} of {one['asked']} accepted{doubts}"


@mix_app.command()
@guarded
def mix(
    ratio: Annotated[float, typer.Option("--ratio", help="Synthetic volumes per real training volume.")] = 0.5,
    strategy: Annotated[
        Literal["targeted", "uniform"], typer.Option("--strategy", help="targeted or uniform.")
    ] = "targeted",
    synthetic_share: Annotated[
        float | None,
        typer.Option("--synthetic-share", help="Share of synthetic draws in training; default by the ratio."),
    ] = None,
    real: RealOption = None,
    synthetic: Annotated[
        Path | None, typer.Option("--synthetic", help="Synthetic manifest; default the newest.")
    ] = None,
    strict: StrictOption = False,
    run: RunOption = None,
    workspace: WorkspaceOption = WORKSPACE,
    seed: SeedOption = 0,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Real and synthetic volumes in one training manifest, at a set ratio, without leaks."""
    from text2ct import workflow
    from text2ct.manifests import Workspace

    result = workflow.mix(
        Workspace.open(workspace),
        ratio=ratio,
        strategy=strategy,
        real=real,
        synthetic=synthetic,
        seed=seed,
        synthetic_share=synthetic_share,
        strict=strict,
        run=run,
        dry_run=dry_run,
    )
    left = ", ".join(f"{count} {reason}" for reason, count in result["left_out"].items() if count) or "none"
    emit(
        result,
        as_json,
        lambda: say(
            f"{result['real']} real + {result['synthetic']} synthetic training volumes: "
            f"ratio {result['ratio']:.3g} of {result['ratio_requested']:.3g} asked, "
            f"{result['synthetic_share']:.0%} of the draws",
            f"left out: {left}",
            f"manifest: {result['manifest']}",
        ),
    )
    if result.get("failed"):
        raise typer.Exit(1)
