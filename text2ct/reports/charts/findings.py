"""Charts with a row for each finding: verdicts, the gate's acceptance, what mixing added."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from scipy.stats import binomtest

from text2ct.reports.charts._base import (
    ACCENT,
    LINE,
    MUTED,
    SECOND,
    VERDICT_COLOUR,
    Chart,
    draw_chart,
    rows_axis,
)


def forest_chart(comparison: Mapping[str, Any], name: str = "findings") -> Chart:
    """Difference in AUC of each finding with its interval, best on top.

    Args:
        comparison: One entry of the benchmark's ``comparisons``.
        name: File name of the chart.
    """
    findings = {k: v for k, v in comparison["findings"].items() if v["delta_auc"] is not None}
    order = sorted(findings, key=lambda key: -findings[key]["delta_auc"])
    rows = [
        {
            "finding": key,
            "delta_auc": findings[key]["delta_auc"],
            "low": (findings[key]["ci"] or [None, None])[0],
            "high": (findings[key]["ci"] or [None, None])[1],
            "p_adjusted": findings[key]["p_adjusted"],
            "verdict": findings[key]["verdict"],
            **{name: findings[key].get(name) for name in ("delta_average_precision", "average_precision_verdict")},
            "average_precision_low": (findings[key].get("average_precision_ci") or [None, None])[0],
            "average_precision_high": (findings[key].get("average_precision_ci") or [None, None])[1],
            "average_precision_p_adjusted": findings[key].get("average_precision_p_adjusted"),
        }
        for key in order
    ]

    def draw(axes: Axes) -> None:
        axes.axvline(0, color=MUTED, linewidth=1)
        for y, row in enumerate(rows):
            colour = VERDICT_COLOUR[row["verdict"]]
            if row["low"] is not None:
                axes.plot([row["low"], row["high"]], [y, y], color=colour, linewidth=1.8, solid_capstyle="round")
            axes.plot(row["delta_auc"], y, "o", color=colour, markersize=5.5)
        for key, colour in VERDICT_COLOUR.items():
            axes.plot([], [], "o-", color=colour, label=key, markersize=5.5)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, borderaxespad=0.2)
        rows_axis(axes, order)
        axes.set_xlabel(f"difference in AUC: {comparison['arm']} minus {comparison['against']}")

    caption = (
        f"Difference in AUC of {comparison['arm']} from {comparison['against']}, with 95% intervals that "
        "cover the choice of patients and of training seeds. Colour: verdict after Holm's correction."
    )
    label = "Forest plot of differences in AUC by finding"
    return draw_chart(name, caption, rows, (7.2, 0.6 + 0.29 * max(len(rows), 4)), draw, label)


def acceptance_chart(findings: Mapping[str, Mapping[str, int]]) -> Chart:
    """Share of the volumes asked for with each finding that the gate accepted, with Wilson's 95% interval.

    Args:
        findings: For each finding ``asked`` and ``accepted``, counts of volumes; at least one asked for.
    """
    rows: list[dict[str, Any]] = []
    for name, entry in findings.items():
        if entry["asked"]:
            interval = binomtest(entry["accepted"], entry["asked"]).proportion_ci(method="wilson")
            share = {"share": entry["accepted"] / entry["asked"], "low": interval.low, "high": interval.high}
            rows.append({"finding": name, "asked": entry["asked"], "accepted": entry["accepted"], **share})
    rows.sort(key=lambda row: -row["share"])

    def draw(axes: Axes) -> None:
        for y, row in enumerate(rows):
            ends = [100 * row["low"], 100 * row["high"]]
            axes.plot(ends, [y, y], color=ACCENT, linewidth=1.8, solid_capstyle="round")
            axes.plot(100 * row["share"], y, "o", color=ACCENT, markersize=5.5)
            axes.text(103, y, f"{row['accepted']:,} of {row['asked']:,}", va="center", fontsize=8, color=MUTED)
        rows_axis(axes, [row["finding"] for row in rows])
        axes.set_xlim(-2, 122)
        axes.set_xticks(range(0, 101, 20))
        axes.set_xlabel("accepted by the gate (%)")

    caption = "Share of the volumes asked for with a finding that the gate accepted; lines: Wilson's 95% intervals."
    label = "Chart of the gate's acceptance by finding"
    return draw_chart("acceptance", caption, rows, (7.2, 0.6 + 0.27 * max(len(rows), 3)), draw, label)


def mix_chart(before: Mapping[str, float], after: Mapping[str, float]) -> Chart:
    """Prevalence in the training set before and after mixing.

    Args:
        before: Prevalence in [0, 1] by finding.
        after: The same after mixing.
    """
    order = sorted(before, key=lambda name: -(before[name] or 0.0))
    rows: list[dict[str, Any]] = [{"finding": name, "before": before[name], "after": after.get(name)} for name in order]

    def draw(axes: Axes) -> None:
        for y, row in enumerate(rows):
            if row["before"] is not None and row["after"] is not None:
                axes.plot([100 * row["before"], 100 * row["after"]], [y, y], color=LINE, linewidth=3)
        for key, colour in (("before", SECOND), ("after", ACCENT)):
            points = [(100 * row[key], y) for y, row in enumerate(rows) if row[key] is not None]
            axes.plot(*zip(*points, strict=True), "o", color=colour, markersize=6, label=f"{key} mixing")
        axes.legend(loc="lower right")
        rows_axis(axes, order)
        axes.set_xlabel("prevalence in the training set (%)")

    caption = "Prevalence of each finding in the training set before and after mixing."
    return draw_chart("mix", caption, rows, (7.2, 5.0), draw, "Prevalence before and after mixing")
