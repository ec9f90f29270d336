"""What a benchmark is asked to do, and what it declares before its first training (``benchmark-plan.json``)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import Field, field_validator

from text2ct.augment._scans import NAMES
from text2ct.augment.selection import Strategy
from text2ct.classifiers.config import Settings
from text2ct.errors import UserError
from text2ct.evaluation.arm_volumes import OwnBudget
from text2ct.files import read_json, write_json

MIN_TEST_PATIENTS = 1500
"""With fewer, a gain of 0.03 in the mean AUC of findings that one scan in twelve has drowns in their choice."""

MARGIN = 0.03
"""In mean AUC of the under-represented findings: about a third of what new patients of the same labels brought in a
trial with 250 of them."""

RATIO_RULE = "of the ratios, the one whose trainings have the highest mean macro AUC on validation patients"
COMPARATOR_RULE = (
    "of those of real, real+class-weights, real+oversampled and real+classical that are trained, the one with the "
    "highest mean macro AUC on validation patients"
)
"""Both are chosen by the same number on the same patients, so that neither is chosen by the luck of the test set."""

Ratio = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class BenchmarkSettings(Settings):
    """The same for every arm, so that arms differ in what they are trained on and in nothing else."""

    ratios: tuple[Ratio, ...] = (0.5,)
    """Synthetic volumes per real training volume, for arms ending in ``@R``."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0, 1, 2)
    """One training per arm and seed, which draws the arm's volumes, too; with a single one no verdict is given."""
    steps: Count = 300
    """Optimisation steps of every training."""
    classifier: str = "cnn3d"
    batch_size: Count = 8
    arms: tuple[str, ...] = ()
    """Arms by name; none: the usual ones, or with ``full`` all that can be built here."""
    full: bool = False
    strategy: Strategy = "targeted"
    synthetic_until: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the steps after which arms with real and synthetic volumes draw real ones alone."""
    n_bootstrap: Count = 1000
    train_options: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of ``train``, the same for every arm."""
    train_patients: tuple[Count, ...] = ()
    """Sizes of random subsets of the training patients, nested and drawn anew by each seed; none: all of them."""
    pretrain_patients: Count = 1000
    """New patients that ``real+classifier-pretrained`` starts from."""
    own_generator: OwnBudget = OwnBudget()
    """How long the generator of ``real+own-generator`` is trained."""

    @field_validator("seeds", "train_patients", "arms")
    @classmethod
    def _once(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(dict.fromkeys(values))

    @field_validator("train_patients")
    @classmethod
    def _rising(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(values))

    @field_validator("train_options")
    @classmethod
    def _as_stored(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {key: plain(value) for key, value in values.items()}


class Endpoint(Settings):
    """What the benchmark is decided by."""

    measure: Literal["underrepresented_auc"] = "underrepresented_auc"
    findings: tuple[str, ...]
    """Under-represented in the training split, and rendered faithfully by the generator as far as that is known."""
    unfaithful: tuple[str, ...] = ()
    """Under-represented, but left out since the generator is known not to render them."""
    min_test_patients: int = MIN_TEST_PATIENTS
    test_patients: int
    margin: float = MARGIN
    """Gain over every arm without generated volumes that is worth their cost; beside it no finding may be harmed."""
    ratio_rule: str = RATIO_RULE
    comparator_rule: str = COMPARATOR_RULE


class Declaration(Settings):
    """``benchmark-plan.json``: all that decides the outcome beside luck, written down before the first training."""

    version: Literal[1] = 1
    declared: str
    endpoint: Endpoint
    settings: BenchmarkSettings
    data: dict[str, str]
    """Digests of the tables: training, validation and test rows, synthetic rows, the pack."""

    @property
    def digest(self) -> str:
        """Names the benchmark by everything but the hour."""
        return json_digest(self.model_dump(mode="json", exclude={"declared"}))


def declare(endpoint: Endpoint, settings: BenchmarkSettings, data: Mapping[str, str]) -> Declaration:
    """A declaration of this hour (UTC)."""
    hour = datetime.now(UTC).isoformat(timespec="seconds")
    return Declaration(declared=hour, endpoint=endpoint, settings=settings, data=dict(data))


def keep_declaration(declaration: Declaration, path: Path, *, dry_run: bool = False) -> Declaration:
    """Write the declaration, or return the earlier one of the same benchmark, whose hour counts.

    Raises:
        UserError: The file declares something else; what differs is named.
    """
    if not path.exists():
        if not dry_run:
            write_json(path, declaration.model_dump(mode="json"))
        return declaration
    before = Declaration.of(str(path), read_json(path))
    if before.digest != declaration.digest:
        then, now = (_flat(one.model_dump(mode="json", exclude={"declared"})) for one in (before, declaration))
        differing = [
            f"{key}: then {then.get(key)}, now {now.get(key)}"
            for key in dict.fromkeys([*then, *now])
            if then.get(key) != now.get(key)
        ]
        raise UserError(f"{path} declared other data or settings; give another --run", differing)
    return before


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """The second level's fields by their own names."""
    return {
        name: value for part in values.values() for name, value in (part.items() if isinstance(part, Mapping) else {})
    }


def table_digest(frame: pd.DataFrame) -> str:
    """Digest of what a training sees of a manifest: identities, splits, labels, contents and prompts."""
    columns = ["dataset", "volume", "patient", "scan", "split", "source", "root", "path", "sha256"]
    columns += ["prompt"] if "prompt" in frame else []
    labels = frame[NAMES].fillna(-1.0).to_numpy(dtype=float).tolist()
    return json_digest([frame[columns].astype(str).to_numpy(dtype=object).tolist(), labels])


def json_digest(value: object) -> str:
    """SHA-256 of a value as canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def plain(value: Any) -> Any:
    """A value as JSON stores it: tuples become lists, NaN becomes null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and value != value:
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)
