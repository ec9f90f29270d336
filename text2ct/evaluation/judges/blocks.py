"""A judge that is no network: trees on statistics of blocks, regions and blobs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier

from text2ct import console
from text2ct.diffusion.training.cases import Cases
from text2ct.diffusion.training.config import parse_config
from text2ct.evaluation.judges.features import BLOCKS, volume_features
from text2ct.evaluation.judges.judge import JUDGE_FILE, VolumesHu, check_cases, check_volumes, origin, read_judge_file
from text2ct.files import atomic_path, read_json, write_json
from text2ct.findings import FINDINGS

FEATURES_FILE = "features.npz"
CACHE_FILE = "features.json"  # what the features of a cache are of
CHUNK = 100  # cases whose features are kept in one file


class BlockJudgeConfig(BaseModel):
    """Settings of the trees."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    features: int = Field(default=600, ge=1, description="kept for each finding, by their variance ratio")
    trees: int = Field(default=200, ge=1, description="extremely randomised trees a finding")
    rounds: int = Field(default=150, ge=1, description="boosting rounds a finding")
    seed: int = Field(default=0, ge=0)


class BlockJudge:
    """Extremely randomised trees (Geurts et al. 2006) and boosted trees, averaged, one pair for each finding.

    It is saved as what its trees are fitted to, which is data and no code, and fitted again when loaded.

    Args:
        features: (n, k) float16 of the training cases.
        labels: (n, 18) 0 or 1.
        columns: (k,) which of a volume's features those are.
        config: Settings.
        size: Voxels along (x, y, z).
        trained_on: What it was trained on, for the record.
    """

    name = "trees on block statistics"
    kind = "blocks"

    def __init__(
        self,
        features: NDArray[np.float16],
        labels: NDArray[np.float32],
        columns: NDArray[np.int64],
        config: BlockJudgeConfig,
        size: tuple[int, int, int],
        trained_on: dict[str, Any],
    ) -> None:
        self.features, self.labels, self.columns = features, labels, columns
        self.config, self.size, self.trained_on = config, size, trained_on
        values = features.astype(np.float32)
        self._readers = [_Reader(values, labels[:, column].astype(int), config) for column in range(len(FINDINGS))]

    @classmethod
    def train(cls, cases: Cases, config: BlockJudgeConfig | None = None, *, cache: Path | None = None) -> BlockJudge:
        """Learn from ``cases``.

        Args:
            cases: Volumes with known labels.
            config: Settings; the defaults if None.
            cache: Folder for features of each 100 cases, from which an interrupted call goes on; those of other
                cases are replaced.

        Raises:
            UserError: Unknown labels, or a grid that has no 8x8x8 blocks.
        """
        check_cases(cases, BLOCKS)
        config = config or BlockJudgeConfig()
        features = cases_features(cases, cache)
        chosen = [_chosen(features, cases.labels[:, column], config.features) for column in range(len(FINDINGS))]
        columns = np.unique(np.concatenate(chosen))
        return cls(features[:, columns], cases.labels, columns, config, cases.size, origin(cases))

    def scores(self, volumes_hu: VolumesHu) -> NDArray[np.float32]:
        """Probability of each finding, (n, 18) float32; see :class:`Judge`."""
        check_volumes(volumes_hu, self.size)
        if not len(volumes_hu):
            return np.zeros((0, len(FINDINGS)), dtype=np.float32)
        values = _features(volumes_hu)[:, self.columns].astype(np.float32)
        return np.stack([reader.probability(values) for reader in self._readers], axis=1).astype(np.float32)

    def save(self, folder: Path) -> None:
        """Write ``judge.json`` and ``features.npz``."""
        with atomic_path(folder / FEATURES_FILE) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, features=self.features, labels=self.labels, columns=self.columns)
        record = {"config": self.config.model_dump(mode="json"), "size": list(self.size), "trained_on": self.trained_on}
        write_json(folder / JUDGE_FILE, {"kind": self.kind, **record, "scikit-learn": sklearn.__version__})

    @classmethod
    def load(cls, folder: Path) -> BlockJudge:
        """Fit again what :meth:`save` wrote: about a minute for thousands of cases.

        Raises:
            UserError: The folder holds no such judge.
        """
        record = read_judge_file(folder, cls.kind)
        if record.get("scikit-learn", sklearn.__version__) != sklearn.__version__:
            console.warn(
                f"the judge in {folder} was fitted by scikit-learn {record['scikit-learn']} and is fitted again by "
                f"{sklearn.__version__}; its scores may differ in the last digits"
            )
        config = parse_config(BlockJudgeConfig, record["config"], folder / JUDGE_FILE)
        with np.load(folder / FEATURES_FILE, allow_pickle=False) as kept:
            features, labels, columns = kept["features"], kept["labels"], kept["columns"]
        x, y, z = record["size"]
        return cls(features, labels, columns, config, (x, y, z), record["trained_on"])


class _Reader:
    """Both kinds of trees of one finding; a finding of which the training had one class has a constant."""

    def __init__(self, values: NDArray[np.float32], truth: NDArray[np.int64], config: BlockJudgeConfig) -> None:
        self._constant = float(truth.mean())
        self._fitted: list[Any] = []
        if not 0 < truth.sum() < len(truth):
            return
        self._columns = _chosen(values, truth, config.features)
        values = values[:, self._columns]
        self._fitted = [
            ExtraTreesClassifier(
                config.trees, min_samples_leaf=2, max_features=0.2, random_state=config.seed, n_jobs=1
            ).fit(values, truth),
            HistGradientBoostingClassifier(
                max_iter=config.rounds, learning_rate=0.06, max_leaf_nodes=12, min_samples_leaf=15,
                l2_regularization=1.0, max_features=0.2, early_stopping=False, random_state=config.seed,
            ).fit(values, truth),
        ]  # fmt: skip

    def probability(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Of (n, k) features, (n,)."""
        if not self._fitted:
            return np.full(len(values), self._constant)
        values = values[:, self._columns]
        found: NDArray[np.float64] = np.mean([trees.predict_proba(values)[:, 1] for trees in self._fitted], axis=0)
        return found


def cases_features(cases: Cases, cache: Path | None = None) -> NDArray[np.float16]:
    """(n, f) features of all cases; with a ``cache``, of those only that it lacks."""
    if cache is not None:
        _claim_cache(cache, cases)
    parts = []
    with console.progress("reading features", len(cases)) as advance:
        for start in range(0, len(cases), CHUNK):
            stop = min(start + CHUNK, len(cases))
            path = None if cache is None else cache / f"features-{start:06d}.npy"
            if path is not None and path.is_file():
                parts.append(np.load(path, allow_pickle=False))
            else:
                parts.append(_features([cases.volume_hu(i) for i in range(start, stop)]))
                if path is not None:
                    with atomic_path(path) as temporary, temporary.open("wb") as stream:
                        np.save(stream, parts[-1])
            advance(stop - start)
    return np.concatenate(parts)


def _claim_cache(cache: Path, cases: Cases) -> None:
    """Empty a cache of other cases, or of features of another number."""
    path = cache / CACHE_FILE
    of = {"cases": cases.digest, "features": _features([cases.volume_hu(0)]).shape[1]}
    if path.is_file() and read_json(path) == of:
        return
    path.unlink(missing_ok=True)
    for kept in cache.glob("features-*.npy"):
        kept.unlink()
    write_json(path, of)


def _features(volumes_hu: Sequence[NDArray[np.generic]]) -> NDArray[np.float16]:
    """Features as they are stored: float16 holds a HU, and a count beyond its range is many anyway."""
    values = np.stack([volume_features(volume) for volume in volumes_hu])
    return np.clip(values, -6e4, 6e4).astype(np.float16)


def _chosen(values: NDArray[np.floating], truth: NDArray[np.generic], count: int) -> NDArray[np.int64]:
    """The ``count`` columns with the largest ratio of variance between the classes to that within (ANOVA's F)."""
    present: NDArray[np.bool_] = truth.astype(bool)
    if not 0 < present.sum() < len(present):
        return np.arange(0)
    ratio = np.zeros(values.shape[1])
    for start in range(0, values.shape[1], 1000):  # float64 of all columns at once would be gigabytes
        part = values[:, start : start + 1000].astype(np.float64)
        means = [part[present].mean(0), part[~present].mean(0)]
        within = part[present].var(0) * present.sum() + part[~present].var(0) * (~present).sum()
        between = (means[0] - means[1]) ** 2
        ratio[start : start + 1000] = np.divide(between, within, out=np.zeros_like(between), where=within > 1e-9)
    return np.sort(np.argsort(-ratio, kind="stable")[:count])
