from typing import Any

import numpy as np
import pytest

from text2ct.findings import FINDINGS


def _arm(auc: float) -> dict[str, Any]:
    return {
        "macro_auc": auc,
        "ci": [auc - 0.02, auc + 0.02],
        "per_seed": [auc - 0.01, auc + 0.01],
        "underrepresented_auc": auc - 0.05,
        "underrepresented_ci": None,
        "findings": {name: {"auc": auc + 0.001 * k, "ci": None} for k, name in enumerate(FINDINGS)},
    }


def _comparison(arm: str, delta: float, p: float, verdict: str) -> dict[str, Any]:
    findings: dict[str, dict[str, Any]] = {
        name: {
            "delta_auc": delta + 0.01 * (k - 9),
            "ci": [delta + 0.01 * (k - 9) - 0.03, delta + 0.01 * (k - 9) + 0.03],
            "p_adjusted": 0.5 + k / 100,
            "p_delong_adjusted": None,
            "verdict": "no evidence",
        }
        for k, name in enumerate(FINDINGS)
    }
    findings["Emphysema"] |= {"verdict": "harm", "p_adjusted": 0.0004}
    findings["Hiatal hernia"] |= {"delta_auc": None, "ci": None, "p_adjusted": None}
    return {
        "arm": arm,
        "against": "real",
        "delta_macro_auc": delta,
        "ci": [delta - 0.0125, delta + 0.0125],
        "p": p,
        "p_adjusted": p,
        "verdict": verdict,
        "findings": findings,
    }


def make_result() -> dict[str, Any]:
    """A benchmark's numbers, made up."""
    return {
        "arms": {
            "real": _arm(0.6361),
            "real+synthetic@0.5": _arm(0.6534),
            "real+synthetic@1": _arm(0.6652),
        },
        "comparisons": [
            _comparison("real+synthetic@0.5", 0.0173, 0.2468, "no evidence"),
            _comparison("real+synthetic@1", 0.0291, 0.0004, "gain"),
        ],
        "test": {"scans": 1520, "patients": 1314, "positive": dict.fromkeys(FINDINGS, 77)},
        "notes": ["3039 volumes averaged to 1520 scans"],
        "training": {
            "real": {"real": 300, "synthetic": 0, "clones": 0, "prevalence": dict.fromkeys(FINDINGS, 0.2)},
            "real+synthetic@0.5": {
                **{"real": 300, "synthetic": 150, "clones": 0},
                "prevalence": {**dict.fromkeys(FINDINGS, 0.3), "Emphysema": None},
                "validation_macro_auc": [0.71, 0.72],
                "source_label_association": {**dict.fromkeys(FINDINGS, 0.05), "Emphysema": -0.21},
            },
            "real+synthetic@1": {"validation_macro_auc": [0.69, 0.70]},
        },
    }


def _with_precision(comparison: dict[str, Any]) -> dict[str, Any]:
    numbers = {"average_precision_ci": [-0.01, 0.02], "average_precision_p_adjusted": 0.6}
    findings = {
        name: {**row, **numbers, "delta_average_precision": 0.01 * k, "average_precision_verdict": "no evidence"}
        for k, (name, row) in enumerate(comparison["findings"].items())
    }
    rare = comparison["delta_macro_auc"] * 1.5
    return {
        **comparison,
        **numbers,
        "delta_underrepresented_auc": rare,
        "underrepresented_ci": [rare - 0.02, rare + 0.02],
        "underrepresented_p": 0.01,
        "delta_macro_average_precision": 0.005,
        "average_precision_p": 0.3,
        "average_precision_verdict": "harm" if comparison["arm"] == "real+shuffled@1" else "no evidence",
        "findings": findings,
    }


def make_full_result() -> dict[str, Any]:
    """A benchmark's numbers with every key that the page knows, made up."""
    result = make_result()
    gains = {
        "real+oversampled": 0.004,
        "real+shuffled@1": -0.011,
        "real+synthetic@0.5": 0.0173,
        "real+synthetic@1": 0.0291,
        "real+ungated@1": 0.021,
        "real+oracle@0.5": 0.01,
        "real+oracle@1": 0.0582,
    }
    result["arms"] = {name: _arm(0.6361 + gain) for name, gain in {"real": 0.0, **gains}.items()}
    for k, arm in enumerate(result["arms"].values()):
        bins = [{"predicted": 0.05 * j, "observed": 0.05 * j + 0.01, "count": 900} for j in range(10)]
        arm["calibration"] = {"temperature": 1.2 + k / 10, "ece_before": 0.06, "ece": 0.02, "bins": bins}
    verdicts = {"real+synthetic@1": "gain", "real+oracle@1": "gain"}
    comparisons = [
        _with_precision(_comparison(arm, gain, 0.2, verdicts.get(arm, "no evidence"))) for arm, gain in gains.items()
    ]
    endpoint = {
        **{"arm": "real+synthetic@1", "against": "real", "measure": "underrepresented_auc"},
        **{"findings": ["Emphysema", "Bronchiectasis"], "min_test_patients": 1500, "test_patients": 1314},
        **{"declared": "2026-01-31T12:00:00+00:00", "ratio_rule": "the best on validation patients"},
        **{"delta": 0.0437, "ci": [0.0237, 0.0637], "p": 0.01, "verdict": "gain"},
    }
    training = {name: result["training"].get(name, {}) for name in result["arms"]}
    regimes = [
        {"train_patients": n, "arms": result["arms"], "comparisons": comparisons, "training": training}
        for n in (100, 300)
    ]
    return {
        **result,
        "comparisons": comparisons,
        "primary": ["real+synthetic@1", "real"],
        "chosen_ratio": {"arm": "real+synthetic@1", "validation_macro_auc": 0.7182},
        "endpoint": endpoint,
        "gate": {
            **{"accepted": 81, "rejected": 19, "reasons": {"label": 15, "memorised": 4}},
            "findings": {name: {"asked": 20 + k, "accepted": 20 - k} for k, name in enumerate(FINDINGS)},
        },
        "regimes": regimes,
        "run": "trial",
        "settings": {"classifier": "cnn3d", "steps": 300, "seeds": [0, 1], "ratios": [0.5, 1]},
    }


def make_summary() -> dict[str, Any]:
    """The numbers of ``report --json``, made up."""
    findings: dict[str, dict[str, Any]] = {
        name: {
            "positive_scans": 1200 - 60 * k,
            "prevalence": 0.6 - 0.03 * k,
            "prevalence_by_patient": 0.65 - 0.03 * k,
            "irlbl": 1 + 0.25 * k,
            "underrepresented": k > 14,
            "reasons": [f"IRLbl {1 + 0.25 * k:.2f} is above MeanIR 3.00"] if k > 14 else [],
            "detectable_auc_difference": 0.03 + 0.004 * k,
        }
        for k, name in enumerate(FINDINGS)
    }
    findings[FINDINGS[-1]] |= {"irlbl": None, "prevalence": None, "detectable_auc_difference": None}
    return {
        "volumes": 3039,
        "scans": 1564,
        "patients": 1314,
        "mean_ir": 3.0,
        "cvir": 0.5,
        "scumble": None,
        "rule": "IRLbl > MeanIR or prevalence < 10%",
        "findings": findings,
        "cooccurrence": {a: {b: 10 if a == b else 4 for b in FINDINGS} for a in FINDINGS},
        "splits": {"train": {"volumes": 3039, "scans": 1564, "patients": 1314}},
        "disagreeing_scans": ["train_7_a"],
    }


@pytest.fixture
def result() -> dict[str, Any]:
    return make_result()


@pytest.fixture
def summary() -> dict[str, Any]:
    return make_summary()


@pytest.fixture(scope="session")
def phantom() -> np.ndarray:
    """(20, 24, 16) HU: air with one bright block at the patient's right, front and top."""
    hu = np.full((20, 24, 16), -1000.0, dtype=np.float32)
    hu[14:, 18:, 12:] = 1000.0
    return hu
