"""The demo: the whole loop on the embedded cohort and the bundled pack."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from text2ct import augment, planning, scoring, workflow
from text2ct.console import info
from text2ct.manifests import Workspace

# Sized for ten minutes on two cores without a GPU, with margin.
RATIO = 0.5
SEEDS = 3
STEPS = 150
# Without classical augmentation, which costs a CPU more than the training itself.
ARMS = ("real", "real+oversampled", "real+synthetic@R", "synthetic")


def run_demo(workspace: Workspace, *, seed: int = 0, device: str = "auto") -> dict[str, Any]:
    """Cohort, imbalance report, prompts, synthetic volumes, mix, benchmark and its report.

    Every step is the command of the same name, so the demo shows nothing that users cannot repeat, and an
    interrupted demo goes on where it stopped.

    Args:
        workspace: Where everything is written.
        seed: Seed of prompts, volumes and trainings.
        device: Where to compute.

    Returns:
        The ``benchmark`` object of the command line, with ``seconds`` and ``imbalance_report``.
    """
    from text2ct.evaluation.benchmark import BenchmarkSettings

    started = time.monotonic()
    info("1/5 cohort and imbalance report")
    frame, _ = workflow.real_manifest(workspace)
    summary = planning.report(workspace, seed=seed)
    info(f"    {summary['report']}")

    info("2/5 prompts for the under-represented findings")
    plan = augment.read_plan(Path(summary["plan"]))
    real_volumes = int(((frame["split"] == "train") & (frame["path"] != "")).sum())
    count = round(RATIO * real_volumes)
    requests = augment.make_prompts(frame, plan, count=count, seed=seed)

    info(f"3/5 {len(requests)} synthetic volumes with the pack {workflow.BUNDLED_PACK}")
    made = augment.synthesize(
        requests,
        pack=workflow.BUNDLED_PACK,
        workspace=workspace,
        run=f"demo-seed{seed}",
        seed=seed,
        device=device,
    )

    info(f"4/5 mix at ratio {RATIO}")
    mixed = workflow.mix(workspace, ratio=RATIO, synthetic=Path(made["manifest"]), seed=seed, run=f"demo-seed{seed}")
    info(f"    {mixed['manifest']}")

    info(f"5/5 benchmark: arms x {SEEDS} seeds x {STEPS} steps")
    settings = BenchmarkSettings(ratios=(RATIO,), seeds=tuple(range(seed, seed + SEEDS)), steps=STEPS, arms=ARMS)
    result = scoring.benchmark(
        workspace,
        settings,
        synthetic=Path(made["manifest"]),
        run=f"demo-seed{seed}",
        device=device,
        rerun=[f"text2ct demo --seed {seed}"],
    )
    return result | {"seconds": round(time.monotonic() - started, 1), "imbalance_report": summary["report"]}
