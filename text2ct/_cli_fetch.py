"""The commands ``text2ct fetch``."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from text2ct._cli_shared import (
    WORKSPACE,
    DryRunOption,
    JsonOption,
    SeedOption,
    StrictOption,
    WorkspaceOption,
    emit,
    end_strictly,
    guarded,
    say,
    would,
)

fetch_app = typer.Typer(
    help="Parts of public data sets from their hub, chosen by finding.", no_args_is_help=True, rich_markup_mode=None
)


@fetch_app.callback()
def _fetch() -> None:
    pass


@fetch_app.command("ct-rate")
@guarded
def fetch_ct_rate(
    split: Annotated[
        Literal["train", "valid"], typer.Option("--split", help="CT-RATE's own part; valid holds validation and test.")
    ] = "valid",
    labels: Annotated[
        list[str] | None,
        typer.Option("--labels", help="Take scans with any of these findings, as effusion; default all scans."),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most this many volumes.")] = None,
    all_reconstructions: Annotated[
        bool, typer.Option("--all-reconstructions", help="Every reconstruction of a scan, not only the first.")
    ] = False,
    metadata_only: Annotated[
        bool, typer.Option("--metadata-only", help="Labels, reports, metadata and lists, no volumes.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder, in CT-RATE's layout; default WORKSPACE/ct-rate.")
    ] = None,
    revision: Annotated[str, typer.Option("--revision", help="Branch, tag or commit.")] = "main",
    endpoint: Annotated[
        str | None, typer.Option("--endpoint", envvar="HF_ENDPOINT", help="Address of the hub or of a mirror.")
    ] = None,
    strict: StrictOption = False,
    workspace: WorkspaceOption = WORKSPACE,
    seed: SeedOption = 0,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """CT-RATE's volumes with a finding, in HU (`*_fixed`), with the tables; it goes on after a stop.

    CT-RATE is gated: accept its terms on its page, then log in with `hf auth login` or set HF_TOKEN.
    """
    from text2ct.console import info
    from text2ct.fetching import fetch_plan, plan_ct_rate
    from text2ct.locks import working_in
    from text2ct.planning import findings_of

    root = out or workspace / "ct-rate"
    with nullcontext() if dry_run else working_in(root, instead="choose another --out"):
        plan = plan_ct_rate(
            root,
            split,
            findings=findings_of(",".join(labels)) if labels else (),
            limit=limit,
            seed=seed,
            all_reconstructions=all_reconstructions,
            metadata_only=metadata_only,
            revision=revision,
            endpoint=endpoint,
            dry_run=dry_run,
        )
        planned = plan.as_json()
        what = f"fetch {planned['volumes']} volumes of {planned['patients']} patients to {root}"
        if dry_run:
            emit(planned, as_json, lambda: say(f"{would(what, planned)}; {planned['resumed']} volumes are here"))
            return
        info(f"to {what}: {planned['bytes'] / 1e9:.2f} GB, {planned['resumed']} volumes are here")
        result = fetch_plan(plan)
    emit(result, as_json, lambda: say(*_lines(result)))
    end_strictly(strict, failed=result["failed"])


def _lines(result: dict[str, Any]) -> list[str]:
    lines = [
        f"{result['volumes']} volumes of {result['scans']} scans and {result['patients']} patients, "
        f"{result['bytes'] / 1e9:.2f} GB with the tables ({result['resumed']} volumes were there already): "
        f"{result['root']}"
    ]
    if result["failed"]:
        lines.append(f"{len(result['failed'])} could not be had: {', '.join(result['failed'])}")
    return [*lines, f"next: text2ct report {result['root']}"]
