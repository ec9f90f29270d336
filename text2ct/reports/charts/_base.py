"""Charts as SVG that follow the page's light or dark theme, each with its data."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

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
    "#090909": ("--violet", "#7a4bbf"),
    "#0a0a0a": ("--gold", "#946200"),
}
INK, MUTED, LINE, ACCENT, GAIN, HARM, SECOND, CARD, VIOLET, GOLD = _THEME
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


def draw_chart(
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


def rows_axis(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="x", color=LINE, linewidth=0.7)
