"""The gate's configuration: every threshold that is not measured, with its reason beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from text2ct.augment.gate.base import TESTS, Strict, Test
from text2ct.augment.gate.geometry import GeometrySettings
from text2ct.augment.gate.intensity import IntensitySettings
from text2ct.augment.gate.label import LabelSettings
from text2ct.augment.gate.memorised import MemorisedSettings
from text2ct.errors import UserError
from text2ct.files import read_json

Axis = Annotated[int, Field(ge=8, le=1024)]
Millimetres = Annotated[float, Field(gt=0, le=100)]

GATE_SEED = 7919
"""Seed of the gate's classifier: a prime that nobody types as a training seed, since one seed may not both gate
and be scored."""


class ClassifierSettings(Strict):
    """The classifier that the gate trains for itself."""

    name: str = "slices"
    """Not `cnn3d`, which `train` and `benchmark` use by default: one architecture may not both gate and be scored."""
    steps: Annotated[int, Field(ge=1)] = 300
    """As `train`: on the embedded cohort `slices` then reaches a validation macro AUC of 0.8."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the classifier, such as its backbone."""


class GateConfig(Strict):
    """What is tested, on which grid, and how strictly; ``--config FILE.json`` names what differs from this."""

    tests: Annotated[tuple[Test, ...], Field(min_length=1)] = TESTS
    size: tuple[Axis, Axis, Axis] = (64, 64, 64)
    """Voxels of the grid on which volumes are compared: that of `train`, so that both read the same cache."""
    spacing_mm: tuple[Millimetres, Millimetres, Millimetres] = (5.0, 5.0, 5.0)
    classifier: ClassifierSettings = ClassifierSettings()
    label: LabelSettings = LabelSettings()
    geometry: GeometrySettings = GeometrySettings()
    intensity: IntensitySettings = IntensitySettings()
    memorised: MemorisedSettings = MemorisedSettings()


def read_config(path: Path | None) -> GateConfig:
    """The configuration in a JSON file; without one the default.

    Raises:
        UserError: There is no such file, or settings are unknown or out of range; all are named.
    """
    if path is None:
        return GateConfig()
    try:
        return GateConfig.model_validate(read_json(path))
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}" for item in error.errors()]
        raise UserError(
            f"{path} does not serve as a configuration of the gate; mend these settings", problems
        ) from error
