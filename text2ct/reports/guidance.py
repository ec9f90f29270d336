"""The page of ``evaluate --guidance``: fidelity and precision against the guidance scale, on one plot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from text2ct.files import write_text
from text2ct.reports.charts import guidance_chart
from text2ct.reports.page import render, write_charts

# Key, name, decimals.
COLUMNS = (
    ("fid_2p5d", "FID 2.5D", 4),
    ("floor_ratio", "FID/floor", 2),
    ("fid_3d", "FID 3D", 4),
    ("macro_precision", "precision", 3),
    ("macro_auc", "AUC", 3),
    ("ratio", "AUC/real", 3),
    ("text_image", "CLIP score", 2),
)


def write_guidance_report(found: Mapping[str, Any], out_dir: Path, *, command: str) -> Path:
    """Write ``report.html`` and ``report.md``, and the chart's data.

    Args:
        found: What :func:`text2ct.evaluating.guidance.sweep_guidance` found.
        out_dir: Folder of the report.
        command: What runs it again.

    Returns:
        Path of ``report.html``.
    """
    chart = guidance_chart(found["sweep"])
    columns = [one for one in COLUMNS if any(row[one[0]] is not None for row in found["sweep"])]
    context = {
        "title": f"Guidance of {found['model']}",
        "found": found,
        "columns": columns,
        "chart": chart,
        "command": command,
    }
    if chart is not None:
        write_charts(out_dir, [chart])
    write_text(out_dir / "report.md", render("guidance.md.j2", **context))
    write_text(out_dir / "report.html", render("guidance.html.j2", **context))
    return out_dir / "report.html"
