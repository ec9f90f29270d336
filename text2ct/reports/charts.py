"""Charts as SVG that follow the page's light or dark theme, each with its data."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

# Colours that nothing else uses: each is replaced by a CSS variable on the page and by the light
# theme's value in the file that stands alone.
_THEME = {
    "#010101": ("--ink", "#1c2430"),
    "#020202": ("--muted", "#5d6877"),
    "#030303": ("--line", "#d9dee5"),
    "#040404": ("--accent", "#2b5fc7"),
    "#050505": ("--gain", "#0f7b6c"),
    "#060606": ("--harm", "#c2410c"),
    "#070707": ("--second", "#9aa8bd"),
    "#080808": ("--card", "#ffffff"),
}
INK, MUTED, LINE, ACCENT, GAIN, HARM, SECOND, CARD = _THEME
VERDICT_COLOUR = {"gain": GAIN, "harm": HARM, "no evidence": MUTED}
_STYLE: Any = {  # matplotlib types its keys one by one, differently in each version
    "svg.fonttype": "none",
    "text.parse_math": False,
    "svg.hashsalt": "text2ct",
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


@dataclass(frozen=True)
class Chart:
    """A chart and what it shows.

    Attributes:
        name: File name without suffix.
        caption: One or two sentences for the reader.
        rows: The data, one dict per mark, all with the same keys.
        svg: Markup for the page: no XML header, no namespaces, colours as CSS variables.
        standalone: A whole SVG file in the light theme.
    """

    name: str
    caption: str
    rows: tuple[dict[str, Any], ...]
    svg: str
    standalone: str

    def csv(self) -> str:
        """The data as CSV; an empty field where there is no number."""
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(self.rows[0]) if self.rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()


def _chart(
    name: str,
    caption: str,
    rows: Sequence[dict[str, Any]],
    size: tuple[float, float],
    draw: Callable[[Axes], None],
    label: str,
) -> Chart:
    """Draw with ``draw(axes)`` on a figure of ``size`` inches; ``label`` is read to the blind."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.add_subplot())
        target = io.StringIO()
        FigureCanvasSVG(figure).print_svg(target, metadata={"Date": None, "Creator": None})
    raw = re.sub(r"<metadata>.*?</metadata>", "", target.getvalue(), flags=re.DOTALL)
    standalone = raw
    body = raw[raw.index("<svg") :]
    for colour, (variable, value) in _THEME.items():
        body = body.replace(colour, f"var({variable})")
        standalone = standalone.replace(colour, value)
    head, rest = body.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    prefix = f"{name}-"
    rest = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{prefix}", rest)
    width = f"max-width:{size[0]:.2f}in"
    svg = f'<svg {box.group(0) if box else ""} role="img" aria-label="{label}" style="{width}">{rest}'
    return Chart(name, caption, tuple(rows), svg, standalone)


def _rows_axis(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="x", color=LINE, linewidth=0.7)


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
        _rows_axis(axes, order)
        axes.set_xlabel("prevalence (%)")

    return _chart(
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
        _rows_axis(axes, names)
        axes.grid(visible=False)
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set_ylim(len(names) - 0.5, -0.5)

    return _chart(
        "cooccurrence",
        "Of the scans with the row's finding, the percentage that also has the column's.",
        rows,
        (8.4, 7.6),
        draw,
        "Heat map of findings that occur together",
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
        _rows_axis(axes, order)
        axes.set_xlabel(f"difference in AUC: {comparison['arm']} minus {comparison['against']}")

    caption = (
        f"Difference in AUC of {comparison['arm']} from {comparison['against']}, with 95% intervals that "
        "cover the choice of patients and of training seeds. Colour: verdict after Holm's correction."
    )
    label = "Forest plot of differences in AUC by finding"
    return _chart(name, caption, rows, (7.2, 0.6 + 0.29 * max(len(rows), 4)), draw, label)


def seeds_chart(arms: Mapping[str, Mapping[str, Any]]) -> Chart:
    """Macro AUC of every training, with each arm's mean and interval.

    Args:
        arms: The benchmark's ``arms``.
    """
    rows = [
        {"arm": name, "training": k, "macro_auc": value, "low": low, "mean": arm["macro_auc"], "high": high}
        for name, arm in arms.items()
        for low, high in [arm["ci"] or (None, None)]
        for k, value in enumerate(arm["per_seed"])
    ]

    def draw(axes: Axes) -> None:
        for y, arm in enumerate(arms.values()):
            if arm["ci"] is not None:
                axes.plot(arm["ci"], [y, y], color=ACCENT, linewidth=2, solid_capstyle="round")
            points = [value for value in arm["per_seed"] if value is not None]
            axes.plot(points, [y + 0.22] * len(points), "o", color=SECOND, markersize=4.5)
            if arm["macro_auc"] is not None:
                axes.plot(arm["macro_auc"], y, "D", color=ACCENT, markersize=6)
        axes.plot([], [], "D-", color=ACCENT, label="mean, 95% interval", markersize=6)
        axes.plot([], [], "o", color=SECOND, label="one training", markersize=4.5)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, borderaxespad=0.2)
        _rows_axis(axes, list(arms))
        axes.set_xlabel("macro AUC on the test scans")

    caption = "Macro AUC of every single training and the mean of each arm."
    return _chart("seeds", caption, rows, (7.2, 0.9 + 0.42 * max(len(arms), 2)), draw, "Macro AUC by arm and seed")


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
        _rows_axis(axes, order)
        axes.set_xlabel("prevalence in the training set (%)")

    caption = "Prevalence of each finding in the training set before and after mixing."
    return _chart("mix", caption, rows, (7.2, 5.0), draw, "Prevalence before and after mixing")
