"""Privacy and diversity: copies of training volumes, what a set gives away, and whether one prompt gives one volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from text2ct.evaluation.generator.sets import MeasuredSet
from text2ct.evaluation.memorisation import find_memorised
from text2ct.evaluation.privacy import privacy
from text2ct.evaluation.similarity import SETTINGS, diversity
from text2ct.findings import FINDINGS

MOST_SUSPICIOUS = 8
# Volumes of a group whose pairs are compared, and pairs of a group.
_GROUP, _PAIRS = 12, 60


def privacy_section(
    synthetic: MeasuredSet,
    training: MeasuredSet,
    held_out: MeasuredSet,
    embedded: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]] | None,
    n_known: int,
    *,
    n_bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    """``memorised`` volumes and the nearest pairs; with embeddings also ratios, authenticity and membership.

    Args:
        synthetic: Generated volumes.
        training: Real volumes that a generator of this workspace may have learnt from.
        held_out: Real volumes that it has not.
        embedded: (m, d), (n, d) and (h, d) unit vectors of the three, or None.
        n_known: How many of ``training`` the generator has learnt from, as far as its pack says: without any, only
            copies are looked for.
        n_bootstrap: Bootstrap samples.
        seed: Of the bootstrap.
    """
    result = find_memorised(synthetic.volumes, training.volumes, held_out.volumes)
    order = np.argsort(result.distances_hu, kind="stable")[:MOST_SUSPICIOUS]
    found: dict[str, Any] = {
        "memorised": result.memorised,
        "threshold_hu": result.threshold_hu,
        "false_positive_rate_at_most": result.false_positive_rate,
        "n_training": result.n_training,
        "nearest": [
            {
                "synthetic": str(synthetic.rows["volume"][i]),
                "training": str(training.rows["volume"][result.neighbours[i].index]),
                "distance_hu": float(result.distances_hu[i]),
                "ratio": float(result.ratios[i]),
                "memorised": bool(result.distances_hu[i] < result.threshold_hu),
            }
            for i in map(int, order)
        ],
    }
    found["n_known_training"] = n_known
    if embedded is not None and n_known:
        # One scan a patient: another scan of the same one is no stranger to it.
        made, learnt, others = embedded
        alone = [~side.rows.duplicated(["dataset", "patient"]).to_numpy() for side in (training, held_out)]
        distances = privacy(made, learnt[alone[0]], others[alone[1]], n_bootstrap=n_bootstrap, seed=seed)
        found |= {name: value for name, value in asdict(distances).items() if not name.startswith("n_")}
    return found


def diversity_section(
    real: MeasuredSet,
    synthetic: MeasuredSet,
    embedded: tuple[NDArray[np.float64], NDArray[np.float64]] | None,
    seed: int,
) -> dict[str, Any]:
    """Mean MS-SSIM and spread of embeddings within prompts that were used twice or more, and within real findings.

    Args:
        real: Real volumes.
        synthetic: Generated volumes.
        embedded: (n, d) and (m, d) unit vectors of real and synthetic volumes, or None.
        seed: Of the pairs.
    """
    prompts = synthetic.rows.groupby(synthetic.texts, sort=False).indices
    repeated = [np.asarray(rows, dtype=np.intp) for text, rows in prompts.items() if text and len(rows) > 1]
    having = [np.flatnonzero(real.labels[:, column] == 1) for column in range(len(FINDINGS))]
    return {
        "one_prompt": _alike(synthetic, repeated, None if embedded is None else embedded[1], seed),
        "one_finding_real": _alike(
            real, [r for r in having if len(r) > 1], None if embedded is None else embedded[0], seed
        ),
    }


def _alike(
    side: MeasuredSet, groups: Sequence[NDArray[np.intp]], vectors: NDArray[np.float64] | None, seed: int
) -> dict[str, Any]:
    """Means over groups: ``ms_ssim``, where the grid is large enough for it, and ``embedding_spread``."""
    found: dict[str, Any] = {"groups": len(groups)}
    groups = [rows[:_GROUP] for rows in groups]
    if groups and min(side.volumes[0].shape) >= SETTINGS.smallest_axis:
        values = [diversity(side.volumes.of(rows), pairs=_PAIRS, n_bootstrap=0, seed=seed).ms_ssim for rows in groups]
        found["ms_ssim"] = float(np.mean(values))
    if groups and vectors is not None:
        found["embedding_spread"] = float(np.mean([_spread(vectors[rows]) for rows in groups]))
    return found


def _spread(vectors: NDArray[np.float64]) -> float:
    """Mean cosine distance of the pairs, in [0, 2]."""
    cosines = vectors @ vectors.T
    pairs = np.triu_indices(len(vectors), k=1)
    return float(1 - cosines[pairs].mean())
