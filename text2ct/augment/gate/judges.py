"""All tests of the gate, calibrated on real volumes once and then applied to any number of synthetic ones."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from text2ct.augment._scans import label_matrix
from text2ct.augment.gate import geometry, intensity, label, memorised
from text2ct.augment.gate.base import ENOUGH, Score, Test, evenly
from text2ct.augment.gate.config import GateConfig
from text2ct.augment.gate.record import Thresholds
from text2ct.console import progress
from text2ct.engines import LOCAL, Engine
from text2ct.errors import UserError
from text2ct.findings import FINDINGS
from text2ct.manifests import Workspace, by_scan

if TYPE_CHECKING:
    from text2ct.classifiers import VolumeCache
    from text2ct.classifiers.cache import CachedVolumes
    from text2ct.evaluation.memorisation import TrainingVolumes

Predict = Callable[..., pd.DataFrame]
# Real validation scans on which the whole verdict is tried: their files are read in full, and a share of a hundred is
# known to 5%.
_TRIED = 100


@dataclass(frozen=True)
class Judged:
    """A synthetic volume and what was found.

    Attributes:
        scores: Everything that was measured.
        copy: The training volume that it repeats, if it does.
    """

    scores: tuple[Score, ...]
    copy: memorised.Copy | None = None

    @property
    def failed(self) -> tuple[Test, ...]:
        """The tests that reject it."""
        return tuple(dict.fromkeys(score.test for score in self.scores if not score.passed))

    @property
    def unknown(self) -> tuple[str, ...]:
        """Findings whose label is in doubt."""
        return tuple(score.name for score in self.scores if score.unknown)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why, as the manifest says it."""
        return tuple(f"{score.test}: {score.reason}" for score in self.scores if not score.passed)


Seen = tuple[list[Score], memorised.Copy | None, bool]
"""Scores of the voxels, the copy if it is one, and whether the volume could be brought to the grid."""


class Judges:
    """The gate's tests with their thresholds.

    Args:
        real: The real manifest; its training split is what generated volumes are compared with, its validation
            split sets the thresholds.
        workspace: Resolves roots and holds the cache.
        config: What is tested, and how strictly.
        classifier: The run that judges labels; None when they are not judged.
        fidelity: How much of each finding the pack keeps that made the volumes, as far as it is known.
        embed: The embedding of the pack's 3D CLIP, if there is one for this grid.
        device: Of the classifier.
        predict: By default :func:`text2ct.classifiers.predict`.
        engine: Where volumes are brought to the grid and looked at.

    Raises:
        UserError: There are no training or validation volumes, or volumes cannot be read.
    """

    def __init__(
        self,
        real: pd.DataFrame,
        workspace: Workspace,
        config: GateConfig,
        *,
        classifier: Path | None,
        fidelity: Mapping[str, float] | None = None,
        embed: memorised.Embed | None = None,
        device: str = "auto",
        predict: Predict | None = None,
        engine: Engine = LOCAL,
    ) -> None:
        self._workspace, self._config, self._classifier, self._device = workspace, config, classifier, device
        self._fidelity, self._engine = fidelity or {}, engine
        self._embed, self._predict = embed, predict or _predict_by_default
        self.training, validation = _split(real, "train"), _split(real, "validation")
        self.validation = by_scan(validation)[0]
        self._cache = _cache(workspace, config)
        self._grids = self._read(self.training, "real training")
        self._search: TrainingVolumes | None = None
        self.thresholds = self._calibrated()
        self.real_rejected = self._real_rejected()

    def unsure(self, finding: str) -> bool:
        """Whether the pack is known to render a finding poorly."""
        return self._config.label.unsure(finding, self._fidelity)

    def _calibrated(self) -> Thresholds:
        """Measure real volumes."""
        config, tests = self._config, self._config.tests
        found: dict[str, Any] = {"geometry": config.geometry if "geometry" in tests else None}
        if "label" in tests:
            probabilities, labels = self._probabilities(self.validation), label_matrix(self.validation)
            found["label"] = label.calibrate(probabilities, labels, config.label)
        new = self._read(self.validation, "real validation")
        if "intensity" in tests:
            some = [self._grids[i] for i in evenly(len(self._grids), ENOUGH)]
            known = [intensity.histogram(hu, geometry.anatomy(hu).body) for hu in some]
            fresh = [intensity.histogram(hu, geometry.anatomy(hu).body) for hu in new]
            found["intensity"] = intensity.calibrate(known, fresh, config.intensity)
        if "memorised" in tests:
            self._search = self._training_volumes()
            found["memorised"] = memorised.calibrate(
                self._search, new, memorised.pairs(self.training, self._grids), config.memorised
            )
        return Thresholds(**found)

    def _real_rejected(self) -> dict[Test, float]:
        """Test to the share of real validation scans that it rejects, judged as synthetic volumes are."""
        judged = self.judge(self.validation.iloc[evenly(len(self.validation), _TRIED)])
        return {test: float(np.mean([test in one.failed for one in judged])) for test in self._config.tests}

    def _training_volumes(self) -> TrainingVolumes:
        from text2ct.evaluation.memorisation import TrainingVolumes

        settings = self._config.memorised
        return TrainingVolumes(
            self._grids, embed=self._embed, candidates=settings.candidates, max_shift=settings.max_shift
        )

    def judge(self, rows: pd.DataFrame) -> list[Judged]:
        """Judge synthetic volumes, each by itself: the verdict does not depend on the others.

        Args:
            rows: Rows of a synthetic manifest.
        """
        rows = rows.reset_index(drop=True)
        found = []
        with progress("judging volumes", len(rows)) as advance:
            for one in self._engine.map(_Voxels(self), rows.to_dict("records")):
                found.append(one)
                advance(1)
        readable = [at for at, (_, _, whole) in enumerate(found) if whole]
        labels: dict[int, list[Score]] = {}
        if self.thresholds.label is not None and readable:
            some = rows.iloc[readable]
            both = zip(readable, self._probabilities(some), label_matrix(some), strict=True)
            how = (self.thresholds.label, self._config.label, self._fidelity)
            labels = {at: label.judge(one, asked, *how) for at, one, asked in both}
        return [Judged((*labels.get(at, ()), *scores), copy) for at, (scores, copy, _) in enumerate(found)]

    def voxels(self, row: Mapping[Any, Any]) -> Seen:
        """Scores of the voxels, the copy if it is one, and whether the volume could be brought to the grid."""
        from text2ct import volumes

        limits, config = self.thresholds, self._config
        scores: list[Score] = []
        try:
            path = self._workspace.resolve(row["root"], row["path"])
            native = volumes.read(path)
            if limits.geometry is not None:
                scores += geometry.field_of_view(native, limits.geometry)
            if limits.intensity is not None:
                scores += intensity.broken(native)
            hu = np.asarray(self._cache.load(self._cache.entry(path, row["sha256"])))
        except UserError as error:
            if not any(score.test == "intensity" and not score.passed for score in scores):
                scores.append(Score("intensity", "quality", float("nan"), reason=f"unusable: {_one_line(error)}"))
            return scores, None, False
        copied = None
        if limits.geometry is not None or limits.intensity is not None:
            found = geometry.anatomy(hu)
            if limits.geometry is not None:
                scores += geometry.lungs(found, config.spacing_mm, limits.geometry)
            if limits.intensity is not None:
                scores += intensity.judge(intensity.histogram(hu, found.body), limits.intensity)
        if limits.memorised is not None and self._search is not None:
            names = (self.training["dataset"] + "/" + self.training["volume"]).tolist()
            more, copied = memorised.judge(hu, self._search, self._grids, names, limits.memorised, self._embed)
            scores += more
        return scores, copied, True

    def picture(self, row: Mapping[Any, Any], copy: memorised.Copy) -> bytes:
        """A copy and what it repeats side by side, as PNG."""
        path = self._workspace.resolve(row["root"], row["path"])
        hu = self._cache.load(self._cache.entry(path, row["sha256"]))
        return memorised.pair_picture(hu, self._grids[copy.index], self._config.spacing_mm)

    def _probabilities(self, rows: pd.DataFrame) -> NDArray[np.float64]:
        table = self._predict(self._classifier, rows, self._workspace, device=self._device)
        return table[list(FINDINGS)].to_numpy(dtype=np.float64)

    def _read(self, rows: pd.DataFrame, purpose: str) -> CachedVolumes:
        from text2ct.classifiers.cache import CachedVolumes
        from text2ct.classifiers.dataset import make_table

        return CachedVolumes(make_table(rows, self._workspace, self._cache, purpose, self._engine).entries)


class _Voxels:
    """What the gate sees in a volume, as a task: workers need neither the engine nor the classifier.

    Args:
        judges: Calibrated.
    """

    def __init__(self, judges: Judges) -> None:
        self._judges = judges

    def __call__(self, row: Mapping[Any, Any]) -> Seen:
        return self._judges.voxels(row)

    def __getstate__(self) -> dict[str, Any]:
        judges = copy.copy(self._judges)
        judges._engine, judges._predict = LOCAL, _predict_by_default
        return {"_judges": judges}


def _split(real: pd.DataFrame, split: str) -> pd.DataFrame:
    rows = real[(real["split"] == split) & (real["path"] != "") & (real["source"] != "synthetic")]
    if rows.empty:
        raise UserError(f"the real manifest has no {split} volumes with files; the gate is calibrated on them")
    return rows.reset_index(drop=True)


def _cache(workspace: Workspace, config: GateConfig) -> VolumeCache:
    from text2ct.classifiers import VolumeCache
    from text2ct.classifiers.config import Preprocessing

    grid = Preprocessing(size=config.size, spacing_mm=config.spacing_mm)
    return VolumeCache(workspace.path / "cache" / "volumes", grid)


def _one_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0].replace(";", ",")


def _predict_by_default(*args: Any, **kwargs: Any) -> pd.DataFrame:
    from text2ct.classifiers import predict

    return predict(*args, **kwargs)
