"""Rendering of report pages: templates, number formats, and the files beside a page."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from text2ct import __version__
from text2ct.files import write_text
from text2ct.reports.charts import Chart
from text2ct.tables import MISSING, number, span

_MARKDOWN = str.maketrans({c: f"\\{c}" for c in "\\`*_[]|#"} | {"<": "&lt;", ">": "&gt;", "\n": " ", "\r": " "})


def _number(value: float | None, digits: int = 3, sign: bool = False) -> str:
    if value is not None and digits == 0:
        return f"{value:,.0f}"
    return number(value, digits, sign=sign)


def _probability(p: float | None) -> str:
    return "<0.001" if p is not None and p < 0.001 else number(p)


def _span(ci: list[float] | None, sign: bool = False, digits: int = 3) -> str:
    return span(ci, digits, sign=sign)


def _percent(value: float | None) -> str:
    return MISSING if value is None else f"{100 * value:.1f}%"


def _markdown(text: object) -> str:
    """Text of others inside Markdown: no markup, no HTML, one line."""
    return str(text).translate(_MARKDOWN)


def _because(entry: Mapping[str, Any]) -> str:
    reasons = entry.get("reasons") or ([entry["reason"]] if entry.get("reason") else [])
    return "; ".join(reasons) or ("yes" if entry["underrepresented"] else "")


def _count(comparison: Mapping[str, Any], verdict: str) -> int:
    return sum(row["verdict"] == verdict for row in comparison["findings"].values())


def _arm_auc(result: Mapping[str, Any], arm: str, finding: str) -> float | None:
    return result["arms"][arm].get("findings", {}).get(finding, {}).get("auc")


def _positives(result: Mapping[str, Any], finding: str) -> int | None:
    return result.get("test", {}).get("positive", {}).get(finding)


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("text2ct.reports"),
        autoescape=lambda name: name is not None and ".html" in name,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "number": _number,
        "span": _span,
        "percent": _percent,
        "probability": _probability,
        "md": _markdown,
        "because": _because,
        "count": _count,
        "arm_auc": _arm_auc,
        "positives": _positives,
        "csv_uri": _csv_uri,
    }
    return environment


def render(template: str, **context: Any) -> str:
    """Fill a template; HTML templates escape everything but the package's own charts and styles."""
    environment = _environment()
    assert environment.loader is not None
    files = {"css": "style.css", "javascript": "page.js", "viewer_javascript": "viewer.js"}
    own = {name: Markup(environment.loader.get_source(environment, file)[0]) for name, file in files.items()}
    own["version"] = Markup(__version__)
    return environment.get_template(template).render(**own, **context)


def png_uri(png: bytes) -> str:
    """PNG bytes as a ``data:`` address, so that the page needs no file beside it."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _csv_uri(chart: Chart) -> str:
    """A chart's data as a ``data:`` address: it can be saved from a page that was passed on alone."""
    return "data:text/csv;charset=utf-8;base64," + base64.b64encode(chart.csv().encode()).decode("ascii")


def write_charts(out_dir: Path, charts: Iterable[Chart]) -> None:
    """Write each chart's data (CSV) and picture (SVG) to ``out_dir/data``."""
    for chart in charts:
        write_text(Path(out_dir) / "data" / f"{chart.name}.csv", chart.csv())
        write_text(Path(out_dir) / "data" / f"{chart.name}.svg", chart.standalone)
