"""The typed configuration of a classifier run, saved with it as ``config.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from text2ct.errors import UserError
from text2ct.findings import FINDINGS

FORMAT_VERSION = 2
"""Version of a run folder's layout; a run of another version is refused. 2: temperature, warm start, losses."""

Axis = Annotated[int, Field(ge=8, le=1024)]
Millimetres = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]
SettingsT = TypeVar("SettingsT", bound="Settings")


class Settings(BaseModel):
    """A frozen pydantic model that rejects unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @classmethod
    def of(cls: type[SettingsT], what: str, values: Mapping[str, Any]) -> SettingsT:
        """Validate ``values``.

        Args:
            what: Where the values come from, for the message.
            values: Field names and values.

        Raises:
            UserError: Unknown fields or values out of range, each on its own line.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            problems = [
                f"{'.'.join(map(str, item['loc'])) or 'value'}: {item['msg']}, not {str(item['input'])[:60]}"
                for item in error.errors()
            ]
            raise UserError(f"{what} cannot be used; mend these settings", problems) from error


class Preprocessing(Settings):
    """The grid that a volume is brought to; all of it enters the cache's key."""

    size: tuple[Axis, Axis, Axis] = (64, 64, 64)
    """Voxels along x, y, z."""
    spacing_mm: tuple[Millimetres, Millimetres, Millimetres] = (5.0, 5.0, 5.0)
    fit: Literal["crop-pad", "resize"] = "crop-pad"
    pad_hu: float = -1000.0
    """What lies outside the field of view: air."""


class WindowSetting(Settings):
    """One HU window, stored by value: a run stays itself if a preset changes later."""

    name: str
    centre: float
    width: Annotated[float, Field(gt=0)]


class Training(Settings):
    """The one recipe for every classifier."""

    steps: Annotated[int, Field(ge=1)] = 300
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Volumes per optimisation step."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """Parts that a step's volumes go through the network in; their gradients are added up. Must divide them."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    learning_rate: Annotated[float, Field(gt=0, le=1)]
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the steps in which the learning rate rises linearly; a cosine to zero follows."""
    gradient_clip: Annotated[float, Field(gt=0)] = 5.0
    loss: Literal["bce", "asymmetric"] = "bce"
    gamma_positive: Annotated[int, Field(ge=0, le=10)] = 0
    gamma_negative: Annotated[int, Field(ge=0, le=10)] = 4
    probability_margin: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Of the asymmetric loss; the defaults are those of its paper's main results."""
    class_weights: bool = False
    positive_weight_cap: Annotated[float, Field(ge=1)] = 10.0
    """Largest weight of a positive: a finding with three positives would otherwise rule the gradient."""
    augment: bool = False
    synthetic_until: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the steps after which only real volumes are drawn, as far as there are real draws to fill the rest. How
    often each volume is drawn stays the same: the synthetic ones come earlier."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay per step of the exponential moving average of the weights that is validated and kept; 0: none."""
    validate_every: Annotated[int, Field(ge=1)]
    """Steps between two validations, and between two points that an interrupted run resumes from."""

    @model_validator(mode="after")
    def _equal_parts(self) -> Training:
        if self.batch_size % self.accumulate:
            raise ValueError(f"accumulate {self.accumulate} does not divide batch_size {self.batch_size}")
        return self

    @property
    def part_size(self) -> int:
        """Volumes that go through the network at once."""
        return self.batch_size // self.accumulate


class DataRecord(Settings):
    """What the run was trained on, in numbers, and a digest that pins it."""

    train_volumes: int
    validation_volumes: int
    left_out_without_label: int
    weighted_sampling: bool
    sha256: str
    """Digest of volume contents, labels, ids and sampling weights."""


class InitRecord(Settings):
    """The run that a training started from."""

    run: str
    """Name of its folder."""
    sha256: str
    """Digest of its weights."""


class ChosenModel(Settings):
    """The checkpoint that was kept."""

    sha256: str
    step: int
    validation_macro_auc: float
    undefined_findings: tuple[str, ...]
    """Findings with one class only among the validation scans: they have no AUC and are not in the mean."""
    seconds_per_step: float
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """What logits are divided by before they become probabilities, fitted on the validation volumes."""


class RunConfig(Settings):
    """Everything that makes a run; ``model`` is absent until the run has ended."""

    format_version: int = FORMAT_VERSION
    classifier: str
    options: dict[str, Any]
    findings: tuple[str, ...] = FINDINGS
    preprocessing: Preprocessing
    windows: tuple[WindowSetting, ...]
    training: Training
    data: DataRecord
    init: InitRecord | None = None
    model: ChosenModel | None = None

    @model_validator(mode="after")
    def _same_findings(self) -> RunConfig:
        if self.findings != FINDINGS:
            raise ValueError("the run's findings are not this version's 18: train it again")
        return self
