"""Real and synthetic volumes in one training manifest, at a set ratio and without leaks."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from text2ct.augment._refusals import refuse_leaks
from text2ct.augment._scans import NAMES
from text2ct.augment.association import prevalence, source_label_association
from text2ct.augment.selection import Strategy, select, training_volumes
from text2ct.console import info, warn
from text2ct.errors import UserError
from text2ct.files import read_json, write_json
from text2ct.locks import working_in
from text2ct.manifests import Workspace, write_manifest

# Cohen's (1988) conventional bound of a weak association.
NOTABLE_PHI = 0.3
# More synthetic than real volumes: what is seen most is then the generator's idea of a chest.
MAX_RATIO = 1.0
# As often as one prompt may be used: a volume drawn more often than that beside a real one is learnt by heart.
MAX_WEIGHT = 4.0
# What is compared as text; tables that no file was made of may have NaN there.
_TEXTS = ["root", "path", "sha256", "gate", "prompt", "prompt_dataset", "prompt_volume", "pack", "pack_sha256"]


def mix(
    real: pd.DataFrame,
    synthetic: pd.DataFrame | Sequence[pd.DataFrame],
    *,
    ratio: float,
    workspace: Workspace,
    strategy: Strategy = "targeted",
    seed: int = 0,
    synthetic_share: float | None = None,
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
        synthetic_share: Expected share of synthetic volumes among the draws of training, in [0, 1), whatever the
            ratio: written as ``sampling_weight``. None draws every volume equally often.
        strict: Mark the result as failed when fewer volumes exist than the ratio asks.
        run: Name of the run; by default from its contents.
        dry_run: Say what would come out, and write nothing.

    Returns:
        ``manifest``, ``real`` (training volumes), ``synthetic``, ``ratio`` (reached), ``ratio_requested``,
        ``left_out`` by reason, ``prevalence_before`` and ``prevalence_after`` by training scan (None where
        unknown), ``source_label_association`` (phi coefficient of being synthetic and having the finding,
        over training volumes with known label; None where it has no meaning), both as training draws with
        ``synthetic_share``, ``strategy``, ``seed``,
        ``synthetic_share`` (of the draws of training),
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
    if reached > MAX_RATIO:
        warn(
            f"ratio {reached:.3g}: gains were not seen above {MAX_RATIO:g}. The generator's mistakes are then seen "
            "more often than real anatomy, and more of its volumes bring little that the first did not; "
            "--synthetic-share keeps many synthetic volumes and draws them less often"
        )
    frame = pd.concat([real, chosen.chosen], ignore_index=True) if len(chosen.chosen) else real.copy()
    train = pd.concat([before, chosen.chosen], ignore_index=True)
    if synthetic_share is not None:
        frame["sampling_weight"] = sampling_weights(frame, synthetic_share)
    association = source_label_association(train, synthetic_share)
    notable = [f"{name} {phi:+.2f}" for name, phi in association.items() if phi is not None and abs(phi) > NOTABLE_PHI]
    if notable:
        warn(f"looking synthetic predicts {', '.join(notable)} (phi); add synthetic volumes on the other side")
    for reason, count in chosen.left_out.items():
        info(f"{count} synthetic volumes left out: {reason}")
    settings: dict[str, Any] = {"ratio": ratio, "strategy": strategy, "seed": seed}
    if synthetic_share is not None:
        settings["synthetic_share"] = synthetic_share
    digest = _digest(frame, settings)
    name = run or f"ratio-{ratio:g}-{digest[:8]}"
    folder = workspace.run_dir("mixed", name)
    _check_folder(folder, digest)
    result: dict[str, Any] = {
        "manifest": str(folder / "manifest.csv"),
        "real": len(before),
        "synthetic": len(chosen.chosen),
        "ratio": reached,
        "ratio_requested": ratio,
        "left_out": chosen.left_out,
        "prevalence_before": prevalence(before),
        "prevalence_after": prevalence(train, synthetic_share),
        "source_label_association": association,
        "strategy": strategy,
        "seed": seed,
        "synthetic_share": len(chosen.chosen) / len(train) if synthetic_share is None else synthetic_share,
        "run": name,
        "failed": strict and failed,
    }
    if dry_run:
        return result | {"dry_run": True}
    with working_in(folder):
        _check_folder(folder, digest)  # another command may have made one since
        write_manifest(frame, folder / "manifest.csv")
        # Without the path, so that a workspace can be moved and equal mixes are equal files.
        kept = {key: value for key, value in result.items() if key != "manifest"}
        write_json(folder / "mix.json", kept | {"request_sha256": digest})
    return result


def _check_folder(folder: Path, digest: str) -> None:
    """Refuse to write one mix over another.

    Raises:
        UserError: Another one is there.
    """
    if not (folder / "manifest.csv").exists():
        return
    record = folder / "mix.json"
    if not record.is_file() or read_json(record).get("request_sha256") != digest:
        raise UserError(f"{folder} holds another mix; give another --run, or delete it")


def gather(real: pd.DataFrame, synthetic: pd.DataFrame | Sequence[pd.DataFrame], workspace: Workspace) -> pd.DataFrame:
    """Join synthetic manifests and check that they may be used beside ``real``.

    Raises:
        UserError: No synthetic row or no file of any, a volume twice, synthetic rows in ``real``, or a leak.
    """
    frames = [synthetic] if isinstance(synthetic, pd.DataFrame) else list(synthetic)
    frames = [frame for frame in frames if len(frame)]
    if not frames or any("prompt" not in frame for frame in frames):
        raise UserError("there are no synthetic volumes; run `text2ct synthesize` first")
    if (real["source"] == "synthetic").any():
        raise UserError("the real manifest holds synthetic rows; give the manifest of the real data")
    joined = pd.concat(frames, ignore_index=True)
    joined[_TEXTS] = joined[_TEXTS].astype(object).fillna("").astype("str")
    twice = joined[joined.duplicated(["dataset", "volume"])]
    if len(twice):
        raise UserError(
            f"{len(twice)} synthetic volumes are given twice; name each run once",
            [f"{d}/{v}" for d, v in twice[["dataset", "volume"]].head(10).itertuples(index=False)],
        )
    files = (workspace.resolve(r, p) for r, p in zip(joined["root"], joined["path"], strict=True) if p)
    if not any(file.is_file() for file in files):
        raise UserError(
            f"none of the {len(joined)} synthetic volumes is in {workspace.path}: the manifest is another workspace's, "
            "or its volumes are gone; give that --workspace, or synthesize again"
        )
    refuse_leaks(real, joined, workspace)
    return joined


def sampling_weights(frame: pd.DataFrame, share: float) -> pd.Series:
    """Weights by which synthetic volumes make up a share of the draws of training.

    Over the training rows the weights of synthetic ones sum to ``share`` of all. Real volumes weigh 1; rows that are
    never drawn (without a file or any known label) weigh 0, and rows of other splits have no weight.

    Args:
        frame: A mixed manifest.
        share: In [0, 1).

    Returns:
        (n,) float64.

    Raises:
        UserError: The share is out of range, or there is no synthetic volume to make it up.
    """
    if not 0 <= share < 1:
        raise UserError(f"--synthetic-share is {share:g}; expected a share of the draws of at least 0 and below 1")
    train = frame["split"] == "train"
    drawn = train & (frame["path"] != "") & frame[NAMES].notna().any(axis=1)
    synthetic = drawn & (frame["source"] == "synthetic")
    real = drawn & ~synthetic
    if share and not synthetic.any():
        raise UserError("there are no synthetic volumes to draw a share of; raise --ratio, or leave the share out")
    weights = pd.Series(math.nan, index=frame.index, dtype="float64").mask(train, 0.0).mask(real, 1.0)
    if synthetic.any():
        weight = share / (1 - share) * real.sum() / synthetic.sum()
        if weight > MAX_WEIGHT:
            warn(f"each synthetic volume is drawn {weight:.3g} times as often as a real one; synthesize more of them")
        weights = weights.mask(synthetic, weight)
    return weights


def _digest(frame: pd.DataFrame, settings: dict[str, Any]) -> str:
    """SHA-256 of the settings and of every cell, so that rows with other labels or prompts are another run."""
    return hashlib.sha256(f"{json.dumps(settings)}\n{frame.to_csv(index=False)}".encode()).hexdigest()
