"""Privacy and diversity: copies of training volumes, what a set gives away, and whether one prompt gives one volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from text2ct.augment.gate.memorised import MemorisedSettings, calibrate, notes, pair_picture, pairs
from text2ct.console import progress
from text2ct.evaluation.generator.sets import MeasuredSet
from text2ct.evaluation.memorisation import Embed, TrainingVolumes
from text2ct.evaluation.privacy import privacy
from text2ct.evaluation.similarity import SETTINGS, diversity
from text2ct.files import atomic_path
from text2ct.findings import FINDINGS

MOST_SUSPICIOUS = 8
# Volumes of a group whose pairs are compared, and pairs of a group.
GROUP, PAIRS = 12, 60


def privacy_section(
    synthetic: MeasuredSet,
    training: MeasuredSet,
    strangers: MeasuredSet,
    *,
    n_known: int,
    spacing_mm: Sequence[float],
    pictures: Path | None = None,
    embed: Embed | None = None,
) -> dict[str, Any]:
    """``memorised`` volumes, by the gate's rule with its usual settings, and the nearest pairs.

    Args:
        synthetic: Generated volumes.
        training: All real volumes that a generator of this workspace may have learnt from.
        strangers: Real volumes of other patients, which say how near those come.
        n_known: How many of ``training`` the generator has learnt from, as far as its pack says.
        spacing_mm: Of the grid, for pictures.
        pictures: Folder for pictures of the nearest pairs; none are made without.
        embed: The 3D CLIP, if it reads this grid: it proposes candidates, as block means do.
    """
    settings = MemorisedSettings()
    search = TrainingVolumes(
        training.volumes, embed=embed, candidates=settings.candidates, max_shift=settings.max_shift
    )
    rule = calibrate(search, strangers.volumes, pairs(training.rows, training.volumes), settings)
    near = []
    with progress("looking for copies", len(synthetic)) as advance:
        for number, volume_hu in enumerate(synthetic.volumes):
            near.append(search.nearest(volume_hu, f"synthetic volume {number}"))
            advance(1)
    distances = np.array([one.distance_hu for one in near])
    return {
        "memorised": int((distances < rule.distance_hu).sum()),
        "threshold_hu": rule.distance_hu,
        "rule": rule.model_dump(mode="json"),
        "rule_notes": notes(rule),
        "n_training": len(training),
        "n_known_training": n_known,
        "nearest": [
            {
                "synthetic": str(synthetic.rows["volume"][i]),
                "training": str(training.rows["volume"][near[i].index]),
                "distance_hu": near[i].distance_hu,
                "ratio": near[i].ratio,
                "memorised": bool(distances[i] < rule.distance_hu),
                "picture": _picture(pictures, k, synthetic.volumes[i], training.volumes[near[i].index], spacing_mm),
            }
            for k, i in enumerate(map(int, np.argsort(distances, kind="stable")[:MOST_SUSPICIOUS]))
        ],
    }


def _picture(
    folder: Path | None, k: int, made: NDArray[np.int16], learnt: NDArray[np.int16], spacing_mm: Sequence[float]
) -> str | None:
    """File name of the two volumes one above the other, if there is a folder for it."""
    if folder is None:
        return None
    name = f"pair-{k + 1}.png"
    with atomic_path(folder / name) as temporary:
        temporary.write_bytes(pair_picture(np.asarray(made), np.asarray(learnt), spacing_mm))
    return name


def membership_section(
    synthetic: tuple[MeasuredSet, NDArray[np.float64]],
    training: tuple[MeasuredSet, NDArray[np.float64]],
    held_out: tuple[MeasuredSet, NDArray[np.float64]],
    *,
    n_bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    """Ratios, authenticity and membership inference, by embeddings; one scan a patient, since another is no stranger.

    Args:
        synthetic: Generated volumes, and their (m, d) unit vectors.
        training: Volumes that the generator has learnt from, and theirs.
        held_out: Volumes of other patients, and theirs.
        n_bootstrap: Bootstrap samples.
        seed: Of the bootstrap.
    """
    learnt, others = (
        vectors[~side.rows.duplicated(["dataset", "patient"]).to_numpy()] for side, vectors in (training, held_out)
    )
    found = asdict(privacy(synthetic[1], learnt, others, n_bootstrap=n_bootstrap, seed=seed))
    return {name: value for name, value in found.items() if not name.startswith("n_")}


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
    if not repeated:
        return {"one_prompt": {"groups": 0}}
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
    groups = [rows[:GROUP] for rows in groups]
    if groups and min(side.volumes[0].shape) >= SETTINGS.smallest_axis:
        values = [diversity(side.volumes.of(rows), pairs=PAIRS, n_bootstrap=0, seed=seed).ms_ssim for rows in groups]
        found["ms_ssim"] = float(np.mean(values))
    if groups and vectors is not None:
        found["embedding_spread"] = float(np.mean([_spread(vectors[rows]) for rows in groups]))
    return found


def _spread(vectors: NDArray[np.float64]) -> float:
    """Mean cosine distance of the pairs, in [0, 2]."""
    cosines = vectors @ vectors.T
    pairs = np.triu_indices(len(vectors), k=1)
    return float(1 - cosines[pairs].mean())
