from typing import Any

import pytest

from text2ct.reports.evidence import MEASURES, ceiling_sentences, ceilings, gains_by_patients, gains_by_ratio, split_arm

from .conftest import make_full_result

MACRO, RARE = MEASURES


@pytest.fixture
def full() -> dict[str, Any]:
    return make_full_result()


def _entry(result: dict[str, Any], arm: str) -> dict[str, Any]:
    return next(c for c in result["comparisons"] if c["arm"] == arm and c["against"] == "real")


def test_split_arm() -> None:
    assert split_arm("real+synthetic@0.25") == ("real+synthetic", 0.25)
    assert split_arm("real+oversampled") == ("real+oversampled", None)


def test_a_share_is_the_gain_over_the_ceiling_of_the_same_ratio(full: dict[str, Any]) -> None:
    rows = [row for row in ceilings(full) if row["arm"] == "real+synthetic@1"]
    assert [row["measure"] for row in rows] == [MACRO, RARE]
    assert rows[0]["share"] == pytest.approx(0.0291 / 0.0582)
    assert {row["arm"] for row in ceilings(full)}.isdisjoint({"real+oracle@1", "real+shuffled@1", "real+oversampled"})


def test_no_share_of_a_ceiling_that_may_be_nothing(full: dict[str, Any]) -> None:
    small = next(row for row in ceilings(full) if row["arm"] == "real+synthetic@0.5")
    assert small["ceiling"] == 0.01
    assert small["ceiling_ci"][0] < 0
    assert small["share"] is None
    assert "no share of it is quoted" in ceiling_sentences(ceilings(full), "real+synthetic@0.5")[0]
    _entry(full, "real+oracle@1")["ci"] = None
    assert next(row for row in ceilings(full) if row["arm"] == "real+synthetic@1")["share"] is None


@pytest.mark.parametrize("ci", [[-0.001, 0.06], [0.0, 0.06], None], ids=str)
def test_no_share_by_a_gain_that_may_be_none(full: dict[str, Any], ci: list[float] | None) -> None:
    _entry(full, "real+synthetic@1")["ci"] = ci
    row = next(row for row in ceilings(full) if row["arm"] == "real+synthetic@1")
    assert (row["gain"], row["share"]) == (0.0291, None)
    sentence, rare = ceiling_sentences(ceilings(full), "real+synthetic@1")
    assert "by +0.029, a change that could not be told from none; new patients" in sentence
    assert "%" not in sentence
    assert "it reaches 50% of" in rare, "each measure by its own intervals"


def test_a_loss_reaches_nothing_of_the_ceiling(full: dict[str, Any]) -> None:
    _entry(full, "real+synthetic@1").update({"delta_macro_auc": -0.01, "ci": [-0.02, -0.005]})
    assert "nothing is reached" in ceiling_sentences(ceilings(full), "real+synthetic@1")[0]


def test_no_oracle_no_ceiling(full: dict[str, Any]) -> None:
    full["comparisons"] = [c for c in full["comparisons"] if not c["arm"].startswith("real+oracle")]
    assert ceilings(full) == []
    assert ceiling_sentences([], "real+synthetic@1") == []


def test_one_ratio_makes_no_line(full: dict[str, Any]) -> None:
    lines = gains_by_ratio(full, RARE)
    assert [gain.x for gain in lines["real+synthetic"]] == [0.5, 1.0]
    assert set(lines) == {"real+shuffled", "real+synthetic", "real+ungated", "real+oracle"}
    full["comparisons"] = [c for c in full["comparisons"] if "@0.5" not in c["arm"]]
    assert gains_by_ratio(full, RARE) == {}


def test_gains_against_others_than_real_are_no_gains_over_real(full: dict[str, Any]) -> None:
    before = gains_by_ratio(full, MACRO)
    full["comparisons"] = [*full["comparisons"], {**full["comparisons"][3], "against": "real+oversampled"}]
    assert gains_by_ratio(full, MACRO) == before


def test_patients_follow_the_headline_its_ceiling_and_its_control(full: dict[str, Any]) -> None:
    lines = gains_by_patients(full, _entry(full, "real+synthetic@1"), MACRO)
    assert list(lines) == ["real+synthetic@1", "real+oracle@1", "real+oversampled", "real+shuffled@1"]
    assert all([gain.x for gain in gains] == [100, 300] for gains in lines.values())
    assert gains_by_patients(full, None, MACRO) == {}
