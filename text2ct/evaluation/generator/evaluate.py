"""The rows by which generators are compared, each with what it rests on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from text2ct.classifiers.cache import VolumeCache
from text2ct.classifiers.config import Preprocessing
from text2ct.compute import keep_freed_memory, pick_device
from text2ct.console import info
from text2ct.diffusion.pack import Pack
from text2ct.errors import UserError
from text2ct.evaluation.generator.alignment import alignment_section, embeddings
from text2ct.evaluation.generator.factual import check_reader, factual_section
from text2ct.evaluation.generator.fidelity import fidelity_section
from text2ct.evaluation.generator.kept_features import KeptFeatures
from text2ct.evaluation.generator.private import diversity_section, privacy_section
from text2ct.evaluation.generator.provenance import conditioned_by, known_rows, makers
from text2ct.evaluation.generator.sets import MeasuredSet, measured, pairs, real_rows, synthetic_rows
from text2ct.evaluation.slices import SliceEncoder
from text2ct.manifests import Workspace

Metric = Literal["fidelity", "alignment", "factual", "privacy", "diversity"]
METRICS: tuple[Metric, ...] = get_args(Metric)


class Settings(BaseModel):
    """How two sets are compared; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    metrics: tuple[Metric, ...] = METRICS
    grid: tuple[int, int, int] = (64, 64, 64)
    spacing_mm: tuple[float, float, float] = (5.0, 5.0, 5.0)
    fit: Literal["crop-pad", "resize"] = "crop-pad"
    split: str = Field(default="test", description="of the real manifest: what the synthetic set is compared with")
    every: int = Field(default=1, ge=1, description="every how manyth slice describes a volume")
    n_bootstrap: int = Field(default=200, ge=0)
    seed: int = Field(default=0, ge=0)


def evaluate(
    real: pd.DataFrame,
    synthetic: pd.DataFrame,
    workspace: Workspace,
    settings: Settings | None = None,
    *,
    encoder: SliceEncoder | None = None,
    pack: Pack | None = None,
    classifier: Path | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Measure a synthetic set against a real one; volumes are read one by one, and features are kept on disk.

    Args:
        real: Real manifest: the split that is compared, validation rows for thresholds, training rows for copies.
        synthetic: Synthetic manifest; what a gate rejected is left out.
        workspace: Resolves roots; holds the cache.
        settings: Which metrics, on which grid.
        encoder: Describes slices, for ``fidelity``.
        pack: Whose 3D CLIP scores, for ``alignment`` and parts of ``privacy`` and ``diversity``.
        classifier: A run that was trained on real training patients, for ``factual``.
        device: As for :func:`text2ct.compute.pick_device`.

    Returns:
        What ``evaluate --json`` prints; a metric that could not be measured is absent, and ``notes`` say why.

    Raises:
        UserError: A metric lacks what it needs, a set is empty, volumes cannot be read or show nothing, or a leak.
    """
    settings = settings or Settings()
    check_needs(settings, encoder, pack, classifier)
    keep_freed_memory()
    where = pick_device(device)
    cache, kept = caches(workspace, settings)
    rows = real_rows(real, settings.split), synthetic_rows(synthetic)
    training = training_rows(real, settings)
    if known_rows(rows[1], rows[0], workspace):
        raise UserError(
            f"the generator of these volumes has learnt from patients of the {settings.split} split, which it is "
            "compared with; take a pack that has not, or another --split"
        )
    own, made = (measured(one, workspace, cache, name) for one, name in zip(rows, ("real", "synthetic"), strict=True))
    matched = pairs(real, own, made)
    notes: list[str] = []
    found: dict[str, Any] = {
        "n_real": len(own),
        "n_synthetic": len(made),
        "pairs": len(matched),
        "made_by": makers(made.rows),
    }
    if len(found["made_by"]) > 1:
        notes.append(
            f"the synthetic set was made in {len(found['made_by'])} ways (packs, guidances, steps): see made_by"
        )
    boot: dict[str, Any] = {"n_bootstrap": settings.n_bootstrap, "seed": settings.seed}
    if "fidelity" in settings.metrics:
        assert encoder is not None
        found |= fidelity_section(own, made, encoder, kept, every=settings.every, device=where, **boot)

    def for_clip(rows: pd.DataFrame, name: str) -> MeasuredSet:
        """The same volumes on the grid that the 3D CLIP reads."""
        assert pack is not None
        grid = settings.model_copy(update={"grid": pack.info.grid, "spacing_mm": pack.info.spacing_mm})
        return measured(rows, workspace, caches(workspace, grid)[0], name)

    if "alignment" in settings.metrics:
        assert pack is not None
        seen = for_clip(rows[0], "real"), for_clip(rows[1], "synthetic")
        found |= alignment_section(*seen, matched, pack, kept, where, conditioned_by(made.rows, pack, workspace))
        if len(matched) < len(made):
            notes.append(
                f"{len(made) - len(matched)} synthetic volumes have no real volume of their report to compare with"
            )
    if "factual" in settings.metrics:
        assert classifier is not None
        check_reader(classifier, own.rows, workspace)
        if len(matched):
            chosen_on = real[(real["split"] == "validation") & (real["path"] != "") & (real["source"] != "synthetic")]
            if settings.split == "validation" or chosen_on.empty:
                chosen_on = chosen_on.iloc[:0]
                notes.append("no other validation patients to choose thresholds on: precision is at 0.5")
            found["factual"] = factual_section(
                own, made, matched, chosen_on, classifier, workspace, device=device, **boot
            )
        else:
            notes.append(_unmatched(settings))

    def embedded(*named: tuple[pd.DataFrame, str]) -> tuple[NDArray[np.float64], ...] | None:
        if pack is None:
            return None
        return tuple(
            embeddings(pack, for_clip(*one).volumes, kept, where, f"{one[1]} volumes by 3D CLIP") for one in named
        )

    compared = (rows[1], "synthetic"), (rows[0], "real")
    if "privacy" in settings.metrics:
        learnt = measured(training, workspace, cache, "training")
        n_known = known_rows(made.rows, learnt.rows, workspace)
        if not n_known:
            notes.append(
                "the pack of these volumes names none of the training volumes here as learnt from: copies of whom it "
                "has learnt from cannot be looked for, and membership is not measured"
            )
        vectors = embedded(compared[0], (training, "training"), compared[1])
        found["privacy"] = privacy_section(made, learnt, own, vectors, n_known, **boot)  # type: ignore[arg-type]
    if "diversity" in settings.metrics:
        both = embedded(compared[1], compared[0])
        found["diversity"] = diversity_section(own, made, both, settings.seed)  # type: ignore[arg-type]
    for note in notes:
        info(note)
    return found | {"settings": settings.model_dump(mode="json"), "notes": notes}


def training_rows(real: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Whom copies are looked for among: the training split, where privacy is measured.

    Raises:
        UserError: That is the split that is compared, or it has no volumes.
    """
    if "privacy" not in settings.metrics:
        return real.iloc[:0]
    if settings.split == "train":
        raise UserError("privacy compares training patients with others; choose another --split, or leave it out")
    return real_rows(real, "train")


def _unmatched(settings: Settings) -> str:
    return (
        f"no synthetic volume was made from a report of the {settings.split} split: factual correctness compares "
        "volumes of the same reports; synthesize from that split's reports, for evaluation only"
    )


def caches(workspace: Workspace, settings: Settings, *, dry_run: bool = False) -> tuple[VolumeCache, KeptFeatures]:
    """Where volumes on the common grid are kept, and their features."""
    grid = Preprocessing(size=settings.grid, spacing_mm=settings.spacing_mm, fit=settings.fit)
    volumes = VolumeCache(workspace.path / "cache" / "volumes", grid, dry_run=dry_run)
    return volumes, KeptFeatures(workspace.path / "cache" / "features")


def check_needs(settings: Settings, encoder: SliceEncoder | None, pack: Pack | None, classifier: Path | None) -> None:
    """Refuse what cannot be measured, before anything is read.

    Raises:
        UserError: All metrics that lack what they need.
    """
    needs = {
        "fidelity": (encoder, "a network that describes slices; name one with --backbone"),
        "alignment": (
            pack if pack is None or pack.has("clip") else None,
            "a pack with a 3D CLIP; name one with --clip",
        ),
        "factual": (
            classifier,
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
