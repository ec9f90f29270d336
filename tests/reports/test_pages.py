import base64
import csv
import json
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from text2ct.findings import FINDINGS
from text2ct.reports import (
    benchmark_headline,
    imbalance_headline,
    viewer,
    write_benchmark_report,
    write_imbalance_report,
)

from .conftest import make_full_result, make_result, make_summary

EVIL = "<script>alert(1)</script> | *effusion*\n<img src=http://example.org/x onerror=alert(2)>"
VOID = {"meta", "img", "br", "input", "link", "hr"}


class Page(HTMLParser):
    """Collects what a browser would load or run, the tables, and whether tags are balanced."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.ids: list[str] = []
        self.handlers: list[str] = []
        self.tables: list[list[list[tuple[str, str | None]]]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        self.handlers += [name for name in given if name.startswith("on")]
        self.loads += [given[name] or "" for name in ("src", "href", "srcset", "data") if given.get(name)]
        if "id" in given:
            self.ids.append(given["id"] or "")
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append(("", given.get("data-value")))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if {"td", "th"} & set(self.open):
            shown, value = self.tables[-1][-1].pop()
            self.tables[-1][-1].append((shown + data, value))

    def values(self, table: int) -> dict[str, list[tuple[str, str | None]]]:
        return {row[0][0]: row[1:] for row in self.tables[table][1:]}


@dataclass(frozen=True)
class Report:
    page: Page
    folder: Path

    def read(self, name: str) -> str:
        return (self.folder / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def benchmark(phantom: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("benchmark")
    labels = {name: float(name == "Pleural effusion") for name in FINDINGS}
    path = write_benchmark_report(
        make_result(),
        folder,
        volumes=[
            {"prompt": EVIL, "labels": ["Atelectasis"], "seed": 0, "hu": phantom, "spacing_mm": (5, 5, 5)},
            {"prompt": "A clear chest.", "labels": labels, "seed": 7, "png": b"\x89PNG", "name": EVIL},
        ],
        methods=f"First part.\n\nSecond {EVIL}",
        limitations=[EVIL],
        rerun=["text2ct benchmark --ratios 0.5,1"],
        title=EVIL,
    )
    assert path == folder / "report.html"
    return Report(Page(path), folder)


@pytest.fixture(scope="module")
def imbalance(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("imbalance")
    steps = [("Now generate:", "text2ct synthesize --prompts prompts.csv")]
    return Report(Page(write_imbalance_report(make_summary(), folder, title=EVIL, next_steps=steps)), folder)


@pytest.mark.parametrize("kind", ["benchmark", "imbalance"])
def test_page_stands_alone(kind: str, request: pytest.FixtureRequest) -> None:
    report: Report = request.getfixturevalue(kind)
    page, text = report.page, report.read("report.html")
    assert page.open == []
    assert all(
        load.startswith(("data:image/png;base64,", "data:text/csv;charset=utf-8;base64,", "#")) for load in page.loads
    )
    assert {"link", "iframe", "object", "base"}.isdisjoint(page.tags)
    assert page.handlers == []
    assert not re.search(r"url\((?!#)|@import|xmlns|fetch\(|XMLHttpRequest", text)
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    assert "#010101" not in text  # every theme colour has become a variable
    assert len(page.ids) == len(set(page.ids))  # several charts share one document


@pytest.mark.parametrize("kind", ["benchmark", "imbalance"])
def test_text_of_others_is_escaped(kind: str, request: pytest.FixtureRequest) -> None:
    report: Report = request.getfixturevalue(kind)
    assert report.page.tags.count("script") == (3 if kind == "benchmark" and viewer.bundle() else 1)
    assert "alert(1)" not in report.read("report.html").split("<script>")[1].split("</script>")[0]
    assert "<script>alert(1)</script> | *effusion*" in report.page.text
    markdown = report.read("report.md")
    assert "<script" not in markdown
    assert "<img" not in markdown
    assert "\\*effusion\\*" in markdown


def test_benchmark_page_shows_the_numbers_of_the_json(benchmark: Report) -> None:
    page, saved = benchmark.page, json.loads(benchmark.read("benchmark.json"))
    assert saved == {**make_result(), "report": str(benchmark.folder / "report.html")}
    arms = page.values(0)
    assert list(arms) == list(saved["arms"])
    for name, arm in saved["arms"].items():
        shown, value = arms[name][4]
        assert shown == f"{arm['macro_auc']:.3f}"
        assert float(value or "nan") == arm["macro_auc"]
    assert [row[0][0] for row in page.tables[1][1:]] == [c["arm"] for c in saved["comparisons"]]
    assert [float(row[2][1] or "nan") for row in page.tables[1][1:]] == [0.0173, 0.0291]
    findings = page.values(2)
    entry = saved["comparisons"][0]["findings"]  # the headline's comparison comes first
    for name in FINDINGS:
        delta, p = findings[name][3], findings[name][5]
        if entry[name]["delta_auc"] is None:
            assert delta == ("–", "")
        else:
            assert float(delta[1] or "nan") == entry[name]["delta_auc"]
            assert float(p[1] or "nan") == entry[name]["p_adjusted"]
        assert findings[name][-1][0] == entry[name]["verdict"]
    assert findings["Emphysema"][5][0] == "<0.001"


def test_benchmark_files(benchmark: Report) -> None:
    names = {path.name for path in (benchmark.folder / "data").iterdir()}
    stems = ("seeds", "findings", "findings-2", "ratios", "mix")
    assert names == {f"{s}.{e}" for s in stems for e in ("csv", "svg")} | {"volume-01.png", "volume-02.png"}
    rows = list(csv.DictReader(benchmark.read("data/findings.csv").splitlines()))
    entry = make_result()["comparisons"][0]["findings"]
    assert {row["finding"]: float(row["delta_auc"]) for row in rows} == {
        name: row["delta_auc"] for name, row in entry.items() if row["delta_auc"] is not None
    }
    mixed = {row["finding"]: row["after"] for row in csv.DictReader(benchmark.read("data/mix.csv").splitlines())}
    assert mixed["Emphysema"] == ""
    assert benchmark.read("data/seeds.svg").startswith("<?xml")
    assert "-0.21 for Emphysema" in benchmark.page.text
    assert "Second <script>" in benchmark.page.text


class TestHeadline:
    def test_names_arms_numbers_and_harm(self, result: dict[str, Any]) -> None:
        text = benchmark_headline(result)
        assert text.startswith("No evidence that real+synthetic@0.5 differs from real: macro AUC 0.636 to 0.653")
        assert "difference +0.017, 95% interval +0.005 to +0.030, corrected p = 0.247" in text
        assert "0 better, 1 worse (Emphysema), 17 without evidence" in text
        assert text.endswith("The ratio was chosen on validation patients.")

    def test_gain_and_harm_are_said_as_they_are(self, result: dict[str, Any]) -> None:
        result["primary"] = ["real+synthetic@1", "real"]
        assert benchmark_headline(result).startswith("real+synthetic@1 is better than real")
        assert "corrected p < 0.001" in benchmark_headline(result)
        result["comparisons"][1]["verdict"] = "harm"
        assert benchmark_headline(result).startswith("real+synthetic@1 is worse than real")

    def test_the_declared_endpoint_comes_first_with_its_own_numbers(self) -> None:
        endpoint, macro, findings, chosen = self._sentences(make_full_result())
        assert endpoint.startswith("real+synthetic@1 is better than real by the declared endpoint, the AUC of under-")
        assert endpoint.endswith("(difference +0.044, 95% interval +0.024 to +0.064, p = 0.010)")
        assert macro.startswith("The macro AUC over all findings is better: 0.636 to 0.665 (difference +0.029")
        assert findings.startswith("Of 18 findings 0 better, 1 worse (Emphysema)")
        assert chosen == "The ratio was chosen on validation patients"

    @staticmethod
    def _sentences(full: dict[str, Any]) -> list[str]:
        return benchmark_headline(full).removesuffix(".").split(". ")

    def test_a_null_endpoint_neither_borrows_nor_hides_the_macro_auc(self) -> None:
        full = make_full_result()
        full["endpoint"] |= {"verdict": "no evidence", "delta": 0.001, "ci": [-0.02, 0.022], "p": 0.91}
        entry = next(c for c in full["comparisons"] if c["arm"] == "real+synthetic@1")
        entry |= {"verdict": "harm", "delta_macro_auc": -0.03, "ci": [-0.04, -0.02], "p_adjusted": 0.0002}
        endpoint, macro, *_ = self._sentences(full)
        assert endpoint.startswith("No evidence that real+synthetic@1 differs from real by the declared endpoint")
        assert endpoint.endswith("(difference +0.001, 95% interval -0.020 to +0.022, p = 0.910)")
        assert macro.startswith("The macro AUC over all findings is worse")
        assert macro.endswith("(difference -0.030, 95% interval -0.040 to -0.020, corrected p < 0.001)")

    def test_an_endpoint_without_numbers_says_nothing_of_the_macro_auc(self) -> None:
        full = make_full_result()
        full["endpoint"] |= {"verdict": "no evidence", "delta": None, "ci": None, "p": None}
        endpoint, macro, *_ = self._sentences(full)
        assert endpoint.endswith("could not be compared between real+synthetic@1 and real")
        assert macro.startswith("The macro AUC over all findings is better")
        del full["endpoint"]["verdict"]
        assert benchmark_headline(full).startswith("real+synthetic@1 is better than real: macro AUC")

    def test_an_endpoint_of_other_arms_is_not_that_of_the_headline(self) -> None:
        full = make_full_result()
        full["endpoint"] |= {"arm": "real+ungated@1", "verdict": "harm"}
        assert benchmark_headline(full).startswith("real+synthetic@1 is better than real: macro AUC")

    def test_a_small_p_of_a_single_training_is_no_missing_evidence(self, result: dict[str, Any]) -> None:
        result["primary"] = ["real+synthetic@1", "real"]
        result["arms"]["real"]["per_seed"] = [0.6]
        result["comparisons"][1]["verdict"] = "no evidence"
        text = benchmark_headline(result)
        assert text.startswith("A single training gives no verdict on real+synthetic@1 against real: macro AUC 0.636")
        assert "No evidence" not in text

    def test_nothing_to_compare(self, result: dict[str, Any]) -> None:
        assert benchmark_headline(result | {"comparisons": []}).startswith("No two training sets")

    def test_other_arms(self, result: dict[str, Any]) -> None:
        entry = result["comparisons"][0] | {"arm": "real", "against": "real"}
        assert "No evidence that real differs" in benchmark_headline(result | {"comparisons": [entry]})


def test_benchmark_page_of_bare_numbers(result: dict[str, Any], tmp_path: Path) -> None:
    """The keys of ``benchmark --json`` alone make a page."""
    arms = {name: {key: arm[key] for key in ("macro_auc", "ci", "per_seed")} for name, arm in result["arms"].items()}
    arms["real"] |= {"macro_auc": None, "ci": None, "per_seed": [None]}
    bare = {"arms": {**arms, EVIL: arms["real+synthetic@1"]}, "comparisons": []}
    page = Page(write_benchmark_report(bare, tmp_path))
    assert page.tags.count("script") == 1  # names inside charts are escaped too
    assert page.handlers == []
    assert "No two training sets" in page.text
    assert "Generated volumes" not in page.text


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("full")
    shown = [{"prompt": EVIL, "labels": [], "seed": 1, "png": b"\x89PNG", "pack": "tiny", "pack_sha256": "f00d"}]
    return Report(Page(write_benchmark_report(make_full_result(), folder, volumes=shown)), folder)


def test_page_says_what_was_declared_and_chosen(full: Report) -> None:
    text = " ".join(full.page.text.split())
    assert "2026-01-31T12:00:00+00:00, before the first training" in text
    assert "mean AUC of the 2 under-represented findings: Emphysema, Bronchiectasis" in text
    assert "+0.044, 95% interval [+0.024, +0.064], p 0.010 gain" in text
    assert "1,314 (declared: at least 1,500, fewer than declared)" in text
    assert "real+synthetic@1, macro AUC 0.718 on validation patients" in text
    assert "Rule: the best on validation patients." in text


def test_page_counts_the_trainings_that_are_older_than_the_declaration(tmp_path: Path) -> None:
    result = make_full_result()
    result["endpoint"]["trained_before"] = 3
    text = " ".join(Page(write_benchmark_report(result, tmp_path)).text.split())
    assert "2026-01-31T12:00:00+00:00, but 3 of the trainings were begun before" in text


def test_every_chart_has_its_data_on_the_page_and_beside_it(full: Report) -> None:
    names = ("seeds", "ratios", "ratios-rare", "regimes", "regimes-rare", "calibration", "acceptance", "findings")
    for name in names:
        path = full.folder / "data" / f"{name}.csv"
        assert (full.folder / "data" / f"{name}.svg").is_file()
        uri = "data:text/csv;charset=utf-8;base64," + base64.b64encode(path.read_bytes()).decode()
        assert uri in full.page.loads
    rows = list(csv.DictReader(full.read("data/ratios.csv").splitlines()))
    expected = {
        (kind, float(ratio)): entry["delta_macro_auc"]
        for entry in make_full_result()["comparisons"]
        for kind, at, ratio in [entry["arm"].partition("@")]
        if at
    }
    assert {(row["arm"], float(row["x"])): float(row["gain"]) for row in rows} == expected
    accepted = {row["finding"]: row for row in csv.DictReader(full.read("data/acceptance.csv").splitlines())}
    assert set(accepted) == set(FINDINGS)
    for row in accepted.values():
        assert 0 <= float(row["low"]) <= float(row["share"]) <= float(row["high"]) <= 1
        assert float(row["share"]) == int(row["accepted"]) / int(row["asked"])


def test_tables_of_the_full_page(full: Report) -> None:
    saved, text = make_full_result(), " ".join(full.page.text.split())
    comparisons = full.page.tables[1]
    assert [row[-1][0] for row in comparisons[1:]] == [c["average_precision_verdict"] for c in saved["comparisons"]]
    heads = [table[0][0][0].split()[0] for table in full.page.tables if table]
    assert heads.count("finding") == len(saved["comparisons"])
    assert "81 of 100 generated volumes were accepted; reasons for rejection: label 15, memorised 4." in text
    assert "it reaches 50% of what a perfect generator would bring" in text
    assert "pack tiny sha256 f00d" in text
    assert "seeds 0, 1" in text
    for heading in ("With fewer training patients", "Calibration", "What the gate let through", "How near"):
        assert f"## {heading}" in full.read("report.md")
    assert full.page.open == []
    assert full.page.handlers == []


@pytest.mark.parametrize(
    "key", ["endpoint", "primary", "chosen_ratio", "gate", "regimes", "training", "settings", "test", "notes", "run"]
)
def test_any_key_may_be_absent(key: str, tmp_path: Path) -> None:
    result = make_full_result()
    del result[key]
    page = Page(write_benchmark_report(result, tmp_path))
    assert page.open == []
    assert "By finding" in page.text


@pytest.mark.parametrize(("met", "word"), [(True, "met"), (False, "not met")])
def test_the_margin_is_said_with_every_comparison(tmp_path: Path, met: bool, word: str) -> None:
    result = make_full_result()
    each = [{"against": name, "delta": 0.0412, "ci": [0.011, 0.072]} for name in ("real", "real+classical")]
    told = {"margin": 0.03, "met": met, "harmed": [] if met else ["Emphysema"], "against_each": each}
    page = write_benchmark_report({**result, "endpoint": result["endpoint"] | told}, tmp_path).read_text(
        encoding="utf-8"
    )
    assert f"<strong>{word}</strong>: at least +0.030" in page
    assert "against real+classical +0.041" in page
    assert ("Worse: Emphysema." in page) is not met
    less = {**told, "met": None, "untrained": ["real+classical"]}
    write_benchmark_report({**result, "endpoint": result["endpoint"] | less}, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<strong>not decided</strong>, since real+classical was not trained" in page


@pytest.mark.parametrize("key", ["findings", "declared", "delta", "ci", "p", "verdict", "test_patients", "ratio_rule"])
def test_any_key_of_the_endpoint_may_be_absent(key: str, tmp_path: Path) -> None:
    result = make_full_result()
    del result["endpoint"][key]
    assert "What was declared" in Page(write_benchmark_report(result, tmp_path)).text


def test_imbalance_page_shows_the_numbers(imbalance: Report, summary: dict[str, Any]) -> None:
    rows = imbalance.page.values(0)
    assert len(rows) == len(FINDINGS)
    for name, entry in summary["findings"].items():
        assert rows[name][0][0] == "–"  # a count of volumes is not among the numbers here
        assert rows[name][1][0] == f"{entry['positive_scans']:,}"
        for column, key in ((1, "positive_scans"), (3, "prevalence"), (5, "irlbl")):
            value = rows[name][column][1]
            assert (None if value == "" else float(value or "nan")) == entry[key]
        assert rows[name][-1][0] == "; ".join(entry["reasons"])
    assert "train_7_a" in imbalance.page.text
    assert "SCUMBLE" not in imbalance.page.text  # it is None here
    assert "text2ct synthesize --prompts prompts.csv" in imbalance.page.text


def test_imbalance_page_tells_of_the_plan_beside_it(summary: dict[str, Any], tmp_path: Path) -> None:
    assert "plan.json" not in Page(write_imbalance_report(summary, tmp_path)).text
    plan = {"plan": "plan.json", "prompts": "prompts.csv", "planned_volumes": 1234, "plan_notes": [EVIL]}
    page = Page(write_imbalance_report(summary | plan, tmp_path))
    assert "plan.json asks for 1,234 synthetic volumes. prompts.csv holds" in page.text
    assert EVIL in page.text
    assert page.handlers == []
    page = Page(write_imbalance_report(summary | plan | {"prompts": None}, tmp_path))
    assert "prompts.csv" not in page.text


def test_imbalance_page_marks_targets_whose_gain_could_not_be_seen(summary: dict[str, Any], tmp_path: Path) -> None:
    row = {
        **{"prevalence_before": 0.08, "prevalence_after": 0.15, "added_with": 40, "added_without": 60},
        **{"source_label_association": 0.19, "test_positive_scans": 9, "detectable_auc_difference": 0.21},
    }
    plan = {
        **{"plan": "plan.json", "prompts": None, "planned_volumes": 100, "plan_notes": []},
        "plan_cost": {"pack": "a-pack", "seconds_per_volume": 36.0, "hours": 1.0, "bytes": 2_000_000_000},
        "plan_findings": {
            "Emphysema": row | {"target": False, "detectable": None},
            "Cardiomegaly": row | {"target": True, "detectable": False},
            "Atelectasis": row | {"target": True, "detectable": True},
        },
    }
    page = Page(write_imbalance_report(summary | plan, tmp_path))
    assert (
        "100 synthetic volumes: 1.0 hours on this device and at most 2.00 GB of disk with the pack a-pack." in page.text
    )
    rows = {cells[0][0]: cells for cells in page.tables[-1] if cells[0][0] in plan["plan_findings"]}
    assert list(rows) == ["Cardiomegaly", "Atelectasis", "Emphysema"]
    assert [cells[-1][0] for cells in rows.values()] == ["no", "yes", "no test scans"]
    assert [cells[1][0] for cells in rows.values()] == ["target", "target", ""]
    assert "| Cardiomegaly | target | 8.0% | 15.0% | 40 | 60 | 0.19 |" in (tmp_path / "report.md").read_text("utf-8")


def test_imbalance_headline(summary: dict[str, Any]) -> None:
    assert imbalance_headline(summary) == (
        "3 of 18 findings are under-represented, rarest first: Interlobular septal thickening, "
        "Bronchiectasis and Consolidation."
    )
    for entry in summary["findings"].values():
        entry["underrepresented"] = False
    assert imbalance_headline(summary).startswith("None of the 18")
    summary["findings"]["Emphysema"]["underrepresented"] = True
    assert imbalance_headline(summary) == "1 of 18 findings is under-represented, rarest first: Emphysema."


def test_report_keys_of_the_design_are_enough(summary: dict[str, Any], tmp_path: Path) -> None:
    keys = ("positive_scans", "prevalence", "irlbl", "underrepresented", "detectable_auc_difference")
    bare = {
        **{key: summary[key] for key in ("volumes", "scans", "patients", "mean_ir")},
        "findings": {name: {k: entry[k] for k in keys} for name, entry in summary["findings"].items()},
    }
    page = Page(write_imbalance_report(bare, tmp_path))
    assert "come together" not in page.text
