import io

import numpy as np
import pandas as pd
from rich.console import Console

from text2ct.evaluation import score
from text2ct.findings import FINDINGS
from text2ct.tables import auc_table, imbalance_table, number, score_table, span


def text_of(table: object) -> str:
    console = Console(file=io.StringIO(), width=140)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_score_table() -> None:
    rng = np.random.default_rng(0)
    labels = pd.DataFrame(rng.integers(0, 2, (40, len(FINDINGS))).astype(float), columns=list(FINDINGS))
    predictions = pd.DataFrame(rng.random(labels.shape), columns=list(FINDINGS))
    result = score(predictions, labels.assign(Emphysema=0.0), n_bootstrap=30)
    text = text_of(score_table(result))
    assert f"{result['macro_auc']:.3f}" in text
    assert span(result["macro_auc_ci"]) in text
    emphysema = next(line for line in text.splitlines() if "Emphysema" in line)
    assert "–" in emphysema


def test_the_endpoint_stands_below_the_arms() -> None:
    arms = {name: {"macro_auc": 0.8, "ci": [0.7, 0.9]} for name in ("real", "real+synthetic@1")}
    endpoint = {"findings": ["Emphysema"], "arm": "real+synthetic@1", "against": "real", "delta": 0.04, "p": 0.01}
    endpoint |= {"ci": [0.01, 0.07], "verdict": "gain", "margin": 0.03, "met": None, "untrained": ["real+classical"]}
    result = {"arms": arms, "comparisons": [], "endpoint": endpoint}
    text = " ".join(text_of(auc_table(result)).split())
    assert "real+synthetic@1 against real +0.040 [+0.010, +0.070], p 0.010: gain; margin of 0.03" in text
    assert "not decided without real+classical" in text
    for met, said in ((True, "generated volumes met"), (False, "generated volumes not met")):
        text = text_of(auc_table(result | {"endpoint": endpoint | {"met": met, "untrained": []}}))
        assert said in " ".join(text.split())
    assert "endpoint" not in text_of(auc_table(result | {"endpoint": {"arm": None, "against": None}}))


def test_imbalance_table() -> None:
    entry = {"positive_scans": 1234, "prevalence": 0.25, "irlbl": 2.0, "detectable_auc_difference": None}
    findings = {
        "Emphysema": entry | {"underrepresented": False},
        "Bronchiectasis": entry | {"underrepresented": True, "prevalence": None, "irlbl": None},
    }
    summary = {"volumes": 2, "scans": 2, "patients": 1, "mean_ir": 1.5, "findings": findings}
    text = text_of(imbalance_table(summary))
    assert "1,234" in text
    assert "25.0%" in text
    assert "yes" in next(line for line in text.splitlines() if "Bronchiectasis" in line)


def test_numbers() -> None:
    assert number(None) == span(None) == "–"
    assert number(0.12345, sign=True) == "+0.123"
    assert span([0.1, 0.2]) == "[0.100, 0.200]"
