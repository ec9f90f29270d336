"""``evaluate``: one synthetic set beside a real one, and the page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from text2ct import manifests
from text2ct.augment.gate import newest_ungated
from text2ct.console import info
from text2ct.errors import UserError
from text2ct.evaluating.measures import Names, find_measures, left_out, would_miss
from text2ct.files import write_json
from text2ct.locks import working_in
from text2ct.workflow import manifest_in, real_rows

if TYPE_CHECKING:
    from text2ct.evaluation.generator import Settings
    from text2ct.manifests import Workspace


def evaluate_sets(
    workspace: Workspace,
    settings: Settings,
    names: Names | None = None,
    *,
    real: Path | None = None,
    synthetic: Path | None = None,
    prompts: Path | None = None,
    run: str | None = None,
    command: str = "",
    whole: bool = False,
    dry_run: bool = False,
) -> dict[str, Any]:
    """A synthetic set beside a real one; writes ``reports/<run>/evaluation.json`` and its page.

    Args:
        workspace: Where to look, and where the result goes.
        settings: Which metrics, on which grid.
        names: What measures.
        real: A real manifest; by default the workspace's, which it does not replace. Or a folder of volumes.
        synthetic: A manifest; by default that of the newest run of ``synthesize``, as it was generated. Or a folder of
            volumes of the real ones' names, or a zip of them.
        prompts: ``prompts.json`` of these volumes, where they are no manifest's.
        run: Name of the report's folder.
        command: What runs it again, for the page.
        whole: Leave out, with a note, metrics for which there is nothing here, instead of refusing.
        dry_run: Say how much there is to measure, and write nothing.

    Returns:
        What ``evaluate --json`` prints.

    Raises:
        UserError: As :func:`text2ct.evaluation.generator.evaluate`, or something that is named does not exist.
    """
    from text2ct.evaluation.generator import estimate, evaluate
    from text2ct.evaluation.generator.evaluate import grid_of
    from text2ct.evaluation.generator.folders import estimate_of_folders, is_folder_of_volumes
    from text2ct.reports.evaluation import write_evaluation_report

    names = names or Names()
    if dry_run and real is not None and synthetic is not None and is_folder_of_volumes(synthetic):
        return estimate_of_folders(synthetic, real, workspace, grid_of(settings))
    own, made, source = read_sets(workspace, real, synthetic, prompts, dry_run=dry_run)
    info(f"{'would measure' if dry_run else 'measuring'} {source}")
    absent = left_out(own, workspace, names, settings.split) if whole else {}
    settings = settings.model_copy(update={"metrics": tuple(one for one in settings.metrics if one not in absent)})
    measures = find_measures(workspace, settings, names)
    if dry_run:
        workspace.run_dir("reports", run or "")
        return estimate(own, made, workspace, settings, measures) | {"notes": would_miss(absent)}
    name = run or name_of(source)
    folder = workspace.run_dir("reports", run or f"evaluation-{name}")
    with working_in(folder):
        found = evaluate(own, made, workspace, settings, measures, pictures=folder / "pairs")
        found["notes"] += [f"{metric} was not measured: {reason}" for metric, reason in absent.items()]
        found |= {"real": str(real or workspace.run_dir("real") / "manifest.csv"), "synthetic": str(source)}
        write_json(folder / "evaluation.json", found)
        page = write_evaluation_report(found, folder, title=f"Evaluation of {name}", command=command)
    return found | {"report": str(page), "evaluation": str(folder / "evaluation.json")}


def read_sets(
    workspace: Workspace,
    real: Path | None,
    synthetic: Path | None,
    prompts: Path | None = None,
    *,
    dry_run: bool = False,
) -> tuple[pd.DataFrame, pd.DataFrame, Path]:
    """Both manifests, and where the synthetic one is; a dry run writes nothing.

    Raises:
        UserError: One cannot be read, or volumes have no partner.
    """
    from text2ct.evaluation.generator.folders import frames_of_folders, is_folder_of_volumes

    if synthetic is not None and is_folder_of_volumes(synthetic):
        if real is None:
            raise UserError(f"{synthetic} holds volumes and no manifest: give --real, the folder of the real volumes")
        if not is_folder_of_volumes(real):
            raise UserError(
                f"{synthetic} holds volumes and no manifest, so --real must be a folder of the real volumes of the "
                f"same names (or a zip of it); {real} is not"
            )
        own, made = frames_of_folders(synthetic, real, prompts, workspace)
        return own, made, synthetic.resolve()
    if prompts is not None:
        raise UserError("--prompts belongs to a folder of volumes; a manifest holds its prompts itself")
    source = (manifest_in(synthetic) if synthetic else newest_ungated(workspace)).resolve()
    made = manifests.read_manifest(source)
    return read_real(workspace, real, dry_run), made, source


def read_real(workspace: Workspace, real: Path | None, dry_run: bool) -> pd.DataFrame:
    """The real manifest, which replaces nothing in the workspace; a dry run writes nothing either."""
    if real is not None and not dry_run:
        return manifests.read(real, workspace=workspace)
    return real_rows(workspace, real, dry_run)


def name_of(source: Path) -> str:
    """What a synthetic set is called: its run, or its file."""
    return source.parent.name if source.name == "manifest.csv" else source.stem
