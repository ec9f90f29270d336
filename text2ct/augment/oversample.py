"""ML-ROS: duplicated real volumes, the comparator that synthetic volumes have to beat."""

from __future__ import annotations

import numpy as np


def ml_ros(labels: np.ndarray, share: float = 0.25, seed: int = 0) -> np.ndarray:
    """Rows to duplicate by multi-label random oversampling.

    Algorithm 2 of Charte et al. (Neurocomputing 2015, 163:3-16): every label whose IRLbl is above
    MeanIR has a bag of the rows that show it. In turn, one random row of each bag is cloned, and a bag
    is closed once its label's IRLbl has come down to MeanIR (of the original table). It ends when
    ``share`` of the rows were cloned or all bags are closed.

    Args:
        labels: ``(n, labels)`` of 1, 0 or NaN; unknown counts neither way.
        share: Clones per row at most, >= 0 (the paper's P / 100; it uses 0.1 to 0.25).
        seed: Seed of the draws.

    Returns:
        Row numbers, one per clone, with repetition; ``int64``.

    Raises:
        ValueError: The share is negative or not finite.
    """
    if not 0 <= share < float("inf"):
        raise ValueError(f"share is {share}; expected 0 or more")
    rng = np.random.default_rng([seed, 3])
    active = labels == 1
    known = ~np.isnan(labels)
    positive, total = active.sum(axis=0).astype(float), known.sum(axis=0).astype(float)
    present = positive > 0
    if not present.any():
        return np.empty(0, dtype=np.int64)
    mean_ir = _irlbl(positive, total)[present].mean()
    bags = {int(c): np.flatnonzero(active[:, c]) for c in np.flatnonzero(present & (_irlbl(positive, total) > mean_ir))}
    left = int(share * len(labels))
    clones: list[int] = []
    while left > 0 and bags:
        for column in list(bags):
            if left == 0:
                break
            if _irlbl(positive, total)[column] <= mean_ir:
                del bags[column]
                continue
            row = int(rng.choice(bags[column]))
            clones.append(row)
            positive += active[row]
            total += known[row]
            left -= 1
    return np.array(clones, dtype=np.int64)


def _irlbl(positive: np.ndarray, known: np.ndarray) -> np.ndarray:
    """IRLbl by prevalence, as in :func:`text2ct.manifests.imbalance.irlbl`; inf without a positive."""
    with np.errstate(divide="ignore", invalid="ignore"):
        prevalence = positive / known
        return np.nanmax(prevalence) / prevalence
