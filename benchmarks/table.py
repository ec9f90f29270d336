"""The tables of docs/benchmarks.md from the `benchmark.json` of one or several benchmarks of the same data.

    python benchmarks/table.py W/reports/RUN/benchmark.json

Gains are against `real`, with 95% intervals over patients and trainings. `gained` and `harmed` count findings whose AUC
differs after Holm's correction.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from text2ct.files import read_json


def arms_table(results: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table with a line for each arm, from that of several benchmarks which has most trainings of it.

    The gain of an arm is that of its benchmark; where that has fewer trainings of ``real``, the table says so.

    Raises:
        ValueError: Two benchmarks have other numbers of one arm: they are not of the same trainings.
    """
    lines = [
        "| arm | real + synthetic | trainings | macro AUC | rare AUC | gain, rare (95%) | p | gained | harmed |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    chosen: dict[str, Mapping[str, Any]] = {}
    for result in results:
        for name, arm in result["arms"].items():
            before = chosen.setdefault(name, result)["arms"][name]["per_seed"]
            shared = min(len(before), len(arm["per_seed"]))
            if before[:shared] != arm["per_seed"][:shared]:
                raise ValueError(f"{name} has other trainings in {result['run']}; give benchmarks of the same settings")
            if len(arm["per_seed"]) > len(before):
                chosen[name] = result
    most = len(chosen["real"]["arms"]["real"]["per_seed"])
    return "\n".join([*lines, *(_line(name, result, most) for name, result in chosen.items())])


def _line(name: str, result: Mapping[str, Any], most: int) -> str:
    arm, training = result["arms"][name], result["training"][name]
    gain = next((one for one in result["comparisons"] if (one["arm"], one["against"]) == (name, "real")), None)
    trainings, against = str(len(arm["per_seed"])), len(result["arms"]["real"]["per_seed"])
    if gain is not None and against != most:
        trainings += f", gain over {against} of `real`"
    cells = [f"`{name}`", f"{training['real']:,} + {training['synthetic']:,}", trainings]
    cells += [_number(arm["macro_auc"]), _number(arm["underrepresented_auc"])]
    if gain is None:
        cells += [""] * 4
    else:
        verdicts = [row["verdict"] for row in gain["findings"].values()]
        cells += [_gain(gain["delta_underrepresented_auc"], gain["underrepresented_ci"])]
        cells += [_p(gain["underrepresented_p"]), str(verdicts.count("gain")), str(verdicts.count("harm"))]
    return f"| {' | '.join(cells)} |"


def findings_table(results: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """A Markdown table of each finding's AUC with ``real`` and its gains with other arms, rare findings marked."""
    result = results[0]
    rare = result["underrepresented"]
    every = [one for result in results for one in result["comparisons"] if one["against"] == "real"]
    gains = {one["arm"]: one["findings"] for one in reversed(every)}
    lines = [f"| finding | `real` | {' | '.join(f'`{name}`' for name in names)} |", "|---|---:|" + "---:|" * len(names)]
    for finding, row in result["arms"]["real"]["findings"].items():
        cells = [f"{finding}{' *' if finding in rare else ''}", _number(row["auc"])]
        for name in names:
            one = gains[name][finding]
            mark = {"gain": " gain", "harm": " harm"}.get(one["verdict"], "")
            cells.append(_gain(one["delta_auc"], one["ci"]) + mark)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


_MET = {True: "met", False: "not met", None: "not decided"}


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _gain(delta: float | None, interval: Sequence[float] | None) -> str:
    if delta is None:
        return ""
    return f"{delta:+.3f}" + ("" if interval is None else f" ({interval[0]:+.3f} to {interval[1]:+.3f})")


def _p(value: float | None) -> str:
    return "" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="+", help="benchmark.json files")
    parser.add_argument("--findings", nargs="*", default=(), help="also a table by finding, with these arms")
    asked = parser.parse_args()
    results = [read_json(path) for path in asked.results]
    print(arms_table(results))
    if asked.findings:
        print("\n" + findings_table(results, asked.findings))
    for result in results:
        end = result.get("endpoint", {})
        if end.get("delta") is not None and "against_each" in end:
            print(
                f"\n{end['arm']} against {end['against']}: {_gain(end['delta'], end['ci'])}, p {_p(end['p'])}, ", end=""
            )
            print(f"{end['verdict']}; margin of {end['margin']:g} {_MET[end['met']]}; ", end="")
            print(f"harmed: {', '.join(end['harmed']) or 'none'}; test patients {end['test_patients']:,}")


if __name__ == "__main__":
    main()
