"""``pack.json``: what a model pack is, what it was trained on and how it is meant to be used."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from text2ct.diffusion.cleaning import TextCleaning
from text2ct.errors import UserError

COMPONENTS: tuple[str, ...] = ("clip", "vae", "unet", "scheduler")
# The data set of the simulator's numbered patients that packs are built from.
SIMULATED = "simulated"
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"

Length = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
# How often a block comes in a network: with more, building it takes minutes, whatever its width.
Layers = Annotated[int, Field(ge=0, le=256)]


class TrainingData(BaseModel):
    """A dataset a pack was trained on, with its patients as a range of numbers or a list of names.

    In a name ``*`` stands for any letters: ``train_*`` is the whole training split of CT-RATE.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str
    first: int | None = Field(default=None, description="first patient number, where patients are numbers")
    last: int | None = Field(default=None, description="last patient number, inclusive")
    patients: tuple[str, ...] = ()


class Sampling(BaseModel):
    """How latents are sampled and decoded."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    steps: int = Field(default=30, ge=1, le=1000, description="times of the path; the most evaluations made")
    guidance_scale: float = Field(default=5.0, ge=0, description="1 turns guidance off")
    guidance_interval: tuple[float, float] = Field(
        default=(0.0, 1.0), description="guide at times above the first and up to the second; 1 is pure noise"
    )
    solver: Literal["euler", "heun", "adams-bashforth", "dpm-solver"] = "euler"
    time_location: float = Field(default=0.0, ge=-5, le=5, description="above 0, more of the times lie near pure noise")
    time_scale: float = Field(default=1.0, gt=0, le=3, description="above 1, more of the times lie near both ends")
    decode: Literal["exact", "window"] = Field(default="exact", description="`window` joins windows, as released")

    @field_validator("guidance_interval")
    @classmethod
    def _ordered(cls, interval: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= interval[0] <= interval[1] <= 1:
            raise ValueError(f"{interval[0]:g}, {interval[1]:g} is not an interval within 0 and 1")
        return interval

    @property
    def path(self) -> tuple[int, str, float, float]:
        """What a scheduler's ``sample`` takes after velocity and noise: steps, solver, location and scale of times."""
        return self.steps, self.solver, self.time_location, self.time_scale

    def guides_at(self, noise_share: float) -> bool:
        """Whether guidance acts where ``noise_share``, in [0, 1], of the path to pure noise lies ahead."""
        low, high = self.guidance_interval
        return self.guidance_scale != 1 and (low < noise_share or low == 0) and noise_share <= high

    def updated(self, **changes: Any) -> Sampling:
        """These settings with ``changes``; None keeps what is there.

        Raises:
            UserError: All that is impossible about them.
        """
        kept = {name: value for name, value in changes.items() if value is not None}
        try:
            return Sampling.model_validate(self.model_dump() | kept)
        except ValidationError as error:
            problems = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
            raise UserError("nothing can be sampled with these settings", problems) from error


class PackInfo(BaseModel):
    """The contents of ``pack.json``; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    format: Literal[1] = 1
    name: str = Field(pattern=NAME_PATTERN)
    version: str
    licence: str
    description: str = ""
    components: dict[Literal["clip", "vae", "unet", "scheduler"], str] = Field(
        description="component to its registered type; an absent component is not in the pack"
    )
    trained_on: tuple[TrainingData, ...] = ()
    grid: tuple[Count, Count, Count] = Field(description="voxels along (x, y, z)")
    spacing_mm: tuple[Length, Length, Length] = Field(description="along (x, y, z)")
    hu_range: tuple[float, float] = Field(default=(-1000.0, 1000.0), description="lowest and highest HU")
    latent_scale_factor: float = Field(gt=0, description="latents are multiplied by it before diffusion")
    conditioning: Literal["pooled", "tokens"] = "pooled"
    text_cleaning: TextCleaning = Field(
        default="tokenizer",
        description="who cleans a text: `tokenizer` is the normaliser in tokenizer.json, `bert` and `ftfy` replace it",
    )
    text_length: int = Field(default=512, ge=2, description="tokens a text is padded or cut to")
    objective: Literal["velocity", "epsilon"] = Field(
        default="velocity", description="what the UNet predicts: the flow's velocity, or the noise"
    )
    defaults: Sampling = Field(default=Sampling(), description="how the pack samples unless told otherwise")
    files: dict[str, str] = Field(default_factory=dict, description="relative path to SHA-256")

    @field_validator("files")
    @classmethod
    def _inside(cls, files: dict[str, str]) -> dict[str, str]:
        strange = [
            name for name in files if len(name) > 200 or "\0" in name or name[:1] == "/" or ".." in name.split("/")
        ]
        if strange:
            raise ValueError(f"'{strange[0][:60]}' is no file of a pack; expected paths within it")
        return files

    @field_validator("hu_range")
    @classmethod
    def _low_below_high(cls, hu_range: tuple[float, float]) -> tuple[float, float]:
        if not hu_range[0] < hu_range[1]:
            raise ValueError(f"{hu_range[0]:g}, {hu_range[1]:g} does not rise from the lowest HU to the highest")
        return hu_range
