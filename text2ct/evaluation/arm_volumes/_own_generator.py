"""A generator of the arm's own training patients: the strict reading of "real + synthetic helps"."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from text2ct.errors import UserError, first_of

if TYPE_CHECKING:
    from text2ct.diffusion.build_config import BuildConfig
    from text2ct.manifests import Workspace

NAME = "own-generator"


class OwnBudget(BaseModel):
    """How long a generator of one's own is trained; unknown keys are refused.

    Steps give the same pack again, minutes do not: they are for when time is what there is.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    clip_steps: int = Field(default=200, ge=1, description="steps of the 3D CLIP, its reading of texts included")
    clip_batch: int = Field(default=16, ge=2, description="pairs a step")
    clip_minutes: float | None = Field(default=None, gt=0, description="stop after this time; None for no limit")
    diffusion_steps: int = Field(default=400, ge=1, description="steps of the velocity network")
    diffusion_batch: int = Field(default=8, ge=1, description="latents a step")
    diffusion_minutes: float | None = Field(default=None, gt=0, description="stop after this time; None for no limit")


def own_generator(
    train_rows: pd.DataFrame,
    workspace: Workspace,
    folder: Path,
    *,
    device: str = "auto",
    budget: OwnBudget | None = None,
    config: BuildConfig | None = None,
) -> Path:
    """Build a pack of the bundled one's classes from the volumes and reports of these rows, from random weights.

    Its ``pack.json`` names the rows' patients, so that no leak goes unseen. The same call goes on where it was
    stopped.

    Args:
        train_rows: Training rows with files and reports.
        workspace: Resolves the rows' roots.
        folder: Holds ``work`` (cases, latents, checkpoints) and the pack.
        device: As for :func:`text2ct.compute.pick_device`.
        budget: How long to train.
        config: The architecture and its recipe, the bundled pack's by default; the budget replaces steps, minutes
            and batch sizes.

    Returns:
        The pack's folder, for ``synthesize``.

    Raises:
        UserError: A row that is no training row or is synthetic, no row with file and report, or a folder that
            belongs to other rows or another budget.
    """
    from text2ct.diffusion.build import build_pack_of_cases
    from text2ct.diffusion.build_config import BuildConfig, check_parts
    from text2ct.diffusion.training.data import cache_manifest
    from text2ct.diffusion.training.on_manifest import claim_manifest, training_data

    _check_rows(train_rows)
    settings = _settings(config or BuildConfig(), budget or OwnBudget())
    check_parts(settings)
    folder = Path(folder)
    work, out = folder / "work", folder / NAME
    claim_manifest(work, train_rows, workspace)
    grid: dict[str, Any] = {"size": settings.grid, "spacing_mm": settings.spacing_mm}
    cases = cache_manifest(work / "cases", train_rows, workspace, **grid)
    build_pack_of_cases(cases, training_data(train_rows), work, out, settings, device=device)
    return out


def _check_rows(rows: pd.DataFrame) -> None:
    """Only real training patients may teach it: not those who judge, and not another generator's volumes."""
    problems = []
    for row in rows.to_dict("records"):
        if row["split"] != "train":
            problems.append(f"{row['volume']}: its split is '{row['split']}', not train")
        elif row["source"] == "synthetic":
            problems.append(f"{row['volume']}: it is synthetic")
    if problems:
        raise UserError("a generator of one's own learns from real training rows only", first_of(problems))


def _settings(config: BuildConfig, budget: OwnBudget) -> BuildConfig:
    clip, diffusion = config.train_clip, config.train_diffusion
    share = budget.clip_steps / clip.steps  # texts are read alone for the same share of the training
    clip = clip.model_copy(
        update={
            "steps": budget.clip_steps,
            "batch_size": budget.clip_batch,
            "minutes": budget.clip_minutes,
            "warmup_steps": round(share * clip.warmup_steps),
            "short_steps": round(share * clip.short_steps),
            "text_only_steps": round(share * clip.text_only_steps),
        }
    )
    diffusion = diffusion.model_copy(
        update={
            "steps": budget.diffusion_steps,
            "batch_size": budget.diffusion_batch,
            "minutes": budget.diffusion_minutes,
            "warmup_steps": round(budget.diffusion_steps / diffusion.steps * diffusion.warmup_steps),
        }
    )
    return config.model_copy(update={"name": NAME, "train_clip": clip, "train_diffusion": diffusion})
