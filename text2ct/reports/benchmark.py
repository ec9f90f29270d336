"""The page of ``text2ct benchmark``: did synthetic volumes help, and how sure is that?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from text2ct.files import atomic_path, write_json, write_text
from text2ct.findings import FINDINGS
from text2ct.reports.charts import forest_chart, mix_chart, seeds_chart
from text2ct.reports.figures import slice_montage
from text2ct.reports.page import png_uri, render, write_charts

SCORE_KEYS = ("weighted_auc", "macro_average_precision", "macro_precision", "macro_f1", "crg")
DEFAULT_LIMITATIONS = (
    "The test set is one sample of patients of one source; other hospitals may differ.",
    "No evidence is not evidence of no effect: the intervals say how large an effect could hide.",
)


def primary_comparison(result: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The comparison that the headline is about.

    ``result["primary"]`` (arm, against) where given; else real with synthetic against real, at the
    ratio with the best AUC on validation patients, never the best on the test; else the first.
    """
    comparisons = result["comparisons"]
    wanted = result.get("primary")
    if wanted is not None:
        return next((c for c in comparisons if [c["arm"], c["against"]] == list(wanted)), None)
    usual = [c for c in comparisons if c["against"] == "real" and c["arm"].startswith("real+synthetic")]
    if not usual:
        return comparisons[0] if comparisons else None
    return max(usual, key=lambda entry: _validation_auc(result, entry["arm"]))


def _validation_auc(result: Mapping[str, Any], arm: str) -> float:
    values = result.get("training", {}).get(arm, {}).get("validation_macro_auc") or []
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else 0.0


def _chosen_on_validation(result: Mapping[str, Any]) -> bool:
    """Whether the headline's ratio was one of several."""
    ratios = {c["arm"] for c in result["comparisons"] if c["arm"].startswith("real+synthetic")}
    return len(ratios) > 1 and result.get("primary") is None and bool(result.get("training"))


def _prevalences(result: Mapping[str, Any], arm: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Prevalence in the training set without and with what was added; empty where unknown."""
    training = result.get("training", {})
    before = result.get("prevalence_before") or training.get("real", {}).get("prevalence") or {}
    after = result.get("prevalence_after") or training.get(arm, {}).get("prevalence") or {}
    return before, after


def _association(result: Mapping[str, Any], arm: str) -> tuple[str, float] | None:
    """The finding whose label says most about being generated, and its phi coefficient."""
    values = result.get("training", {}).get(arm, {}).get("source_label_association") or {}
    known = {name: value for name, value in values.items() if value is not None}
    return max(known.items(), key=lambda item: abs(item[1])) if known else None


def outcome_of(comparison: Mapping[str, Any] | None) -> str:
    """``gain``, ``harm`` or ``none`` for the macro AUC: the colour of the headline."""
    verdict = "" if comparison is None else comparison.get("verdict", "")
    return verdict if verdict in ("gain", "harm") else "none"


def benchmark_headline(result: Mapping[str, Any]) -> str:
    """The verdict in one sentence, whichever way the comparison went.

    Args:
        result: The numbers of ``benchmark --json``.
    """
    entry = primary_comparison(result)
    if entry is None or entry["delta_macro_auc"] is None:
        return "No two training sets could be compared on this test set."
    arm, against = entry["arm"], entry["against"]
    before, after = (result["arms"][name]["macro_auc"] for name in (against, arm))
    ci = "" if entry["ci"] is None else f", 95% interval {entry['ci'][0]:+.3f} to {entry['ci'][1]:+.3f}"
    adjusted = entry.get("p_adjusted", entry["p"])
    p = "" if adjusted is None else f", corrected p {f'= {adjusted:.3f}' if adjusted >= 0.001 else '< 0.001'}"
    numbers = f"macro AUC {before:.3f} to {after:.3f} (difference {entry['delta_macro_auc']:+.3f}{ci}{p})"
    counts = {
        key: sum(row["verdict"] == key for row in entry["findings"].values()) for key in ("gain", "harm", "no evidence")
    }
    said = {
        "gain": f"{arm} is better than {against}",
        "harm": f"{arm} is worse than {against}",
        "none": f"No evidence that {arm} differs from {against}",
    }[outcome_of(entry)]
    harmed = [name for name, row in entry["findings"].items() if row["verdict"] == "harm"]
    worse = f" ({', '.join(harmed)})" if harmed else ""
    findings = f"{counts['gain']} better, {counts['harm']} worse{worse}, {counts['no evidence']} without evidence"
    chosen = " The ratio was chosen on validation patients." if _chosen_on_validation(result) else ""
    return f"{said}: {numbers}. Of {sum(counts.values())} findings {findings}.{chosen}"


def _volume(index: int, volume: Mapping[str, Any], window: str) -> tuple[dict[str, Any], bytes]:
    png = volume.get("png") or slice_montage(volume["hu"], volume.get("spacing_mm", (1.0, 1.0, 1.0)), window)
    labels = volume["labels"]
    if isinstance(labels, Mapping):
        labels = [name for name in FINDINGS if labels.get(name) == 1]
    shown = {
        "image": png_uri(png),
        "file": f"volume-{index + 1:02d}.png",
        "prompt": volume["prompt"],
        "labels": list(labels),
        "seed": volume.get("seed"),
        "name": volume.get("name", ""),
    }
    return shown, png


def _tiles(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    test = result.get("test", {})
    names = (("scans", "test scans, none generated"), ("patients", "test patients"))
    tiles = [(f"{test[key]:,}", name) for key, name in names if key in test]
    tiles.append((str(len(result["arms"])), "training sets"))
    trainings = {len(arm["per_seed"]) for arm in result["arms"].values()}
    tiles.append(("–".join(map(str, sorted({min(trainings), max(trainings)}))), "trainings of each"))
    return tiles


def write_benchmark_report(
    result: Mapping[str, Any],
    out_dir: Path,
    *,
    volumes: Sequence[Mapping[str, Any]] = (),
    methods: str = "",
    limitations: Sequence[str] = DEFAULT_LIMITATIONS,
    rerun: Sequence[str] = (),
    title: str = "Does it help? A benchmark of synthetic chest CT",
    window: str = "lung",
) -> Path:
    """Write ``report.html``, ``report.md``, ``benchmark.json`` and the charts' data.

    Args:
        result: ``arms`` and ``comparisons`` as in ``benchmark --json``, the rest of
            ``text2ct.evaluation.compare``'s keys where present; ``prevalence_before`` and
            ``prevalence_after`` (by finding, in [0, 1]) for the chart of what was added, or
            ``training`` as the benchmark's runner gives it (by arm: ``real``, ``synthetic`` and
            ``clones`` volumes, ``prevalence``, ``validation_macro_auc``); ``primary`` (arm,
            against) to say which comparison the headline is about.
        out_dir: Folder of the report.
        volumes: Generated volumes to show: ``prompt``, ``labels`` (names, or 0/1 by finding),
            ``seed``, ``name`` (optional) and either ``png`` bytes or ``hu (X, Y, Z)`` in RAS order
            with ``spacing_mm``.
        methods: Text for a paper; an empty line starts a paragraph.
        limitations: What the benchmark does not show, a sentence each.
        rerun: Command lines that give these results again.
        title: Heading.
        window: Display window of the slices.

    Returns:
        Path of ``report.html``.
    """
    out_dir = Path(out_dir)
    page = out_dir / "report.html"
    first = primary_comparison(result)
    ordered = sorted(result["comparisons"], key=lambda entry: entry is not first)
    by_finding = [
        (entry, forest_chart(entry, "findings" if k == 0 else f"findings-{k + 1}")) for k, entry in enumerate(ordered)
    ]
    seeds = seeds_chart(result["arms"])
    before, after = _prevalences(result, first["arm"] if first else "")
    mix = mix_chart(before, after) if before and after else None
    pictures = [_volume(k, volume, window) for k, volume in enumerate(volumes)]
    context = {
        "title": title,
        "headline": benchmark_headline(result),
        "outcome": outcome_of(first),
        "tiles": _tiles(result),
        "result": {"notes": [], **result},
        "has_rare": any(arm.get("underrepresented_auc") is not None for arm in result["arms"].values()),
        "has_scores": all("scores" in arm for arm in result["arms"].values()),
        "score_keys": SCORE_KEYS,
        "by_finding": by_finding,
        "seeds": seeds,
        "mix": mix,
        "mixed_arm": first["arm"] if first else "",
        "association": _association(result, first["arm"] if first else ""),
        "training": result.get("training", {}),
        "volumes": [shown for shown, _ in pictures],
        "window": window.replace("_", " "),
        "methods": [part.strip() for part in methods.split("\n\n") if part.strip()],
        "limitations": list(limitations),
        "rerun": list(rerun),
    }
    write_charts(out_dir, [seeds, *(chart for _, chart in by_finding), *([mix] if mix else [])])
    for shown, png in pictures:
        with atomic_path(out_dir / "data" / shown["file"]) as temporary:
            temporary.write_bytes(png)
    write_json(out_dir / "benchmark.json", {**result, "report": str(page)})
    write_text(out_dir / "report.md", render("benchmark.md.j2", **context))
    write_text(page, render("benchmark.html.j2", **context))
    return page
