"""What can be said of a finding, of two findings at once, and of a region without findings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from text2ct.simulation.instance import Instance

# Regions in the order in which most reports describe them.
REGIONS = (
    "airways",
    "vessels",
    "heart",
    "pericardium",
    "esophagus",
    "nodes",
    "lung",
    "pleura",
    "abdomen",
    "bones",
)


def anything(instance: Instance) -> str:
    """The only variant of findings whose words depend on nothing."""
    return ""


def one_or_both(instance: Instance) -> str:
    """The variants "one" and "both" of findings whose words depend on the side."""
    return "both" if instance.side == "bilateral" else "one"


@dataclass(frozen=True)
class Wording:
    """The words for one finding.

    Attributes:
        region: Where in the report it is described.
        findings: Templates of sentences in Findings, by variant.
        impression: Templates of items in Impression, by variant.
        variant: Which variant an instance takes, a key of both tables.
    """

    region: str
    findings: dict[str, tuple[str, ...]]
    impression: dict[str, tuple[str, ...]]
    variant: Callable[[Instance], str] = anything


@dataclass(frozen=True)
class Joint:
    """One sentence for two findings that readers like to name together.

    Slots of the second finding end in ``_b``: ``<place_b>``.
    """

    pair: tuple[str, str]
    region: str
    findings: tuple[str, ...]
    impression: tuple[str, ...]
    chance: float = 0.5


@dataclass(frozen=True)
class Normal:
    """A negative or normal statement, said only where it is true.

    Attributes:
        region: Where in the report it stands.
        text: Templates; one is chosen.
        unless: The findings, variants of their wordings, and kinds of distractors and of statements, that make
            it untrue.
        chance: How often it is said where it is true.
        detail: Said only by thorough readers.
    """

    region: str
    text: tuple[str, ...]
    unless: tuple[str, ...] = ()
    chance: float = 0.7
    detail: bool = False
