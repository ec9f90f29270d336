"""Every classifier of the registry on simulated patients: what a step costs, and what the same steps teach.

    python benchmarks/classifiers.py --work build/classifiers --steps 300

Prints a Markdown table. Each is trained for the same steps with its default options, its checkpoint chosen on
validation patients and scored on test patients; ``--only`` picks some, as ``--only cnn3d r3d-mc3``. One seed
tells little: an interval is over test patients, not over trainings. Runs go on where they were stopped. A
comparison at few steps favours networks that learn fast over those that end up better.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from text2ct import manifests
from text2ct.classifiers import CLASSIFIERS, predict, train
from text2ct.compute import keep_freed_memory
from text2ct.evaluation import score
from text2ct.findings import FINDINGS
from text2ct.simulation import simulate_cohort

# Another cohort than the embedded one: its test patients are not those that users look at.
COHORT_SEED = 77
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in CLASSIFIERS},
    "slices-transformer": ("slices", {"pooling": "transformer"}),
    "r3d-mc3": ("r3d", {"style": "mc3"}),
    "r3d-r2plus1d": ("r3d", {"style": "r2plus1d"}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/classifiers"))
    parser.add_argument("--patients", type=int, default=400)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--device", default="auto")
    asked = parser.parse_args()
    keep_freed_memory()
    cohort = asked.work / f"cohort-{asked.patients}"
    simulate_cohort(cohort, asked.patients, seed=COHORT_SEED, valid_fraction=0.5)
    workspace = manifests.Workspace.open(asked.work / "workspace")
    frame = manifests.read(cohort, workspace=workspace)
    test = frame[frame["split"] == "test"].reset_index(drop=True)
    counts = frame.groupby("split")["patient"].nunique()
    print(
        f"{asked.steps} steps of 8 volumes at 64x64x64, {counts['train']} training, {counts['validation']} validation "
        f"and {counts['test']} test patients, seed {asked.seed}, {torch.get_num_threads()} thread(s):\n"
    )
    print("| classifier | parameters | s/step | validation macro AUC | test macro AUC (95%) | temperature |")
    print("|---|---|---|---|---|---|")
    for name in asked.only:
        classifier, options = VARIANTS[name]
        run = asked.work / "runs" / f"{name}-{asked.patients}-{asked.steps}-{asked.seed}"
        result = train(
            frame,
            workspace,
            run,
            name=classifier,
            options=options,
            steps=asked.steps,
            seed=asked.seed,
            device=asked.device,
        )
        labels = test[["volume", *FINDINGS]].rename(columns={"volume": "VolumeName"})
        scored = score(
            predict(run, test, workspace, device=asked.device),
            labels,
            groups=list(test["patient"]),
            scans=list(test["scan"]),
            n_bootstrap=300,
        )
        low, high = scored["macro_auc_ci"]
        parameters = sum(value.numel() for value in load_file(run / "model.safetensors").values())
        print(
            f"| {name} | {parameters / 1e6:.2f} M | {result['seconds_per_step']:.2f} "
            f"| {result['validation_macro_auc']:.3f} | {scored['macro_auc']:.3f} ({low:.3f} to {high:.3f}) "
            f"| {result['temperature']:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
