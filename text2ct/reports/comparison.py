"""The page of ``evaluate --compare``: generators beside one another, and the same prompts in one viewer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from text2ct.files import write_text
from text2ct.reports import viewer
from text2ct.reports.evaluation import Row, evaluation_rows
from text2ct.reports.page import render

WINDOW = "lung"


def comparison_rows(found: Mapping[str, Any]) -> list[tuple[str, str, int, list[Row | None]]]:
    """Group and name of each measure, its decimals, and a figure for each set."""
    of_sets = [{(row.group, row.name): row for row in evaluation_rows(one)} for one in found["sets"].values()]
    names = list(dict.fromkeys(key for rows in of_sets for key in rows))
    table = []
    for key in names:
        figures = [rows.get(key) for rows in of_sets]
        digits = next(row.digits for row in figures if row is not None)
        table.append((*key, digits, figures))
    return table


def write_comparison_report(
    found: Mapping[str, Any], out_dir: Path, *, volumes: Sequence[Mapping[str, Any]], command: str
) -> Path:
    """Write ``report.html`` and ``report.md``.

    Args:
        found: What :func:`text2ct.evaluating.compare.compare_sets` found, with ``measures``.
        out_dir: Folder of the report.
        volumes: As for :func:`text2ct.reports.viewer.shown_volume`, prompt after prompt.
        command: What runs it again.

    Returns:
        Path of ``report.html``.
    """
    shown = [viewer.shown_volume(k, volume, WINDOW)[0] for k, volume in enumerate(volumes)]
    context = {
        "title": f"{' and '.join(found['sets'])} on the same prompts",
        "found": found,
        "names": list(found["sets"]),
        "columns": ["about", "measure", *(part for name in found["sets"] for part in (name, "95% interval"))],
        "rows": comparison_rows(found),
        "bundle": viewer.add_voxels(shown, volumes),
        "volumes": shown,
        "window": WINDOW,
        "windows": viewer.windows(),
        "command": command,
    }
    write_text(out_dir / "report.md", render("comparison.md.j2", **context))
    write_text(out_dir / "report.html", render("comparison.html.j2", **context))
    return out_dir / "report.html"
