"""What a page says of how a benchmark was done is true of that benchmark."""

from typing import Any

import pandas as pd
import pytest

from text2ct.reports import benchmark_limitations, benchmark_methods

from .conftest import make_full_result


@pytest.fixture
def full() -> dict[str, Any]:
    result = make_full_result()
    result["settings"] |= {"batch_size": 8, "n_bootstrap": 1000, "pretrain_patients": 700}
    return result


def patients(*sources: str) -> pd.DataFrame:
    return pd.DataFrame({"source": ["simulated", *sources], "split": ["train", *["test"] * len(sources)]})


@pytest.mark.parametrize(
    ("sources", "kind"),
    [(["real"], "real"), (["simulated"], "simulated"), (["simulated", "real"], "real and simulated")],
    ids=["real", "simulated", "both"],
)
def test_patients_are_called_what_they_are(full: dict[str, Any], sources: list[str], kind: str) -> None:
    text = benchmark_methods(full, patients(*sources), None)
    assert f"compared on 1314 {kind} test patients, none of whom any arm has seen" in text
    assert f"macro AUC on {kind} validation patients" in text


def test_further_steps_of_one_arm_are_said(full: dict[str, Any]) -> None:
    assert "another" not in benchmark_methods(full, patients("real"), None)
    full["arms"]["real+classifier-pretrained"] = full["arms"]["real"]
    text = benchmark_methods(full, patients("real"), None)
    assert "real+classifier-pretrained alone had another 300 steps before these, on 700 patients of the pack" in text


def test_each_correction_is_named_for_what_it_covers(full: dict[str, Any]) -> None:
    text = benchmark_methods(full, patients("real"), None)
    assert "those of findings are corrected over the findings of their comparison" in text
    assert "macro average precision, each measure apart, over the comparisons" in text
    assert text.endswith("declared endpoint is a single test and is not corrected.")
    del full["endpoint"]
    assert "endpoint" not in benchmark_methods(full, patients("real"), None)


def test_limitations_name_simulated_patients_and_packs(full: dict[str, Any]) -> None:
    made = pd.DataFrame({"pack": ["b", "a", "a"], "pack_sha256": ["1", "2", "2"]})
    lines = benchmark_limitations(full, patients("real"), made)
    assert [line.split(" has learnt")[0] for line in lines[1:3]] == ["The pack a", "The pack b"]
    assert lines[0].startswith("The cohort is simulated")
    assert "prompt or generator has seen" in benchmark_methods(full, patients("real"), made)
