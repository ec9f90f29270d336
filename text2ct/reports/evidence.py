"""What a benchmark's numbers say beyond comparisons: gains by ratio and patients, the ceiling, what was added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from text2ct.reports.charts import Gain

MEASURES = {
    "macro AUC": ("delta_macro_auc", "ci", "verdict"),
    "AUC of rare findings": ("delta_underrepresented_auc", "underrepresented_ci", None),
}
"""What gains are in: keys of a comparison for the difference, its interval and its verdict."""
ORACLE = "real+oracle"
CONTROL = "real+shuffled"


def split_arm(name: str) -> tuple[str, float | None]:
    """``real+synthetic@0.5`` as kind and ratio; the ratio is None for an arm without one."""
    kind, at, ratio = name.partition("@")
    return (kind, float(ratio)) if at else (name, None)


def _against_real(comparisons: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {entry["arm"]: entry for entry in comparisons if entry["against"] == "real"}


def _gain(entry: Mapping[str, Any], x: float, measure: str) -> Gain | None:
    delta, ci, _ = MEASURES[measure]
    return None if entry.get(delta) is None else Gain(x, entry[delta], entry.get(ci))


def gains_by_ratio(result: Mapping[str, Any], measure: str) -> dict[str, list[Gain]]:
    """For each kind of arm its gains over ``real`` by ratio; empty where all have one and the same ratio.

    Args:
        result: The numbers of the benchmark.
        measure: A key of ``MEASURES``.
    """
    lines: dict[str, list[Gain]] = {}
    for name, entry in _against_real(result["comparisons"]).items():
        kind, ratio = split_arm(name)
        gain = None if ratio is None else _gain(entry, ratio, measure)
        if gain is not None:
            lines.setdefault(kind, []).append(gain)
    several = len({gain.x for gains in lines.values() for gain in gains}) > 1
    return lines if several else {}


def _followed(result: Mapping[str, Any], primary: Mapping[str, Any] | None) -> list[str]:
    """Arms worth following over the number of patients: the headline's, its ceiling, its rival, its control."""
    if primary is None:
        return []
    _, ratio = split_arm(primary["arm"])
    at = "" if ratio is None else f"@{ratio:g}"
    wanted = [primary["arm"], f"{ORACLE}{at}", primary["against"], "real+oversampled", f"{CONTROL}{at}"]
    return [name for name in dict.fromkeys(wanted) if name != "real" and name in result["arms"]]


def gains_by_patients(
    result: Mapping[str, Any], primary: Mapping[str, Any] | None, measure: str
) -> dict[str, list[Gain]]:
    """For the arms worth following their gains over ``real`` by number of training patients.

    Args:
        result: The numbers of the benchmark with ``regimes``.
        primary: The comparison that the headline is about.
        measure: A key of ``MEASURES``.
    """
    lines: dict[str, list[Gain]] = {}
    for regime in result.get("regimes") or []:
        entries = _against_real(regime["comparisons"])
        for name in _followed(result, primary):
            gain = _gain(entries[name], regime["train_patients"], measure) if name in entries else None
            if gain is not None:
                lines.setdefault(name, []).append(gain)
    return lines


def regime_rows(result: Mapping[str, Any], primary: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The same as rows of a table, with the AUC itself and the verdict."""
    rows = []
    for regime in result.get("regimes") or []:
        entries = _against_real(regime["comparisons"])
        for name in ["real", *_followed(result, primary)]:
            if name in regime["arms"]:
                entry, arm = entries.get(name, {}), regime["arms"][name]
                rows.append(
                    {
                        "train_patients": regime["train_patients"],
                        "arm": name,
                        "macro_auc": arm["macro_auc"],
                        "delta": entry.get("delta_macro_auc"),
                        "ci": entry.get("ci"),
                        "verdict": entry.get("verdict"),
                        "rare_delta": entry.get("delta_underrepresented_auc"),
                        "rare_ci": entry.get("underrepresented_ci"),
                    }
                )
    return rows


def ceilings(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Gains over ``real`` beside those of new patients at the same ratio: what a perfect generator would bring.

    ``share`` is the gain divided by the ceiling. It is None where the interval of either includes 0 or is
    unknown: a share of something that may be nothing says nothing, nor does one by something that may be none.

    Args:
        result: The numbers of the benchmark.

    Returns:
        For each arm with a ratio at which there is an oracle, and each measure, a row.
    """
    entries = _against_real(result["comparisons"])
    rows = []
    for name, entry in entries.items():
        kind, ratio = split_arm(name)
        best = entries.get(f"{ORACLE}@{ratio:g}") if ratio is not None and kind not in (ORACLE, CONTROL) else None
        if best is None:
            continue
        for measure in MEASURES:
            gain, ceiling = _gain(entry, ratio or 0.0, measure), _gain(best, ratio or 0.0, measure)
            if gain is None or ceiling is None:
                continue
            rows.append(
                {
                    "arm": name,
                    "measure": measure,
                    "gain": gain.delta,
                    "ci": gain.ci,
                    "ceiling": ceiling.delta,
                    "ceiling_ci": ceiling.ci,
                    "share": gain.delta / ceiling.delta if _told(gain.ci) and _sure(ceiling.ci) else None,
                }
            )
    return rows


def _told(ci: Sequence[float] | None) -> bool:
    """Whether an interval is known and excludes 0."""
    return ci is not None and (ci[0] > 0 or ci[1] < 0)


def _sure(ci: Sequence[float] | None) -> bool:
    """Whether an interval is known and above 0."""
    return ci is not None and ci[0] > 0


def ceiling_sentences(rows: Sequence[Mapping[str, Any]], arm: str) -> list[str]:
    """What the headline's arm reaches of the ceiling, a sentence for each measure.

    Args:
        rows: From :func:`ceilings`.
        arm: The headline's arm.
    """
    sentences = []
    for row in rows:
        if row["arm"] != arm:
            continue
        gain = f"{arm} changes the {row['measure']} by {row['gain']:+.3f}"
        if not _told(row["ci"]):
            gain += ", a change that could not be told from none"
        best = f"new patients with the same labels change it by {row['ceiling']:+.3f}"
        if row["share"] is None:
            end = "" if _sure(row["ceiling_ci"]) else ", which is no sure gain, so that no share of it is quoted"
        elif row["share"] <= 0:
            end = ", and of what a perfect generator would bring nothing is reached"
        else:
            end = f", so that it reaches {100 * row['share']:.0f}% of what a perfect generator would bring"
        sentences.append(f"{gain}; {best}{end}.")
    return sentences


def prevalences(result: Mapping[str, Any], arm: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Prevalence in the training set without and with what was added; empty where unknown."""
    training = result.get("training", {})
    before = result.get("prevalence_before") or training.get("real", {}).get("prevalence") or {}
    after = result.get("prevalence_after") or training.get(arm, {}).get("prevalence") or {}
    return before, after


def association(result: Mapping[str, Any], arm: str) -> tuple[str, float] | None:
    """The finding whose label says most about being generated, and its phi coefficient."""
    values = result.get("training", {}).get(arm, {}).get("source_label_association") or {}
    known = {name: value for name, value in values.items() if value is not None}
    return max(known.items(), key=lambda item: abs(item[1])) if known else None
