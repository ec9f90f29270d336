"""Does the benchmark say no? Two arms trained on the same data with other seeds, many times over.

    python benchmarks/null.py --workspace W --repetitions 20 --seeds 2 --steps 300 --train-patients 300

In each repetition both arms are trained on the same random training patients and differ by their seeds alone, so that
every verdict other than `no evidence` is false. Holm's correction keeps those of the findings below 1 in 20
repetitions on average; with 20 repetitions more than 3 would then be seen in 1.6% of cases. Every kind of verdict is
corrected by itself, so of several kinds together more are promised; the law is asked of the three kinds of AUC
together all the same, and the count over all five kinds is printed beside it. Finished trainings are skipped.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from text2ct.augment.selection import underrepresented
from text2ct.compute import keep_freed_memory
from text2ct.evaluation import compare
from text2ct.evaluation.benchmark import BenchmarkSettings
from text2ct.evaluation.benchmark.arms import build_arm
from text2ct.evaluation.benchmark.building import Material
from text2ct.evaluation.benchmark.data import judged, nested_patients, real_splits
from text2ct.evaluation.benchmark.runner import Runner
from text2ct.evaluation.estimates import verdict
from text2ct.files import write_json
from text2ct.findings import FINDINGS
from text2ct.manifests import Workspace
from text2ct.workflow import real_manifest

MOST_ALARMS = 3
VERDICTS = (
    "any finding",
    "macro AUC",
    "under-represented findings (the endpoint)",
    "any finding, average precision",
    "macro average precision",
)
AUC_VERDICTS = VERDICTS[:3]


def repetition(
    workspace: Workspace,
    number: int,
    *,
    settings: BenchmarkSettings,
    splits: dict[str, Any],
    real: Any,
    **how: Any,
) -> dict[str, Any]:
    """Both arms' trainings and their comparison.

    Args:
        workspace: Resolves roots and holds the runs.
        number: The repetition, from 0: it draws the patients and gives the seeds.
        settings: ``seeds`` holds those of one arm, ``train_patients`` at most one number.
        splits: Real rows by split.
        real: The real manifest.
        how: Further arguments of the runner.
    """
    train = splits["train"]
    if settings.train_patients:
        train = nested_patients(train, settings.train_patients[0], seed=number)
    material = Material(real, train, splits["validation"], None, workspace, settings)
    each = len(settings.seeds)
    first = 2 * each * number
    arms = [build_arm("real", material, seed) for seed in range(first, first + 2 * each)]
    runner = Runner(settings, splits, workspace, **how)
    outcomes = runner.run_arms({"real": arms})["real"]
    tables = [judged(one["predictions"]["test"], splits["test"])[0] for one in outcomes]
    _, labels, patients, scans = judged(splits["test"], splits["test"])
    rare = underrepresented(train)
    result = compare(
        {"one": tables[:each], "other": tables[each:]},
        labels,
        groups=patients,
        scans=scans,
        underrepresented=rare,
        n_bootstrap=settings.n_bootstrap,
        seed=number,
    )
    return result["comparisons"][0] | {"per_seed": [arm["per_seed"] for arm in result["arms"].values()]}


def verdicts(comparison: dict[str, Any]) -> dict[str, list[str]]:
    """What was found where nothing is to be found: the findings, or the verdict of a mean."""
    by_finding = {
        key: [name for name in FINDINGS if comparison["findings"][name][key] != "no evidence"]
        for key in ("verdict", "average_precision_verdict")
    }
    macro = [[comparison[key]] if comparison[key] != "no evidence" else [] for key in by_finding]
    delta, p = comparison["delta_underrepresented_auc"], comparison["underrepresented_p"]
    decided = "no evidence" if delta is None or p is None else verdict(delta, p)
    endpoint = [] if decided == "no evidence" else [decided]
    lists = (by_finding["verdict"], macro[0], endpoint, by_finding["average_precision_verdict"], macro[1])
    return dict(zip(VERDICTS, lists, strict=True))


def table(comparisons: Sequence[dict[str, Any]]) -> str:
    """A Markdown table of the repetitions, and the shares that the law is about."""
    lines = ["| repetition | Δ macro AUC | 95% interval | false verdicts |", "|---:|---:|---:|---|"]
    for number, comparison in enumerate(comparisons):
        found = "; ".join(f"{key}: {', '.join(names)}" for key, names in verdicts(comparison).items() if names)
        low, high = comparison["ci"] or (float("nan"), float("nan"))
        delta = comparison["delta_macro_auc"]
        lines.append(f"| {number + 1} | {delta:+.3f} | {low:+.3f} to {high:+.3f} | {found or 'none'} |")
    lines += ["", f"| verdict other than `no evidence` | of {len(comparisons)} |", "|---|---:|"]
    lines += [f"| {key} | {count} |" for key, count in alarms(comparisons).items()]
    lines.append(f"| any of the three of AUC | {any_of(comparisons, AUC_VERDICTS)} |")
    lines.append(f"| any of the five | {any_of(comparisons, VERDICTS)} |")
    return "\n".join(lines)


def alarms(comparisons: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Repetitions with a false verdict, of each kind; each kind is corrected by itself."""
    return {key: sum(bool(verdicts(one)[key]) for one in comparisons) for key in VERDICTS}


def any_of(comparisons: Sequence[dict[str, Any]], kinds: Sequence[str]) -> int:
    """Repetitions with a false verdict of any of these kinds."""
    return sum(any(verdicts(one)[key] for key in kinds) for one in comparisons)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workspace", type=Path, required=True, help="its real data, or the embedded cohort")
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=2, help="trainings of an arm")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--train-patients", type=int, help="drawn anew for each repetition; default all")
    parser.add_argument("--classifier", default="cnn3d")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--run", default="null")
    asked = parser.parse_args()
    keep_freed_memory()
    workspace = Workspace.open(asked.workspace)
    settings = BenchmarkSettings(
        seeds=tuple(range(asked.seeds)),
        steps=asked.steps,
        classifier=asked.classifier,
        batch_size=asked.batch_size,
        train_patients=() if asked.train_patients is None else (asked.train_patients,),
    )
    real, _ = real_manifest(workspace)
    splits = real_splits(real)
    comparisons = [
        repetition(workspace, k, settings=settings, splits=splits, real=real, device=asked.device)
        for k in range(asked.repetitions)
    ]
    result = {
        "settings": settings.model_dump(mode="json"),
        "alarms": alarms(comparisons),
        "any_auc": any_of(comparisons, AUC_VERDICTS),
        "any": any_of(comparisons, VERDICTS),
        "comparisons": comparisons,
    }
    write_json(workspace.run_dir("scores") / f"{asked.run}.json", result)
    print(table(comparisons))
    law = "holds" if any_of(comparisons, AUC_VERDICTS) <= MOST_ALARMS else "DOES NOT HOLD"
    print(f"\nat most {MOST_ALARMS} of 20 are promised: {law}")


if __name__ == "__main__":
    main()
