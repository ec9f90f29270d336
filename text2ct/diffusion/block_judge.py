"""A judge of generated volumes that is no neural network: trees on block statistics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.metrics import roc_auc_score

from text2ct.diffusion.training.cases import Cases
from text2ct.findings import FINDINGS

BLOCKS = 8


def block_statistics(volume_hu: NDArray[np.generic]) -> NDArray[np.float32]:
    """Statistics of the 8x8x8 blocks of a volume.

    Args:
        volume_hu: (X, Y, Z) HU, each axis a multiple of 8.

    Returns:
        (4·512,) float32: of each block the mean, the standard deviation, the share of dense lung (-700 to
        -200 HU) and the share of calcium (above 150 HU).
    """
    x, y, z = (n // BLOCKS for n in volume_hu.shape)
    parts = volume_hu.astype(np.float32).reshape(BLOCKS, x, BLOCKS, y, BLOCKS, z)
    parts = parts.transpose(0, 2, 4, 1, 3, 5).reshape(BLOCKS**3, -1)
    dense_lung = ((parts > -700) & (parts < -200)).mean(1)
    stats = (parts.mean(1), parts.std(1), dense_lung, (parts > 150).mean(1))
    return np.concatenate(stats).astype(np.float32)


class BlockJudge:
    """Extremely randomised trees that read the 18 findings (Geurts et al. 2006).

    Args:
        cases: What it learns from; labels must be known.
        seed: Of the trees.
        trees: How many.
        jobs: Cores used.
    """

    def __init__(self, cases: Cases, *, seed: int = 0, trees: int = 300, jobs: int = -1) -> None:
        features = np.stack([block_statistics(cases.volume_hu(i)) for i in range(len(cases))])
        self._trees = ExtraTreesClassifier(
            trees, min_samples_leaf=2, max_features=0.05, random_state=seed, n_jobs=jobs
        ).fit(features, cases.labels.astype(int))

    def scores(self, volumes_hu: Sequence[NDArray[np.generic]]) -> NDArray[np.float32]:
        """Probability of each finding, (n, 18)."""
        features = np.stack([block_statistics(volume) for volume in volumes_hu])
        columns = self._trees.predict_proba(features)
        return np.stack([p[:, -1] if p.shape[1] > 1 else p[:, 0] * 0 for p in columns], axis=1).astype(np.float32)

    def aucs(self, volumes_hu: Sequence[NDArray[np.generic]], labels: NDArray[np.float32]) -> dict[str, float]:
        """AUC of each finding that has both classes in (n, 18) ``labels``."""
        scores = self.scores(volumes_hu)
        return {
            name: round(float(roc_auc_score(labels[:, i], scores[:, i])), 3)
            for i, name in enumerate(FINDINGS)
            if 0 < labels[:, i].sum() < len(labels)
        }


def macro(aucs: dict[str, float]) -> float | None:
    """Mean over findings; None where none could be computed."""
    return round(float(np.mean(list(aucs.values()))), 3) if aucs else None
