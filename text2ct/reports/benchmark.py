"""The page of ``text2ct benchmark``: did synthetic volumes help, and how sure is that?"""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from text2ct import __version__
from text2ct.files import atomic_path, write_json, write_text
from text2ct.reports import evidence, viewer
from text2ct.reports.charts import (
    Chart,
    acceptance_chart,
    calibration_chart,
    forest_chart,
    gain_chart,
    mix_chart,
    seeds_chart,
)
from text2ct.reports.headline import benchmark_headline, outcome_of, primary_comparison
from text2ct.reports.page import render, write_charts

SCORE_KEYS = ("weighted_auc", "macro_average_precision", "macro_precision", "macro_f1", "crg")
ENDPOINT_KEYS = (
    *("findings", "unfaithful", "declared", "test_patients", "min_test_patients", "ratio_rule", "comparator_rule"),
    *("delta", "ci", "p", "verdict", "margin", "met", "harmed", "against_each", "untrained", "trained_before"),
)
DEFAULT_LIMITATIONS = (
    "The test set is one sample of patients of one source; other hospitals may differ.",
    "No evidence is not evidence of no effect: the intervals say how large an effect could hide.",
)


def _tiles(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    test = result.get("test", {})
    names = (("scans", "test scans, none generated"), ("patients", "test patients"))
    tiles = [(f"{test[key]:,}", name) for key, name in names if key in test]
    tiles.append((str(len(result["arms"])), "training sets"))
    trainings = {len(arm["per_seed"]) for arm in result["arms"].values()}
    tiles.append(("–".join(map(str, sorted({min(trainings), max(trainings)}))), "trainings of each"))
    return tiles


def _ran(result: Mapping[str, Any], volumes: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """What has to be the same to get the same numbers, beside the data."""
    settings = result.get("settings", {})
    ran = [
        ("text2ct", __version__),
        ("torch", importlib.metadata.version("torch")),
        ("Python", platform.python_version()),
    ]
    ran += [(name, str(result[name])) for name in ("run",) if result.get(name)]
    for key in ("classifier", "steps", "batch_size", "seeds", "strategy", "synthetic_until"):
        if settings.get(key) is not None and (key, settings[key]) != ("synthetic_until", 1):
            value = settings[key]
            ran.append(
                (key.replace("_", " "), ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value))
            )
    packs = {(volume.get("pack") or "", volume["pack_sha256"]) for volume in volumes if volume.get("pack_sha256")}
    packs |= {("", settings["pack_sha256"])} if settings.get("pack_sha256") and not packs else set()
    return ran + [(f"pack {name}".strip(), f"sha256 {digest}") for name, digest in sorted(packs)]


def _gain_charts(result: Mapping[str, Any], first: Mapping[str, Any] | None) -> tuple[list[Chart], list[Chart]]:
    """Gains by ratio and by training patients, each for the measures that are known."""
    by_ratio, by_patients = [], []
    for suffix, measure in zip(("", "-rare"), evidence.MEASURES, strict=True):
        if lines := evidence.gains_by_ratio(result, measure):
            by_ratio.append(gain_chart(f"ratios{suffix}", lines, "synthetic volumes per real one", measure))
        if lines := evidence.gains_by_patients(result, first, measure):
            by_patients.append(gain_chart(f"regimes{suffix}", lines, "training patients", measure))
    return by_ratio, by_patients


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

    Example of the keys, of which only ``arms`` and ``comparisons`` have to be there::

        {"arms": {"real": {"macro_auc": 0.64, "ci": [0.62, 0.66], "per_seed": [0.63, 0.65], "underrepresented_auc": 0.6,
                           "calibration": {"temperature": 1.4, "ece_before": 0.06, "ece": 0.02,
                                           "bins": [{"predicted": 0.1, "observed": 0.12, "count": 500}]}},
                  "real+synthetic@1": {...}, "real+oracle@1": {...}},
         "comparisons": [{"arm": "real+synthetic@1", "against": "real", "delta_macro_auc": 0.02, "ci": [0.01, 0.03],
                          "p": 0.001, "p_adjusted": 0.004, "verdict": "gain", "delta_underrepresented_auc": 0.04,
                          "underrepresented_ci": [0.01, 0.07], "delta_macro_average_precision": 0.01,
                          "average_precision_ci": [0.0, 0.02], "average_precision_p": 0.03,
                          "average_precision_verdict": "no evidence",
                          "findings": {"Emphysema": {"delta_auc": 0.03, "ci": [0.0, 0.06], "p_adjusted": 0.2,
                                                     "verdict": "no evidence", "delta_average_precision": 0.02,
                                                     "average_precision_ci": [0.0, 0.04],
                                                     "average_precision_p_adjusted": 0.3,
                                                     "average_precision_verdict": "no evidence"}}}],
         "primary": ["real+synthetic@1", "real"],
         "chosen_ratio": {"arm": "real+synthetic@1", "validation_macro_auc": 0.7},
         "endpoint": {"arm": "real+synthetic@1", "against": "real", "measure": "underrepresented_auc",
                      "findings": ["Emphysema"], "min_test_patients": 1500, "test_patients": 1600,
                      "declared": "2026-01-31T12:00:00+00:00", "delta": 0.04, "ci": [0.01, 0.07], "p": 0.01,
                      "verdict": "gain", "ratio_rule": "...", "comparator_rule": "..."},
         "gate": {"accepted": 80, "rejected": 20, "reasons": {"label": 20},
                  "findings": {"Emphysema": {"asked": 50, "accepted": 40}}},
         "regimes": [{"train_patients": 100, "arms": {...}, "comparisons": [...], "training": {...}}, ...],
         "training": {"real": {"real": 300, "synthetic": 0, "clones": 0, "prevalence": {"Emphysema": 0.1},
                               "validation_macro_auc": [0.69]}},
         "test": {"scans": 1700, "patients": 1600, "positive": {"Emphysema": 90}}, "notes": ["..."],
         "settings": {"classifier": "cnn3d", "steps": 300, "seeds": [0, 1], "pack_sha256": "..."}, "run": "trial"}

    Args:
        result: As above: ``benchmark --json`` and the rest of ``text2ct.evaluation.benchmark``'s keys where present;
            ``prevalence_before`` and ``prevalence_after`` (by finding, in [0, 1]) override ``training``'s.
        out_dir: Folder of the report.
        volumes: Generated volumes to show: ``prompt``, ``labels`` (names, or 0/1 by finding),
            ``seed``, ``name``, ``pack`` and ``pack_sha256`` (optional) and either ``png`` bytes or ``hu (X, Y, Z)``
            in RAS order with ``spacing_mm``, which the viewer needs.
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
    first_arm = first["arm"] if first else ""
    ordered = sorted(result["comparisons"], key=lambda entry: entry is not first)
    by_finding = [
        (entry, forest_chart(entry, "findings" if k == 0 else f"findings-{k + 1}")) for k, entry in enumerate(ordered)
    ]
    by_ratio, by_patients = _gain_charts(result, first)
    charts: dict[str, Chart | None] = {"seeds": seeds_chart(result["arms"]), "mix": None}
    before, after = evidence.prevalences(result, first_arm)
    if before and after:
        charts["mix"] = mix_chart(before, after)
    gate = result.get("gate") or {}
    asked = any(entry["asked"] for entry in gate.get("findings", {}).values())
    charts["acceptance"] = acceptance_chart(gate["findings"]) if asked else None
    calibrated = {name: arm["calibration"] for name, arm in result["arms"].items() if arm.get("calibration")}
    drawn = [
        name for name in ("real", first["against"] if first else "", first_arm) if calibrated.get(name, {}).get("bins")
    ]
    charts["calibration"] = calibration_chart({name: calibrated[name] for name in drawn}) if drawn else None
    ceilings = evidence.ceilings(result)
    pictures = [viewer.shown_volume(k, volume, window) for k, volume in enumerate(volumes)]
    bundle = viewer.add_voxels([shown for shown, _ in pictures], volumes)
    context = {
        **charts,
        "title": title,
        "headline": benchmark_headline(result),
        "outcome": outcome_of(result),
        "tiles": _tiles(result),
        "result": {"notes": [], "primary": None, **result},
        "first": first,
        "endpoint": {**dict.fromkeys(ENDPOINT_KEYS), **endpoint} if (endpoint := result.get("endpoint")) else None,
        "chosen": result.get("chosen_ratio"),
        "has_rare": any(arm.get("underrepresented_auc") is not None for arm in result["arms"].values()),
        "has_scores": all("scores" in arm for arm in result["arms"].values()),
        "has_precision": any("delta_macro_average_precision" in entry for entry in result["comparisons"]),
        "score_keys": SCORE_KEYS,
        "by_finding": by_finding,
        "by_ratio": by_ratio,
        "by_patients": by_patients,
        "regimes": evidence.regime_rows(result, first),
        "ceilings": ceilings,
        "ceiling_sentences": evidence.ceiling_sentences(ceilings, first_arm),
        "calibrated": calibrated,
        "gate": gate,
        "mixed_arm": first_arm,
        "association": evidence.association(result, first_arm),
        "training": result.get("training", {}),
        "volumes": [shown for shown, _ in pictures],
        "bundle": bundle,
        "windows": viewer.windows(),
        "window": window,
        "methods": [part.strip() for part in methods.split("\n\n") if part.strip()],
        "limitations": list(limitations),
        "rerun": list(rerun),
        "ran": _ran(result, volumes),
        "settings": json.dumps(result["settings"], indent=1, ensure_ascii=False) if result.get("settings") else "",
    }
    write_charts(
        out_dir,
        [*(chart for chart in charts.values() if chart), *by_ratio, *by_patients, *(chart for _, chart in by_finding)],
    )
    for shown, png in pictures:
        with atomic_path(out_dir / "data" / shown["file"]) as temporary:
            temporary.write_bytes(png)
    write_json(out_dir / "benchmark.json", {**result, "report": str(page)})
    write_text(out_dir / "report.md", render("benchmark.md.j2", **context))
    write_text(page, render("benchmark.html.j2", **context))
    return page
