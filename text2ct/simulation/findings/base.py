"""What every finding model offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from text2ct.simulation.anatomy import Anatomy
from text2ct.simulation.anatomy_scene import Scene
from text2ct.simulation.instance import Instance
from text2ct.simulation.patients import Patient


class FindingModel(ABC):
    """One finding: draw what it is, change the anatomy, paint it.

    Attributes:
        finding: Its name in `text2ct.findings.FINDINGS`.
        stage: Painting order; lower comes first (parenchyma 10 to 30, airways 40, solid 50, fluid 60,
            calcium 70, devices 80).
    """

    finding: ClassVar[str]
    stage: ClassVar[int]

    @abstractmethod
    def draw(self, rng: np.random.Generator, patient: Patient) -> Instance:
        """Draw one instance; ``patient.scans`` may be empty."""

    def prepare(self, anatomy: Anatomy, instance: Instance, rng: np.random.Generator) -> None:  # noqa: B027
        """Change the anatomy before anything is painted; most findings need not.

        ``rng`` starts in the same state as in `apply`, so both can draw the same lesions.
        """

    @abstractmethod
    def apply(self, scene: Scene, instance: Instance, rng: np.random.Generator) -> None:
        """Paint the instance; ``rng`` is its own stream."""


def side_of(site: str) -> str:
    """The side that a site's name states: "right", "left", or "bilateral" for both lungs or lobes."""
    if site.startswith(("right", "left")):
        return site.split()[0]
    return "bilateral"


def choose(rng: np.random.Generator, options: dict[str, float]) -> str:
    """One of the options, by weight."""
    names = list(options)
    weights = np.array([options[name] for name in names])
    return names[int(rng.choice(len(names), p=weights / weights.sum()))]


def draw_severity(rng: np.random.Generator) -> float:
    """A severity in [0.05, 1], most often moderate."""
    return float(np.clip(rng.beta(2.0, 2.0), 0.05, 1.0))


def signs(side: str) -> tuple[float, ...]:
    """The signs of x on a side: +1 for the right, -1 for the left, both for "bilateral" or ""."""
    return {"right": (1.0,), "left": (-1.0,)}.get(side, (1.0, -1.0))
