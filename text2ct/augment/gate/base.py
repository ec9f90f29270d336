"""What the tests of the gate share: settings that reject unknown keys, and a score with its bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

Test = Literal["label", "geometry", "intensity", "memorised"]
TESTS: tuple[Test, ...] = ("label", "geometry", "intensity", "memorised")
Share = Annotated[float, Field(ge=0, le=1)]
# Real volumes whose histograms make the reference, and real pairs that calibrate the search for copies: with more, a
# mean or a 95% quantile moves by less than it differs between two data sets.
ENOUGH = 500


class Strict(BaseModel):
    """A frozen model that rejects unknown keys and numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Score:
    """One thing measured on a volume.

    Attributes:
        test: The test that it belongs to.
        name: What was measured, with its unit.
        value: The measurement; NaN where there is no number.
        low: Least value that passes.
        high: Highest value that passes.
        reason: Why the volume fails by it, in words without ``;``; "" when it passes.
        note: What else is known, such as the name of the nearest volume.
        unknown: Whether the volume is no longer known to have or to lack the finding ``name``.
    """

    test: Test
    name: str
    value: float
    low: float = -math.inf
    high: float = math.inf
    reason: str = ""
    note: str = ""
    unknown: bool = False

    @property
    def passed(self) -> bool:
        """Whether the volume passes by it."""
        return not self.reason


def bounded(
    test: Test, name: str, value: float, *, low: float = -math.inf, high: float = math.inf, what: str, note: str = ""
) -> Score:
    """A score that fails outside ``[low, high]`` and as NaN, its reason being ``what`` and the numbers."""
    reason = ""
    if math.isnan(value):
        reason = f"{what} (there is no number)"
    elif value < low:
        reason = f"{what} ({value:.4g} is below {low:.4g})"
    elif value > high:
        reason = f"{what} ({value:.4g} is above {high:.4g})"
    return Score(test, name, value, low, high, reason, note)


def evenly(n: int, most: int) -> list[int]:
    """At most ``most`` of ``n`` places, evenly spread."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int)).tolist() if n else []
