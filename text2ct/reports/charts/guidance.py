"""Fidelity and precision against the guidance scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from text2ct.reports.charts._base import ACCENT, GAIN, LINE, Chart, draw_chart


def guidance_chart(sweep: Sequence[Mapping[str, Any]]) -> Chart | None:
    """FID 2.5D (left axis, lower is better) and precision (right axis); None where both are not known of two scales.

    Args:
        sweep: Rows of :func:`text2ct.evaluating.guidance.sweep_guidance`.
    """
    rows = [
        {"guidance": one["guidance"], "fid_2p5d": one["fid_2p5d"], "macro_precision": one["macro_precision"]}
        for one in sweep
        if one["fid_2p5d"] is not None and one["macro_precision"] is not None
    ]
    if len(rows) < 2:
        return None
    at = [row["guidance"] for row in rows]

    def draw(axes: Axes) -> None:
        axes.plot(at, [row["fid_2p5d"] for row in rows], "o-", color=ACCENT, markersize=5)
        axes.set_xlabel("guidance scale")
        axes.set_ylabel("FID 2.5D", color=ACCENT)
        axes.set_ylim(0, 1.12 * max(row["fid_2p5d"] for row in rows))
        axes.tick_params(axis="y", colors=ACCENT)
        axes.grid(axis="y", color=LINE, linewidth=0.7)
        other = axes.twinx()
        other.plot(at, [row["macro_precision"] for row in rows], "s--", color=GAIN, markersize=5)
        other.set_ylabel("macro precision", color=GAIN)
        other.tick_params(axis="y", colors=GAIN)

    caption = "FID 2.5D (solid, lower is better) and precision of the findings (dashed, higher is better)."
    return draw_chart("guidance", caption, rows, (6.2, 3.6), draw, "FID and precision by guidance scale")
