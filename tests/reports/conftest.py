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
