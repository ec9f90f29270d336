"""The tables of docs/benchmarks.md: every number is the benchmark's own."""

import pytest

from text2ct.findings import FINDINGS

from .benchmark_fakes import make_real, make_synthetic, run
from .conftest import load_benchmark

table = load_benchmark("table")


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_every_arm_has_one_line_with_its_own_numbers(workspace):
    real, synthetic = make_real(), make_synthetic(workspace)
    result = run(workspace, real, synthetic)
    head, _, *lines = table.arms_table([result, result]).splitlines()
    assert [cells(line)[0].strip("`") for line in lines] == list(result["arms"])
    gains = {one["arm"]: one for one in result["comparisons"] if one["against"] == "real"}
    for line in lines:
        row = dict(zip(cells(head), cells(line), strict=True))
        name = row["arm"].strip("`")
        assert row["macro AUC"] == f"{result['arms'][name]['macro_auc']:.3f}"
        assert row["trainings"] == "2"
        if name != "real":
            verdicts = [finding["verdict"] for finding in gains[name]["findings"].values()]
            assert (row["gained"], row["harmed"]) == (str(verdicts.count("gain")), str(verdicts.count("harm")))
            assert row["gain, rare (95%)"].startswith(f"{gains[name]['delta_underrepresented_auc']:+.3f} (")


def test_findings_are_listed_and_the_rare_ones_marked(workspace):
    result = run(workspace, make_real(), make_synthetic(workspace))
    _, _, *lines = table.findings_table([result], ["real+synthetic@0.5"]).splitlines()
    names = [cells(line)[0] for line in lines]
    assert [name.removesuffix(" *") for name in names] == list(FINDINGS)
    assert [name.removesuffix(" *") for name in names if name.endswith("*")] == result["underrepresented"]


def test_an_arm_is_taken_from_where_it_has_most_trainings_and_says_what_its_gain_is_over(workspace):
    real, synthetic = make_real(), make_synthetic(workspace)
    few = run(workspace, real, synthetic, seeds=(0, 1), arms=("real", "synthetic"))
    many = run(workspace, real, synthetic, seeds=(0, 1, 2), arms=("real", "real+oversampled"))
    for order in ([few, many], [many, few]):
        lines = {cells(line)[0].strip("`"): cells(line) for line in table.arms_table(order).splitlines()[2:]}
        assert [lines[name][2] for name in ("real", "real+oversampled")] == ["3", "3"]
        assert lines["synthetic"][2] == "2, gain over 2 of `real`"
    other = run(workspace, real, synthetic, seeds=(5, 6), arms=("real",), run="other")
    with pytest.raises(ValueError, match="real has other trainings in other"):
        table.arms_table([few, other])
