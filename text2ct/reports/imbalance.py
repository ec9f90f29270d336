"""The page of ``text2ct report``: what a label table holds and what it lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from text2ct.files import write_text
from text2ct.reports.charts import Chart, cooccurrence_chart, prevalence_chart
from text2ct.reports.page import render, write_charts


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def imbalance_headline(summary: Mapping[str, Any]) -> str:
    """What the table lacks, in one sentence.

    Args:
        summary: The numbers of ``report --json``.
    """
    findings = summary["findings"]
    rare = sorted(
        (name for name, entry in findings.items() if entry["underrepresented"]),
        key=lambda name: findings[name]["prevalence"] or 0.0,
    )
    if not rare:
        return f"None of the {len(findings)} findings is under-represented by the rule below."
    verb = "is" if len(rare) == 1 else "are"
    return f"{len(rare)} of {len(findings)} findings {verb} under-represented, rarest first: {_listed(rare)}."


def _cooccurrence(summary: Mapping[str, Any]) -> Chart | None:
    counts = summary.get("cooccurrence")
    if not counts:
        return None
    names = [name for name in summary["findings"] if name in counts]
    share = [[counts[a][b] / counts[a][a] if counts[a][a] else None for b in names] for a in names]
    return cooccurrence_chart(names, share)


def _plan_sentence(summary: Mapping[str, Any]) -> str:
    """What the files beside the page ask for; "" where no plan was made."""
    if not summary.get("plan"):
        return ""
    prompts = " prompts.csv holds their texts, labels and training scans of origin." if summary.get("prompts") else ""
    return f"plan.json asks for {summary['planned_volumes']:,} synthetic volumes{_cost(summary)}.{prompts}"


def _cost(summary: Mapping[str, Any]) -> str:
    """What the plan takes with its pack, as the end of a sentence; "" where no pack was named."""
    cost = summary.get("plan_cost")
    if not cost:
        return ""
    hours = "" if cost["hours"] is None else f"{cost['hours']:,.1f} hours on this device and "
    return f": {hours}at most {cost['bytes'] / 1e9:,.2f} GB of disk with the pack {cost['pack']}"


def _planned(summary: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any], str]]:
    """The plan's findings, targets first, and whether a gain could be seen."""
    seen = {None: "no test scans", True: "yes", False: "no"}
    rows = (summary.get("plan_findings") or {}).items()
    return [(name, row, seen[row["detectable"]]) for name, row in sorted(rows, key=lambda item: not item[1]["target"])]


def write_imbalance_report(
    summary: Mapping[str, Any],
    out_dir: Path,
    *,
    title: str = "Imbalance report",
    next_steps: Sequence[tuple[str, str]] = (),
) -> Path:
    """Write ``report.html``, ``report.md`` and the charts' data for a label table.

    Args:
        summary: ``text2ct.manifests.summarise(frame).to_json()``: the keys of ``report --json``,
            and ``cooccurrence``, ``splits``, ``disagreeing_scans``, ``rule``, and of the plan ``plan``,
            ``prompts``, ``planned_volumes``, ``plan_notes``, ``plan_cost`` and ``plan_findings``, and ``hygiene``
            and ``hygiene_csv``, where present.
        out_dir: Folder of the report.
        title: Heading, for example the manifest's name.
        next_steps: What to do next: words and a command each.

    Returns:
        Path of ``report.html``.
    """
    prevalence = prevalence_chart(summary["findings"])
    cooccurrence = _cooccurrence(summary)
    tiles = [(f"{summary[key]:,}", key) for key in ("volumes", "scans", "patients")]
    measures = (("mean_ir", "MeanIR"), ("cvir", "CVIR"), ("scumble", "SCUMBLE"))
    tiles += [(f"{summary[key]:.2f}", name) for key, name in measures if summary.get(key) is not None]
    absent = dict.fromkeys(("positive_volumes", "positive_patients", "prevalence_by_patient"))
    findings = {name: {**absent, **entry} for name, entry in summary["findings"].items()}
    context = {
        "title": title,
        "headline": imbalance_headline(summary),
        "tiles": tiles,
        "summary": {"rule": "", "splits": {}, "disagreeing_scans": [], "plan_notes": [], **summary},
        "plan": _plan_sentence(summary),
        "planned": _planned(summary),
        "findings": sorted(findings.items(), key=lambda item: -(item[1]["prevalence"] or 0.0)),
        "hygiene": [entry for entry in (summary.get("hygiene") or {}).values() if entry["volumes"]],
        "prevalence": prevalence,
        "cooccurrence": cooccurrence,
        "next_steps": list(next_steps),
    }
    out_dir = Path(out_dir)
    write_charts(out_dir, [chart for chart in (prevalence, cooccurrence) if chart is not None])
    write_text(out_dir / "report.md", render("imbalance.md.j2", **context))
    write_text(out_dir / "report.html", render("imbalance.html.j2", **context))
    return out_dir / "report.html"
