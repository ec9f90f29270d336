"""From predictions to verdicts: comparisons, what validation patients choose, scores and calibration per arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from text2ct.augment.association import prevalence, source_label_association
from text2ct.evaluation.benchmark.arms import ARMS, GENERATIVE, NON_GENERATIVE, split_name
from text2ct.evaluation.benchmark.building import Arm
from text2ct.evaluation.benchmark.calibration import calibration, uncalibrated
from text2ct.evaluation.benchmark.data import cases, judged
from text2ct.evaluation.benchmark.settings import Declaration
from text2ct.evaluation.classification import choose_thresholds, score
from text2ct.evaluation.comparison import compare
from text2ct.evaluation.estimates import verdict

_SCORES = ("macro_auc", "weighted_auc", "macro_average_precision", "macro_precision", "macro_f1", "crg")

Outcomes = Mapping[str, Sequence[dict[str, Any]]]


def judge(
    arms: Mapping[str, Sequence[Arm]],
    outcomes: Outcomes,
    splits: Mapping[str, pd.DataFrame],
    rare: Sequence[str],
    n_bootstrap: int,
) -> dict[str, Any]:
    """Every arm against ``real``, and the chosen ratio against every arm without generated volumes.

    Args:
        arms: Each arm's training sets, one of each seed; ``training`` describes the first.
        outcomes: For each arm what the runner returned for its trainings.
        splits: Real rows by split.
        rare: The declared endpoint's findings.
        n_bootstrap: Bootstrap samples.

    Returns:
        What :func:`text2ct.evaluation.compare` gives, with ``scores`` and ``calibration`` of each arm,
        ``training``, and ``primary`` and ``chosen_ratio`` where there is an arm with synthetic volumes.
    """
    training = {name: describe(sets[0], outcomes[name]) for name, sets in arms.items()}
    chosen = choose(training)
    pairs = [(name, "real") for name in outcomes if name != "real"]
    if chosen:
        pairs += [(chosen["primary"][0], name) for name in NON_GENERATIVE if name in outcomes and name != "real"]
    tables = {
        name: [judged(run["predictions"]["test"], splits["test"])[0] for run in runs] for name, runs in outcomes.items()
    }
    _, labels, patients, scans = judged(splits["test"], splits["test"])
    result = compare(
        tables,
        labels,
        pairs=pairs,
        groups=patients,
        scans=scans,
        underrepresented=list(rare),
        n_bootstrap=n_bootstrap,
    )
    for name, runs in outcomes.items():
        result["arms"][name]["scores"] = _mean_scores(runs, splits)
        result["arms"][name]["calibration"] = _calibration(runs, splits["test"])
    result["notes"] += _short_of_the_ratio(training)
    return result | {"training": training} | (chosen or {})


def _calibration(runs: Sequence[dict[str, Any]], test: pd.DataFrame) -> dict[str, Any]:
    temperatures = [float(run["train"].get("temperature") or 1.0) for run in runs]
    after = [run["predictions"]["test"] for run in runs]
    before = [uncalibrated(table, one) for table, one in zip(after, temperatures, strict=True)]
    return calibration([cases(one, test) for one in before], [cases(one, test) for one in after], temperatures)


def choose(training: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """The ratio and the comparator that validation patients prefer; None without an arm at a ratio.

    The macro AUC decides, although the endpoint is that of the under-represented findings: of these a few
    hundred validation patients have too few to tell ratios apart. The comparator is chosen in the same way
    and not on the test set, where the best of several is best by luck, too.
    """
    auc = {name: _validation_auc(entry) for name, entry in training.items()}
    ratios = [name for name in training if name.startswith(GENERATIVE)]
    if not ratios:
        return None
    arm = max(ratios, key=lambda name: auc[name])
    against = max((name for name in NON_GENERATIVE if name in training), key=lambda name: auc[name])
    value = auc[arm] if np.isfinite(auc[arm]) else None
    return {"primary": [arm, against], "chosen_ratio": {"arm": arm, "validation_macro_auc": value}}


def _validation_auc(entry: Mapping[str, Any]) -> float:
    known = [value for value in entry["validation_macro_auc"] if value is not None]
    return float(np.mean(known)) if known else -np.inf


def endpoint(declaration: Declaration, result: Mapping[str, Any]) -> dict[str, Any]:
    """The declared endpoint with the numbers that decide it; no correction, since it is one test, named before.

    ``met`` asks for more than a gain against the primary comparator: at least the declared margin over every arm
    without generated volumes, each interval above 0, and no finding harmed in any of these comparisons. It is None
    where one of the usual ones of these arms was not trained (``untrained`` names them). A small test set needs no rule
    of its own: its intervals are wide.
    """
    declared = declaration.endpoint.model_dump(mode="json") | {"declared": declaration.declared}
    arm, against = result.get("primary", (None, None))
    each = [_decided(c, result) for c in result["comparisons"] if c["arm"] == arm and c["against"] in NON_GENERATIVE]
    primary = next((one for one in each if one["against"] == against), None)
    if primary is None:
        return {"arm": arm, "against": against, **declared}
    margin = declaration.endpoint.margin
    harmed = sorted({name for one in each for name in one.pop("harmed")})
    gains = all(one["verdict"] == "gain" and one["delta"] >= margin for one in each)
    specs = {name: ARMS[name] for name in NON_GENERATIVE if ARMS[name].usual and name not in result["arms"]}
    everywhere = declaration.settings.train_options  # an option that all arms have is no arm of its own
    untrained = [name for name, spec in specs.items() if not (spec.option and everywhere.get(spec.option))]
    outcome = {"against_each": each, "harmed": harmed, "untrained": untrained}
    return {"arm": arm, **declared, **primary, **outcome, "met": None if untrained else gains and not harmed}


def _decided(comparison: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    """One comparison at the endpoint: ``against``, ``delta``, ``ci``, ``p``, ``verdict`` and the findings harmed."""
    delta, p = comparison["delta_underrepresented_auc"], comparison["underrepresented_p"]
    single = min(len(result["arms"][comparison[side]]["per_seed"]) for side in ("arm", "against")) == 1
    decided = "no evidence" if single or delta is None or p is None else verdict(delta, p)
    harmed = [name for name, row in comparison["findings"].items() if row["verdict"] == "harm"]
    numbers = {"delta": delta, "ci": comparison["underrepresented_ci"], "p": p, "verdict": decided}
    return {"against": comparison["against"], **numbers, "harmed": harmed}


def describe(arm: Arm, runs: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """What an arm is trained on, and how well its trainings did on validation patients.

    Of ``arm``, that of one seed: others draw as many synthetic volumes, but other ones, and may draw other clones.
    """
    train = arm.frame[arm.frame["split"] == "train"]
    return {
        "real": arm.real,
        "synthetic": arm.synthetic,
        "ratio": arm.synthetic / arm.real if arm.real else None,
        "clones": arm.clones,
        "prevalence": prevalence(train),
        "source_label_association": source_label_association(train) if arm.synthetic and arm.real else None,
        "validation_macro_auc": [run["train"].get("validation_macro_auc") for run in runs],
    }


def _mean_scores(runs: Sequence[dict[str, Any]], splits: Mapping[str, pd.DataFrame]) -> dict[str, float | None]:
    """Test scores averaged over seeds, with each training's thresholds from its validation patients."""
    rows: list[dict[str, Any]] = []
    for run in runs:
        tables = {split: judged(run["predictions"][split], splits[split]) for split in ("validation", "test")}
        predictions, labels, patients, scans = tables["validation"]
        thresholds = choose_thresholds(predictions, labels, groups=patients, scans=scans)
        predictions, labels, patients, scans = tables["test"]
        rows.append(score(predictions, labels, groups=patients, scans=scans, n_bootstrap=0, thresholds=thresholds))
    means: dict[str, float | None] = {}
    for key in _SCORES:
        values = [row[key] for row in rows if row[key] is not None]
        means[key] = float(np.mean(values)) if values else None
    return means


def _short_of_the_ratio(training: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Arms that had fewer synthetic volumes than their name asks for."""
    return [
        f"{name} had only {arm['synthetic']} synthetic volumes to use: its ratio is {arm['ratio']:.2g}"
        for name, arm in training.items()
        if arm["synthetic"] < round((split_name(name)[1] or 0.0) * arm["real"])
    ]
