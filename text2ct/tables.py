"""Tables for the terminal: imbalance, scores, benchmark arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from text2ct.diffusion.parity import ArrayResult

MISSING = "–"
_STYLE = {"gain": "green", "harm": "red", "no evidence": ""}


def number(value: float | None, digits: int = 3, *, sign: bool = False) -> str:
    """A number with fixed digits, or a dash where there is none."""
    if value is None:
        return MISSING
    return f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"


def span(ci: Sequence[float] | None, digits: int = 3, *, sign: bool = False) -> str:
    """An interval as ``[0.701, 0.788]``, or a dash."""
    if ci is None:
        return MISSING
    return f"[{number(ci[0], digits, sign=sign)}, {number(ci[1], digits, sign=sign)}]"


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def imbalance_table(summary: Mapping[str, Any]) -> Table:
    """Findings by prevalence, rarest last, with the rule's choice marked.

    Args:
        summary: The numbers of ``report --json``.
    """
    title = f"{summary['volumes']:,} volumes, {summary['scans']:,} scans, {summary['patients']:,} patients"
    table = _table(title, "finding", "positive scans", "prevalence", "IRLbl", "detectable ΔAUC", "rare")
    rows = sorted(summary["findings"].items(), key=lambda item: -(item[1]["prevalence"] or 0.0))
    for name, entry in rows:
        rare = bool(entry["underrepresented"])
        table.add_row(
            name,
            f"{entry['positive_scans']:,}",
            MISSING if entry["prevalence"] is None else f"{100 * entry['prevalence']:.1f}%",
            number(entry["irlbl"], 2),
            number(entry["detectable_auc_difference"]),
            "yes" if rare else "",
            style="yellow" if rare else "",
        )
    rule = f"; rare: {summary['rule']}" if summary.get("rule") else ""
    table.caption = f"MeanIR {number(summary['mean_ir'], 2)}{rule}"
    return table


def score_table(result: Mapping[str, Any]) -> Table:
    """AUC with interval, average precision and F1 of every finding, then the averages.

    Args:
        result: The numbers of ``score --json``.
    """
    title = f"{result['scans']:,} scans ({result['volumes']:,} volumes)"
    table = _table(title, "finding", "positive", "AUC", "95% interval", "AP", "F1")
    for name, entry in result["findings"].items():
        table.add_row(
            name,
            f"{entry['positive']:,}",
            number(entry["auc"]),
            span(entry["auc_ci"]),
            number(entry.get("average_precision")),
            number(entry.get("f1")),
        )
    table.add_section()
    table.add_row(
        "macro",
        "",
        number(result["macro_auc"]),
        span(result["macro_auc_ci"]),
        number(result["macro_average_precision"]),
        number(result["macro_f1"]),
        style="bold",
    )
    table.add_row("weighted", "", number(result["weighted_auc"]), span(result.get("weighted_auc_ci")), "", "")
    table.caption = f"CRG {number(result['crg'])}; precision {number(result['macro_precision'])} (macro)"
    return table


def auc_table(result: Mapping[str, Any]) -> Table:
    """Macro AUC of each benchmark arm and its difference from the arm it is compared with; below, the endpoint.

    Args:
        result: The numbers of ``benchmark --json``.
    """
    table = _table(
        "Macro AUC by training set", "arm", "AUC", "95% interval", "Δ", "95% interval", "p (Holm)", "verdict"
    )
    against = {entry["arm"]: entry for entry in reversed(result["comparisons"])}
    for name, arm in result["arms"].items():
        entry = against.get(name)
        cells = [number(arm["macro_auc"]), span(arm["ci"])]
        if entry is None:
            table.add_row(name, *cells, "", "", "", "")
            continue
        outcome = entry.get("verdict", "")
        cells += [number(entry["delta_macro_auc"], sign=True), span(entry["ci"], sign=True)]
        cells += [number(entry.get("p_adjusted")), outcome]
        table.add_row(name, *cells, style=_STYLE.get(outcome, ""))
    table.caption = _endpoint(result.get("endpoint") or {})
    return table


def _endpoint(declared: Mapping[str, Any]) -> str | None:
    """What the declared endpoint came to, and whether its margin was met."""
    if declared.get("delta") is None or "met" not in declared:
        return None
    met = {True: "met", False: "not met", None: f"not decided without {', '.join(declared.get('untrained', ()))}"}
    return (
        f"endpoint, the mean AUC of {len(declared['findings'])} under-represented findings: {declared['arm']} against "
        f"{declared['against']} {number(declared['delta'], sign=True)} {span(declared['ci'], sign=True)}, "
        f"p {number(declared['p'])}: {declared['verdict']}; margin of {declared['margin']:g} over every arm without "
        f"generated volumes {met[declared['met']]}"
    )


def parity_table(rows: Sequence[ArrayResult]) -> Table:
    """Compared arrays with the largest difference of each and whether it is within the tolerance."""
    table = _table("Ours against the released code's arrays", "array", "difference", "tolerance", "holds")
    for row in rows:
        table.add_row(
            f"{row.variant} {row.array}" + (f" ({row.note})" if row.note else ""),
            f"{row.difference:.1e}",
            f"{row.tolerance:.0e}",
            "yes" if row.holds else "NO",
            style="" if row.holds else "red",
        )
    table.caption = f"{sum(row.holds for row in rows)} of {len(rows)} hold"
    return table


def evaluation_table(found: Mapping[str, Any]) -> Table:
    """All measures of a synthetic set with their intervals and what to read them against.

    Args:
        found: The numbers of ``evaluate --json``.
    """
    from text2ct.reports.evaluation import evaluation_rows

    title = f"{found['n_synthetic']:,} synthetic volumes beside {found['n_real']:,} real ones"
    table = _table(title, "measure", "value", "95% interval")
    table.add_column("beside")
    for row in evaluation_rows(found):
        table.add_row(row.name, number(row.value, row.digits), span(row.ci, row.digits), row.beside)
    return table


def comparison_table(found: Mapping[str, Any]) -> Table:
    """Differences of sets of the same prompts.

    Args:
        found: The numbers of ``evaluate --compare --json``.
    """
    title = f"{', '.join(found['sets'])} on {found['prompts']:,} prompts, against {found['against']}"
    table = _table(title, "measure", "value", found["against"], "difference", "95% interval")
    for one in found["differences"]:
        table.add_row(
            f"{found['measures'][one['measure']]}, {one['set']}",
            number(one["value"], 4),
            number(one["base"], 4),
            number(one["difference"], 4, sign=True),
            span(one["ci"], 4, sign=True),
        )
    return table


def guidance_table(found: Mapping[str, Any]) -> Table:
    """What each guidance scale does.

    Args:
        found: The numbers of ``evaluate --guidance --json``.
    """
    from text2ct.reports.guidance import COLUMNS

    title = f"{found['n_synthetic']:,} volumes of {found['model']} at each scale"
    columns = [one for one in COLUMNS if any(row[one[0]] is not None for row in found["sweep"])]
    table = _table(title, "guidance", *(name for _, name, _ in columns))
    for row in found["sweep"]:
        table.add_row(f"{row['guidance']:g}", *(number(row[key], digits) for key, _, digits in columns))
    return table


def status_lines(result: Mapping[str, Any]) -> list[Any]:
    """Runs of a workspace with what is done and left, who works there, and the disk.

    Args:
        result: What ``status --json`` prints.
    """
    runs, free = result["runs"], f"{_size(result['free_bytes'])} are free"
    if not runs:
        return [f"{result['workspace']} holds no run yet; text2ct demo or report makes the first ({free})"]
    table = _table(str(result["workspace"]), "run", "kind", "state", "done", "failed", "left", "time left", "disk")
    for run in runs:
        table.add_row(
            run["name"],
            run["kind"],
            run["state"],
            MISSING if run["done"] is None else f"{run['done']:,} {run['unit']}",
            f"{run['failed']:,}" if run["failed"] else "",
            MISSING if run["left"] is None else f"{run['left']:,}",
            _duration(run["seconds_left"]),
            _size(run["bytes"]),
            style={"running": "green", "stopped": "yellow"}.get(run["state"], ""),
        )
    disk = f"{_size(result['bytes'])} in all, {_size(result['cache_bytes'])} of it cache; {free}"
    return [table, *(line for run in runs for line in _work(run)), disk]


def _work(run: Mapping[str, Any]) -> list[str]:
    """Who works in a run, or how one that was killed goes on."""
    if run["state"] == "running" and run["pid"] is not None:
        doing = f"{run['doing']}, " if run["doing"] else ""
        return [f"{run['name']}: {doing}pid {run['pid']} on {run['host']} since {run['since']}: {run['command']}"]
    if run["state"] == "stopped" and run["command"]:
        return [f"{run['name']}: killed; it goes on with: {run['command']}"]
    return []


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, hours = seconds / 60, seconds / 3600
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if hours < 2 else f"{hours:.1f} h"


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
