"""The training sets that a benchmark compares."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from text2ct.augment import ml_ros
from text2ct.augment._scans import NAMES, label_matrix
from text2ct.augment.selection import Strategy, select, usable
from text2ct.console import warn
from text2ct.errors import UserError
from text2ct.manifests import Workspace

DEFAULT_ARMS = ("real", "real+oversampled", "real+synthetic@R", "synthetic")
_RATIO_ARM = re.compile(r"(real\+(?:synthetic|shuffled))@(R|\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class Arm:
    """One training set: training and validation rows, and how often each is drawn.

    Args:
        name: As in the result, for example ``real+synthetic@0.5``.
        frame: Manifest rows with split train and validation.
        sampling_weights: ``(len(frame),)`` relative frequencies, or None for all equal.
        real: Real training volumes.
        synthetic: Synthetic training volumes.
        clones: Real volumes that oversampling adds.
    """

    name: str
    frame: pd.DataFrame
    sampling_weights: np.ndarray | None
    real: int
    synthetic: int
    clones: int = 0


def expand_arms(arms: Sequence[str], ratios: Sequence[float]) -> list[str]:
    """Arm names with every ``@R`` replaced by each ratio.

    Raises:
        UserError: An unknown arm, a bad ratio, or no ``real`` arm to compare with.
    """
    problems = [f"ratio {ratio:g} is not above 0" for ratio in ratios if not 0 < ratio < float("inf")]
    names: list[str] = []
    for arm in arms:
        found = _RATIO_ARM.fullmatch(arm)
        if arm in ("real", "real+oversampled", "synthetic"):
            names.append(arm)
        elif found and found[2] == "R":
            if not ratios:
                problems.append(f"'{arm}' needs at least one ratio")
            names += [f"{found[1]}@{ratio:g}" for ratio in ratios]
        elif found and float(found[2]) > 0:
            names.append(f"{found[1]}@{float(found[2]):g}")
        else:
            problems.append(
                f"unknown arm '{arm}'; there are real, real+oversampled, real+synthetic@R, real+shuffled@R "
                "and synthetic"
            )
    if "real" not in names:
        problems.append("the arm 'real' is missing; everything is compared with it")
    if problems:
        raise UserError("this benchmark cannot be run", problems)
    return list(dict.fromkeys(names))


def needs_synthetic(names: Sequence[str]) -> bool:
    """Whether any arm uses synthetic volumes."""
    return any(name not in ("real", "real+oversampled") for name in names)


def build_arm(
    name: str,
    train: pd.DataFrame,
    validation: pd.DataFrame,
    synthetic: pd.DataFrame | None,
    workspace: Workspace,
    *,
    strategy: Strategy,
    oversample_share: float,
    seed: int,
) -> Arm:
    """Assemble one arm from the real training and validation rows and the synthetic ones.

    Raises:
        UserError: No synthetic volume can be used.
    """
    if name == "real":
        return Arm(name, _join(train, validation), None, len(train), 0)
    if name == "real+oversampled":
        clones = ml_ros(label_matrix(train), oversample_share, seed)
        weights = np.ones(len(train) + len(validation))
        np.add.at(weights, clones, 1.0)
        return Arm(name, _join(train, validation), weights, len(train), 0, len(clones))
    assert synthetic is not None
    if name == "synthetic":
        rows, _ = usable(synthetic, workspace)
        real = train.iloc[:0]
    else:
        kind, ratio = name.split("@")
        selection = select(train, synthetic, workspace, ratio=float(ratio), strategy=strategy, seed=seed)
        rows, real = selection.chosen, train
        if len(rows) < selection.wanted:
            warn(f"{name}: only {len(rows)} of {selection.wanted} synthetic volumes can be used")
        if kind == "real+shuffled":
            rows = shuffle_labels(rows, seed)
    if rows.empty:
        raise UserError(f"arm '{name}' has no synthetic volume with a known label and a file")
    return Arm(name, _join(real, rows, validation), None, len(real), len(rows))


def shuffle_labels(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The same volumes with their label rows permuted: more volumes, no knowledge."""
    order = np.random.default_rng([seed, 4]).permutation(len(rows))
    shuffled = rows.copy()
    shuffled[NAMES] = label_matrix(rows)[order]
    return shuffled


def _join(*frames: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([frame for frame in frames if len(frame)], ignore_index=True)


def table_digest(frame: pd.DataFrame) -> str:
    """Digest of what a training sees of a manifest: identities, splits, labels and contents."""
    columns = ["dataset", "volume", "patient", "scan", "split", "source", "root", "path", "sha256"]
    labels = frame[NAMES].fillna(-1.0).to_numpy(dtype=float).tolist()
    return json_digest([frame[columns].astype(str).to_numpy(dtype=object).tolist(), labels])


def json_digest(value: object) -> str:
    """SHA-256 of a value as canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
