"""``evaluate --compare``: several synthetic sets of the same prompts, and the page that shows them side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from text2ct import manifests
from text2ct.errors import UserError
from text2ct.evaluating.measures import Names, find_measures, left_out, would_miss
from text2ct.evaluating.sets import name_of, read_real
from text2ct.files import write_json
from text2ct.locks import working_in
from text2ct.workflow import manifest_in

if TYPE_CHECKING:
    from text2ct.evaluation.generator import Settings
    from text2ct.manifests import Workspace


def compare_sets(
    workspace: Workspace,
    settings: Settings,
    runs: Sequence[str],
    names: Names | None = None,
    *,
    real: Path | None = None,
    run: str | None = None,
    command: str = "",
    whole: bool = False,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Write ``reports/<run>/comparison.json`` and its page.

    Args:
        workspace: Where to look, and where the result goes.
        settings: Which metrics, on which grid; privacy and diversity are not compared.
        runs: Synthetic manifests or names of runs, either as ``NAME=...`` too; differences are from the first.
        names: What measures.
        real: A real manifest; by default the workspace's.
        run: Name of the report's folder.
        command: What runs it again, for the page.
        whole: Leave out, with a note, metrics for which there is nothing here, instead of refusing.
        dry_run: Say how much there is to measure, and write nothing.

    Returns:
        As :func:`text2ct.evaluation.generator.compare.compare`, with the paths of what was written.

    Raises:
        UserError: A run does not exist, or as ``compare``.
    """
    from text2ct.evaluation.generator import estimate
    from text2ct.evaluation.generator.compare import COMPARED, NAMES, common_prompts, compare
    from text2ct.evaluation.generator.sets import synthetic_rows
    from text2ct.reports.comparison import write_comparison_report

    names = names or Names()
    if not set(settings.metrics) & set(COMPARED):
        raise UserError(
            f"sets are compared by {', '.join(COMPARED)}; ask {', '.join(settings.metrics)} of each set by itself"
        )
    sources = dict(_source(workspace, given) for given in runs)
    if len(sources) < len(runs):
        raise UserError(
            f"{len(runs)} sets have {len(sources)} names ({', '.join(sources)}); give each its own, as first=PATH"
        )
    workspace.run_dir("reports", run or "")
    own = read_real(workspace, real, dry_run)
    sets = {name: manifests.read_manifest(source) for name, source in sources.items()}
    absent = left_out(own, workspace, names, settings.split) if whole else {}
    metrics = tuple(one for one in settings.metrics if one in COMPARED and one not in absent)
    settings = settings.model_copy(update={"metrics": metrics})
    measures = find_measures(workspace, settings, names)
    if dry_run:
        common_prompts({name: synthetic_rows(frame) for name, frame in sets.items()})
        each = [estimate(own, made, workspace, settings, measures) for made in sets.values()]
        summed = {key: sum(one[key] for one in each) for key in ("n_synthetic", "volumes_to_read", "seconds", "bytes")}
        return {"dry_run": True, "n_real": each[0]["n_real"], "notes": would_miss(absent), **summed}
    folder = workspace.run_dir("reports", run or f"comparison-{'-'.join(sources)}"[:100])
    with working_in(folder):
        found = compare(own, sets, workspace, settings, measures)
        found["notes"] += [f"{metric} was not compared: {reason}" for metric, reason in absent.items()]
        found["measures"] = NAMES
        write_json(folder / "comparison.json", found)
        page = write_comparison_report(found, folder, volumes=_shown(sets, workspace), command=command)
    return found | {"report": str(page), "comparison": str(folder / "comparison.json")}


def _source(workspace: Workspace, given: str) -> tuple[str, Path]:
    """A set's name and its manifest; runs and paths with "=" in their names come before names that users give."""
    for name, place in (("", given), given.split("=", 1) if "=" in given else ("", given)):
        named = workspace.run_dir("synthetic") / place / "manifest.csv"
        source = named if named.is_file() else manifest_in(Path(place))
        if source.is_file():
            return name or name_of(source), source.resolve()
    raise UserError(f"'{given}' is neither a synthetic manifest nor a run in {workspace.run_dir('synthetic')}")


def _shown(sets: Mapping[str, pd.DataFrame], workspace: Workspace) -> list[dict[str, Any]]:
    """The same few prompts of every set, set after set, so that one step in the viewer changes the generator alone."""
    from text2ct import volumes
    from text2ct.evaluation.generator.sets import MeasuredSet, synthetic_rows
    from text2ct.findings import FINDINGS
    from text2ct.reports.viewer import MAX_VOLUMES

    first: dict[str, dict[str, dict[Any, Any]]] = {name: {} for name in sets}
    for name, frame in sets.items():
        rows = synthetic_rows(frame)
        for text, row in zip(MeasuredSet.texts_of(rows), rows.to_dict("records"), strict=True):
            first[name].setdefault(text, row)
    common = [text for text in first[next(iter(first))] if text and all(text in one for one in first.values())]
    found = []
    for text in common[: max(1, MAX_VOLUMES // len(sets))]:
        for name in sets:
            row = first[name][text]
            volume = volumes.read(workspace.resolve(str(row["root"]), str(row["path"])))
            found.append(
                {
                    "hu": volume.hu, "spacing_mm": volume.spacing_mm, "prompt": text, "name": name,
                    "labels": [finding for finding in FINDINGS if row[finding] == 1], "seed": row.get("seed"),
                }
            )  # fmt: skip
    return found
