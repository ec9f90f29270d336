"""The rows by which generators are compared, each with what it rests on."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

from text2ct.augment.gate import GateConfig
from text2ct.classifiers.cache import VolumeCache
from text2ct.classifiers.config import Axis, Millimetres, Preprocessing, WindowSetting
from text2ct.compute import keep_freed_memory, pick_device
from text2ct.console import info
from text2ct.engines import LOCAL, Engine
from text2ct.errors import UserError, first_of
from text2ct.evaluation.generator.alignment import alignment_section, embed_one, embeddings
from text2ct.evaluation.generator.backbones_3d import VolumeEncoder
from text2ct.evaluation.generator.factual import check_reader, factual_section
from text2ct.evaluation.generator.fidelity import fidelity_section, volume_section
from text2ct.evaluation.generator.kept_features import KeptFeatures
from text2ct.evaluation.generator.private import diversity_section, membership_section, privacy_section
from text2ct.evaluation.generator.provenance import conditioned_by, known_rows, makers, of_unknown_makers
from text2ct.evaluation.generator.scorers import Scorer
from text2ct.evaluation.generator.sets import MeasuredSet, measured, pairs, real_rows, synthetic_rows
from text2ct.evaluation.slices import SliceEncoder
from text2ct.manifests import Workspace, by_scan
from text2ct.volumes.windows import WINDOWS

Metric = Literal["fidelity", "fid_3d", "alignment", "factual", "privacy", "diversity"]
METRICS: tuple[Metric, ...] = get_args(Metric)
FEWEST_SAMPLES = 40


_GATE = GateConfig()
COPIES_GRID = Preprocessing(size=_GATE.size, spacing_mm=_GATE.spacing_mm)
"""On which copies are looked for: the gate's, whatever the grid of the comparison."""


def _usual_windows() -> tuple[WindowSetting, ...]:
    return tuple(WindowSetting(name=name, centre=one.centre, width=one.width) for name, one in WINDOWS.items())


def window_settings(text: str) -> tuple[WindowSetting, ...]:
    """Windows from words: names of the usual ones, or ``NAME:CENTRE:WIDTH`` in HU, with commas between.

    Raises:
        UserError: A name is unknown or a number is none.
    """
    usual = {one.name: one for one in _usual_windows()}
    found = []
    for word in filter(None, (part.strip() for part in text.split(","))):
        name, *numbers = word.split(":")
        try:
            found.append(usual[name] if not numbers else _window(name, *map(float, numbers)))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"'{word}' is no window; use {', '.join(usual)}, or NAME:CENTRE:WIDTH in HU with a width above 0 and a "
                "name of letters, digits, '_' and '-'"
            ) from error
    return tuple(found)


def _window(name: str, centre: float, width: float) -> WindowSetting:
    if not (re.fullmatch(r"[\w-]+", name) and math.isfinite(centre) and math.isfinite(width)):
        raise ValueError(name)
    return WindowSetting(name=name, centre=centre, width=width)


class Settings(BaseModel):
    """How two sets are compared; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    metrics: tuple[Metric, ...] = METRICS
    grid: tuple[Axis, Axis, Axis] = (64, 64, 64)
    spacing_mm: tuple[Millimetres, Millimetres, Millimetres] = (5.0, 5.0, 5.0)
    fit: Literal["crop-pad", "resize"] = "crop-pad"
    split: str = Field(default="test", description="of the real manifest: what the synthetic set is compared with")
    every: int = Field(default=1, ge=1, description="every how manyth slice describes a volume")
    windows: tuple[WindowSetting, ...] = Field(default_factory=_usual_windows, description="of FIDs by window")
    n_bootstrap: int = Field(default=200, ge=0, description="0 for no intervals, otherwise 40 or more")
    seed: int = Field(default=0, ge=0)

    @field_validator("windows")
    @classmethod
    def _own_names(cls, value: tuple[WindowSetting, ...]) -> tuple[WindowSetting, ...]:
        names = [one.name for one in value]
        if len(set(names)) < len(names):
            raise ValueError(f"windows of one name among {', '.join(names)}; give each its own")
        return value

    @field_validator("n_bootstrap")
    @classmethod
    def _enough_samples(cls, value: int) -> int:
        if 0 < value < FEWEST_SAMPLES:
            raise ValueError(f"{value} samples have no 2.5% on either side; give {FEWEST_SAMPLES} or more, or 0")
        return value


@dataclass(frozen=True, eq=False)
class Measures:
    """What measures; None for what is not needed.

    Attributes:
        encoder: Describes slices, for ``fidelity``.
        encoder_3d: Describes volumes, for ``fid_3d``.
        scorer: The 3D CLIP, for ``alignment`` and parts of ``privacy`` and ``diversity``.
        classifier: A run that was trained on real training patients, for ``factual``.
        device: As for :func:`text2ct.compute.pick_device`.
        engine: Where volumes are brought to the grid and described.
    """

    encoder: SliceEncoder | None = None
    encoder_3d: VolumeEncoder | None = None
    scorer: Scorer | None = None
    classifier: Path | None = None
    device: str = "auto"
    engine: Engine = LOCAL


def evaluate(
    real: pd.DataFrame,
    synthetic: pd.DataFrame,
    workspace: Workspace,
    settings: Settings | None = None,
    measures: Measures | None = None,
    *,
    pictures: Path | None = None,
) -> dict[str, Any]:
    """Measure a synthetic set against a real one; volumes are read one by one, and features are kept on disk.

    Args:
        real: Real manifest: the split that is compared, validation rows for thresholds, training rows for copies.
        synthetic: Synthetic manifest; what a gate rejected is left out.
        workspace: Resolves roots; holds the cache.
        settings: Which metrics, on which grid.
        measures: What measures them.
        pictures: Folder for pictures of the pairs that are most alike; none are made without.

    Returns:
        What ``evaluate --json`` prints; a metric that could not be measured is absent, and ``notes`` say why.

    Raises:
        UserError: A metric lacks what it needs, a set is empty, volumes cannot be read or show nothing, or a leak.
    """
    settings, measures = settings or Settings(), measures or Measures()
    check_needs(settings, measures)
    keep_freed_memory()
    rows = real_rows(real, settings.split), synthetic_rows(synthetic)
    training = training_rows(real, settings)
    if "factual" in settings.metrics and measures.classifier is not None:
        check_reader(measures.classifier, rows[0], workspace)
    if known_rows(rows[1], rows[0], workspace).any():
        raise UserError(
            f"the generator of these volumes has learnt from patients of the {settings.split} split, which it is "
            "compared with; take a pack that has not, or another --split"
        )
    compared = Compared(real, *rows, training, workspace, settings, measures, pictures)
    found: dict[str, Any] = {
        "n_real": len(compared.real),
        "n_synthetic": len(compared.synthetic),
        "pairs": len(compared.pairs),
        "made_by": makers(rows[1]),
    }
    rejected = len(synthetic_rows(synthetic, rejected=True)) - len(rows[1])
    if rejected:
        compared.notes.append(f"{rejected} volumes that a gate rejected are left out")
    unknown = of_unknown_makers(rows[1], workspace)
    if unknown:
        compared.notes.append(
            f"whom the makers of {unknown} volumes have learnt from is not known here: their pack is not at hand, and "
            "nobody can tell whether it has seen the patients that it is compared with"
        )
    if len(found["made_by"]) > 1:
        ways = len(found["made_by"])
        compared.notes.append(f"the synthetic set was made in {ways} ways (packs, guidances, steps): see made_by")
    for metric in METRICS:
        if metric in settings.metrics:
            found |= getattr(compared, metric)()
    for name, problems in compared.quarantined.items():
        if problems:
            listed = "; ".join(" ".join(one.split()) for one in first_of(problems))
            compared.notes.append(f"{len(problems)} {name} volumes are quarantined: {listed}")
    found["quarantined"] = sum(map(len, compared.quarantined.values()))
    for note in compared.notes:
        info(note)
    return found | {"settings": settings.model_dump(mode="json"), "notes": compared.notes}


class Compared:
    """Both sets on the grids that are asked for, and one method for each metric.

    Args:
        frame: The whole real manifest.
        real: Its rows that are compared.
        synthetic: Synthetic rows.
        training: Real rows that copies are looked for among.
        workspace: Resolves roots; holds the caches.
        settings: How they are compared.
        measures: What measures them.
        pictures: As for :func:`evaluate`.
    """

    def __init__(
        self,
        frame: pd.DataFrame,
        real: pd.DataFrame,
        synthetic: pd.DataFrame,
        training: pd.DataFrame,
        workspace: Workspace,
        settings: Settings,
        measures: Measures,
        pictures: Path | None = None,
    ) -> None:
        self.pictures = pictures
        self.notes: list[str] = []
        self.quarantined: dict[str, list[str]] = {}
        self._sets: dict[tuple[Preprocessing, int], tuple[pd.DataFrame, MeasuredSet]] = {}
        self.frame, self._training = frame, training
        self.workspace, self.settings, self.measures = workspace, settings, measures
        self.device = pick_device(measures.device)
        self.kept = kept_features(workspace, measures.engine)
        self._grid = grid_of(settings)
        self.real, self.synthetic = (
            self._on(self._grid, rows, name) for rows, name in ((real, "real"), (synthetic, "synthetic"))
        )
        self.pairs = pairs(frame, self.real, self.synthetic)
        self._boot: dict[str, Any] = {"n_bootstrap": settings.n_bootstrap, "seed": settings.seed}

    def _on(self, grid: Preprocessing, rows: pd.DataFrame, name: str) -> MeasuredSet:
        key = grid, id(rows)
        if key not in self._sets:
            cache = cache_of(self.workspace, grid)
            # Rows are sifted when they are first read; what was measured of them would not fit fewer ones.
            problems = self.quarantined.setdefault(name, []) if name not in self.quarantined else None
            # The rows are kept, so that no others come to have their number.
            self._sets[key] = rows, measured(rows, self.workspace, cache, name, self.measures.engine, problems)
        return self._sets[key][1]

    def both_on(self, grid: Preprocessing | None) -> tuple[MeasuredSet, MeasuredSet]:
        """Real and synthetic volumes on a grid; the common one if None."""
        if grid is None or grid == self._grid:
            return self.real, self.synthetic
        return self._on(grid, self.real.rows, "real"), self._on(grid, self.synthetic.rows, "synthetic")

    def fidelity(self) -> dict[str, Any]:
        """Distances of slices, and neighbourhoods."""
        assert self.measures.encoder is not None
        found = fidelity_section(
            self.real, self.synthetic, self.measures.encoder, self.kept,
            windows=self.settings.windows, every=self.settings.every, device=self.device, **self._boot,
        )  # fmt: skip
        lacking = {
            "floors": "floor" in found["fid_2p5d"],
            "the distance of infinitely many volumes": "infinity" in found["fid_2p5d"],
            "precision, recall, density and coverage": "precision" in found,
        }
        few = [name for name, there in lacking.items() if not there]
        if few:
            self.notes.append(f"too few volumes for {', '.join(few)}")
        return found

    def fid_3d(self) -> dict[str, Any]:
        """The distance of whole volumes."""
        encoder = self.measures.encoder_3d
        assert encoder is not None
        return volume_section(*self.both_on(encoder.grid), encoder, self.kept, **self._boot)

    def alignment(self) -> dict[str, Any]:
        """CLIP scores, zero-shot, retrieval."""
        scorer = self.measures.scorer
        assert scorer is not None
        own = conditioned_by(self.synthetic.rows, scorer, self.workspace)
        found = alignment_section(*self.both_on(scorer.grid), self.pairs, scorer, self.kept, own, **self._boot)
        if own:
            self.notes.append(
                f"the 3D CLIP of '{scorer.name}' conditioned the generator itself: its scores flatter this generator, "
                "and cannot be compared with those of others"
            )
        elif own is None:
            self.notes.append(
                "whether the 3D CLIP that scores conditioned the generator is not known here: if so, it flatters it"
            )
        alone = len(self.synthetic) - len(self.pairs)
        if alone:
            self.notes.append(f"{alone} synthetic volumes have no real volume of their report to compare with")
        untold = len(self.synthetic) - found["clip_score"]["prompts"]
        if untold:
            self.notes.append(f"{untold} synthetic volumes have no prompt, and no score of text with image")
        return found

    def factual(self) -> dict[str, Any]:
        """What a classifier reads."""
        settings, classifier = self.settings, self.measures.classifier
        assert classifier is not None
        if not len(self.pairs):
            self.notes.append(
                f"no synthetic volume was made from a report of the {settings.split} split: factual correctness "
                "compares volumes of the same reports; synthesize from that split's reports, for evaluation only"
            )
            return {}
        chosen_on = _of_split(self.frame, "validation")
        if settings.split == "validation" or chosen_on.empty:
            chosen_on = chosen_on.iloc[:0]
            self.notes.append("no other validation patients to choose thresholds on: precision is at 0.5")
        if len(chosen_on):
            chosen_on = self._on(self._grid, chosen_on, "threshold").rows
        section = factual_section(
            self.real, self.synthetic, self.pairs, chosen_on, classifier, self.workspace,
            device=self.measures.device, **self._boot,
        )  # fmt: skip
        if section["ratio"] is None:
            self.notes.append("no finding is both present and absent in the volumes of both sides: AUCs have no ratio")
        return {"factual": section}

    def privacy(self) -> dict[str, Any]:
        """Copies and membership."""
        grid = COPIES_GRID
        learnt = self._on(grid, self._training, "training")
        strangers = strangers_rows(self.frame)
        made = self._on(grid, self.synthetic.rows, "synthetic")
        others = self._on(grid, strangers if len(strangers) else self.real.rows, "validation")
        known = known_rows(made.rows, learnt.rows, self.workspace)
        scorer = self.measures.scorer
        found = privacy_section(
            made, learnt, others, n_known=int(known.sum()), spacing_mm=grid.spacing_mm, pictures=self.pictures,
            embed=None if scorer is None or scorer.grid != grid else partial(embed_one, scorer),
        )  # fmt: skip
        self.notes += found.pop("rule_notes")
        if not known.any():
            self.notes.append(
                "the pack of these volumes names none of the training volumes here as learnt from: copies of whom it "
                "has learnt from cannot be looked for, and membership is not measured"
            )
        elif strangers.empty or self.settings.split == "validation":
            self.notes.append("no validation patients whose reports prompted nothing: membership is not measured")
        elif self.measures.scorer is not None:
            # Patients of the compared split gave the prompts: they are nearer to the set than strangers are.
            members = MeasuredSet(learnt.rows[known].reset_index(drop=True), learnt.volumes.of(np.flatnonzero(known)))
            sets = (made, members, others)
            names = ("synthetic", "training", "validation")
            vectors = [self._embedded(one.rows, name) for one, name in zip(sets, names, strict=True)]
            found |= membership_section(*zip(sets, vectors, strict=True), **self._boot)
        return {"privacy": found}

    def diversity(self) -> dict[str, Any]:
        """Likeness within a prompt."""
        both = None
        if self.measures.scorer is not None:
            both = self._embedded(self.real.rows, "real"), self._embedded(self.synthetic.rows, "synthetic")
        found = diversity_section(self.real, self.synthetic, both, self.settings.seed)
        if not found["one_prompt"]["groups"]:
            self.notes.append("no prompt made two volumes or more: diversity within one prompt is not measured")
        return {"diversity": found}

    def _embedded(self, rows: pd.DataFrame, name: str) -> NDArray[np.float64]:
        """Unit vectors by the 3D CLIP."""
        scorer = self.measures.scorer
        assert scorer is not None
        return embeddings(scorer, self._on(scorer.grid, rows, name).volumes, self.kept, f"{name} volumes by 3D CLIP")


def training_rows(real: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Whom copies are looked for among: all volumes of the training split, where privacy is measured.

    Raises:
        UserError: That is the split that is compared, or it has no volumes.
    """
    if "privacy" not in settings.metrics:
        return real.iloc[:0]
    if settings.split == "train":
        raise UserError("privacy compares training patients with others; choose another --split, or leave it out")
    rows = _of_split(real, "train")
    if rows.empty:
        raise UserError("the real manifest has no train volumes with files")
    return rows


def strangers_rows(real: pd.DataFrame) -> pd.DataFrame:
    """Who says how near patients come whom a generator never met: validation scans."""
    rows = _of_split(real, "validation")
    return by_scan(rows)[0] if len(rows) else rows


def _of_split(real: pd.DataFrame, split: str) -> pd.DataFrame:
    return real[(real["split"] == split) & (real["path"] != "") & (real["source"] != "synthetic")].reset_index(
        drop=True
    )


def grid_of(settings: Settings) -> Preprocessing:
    """The grid on which the sets are compared."""
    return Preprocessing(size=settings.grid, spacing_mm=settings.spacing_mm, fit=settings.fit)


def cache_of(workspace: Workspace, grid: Preprocessing, *, dry_run: bool = False) -> VolumeCache:
    """Where volumes on a grid are kept."""
    return VolumeCache(workspace.path / "cache" / "volumes", grid, dry_run=dry_run)


def kept_features(workspace: Workspace, engine: Engine = LOCAL) -> KeptFeatures:
    """Where features are kept."""
    return KeptFeatures(workspace.path / "cache" / "features", engine)


def check_needs(settings: Settings, measures: Measures) -> None:
    """Refuse what cannot be measured, before anything is read.

    Raises:
        UserError: All metrics that lack what they need.
    """
    needs = {
        "fidelity": (measures.encoder, "a network that describes slices; name one with --backbone"),
        "fid_3d": (measures.encoder_3d, "a network that describes volumes; name one with --backbone-3d"),
        "alignment": (measures.scorer, "a 3D CLIP; name a pack that has one with --clip"),
        "factual": (
            measures.classifier,
            "a classifier of real volumes; train one (`text2ct train`) or name it with --classifier",
        ),
    }
    problems = [
        f"{name} needs {what}" for name, (given, what) in needs.items() if name in settings.metrics and given is None
    ]
    if not settings.metrics:
        problems.append(f"no metric is asked for; choose from {', '.join(METRICS)}")
    if problems:
        raise UserError("not everything that is asked for can be measured", problems)
