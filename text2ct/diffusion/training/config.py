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
    batch_size: int = Field(default=16, ge=1, description="cases a step, of all devices together")
    micro_batch: int | None = Field(
        default=None, ge=1, description="cases computed at once on a device, the gradient staying the batch's"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="bfloat16 autocast or not; auto takes it where the hardware computes it fast"
    )
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
    """Training of an autoencoder on random patches: L1, L1 of gradients, a small KL.

    A discriminator and a perceptual network are optional. MAISI's weights (arXiv 2409.11169) are 0.1 for the former and
    0.3 for the latter.
    """

    patch: int = Field(default=32, ge=8)
    gradient_weight: float = Field(default=1.0, ge=0)
    kl_weight: float = Field(default=1e-3, ge=0)
    dense_weight: float = Field(default=2.0, ge=0, description="extra weight of voxels above dense_hu")
    dense_hu: float = 300.0
    whole_every: int = Field(default=4, ge=0, description="every n-th step takes whole volumes; 0 for never")
    adversarial_weight: float = Field(default=0.0, ge=0, description="of the patch discriminator's loss; 0 for none")
    adversarial_start: int = Field(default=0, ge=0, description="first step with the discriminator")
    discriminator_channels: int = Field(default=32, ge=1, description="of its first layer")
    discriminator_layers: int = Field(default=3, ge=1, description="after the first; each but the last halves")
    perceptual: str = Field(
        default="none",
        description="none, a network of MONAI's PerceptualLoss (downloaded), or a file of MedicalNet's ResNet-10",
    )
    perceptual_weight: float = Field(default=0.3, ge=0)


class ClipTraining(TrainingConfig):
    """Training of 3D CLIP: symmetric InfoNCE, and optionally the labels read from both embeddings."""

    contrastive_weight: float = Field(default=1.0, ge=0)
    label_weight: float = Field(default=0.0, ge=0)
    text_length: int = Field(default=256, ge=8)
    label_texts: float = Field(
        default=0.0, ge=0, lt=1, description="share of cases whose text states some labels in place of the report"
    )
    short_steps: int = Field(default=0, ge=0, description="first steps read labels from impressions alone, no volumes")
    text_only_steps: int = Field(default=0, ge=0, description="then up to this step from whole reports, no volumes")


class DiffusionTraining(TrainingConfig):
    """Training of the velocity or noise network on encoded cases.

    The released recipe is ``batch_size`` 4, ``learning_rate`` 1e-4, ``scale`` first-batch and the defaults
    otherwise: Adam, L1, velocity, 10% condition dropout, decay of power 2, no averaging, no clipping.
    """

    drop_condition: float = Field(default=0.1, ge=0, le=1)
    loss: Literal["l1", "l2"] = Field(default="l1", description="l1 as released; l2 as in the flow's derivation")
    objective: Literal["velocity", "epsilon"] | None = Field(
        default=None, description="velocity of a rectified flow or noise of a DDPM; None for the pack's"
    )
    scale: Literal["all", "first-batch"] = Field(
        default="all", description="whose deviation becomes 1 when training from scratch; first-batch as released"
    )
    gradient_checkpointing: bool = Field(
        default=False, description="compute the UNet's blocks twice instead of keeping their activations"
    )
    compile: bool = Field(default=False, description="let torch.compile fuse the network; needs a compiler")


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
