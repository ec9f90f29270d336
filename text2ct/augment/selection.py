"""Which synthetic volumes join a training set: uniform or targeted draws, never more than the ratio asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from text2ct.augment._scans import NAMES, label_matrix
from text2ct.errors import UserError
from text2ct.manifests import Workspace, summarise

Strategy = Literal["targeted", "uniform"]


@dataclass(frozen=True)
class Selection:
    """The synthetic rows chosen, in a stable order, and why others were left out."""

    chosen: pd.DataFrame
    wanted: int
    left_out: dict[str, int] = field(default_factory=dict)


def training_volumes(real: pd.DataFrame) -> pd.DataFrame:
    """The real rows that a ratio counts: training split, with a file.

    Raises:
        UserError: There are none.
    """
    rows = real[(real["split"] == "train") & (real["path"] != "")]
    if rows.empty:
        raise UserError("the real manifest has no training volumes with files; a ratio needs them")
    return rows


def underrepresented(real: pd.DataFrame) -> list[str]:
    """Findings that the report's rule calls under-represented in the training split."""
    numbers = summarise(training_volumes(real)).to_json()["findings"]
    return [name for name in NAMES if numbers[name]["underrepresented"]]


def usable(synthetic: pd.DataFrame, workspace: Workspace) -> tuple[pd.DataFrame, dict[str, int]]:
    """Synthetic rows that can be learned from, and how many were left out for which reason.

    Labels that a gate doubts are unknown in them.
    """
    from text2ct.augment.gate import known_labels

    synthetic = known_labels(synthetic)
    no_label = np.isnan(label_matrix(synthetic)).all(axis=1)
    rejected = synthetic["gate"].str.startswith("reject").to_numpy() & ~no_label
    present = [
        bool(p) and workspace.resolve(r, p).is_file() for r, p in zip(synthetic["root"], synthetic["path"], strict=True)
    ]
    missing = ~np.array(present, dtype=bool) & ~no_label & ~rejected
    reasons = {"no known label": no_label, "rejected by the gate": rejected, "file is missing": missing}
    left_out = {reason: int(rows.sum()) for reason, rows in reasons.items() if rows.any()}
    return synthetic[~(no_label | rejected | missing)], left_out


def select(
    real: pd.DataFrame,
    synthetic: pd.DataFrame,
    workspace: Workspace,
    *,
    ratio: float,
    strategy: Strategy = "targeted",
    seed: int = 0,
) -> Selection:
    """Choose ``round(ratio * real training volumes)`` synthetic volumes.

    ``uniform`` draws at random. ``targeted`` takes turns: a volume with the under-represented finding
    that is rarest so far, then one known to lack all of them, so that looking synthetic says little about
    the label; volumes of which neither is known come last. The same tables (in any order), ratio and
    seed give the same choice.

    Raises:
        UserError: The ratio is not a number of at least 0, or the strategy is unknown.
    """
    if not 0 <= ratio < float("inf"):
        raise UserError(f"the ratio is {ratio:g}; expected synthetic volumes per real training volume, 0 or more")
    if strategy not in ("targeted", "uniform"):
        raise UserError(f"strategy is '{strategy}'; expected targeted or uniform")
    rows, left_out = usable(synthetic, workspace)
    rows = rows.sort_values(["dataset", "volume"], kind="stable")
    train = training_volumes(real)
    wanted = round(ratio * len(train))
    rng = np.random.default_rng([seed, 2])
    targets = underrepresented(real) if strategy == "targeted" else []
    order = _targeted(train, rows, targets, wanted, rng) if targets else rng.permutation(len(rows)).tolist()
    chosen = sorted(order[:wanted])
    if len(rows) > wanted:
        left_out["beyond the ratio"] = len(rows) - wanted
    return Selection(rows.iloc[chosen], wanted, left_out)


def _targeted(
    train: pd.DataFrame, rows: pd.DataFrame, targets: Sequence[str], wanted: int, rng: np.random.Generator
) -> list[int]:
    labels = label_matrix(rows)
    # Turns are for targets that some volume is known to have or to lack: of the others nothing can be balanced.
    known_in_some = ~np.isnan(labels).all(axis=0)
    columns = [column for column in map(NAMES.index, targets) if known_in_some[column]]
    have, offered = label_matrix(train)[:, columns], labels[:, columns]
    positive, known = np.nansum(have, axis=0), (~np.isnan(have)).sum(axis=0).astype(float)
    shuffled = rng.permutation(len(rows))
    with_ = {c: [int(i) for i in shuffled if offered[i, c] == 1] for c in range(len(columns))}
    without = [int(i) for i in shuffled if (offered[i] == 0).all()]
    unknown = [int(i) for i in shuffled if np.isnan(offered[i]).any() and not (offered[i] == 1).any()]
    taken: set[int] = set()
    order: list[int] = []

    def take(pool: list[int]) -> bool:
        while pool and pool[-1] in taken:
            pool.pop()
        if not pool:
            return False
        row = pool.pop()
        taken.add(row)
        order.append(row)
        nonlocal positive, known
        positive = positive + (offered[row] == 1)
        known = known + ~np.isnan(offered[row])
        return True

    while len(order) < min(wanted, len(rows)):
        rarest = np.argsort(positive / np.maximum(known, 1), kind="stable")
        # A turn for each side; when one has run dry the other goes on alone.
        took = any(take(with_[int(c)]) for c in rarest)
        if len(order) < wanted:
            took = take(without) or took
        if not took:
            break
    return order + unknown
