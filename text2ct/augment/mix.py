"""Real and synthetic volumes in one training manifest, at a set ratio and without leaks."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from text2ct.augment._refusals import refuse_leaks
from text2ct.augment._scans import NAMES, label_matrix
from text2ct.augment.selection import Strategy, select, training_volumes
from text2ct.console import info, warn
from text2ct.errors import UserError
from text2ct.files import write_json
from text2ct.manifests import Workspace, by_scan, write_manifest

# Cohen's (1988) conventional bound of a weak association.
NOTABLE_PHI = 0.3


def mix(
    real: pd.DataFrame,
    synthetic: pd.DataFrame | Sequence[pd.DataFrame],
    *,
    ratio: float,
    workspace: Workspace,
    strategy: Strategy = "targeted",
    seed: int = 0,
    strict: bool = False,
    run: str | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Write ``mixed/<run>/manifest.csv``: every real row, and synthetic training rows at a ratio.

    Args:
        real: The real (or simulated) manifest with its splits.
        synthetic: One or several manifests of ``synthesize``.
        ratio: Synthetic volumes per real training volume with a file.
        workspace: Resolves the rows' roots and holds the result.
        strategy: ``targeted`` or ``uniform``, see :func:`text2ct.augment.selection.select`.
        seed: Seed of the draw.
        strict: Mark the result as failed when fewer volumes exist than the ratio asks.
        run: Name of the run; by default from its contents.
        dry_run: Say what would come out, and write nothing.

    Returns:
        ``manifest``, ``real`` (training volumes), ``synthetic``, ``ratio`` (reached), ``ratio_requested``,
        ``left_out`` by reason, ``prevalence_before`` and ``prevalence_after`` by training scan (None where
        unknown), ``source_label_association`` (phi coefficient of being synthetic and having the finding,
        over training volumes with known label; None where it has no meaning), ``strategy``, ``seed``,
        ``run``, and ``failed``: True when ``strict`` found too few volumes (exit code 1).

    Raises:
        UserError: A leak (every volume is named), a bad ratio, or tables that cannot be joined.
    """
    offered = gather(real, synthetic, workspace)
    chosen = select(real, offered, workspace, ratio=ratio, strategy=strategy, seed=seed)
    before = training_volumes(real)
    reached = len(chosen.chosen) / len(before)
    failed = len(chosen.chosen) < chosen.wanted
    if failed:
        warn(
            f"ratio {ratio:g} asks for {chosen.wanted} synthetic volumes, {len(chosen.chosen)} can be used: "
            f"the ratio is {reached:.3g}; synthesize more to reach it"
        )
    frame = pd.concat([real, chosen.chosen], ignore_index=True) if len(chosen.chosen) else real
    train = pd.concat([before, chosen.chosen], ignore_index=True)
    association = source_label_association(train)
    notable = [f"{name} {phi:+.2f}" for name, phi in association.items() if phi is not None and abs(phi) > NOTABLE_PHI]
    if notable:
        warn(f"looking synthetic predicts {', '.join(notable)} (phi); add synthetic volumes on the other side")
    for reason, count in chosen.left_out.items():
        info(f"{count} synthetic volumes left out: {reason}")
    settings = {"ratio": ratio, "strategy": strategy, "seed": seed}
    name = run or f"ratio-{ratio:g}-{_digest(frame, settings)[:8]}"
    folder = workspace.run_dir("mixed", name)
    result: dict[str, Any] = {
        "manifest": str(folder / "manifest.csv"),
        "real": len(before),
        "synthetic": len(chosen.chosen),
        "ratio": reached,
        "ratio_requested": ratio,
        "left_out": chosen.left_out,
        "prevalence_before": prevalence(before),
        "prevalence_after": prevalence(train),
        "source_label_association": association,
        "strategy": strategy,
        "seed": seed,
        "run": name,
        "failed": strict and failed,
    }
    if dry_run:
        return result | {"dry_run": True}
    write_manifest(frame, folder / "manifest.csv")
    # Without the path, so that a workspace can be moved and equal mixes are equal files.
    write_json(folder / "mix.json", {key: value for key, value in result.items() if key != "manifest"})
    return result


def gather(real: pd.DataFrame, synthetic: pd.DataFrame | Sequence[pd.DataFrame], workspace: Workspace) -> pd.DataFrame:
    """Join synthetic manifests and check that they may be used beside ``real``.

    Raises:
        UserError: No synthetic row, a volume twice, synthetic rows in ``real``, or a leak.
    """
    frames = [synthetic] if isinstance(synthetic, pd.DataFrame) else list(synthetic)
    frames = [frame for frame in frames if len(frame)]
    if not frames or any("prompt" not in frame for frame in frames):
        raise UserError("there are no synthetic volumes; run `text2ct synthesize` first")
    if (real["source"] == "synthetic").any():
        raise UserError("the real manifest holds synthetic rows; give the manifest of the real data")
    joined = pd.concat(frames, ignore_index=True)
    twice = joined[joined.duplicated(["dataset", "volume"])]
    if len(twice):
        raise UserError(
            f"{len(twice)} synthetic volumes are given twice; name each run once",
            [f"{d}/{v}" for d, v in twice[["dataset", "volume"]].head(10).itertuples(index=False)],
        )
    refuse_leaks(real, joined, workspace)
    return joined


def prevalence(train: pd.DataFrame) -> dict[str, float | None]:
    """Prevalence by scan among known labels; a synthetic volume is a scan of its own."""
    labels = label_matrix(by_scan(train)[0])
    known = (~np.isnan(labels)).sum(axis=0)
    return {n: float(np.nansum(labels[:, i]) / known[i]) if known[i] else None for i, n in enumerate(NAMES)}


def source_label_association(train: pd.DataFrame) -> dict[str, float | None]:
    """Phi coefficient (correlation of two binary variables) of source and each label, in [-1, 1]."""
    labels = label_matrix(train)
    synthetic = (train["source"] == "synthetic").to_numpy(dtype=float)
    result: dict[str, float | None] = {}
    for index, name in enumerate(NAMES):
        known = ~np.isnan(labels[:, index])
        x, y = synthetic[known], labels[known, index]
        constant = not len(x) or x.std() == 0 or y.std() == 0
        phi = math.nan if constant else float(np.corrcoef(x, y)[0, 1])
        result[name] = None if math.isnan(phi) else round(phi, 6)
    return result


def _digest(frame: pd.DataFrame, settings: dict[str, Any]) -> str:
    rows = frame[["dataset", "volume", "split", "sha256"]].to_dict("split", index=False)["data"]
    return hashlib.sha256(json.dumps([settings, rows]).encode()).hexdigest()
