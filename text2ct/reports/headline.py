"""The verdict of a benchmark in a few sentences, each about one measure and with that measure's own numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_ENDPOINT = "the AUC of under-represented findings"


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


def _declared(result: Mapping[str, Any], entry: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The declared endpoint, where it is about this comparison and has a verdict."""
    endpoint = result.get("endpoint") or {}
    about = [endpoint.get("arm"), endpoint.get("against")] == [entry["arm"], entry["against"]]
    return endpoint if about and endpoint.get("verdict") else None


def _once(result: Mapping[str, Any], entry: Mapping[str, Any]) -> bool:
    """Whether an arm has a single training, which gives no verdict however small its p is."""
    return min(len(result["arms"][entry[key]]["per_seed"]) for key in ("arm", "against")) == 1


def outcome_of(result: Mapping[str, Any]) -> str:
    """``gain``, ``harm`` or ``none``: the declared endpoint's verdict, without one that of the macro AUC."""
    entry = primary_comparison(result)
    if entry is None:
        return "none"
    return _outcome((_declared(result, entry) or entry).get("verdict"))


def _outcome(verdict: str | None) -> str:
    return verdict if verdict in ("gain", "harm") else "none"


def _change(
    before: float | None, after: float | None, delta: float, ci: Sequence[float] | None, p: float | None, kind: str
) -> str:
    interval = "" if ci is None else f", 95% interval {ci[0]:+.3f} to {ci[1]:+.3f}"
    chance = "" if p is None else f", {kind} {f'= {p:.3f}' if p >= 0.001 else '< 0.001'}"
    change = f"difference {delta:+.3f}{interval}{chance}"
    return change if before is None or after is None else f"{before:.3f} to {after:.3f} ({change})"


def benchmark_headline(result: Mapping[str, Any]) -> str:
    """What the benchmark found, whichever way it went: a sentence per measure, with its verdict and numbers.

    The declared endpoint comes first where there is one, then the macro AUC, then the findings by verdict, those
    that got worse by name. Without an endpoint the macro AUC is the first sentence.

    Args:
        result: The numbers of ``benchmark --json``.
    """
    entry = primary_comparison(result)
    if entry is None or entry["delta_macro_auc"] is None:
        return "No two training sets could be compared on this test set."
    endpoint, once = _declared(result, entry), _once(result, entry)
    arm, against = entry["arm"], entry["against"]
    before, after = result["arms"][against], result["arms"][arm]
    said = {
        "gain": f"{arm} is better than {against}",
        "harm": f"{arm} is worse than {against}",
        "none": f"No evidence that {arm} differs from {against}",
        "once": f"A single training gives no verdict on {arm} against {against}",
    }
    macro = {
        "gain": "The macro AUC over all findings is better",
        "harm": "The macro AUC over all findings is worse",
        "none": "No evidence that the macro AUC over all findings differs",
        "once": "The macro AUC over all findings",
    }
    adjusted = entry.get("p_adjusted", entry["p"])
    change = _change(
        before["macro_auc"], after["macro_auc"], entry["delta_macro_auc"], entry["ci"], adjusted, "corrected p"
    )
    outcome = "once" if once else _outcome(entry.get("verdict"))
    sentences = []
    if endpoint is None:
        sentences.append(f"{said[outcome]}: macro AUC {change}.")
    elif endpoint.get("delta") is None:
        sentences.append(f"The declared endpoint, {_ENDPOINT}, could not be compared between {arm} and {against}.")
    else:
        rare = [one.get("underrepresented_auc") for one in (before, after)]
        declared = _change(rare[0], rare[1], endpoint["delta"], endpoint.get("ci"), endpoint.get("p"), "p")
        decided = said["once" if once else _outcome(endpoint["verdict"])]
        sentences.append(f"{decided} by the declared endpoint, {_ENDPOINT}: {declared}.")
    if endpoint is not None:
        sentences.append(f"{macro[outcome]}: {change}.")
    sentences.append(_by_finding(entry))
    if _chosen_on_validation(result):
        sentences.append("The ratio was chosen on validation patients.")
    return " ".join(sentences)


def _by_finding(entry: Mapping[str, Any]) -> str:
    names = {
        key: [name for name, row in entry["findings"].items() if row["verdict"] == key]
        for key in ("gain", "harm", "no evidence")
    }
    worse = f" ({', '.join(names['harm'])})" if names["harm"] else ""
    return (
        f"Of {len(entry['findings'])} findings {len(names['gain'])} better, {len(names['harm'])} worse{worse}, "
        f"{len(names['no evidence'])} without evidence."
    )
