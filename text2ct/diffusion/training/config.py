"""What each training is run with; unknown keys are refused and the resolved values are saved with the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from text2ct.errors import UserError


class TrainingConfig(BaseModel):
    """What every training has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(default=1000, ge=1, description="optimiser steps; the end of the schedule")
    minutes: float | None = Field(
        default=None, gt=0, description="stop after this time, the schedule shortened to fit; None for no limit"
    )
    batch_size: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    warmup_steps: int = Field(default=0, ge=0)
    poly_power: float = Field(default=2.0, ge=0, description="learning rate is multiplied by (1 - progress)**power")
    weight_decay: float = Field(default=0.0, ge=0)
    gradient_clip: float | None = Field(default=None, gt=0, description="largest norm of the gradient")
    ema_decay: float | None = Field(default=None, gt=0, lt=1, description="decay of averaged weights; None for none")
    seed: int = Field(default=0, ge=0)
    checkpoint_every: int = Field(default=200, ge=1)
    log_every: int = Field(default=20, ge=1)


class VaeTraining(TrainingConfig):
    """Training of an autoencoder: L1, L1 of gradients, and a small KL, on random patches."""

    patch: int = Field(default=32, ge=8)
    gradient_weight: float = Field(default=1.0, ge=0)
    kl_weight: float = Field(default=1e-3, ge=0)
    dense_weight: float = Field(default=2.0, ge=0, description="extra weight of voxels above dense_hu")
    dense_hu: float = 300.0
    whole_every: int = Field(default=4, ge=0, description="every n-th step takes whole volumes; 0 for never")


class ClipTraining(TrainingConfig):
    """Training of 3D CLIP: symmetric InfoNCE, and optionally the labels read from both embeddings."""

    contrastive_weight: float = Field(default=1.0, ge=0)
    label_weight: float = Field(default=0.0, ge=0)
    text_length: int = Field(default=256, ge=8)
    short_steps: int = Field(default=0, ge=0, description="first steps read labels from impressions alone, no volumes")
    text_only_steps: int = Field(default=0, ge=0, description="then up to this step from whole reports, no volumes")


class DiffusionTraining(TrainingConfig):
    """Training of the velocity network on encoded cases."""

    drop_condition: float = Field(default=0.1, ge=0, le=1)
    loss: Literal["l1", "l2"] = Field(default="l1", description="l1 as released; l2 as in the flow's derivation")


def parse_config(model: type[BaseModel], values: dict[str, Any], origin: str | Path = "configuration") -> Any:
    """Validate ``values``.

    Raises:
        UserError: All problems, one line each.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        raise UserError(f"{origin} is not a valid {model.__name__}", problems) from error
