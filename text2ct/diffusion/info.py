"""``pack.json``: what a model pack is, what it was trained on and how it is meant to be used."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

COMPONENTS: tuple[str, ...] = ("clip", "vae", "unet", "scheduler")


class TrainingData(BaseModel):
    """A dataset a pack was trained on, with its patients as a range of numbers or a list of names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str
    first: int | None = Field(default=None, description="first patient number, where patients are numbers")
    last: int | None = Field(default=None, description="last patient number, inclusive")
    patients: tuple[str, ...] = ()


class Defaults(BaseModel):
    """How a pack samples unless told otherwise."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(default=30, ge=1, le=1000)
    guidance_scale: float = Field(default=5.0, ge=0)


class PackInfo(BaseModel):
    """The contents of ``pack.json``; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    version: str
    licence: str
    description: str = ""
    components: dict[Literal["clip", "vae", "unet", "scheduler"], str] = Field(
        description="component to its registered type; an absent component is not in the pack"
    )
    trained_on: tuple[TrainingData, ...] = ()
    grid: tuple[int, int, int] = Field(description="voxels along (x, y, z)")
    spacing_mm: tuple[float, float, float]
    hu_range: tuple[float, float] = (-1000.0, 1000.0)
    latent_scale_factor: float = Field(gt=0, description="latents are multiplied by it before diffusion")
    conditioning: Literal["pooled", "tokens"] = "pooled"
    text_cleaning: Literal["tokenizer"] = Field(
        default="tokenizer", description="who cleans a text: `tokenizer` is the normaliser in tokenizer.json"
    )
    text_length: int = Field(default=512, ge=2, description="tokens a text is padded or cut to")
    objective: Literal["velocity", "epsilon"] = Field(
        default="velocity", description="what the UNet predicts: the flow's velocity, or the noise"
    )
    defaults: Defaults = Defaults()
    files: dict[str, str] = Field(default_factory=dict, description="relative path to SHA-256")
