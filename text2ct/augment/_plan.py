"""``plan.json``: what was asked for, which volumes that takes, and what they bring."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, computed_field, model_validator

from text2ct.augment._scans import NAMES
from text2ct.console import warn
from text2ct.errors import UserError
from text2ct.files import read_json, write_json

_INT16 = 2  # bytes


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LabelSet(_Strict):
    """Volumes to make of one label set."""

    positive: tuple[str, ...] = Field(description="Findings present, in CT-RATE's order")
    unknown: tuple[str, ...] = Field(default=(), description="Findings whose label is unknown in those scans")
    count: int = Field(ge=1, description="Volumes to make")
    training_scans: int = Field(ge=0, description="Training scans with exactly these labels; 0 for an unseen set")

    @model_validator(mode="after")
    def _check(self) -> LabelSet:
        both = sorted(set(self.positive) & set(self.unknown))
        if both:
            raise ValueError(f"{', '.join(both)} cannot be both positive and unknown")
        return self


class FindingPlan(_Strict):
    """What the plan does to one finding; prevalences are by training scan, among known labels."""

    target: bool
    positive_scans: int
    known_scans: int
    added_with: int
    added_without: int
    prevalence_before: float | None
    prevalence_after: float | None
    irlbl_before: float | None = Field(default=None, description="Prevalence of the commonest finding over its own")
    irlbl_after: float | None = None
    reached: bool = Field(description="The target prevalence and IRLbl are met; true for findings that are no target")
    source_label_association: float | None = Field(
        description="Phi of being synthetic and having the finding, over training scans and planned volumes"
    )
    association_kept: bool = Field(description="Its absolute value is at most `max_association`")
    test_positive_scans: int
    detectable_auc_difference: float | None = Field(
        description="Smallest gain from AUC 0.75 that the test scans can show; None where they can show none"
    )
    detectable: bool | None = Field(description="`expected_gain` is at least that; None without test scans")
    fidelity: float | None = Field(default=None, description="Share of the judges' AUC that the pack keeps, if known")


class Cost(_Strict):
    """What making the plan's volumes with a pack takes."""

    pack: str
    seconds_per_volume: float | None = Field(description="As measured on this device; None where it was not")
    hours: float | None
    bytes: int = Field(description="Upper bound of the volumes' files")


class Plan(_Strict):
    """A resolved plan: explicit counts that a person can inspect and edit (``plan.json``)."""

    version: Literal[2] = 2
    target_prevalence: float
    target_irlbl: float | None = Field(default=None, description="Where given, the target prevalence follows from it")
    without_share: float
    max_ratio: float
    max_association: float
    expected_gain: float
    unseen: bool
    seed: int
    training_scans: int
    training_labels: str = Field(default="", description="SHA-256 of those scans' labels, to know them again by")
    test_scans: int
    targets: tuple[str, ...]
    label_sets: tuple[LabelSet, ...]
    findings: dict[str, FindingPlan]
    notes: tuple[str, ...] = ()
    cost: Cost | None = Field(default=None, description="None where no pack was named")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def total(self) -> int:
        """Volumes in all, so that a person who edits counts need not add them up."""
        return sum(item.count for item in self.label_sets)

    @model_validator(mode="before")
    @classmethod
    def _leave_out_total(cls, data: Any) -> Any:
        return {key: value for key, value in data.items() if key != "total"} if isinstance(data, dict) else data

    def write(self, path: Path) -> None:
        """Write ``plan.json`` atomically."""
        write_json(path, self.model_dump(mode="json"))

    def with_cost(self, pack: str, grid: Sequence[int], seconds_per_volume: float | None) -> Plan:
        """This plan and what it costs with a pack.

        Args:
            pack: The pack's name.
            grid: Voxels along x, y, z of what it makes.
            seconds_per_volume: As :func:`text2ct.diffusion.estimate_seconds` measured it; None where it did not.
        """
        hours = None if seconds_per_volume is None else self.total * seconds_per_volume / 3600
        size = self.total * math.prod(grid) * _INT16
        return self.model_copy(
            update={"cost": Cost(pack=pack, seconds_per_volume=seconds_per_volume, hours=hours, bytes=size)}
        )


def read_plan(path: Path) -> Plan:
    """Read a ``plan.json``, also one that a person edited: its counts decide, and a total that differs is named.

    Raises:
        UserError: The file is absent, is not JSON, or a field is wrong; every problem is named.
    """
    stored = read_json(path)
    try:
        plan = Plan.model_validate(stored)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise UserError(f"{path} is no plan of this version; make it anew with `text2ct report`", problems) from error
    strange = sorted({name for s in plan.label_sets for name in (*s.positive, *s.unknown)} - set(NAMES))
    if strange:
        raise UserError(f"{path} names unknown findings", strange)
    if stored.get("total", plan.total) != plan.total:
        warn(
            f"{path} says {stored['total']} volumes in all, but its label sets ask for {plan.total:,}: these are made; "
            "its findings, notes and cost are those of the plan before it was edited"
        )
    return plan
