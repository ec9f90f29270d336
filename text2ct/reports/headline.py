"""The verdict of a benchmark in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


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
    named = bool(result.get("chosen_ratio")) or result.get("primary") is None
    return len(ratios) > 1 and named and bool(result.get("training"))


def outcome_of(result: Mapping[str, Any]) -> str:
    """``gain``, ``harm`` or ``none``: the declared endpoint's verdict, without one that of the macro AUC."""
    entry = primary_comparison(result)
    verdict = (result.get("endpoint") or {}).get("verdict") or ("" if entry is None else entry.get("verdict", ""))
    return verdict if verdict in ("gain", "harm") else "none"


def _change(before: float, after: float, delta: float, ci: Sequence[float] | None, p: float | None, kind: str) -> str:
    interval = "" if ci is None else f", 95% interval {ci[0]:+.3f} to {ci[1]:+.3f}"
    chance = "" if p is None else f", {kind} {f'= {p:.3f}' if p >= 0.001 else '< 0.001'}"
    return f"{before:.3f} to {after:.3f} (difference {delta:+.3f}{interval}{chance})"


def benchmark_headline(result: Mapping[str, Any]) -> str:
    """The verdict in one sentence, whichever way the comparison went, and the findings that it rests on.

    It is about the declared endpoint where there is one with a verdict, and gives the macro AUC beside it.

    Args:
        result: The numbers of ``benchmark --json``.
    """
    entry = primary_comparison(result)
    if entry is None or entry["delta_macro_auc"] is None:
        return "No two training sets could be compared on this test set."
    arm, against = entry["arm"], entry["against"]
    pair = [result["arms"][name] for name in (against, arm)]
    before, after = (one["macro_auc"] for one in pair)
    adjusted = entry.get("p_adjusted", entry["p"])
    numbers = "macro AUC " + _change(before, after, entry["delta_macro_auc"], entry["ci"], adjusted, "corrected p")
    endpoint = result.get("endpoint") or {}
    if endpoint.get("verdict") and endpoint.get("delta") is not None:
        rare = [one["underrepresented_auc"] for one in pair]
        declared = _change(rare[0], rare[1], endpoint["delta"], endpoint.get("ci"), endpoint.get("p"), "p")
        numbers = f"the declared endpoint, the AUC of under-represented findings, went from {declared}; {numbers}"
    said = {
        "gain": f"{arm} is better than {against}",
        "harm": f"{arm} is worse than {against}",
        "none": f"No evidence that {arm} differs from {against}",
    }[outcome_of(result)]
    names = {
        key: [name for name, row in entry["findings"].items() if row["verdict"] == key]
        for key in ("gain", "harm", "no evidence")
    }
    worse = f" ({', '.join(names['harm'])})" if names["harm"] else ""
    findings = (
        f"{len(names['gain'])} better, {len(names['harm'])} worse{worse}, {len(names['no evidence'])} without evidence"
    )
    chosen = " The ratio was chosen on validation patients." if _chosen_on_validation(result) else ""
    return f"{said}: {numbers}. Of {len(entry['findings'])} findings {findings}.{chosen}"
