"""Charts of a label table: how frequent findings are and which come together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from text2ct.reports.charts._base import ACCENT, HARM, INK, MUTED, SECOND, Chart, draw_chart, rows_axis


def prevalence_chart(findings: Mapping[str, Mapping[str, Any]]) -> Chart:
    """Prevalence of each finding by scan and by patient, most frequent on top.

    Args:
        findings: For each finding ``prevalence`` and ``prevalence_by_patient`` in [0, 1] or None, and
            ``underrepresented``.
    """
    order = sorted(findings, key=lambda name: -(findings[name]["prevalence"] or 0.0))
    rows = [
        {
            "finding": name,
            "prevalence_by_scan": findings[name]["prevalence"],
            "prevalence_by_patient": findings[name].get("prevalence_by_patient"),
            "underrepresented": bool(findings[name]["underrepresented"]),
        }
        for name in order
    ]

    def draw(axes: Axes) -> None:
        by_scan = [100 * (row["prevalence_by_scan"] or 0.0) for row in rows]
        by_patient = [100 * (row["prevalence_by_patient"] or 0.0) for row in rows]
        colours = [HARM if row["underrepresented"] else ACCENT for row in rows]
        height = 0.36 if any(by_patient) else 0.7
        shift = 0.19 if any(by_patient) else 0.0
        axes.barh([y - shift for y in range(len(rows))], by_scan, height, color=colours)
        if any(by_patient):
            axes.barh([y + shift for y in range(len(rows))], by_patient, height, color=SECOND)
        for y, value in enumerate(by_scan):
            axes.text(value + 0.4, y - shift, f"{value:.1f}", va="center", fontsize=7.5, color=MUTED)
        keys = [(ACCENT, "by scan"), (HARM, "by scan, under-represented")]
        keys += [(SECOND, "by patient")] if any(by_patient) else []
        axes.legend([Rectangle((0, 0), 1, 1, color=c) for c, _ in keys], [t for _, t in keys], loc="lower right")
        rows_axis(axes, order)
        axes.set_xlabel("prevalence (%)")

    return draw_chart(
        "prevalence",
        "Share of scans and of patients with each finding.",
        rows,
        (7.2, 5.6),
        draw,
        "Bar chart of the prevalence of each finding",
    )


def cooccurrence_chart(names: Sequence[str], share: Sequence[Sequence[float | None]]) -> Chart:
    """Heat map: of the scans with the row's finding, the share that also has the column's.

    Args:
        names: ``(F,)`` findings.
        share: ``(F, F)`` in [0, 1], None where no scan has the row's finding.
    """
    rows = [{"finding": a, "also": b, "share": share[i][j]} for i, a in enumerate(names) for j, b in enumerate(names)]

    def draw(axes: Axes) -> None:
        for i in range(len(names)):
            for j in range(len(names)):
                value = share[i][j]
                if value is not None and i != j:
                    axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, color=ACCENT, alpha=value, linewidth=0))
                    axes.text(j, i, f"{100 * value:.0f}", ha="center", va="center", fontsize=6.5)
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.tick_params(axis="x", colors=INK)
        rows_axis(axes, names)
        axes.grid(visible=False)
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set_ylim(len(names) - 0.5, -0.5)

    return draw_chart(
        "cooccurrence",
        "Of the scans with the row's finding, the percentage that also has the column's.",
        rows,
        (8.4, 7.6),
        draw,
        "Heat map of findings that occur together",
    )
