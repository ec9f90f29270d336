"""What every distractor offers: draw what it is, change the anatomy, paint it, and its words."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from text2ct.simulation.anatomy import Anatomy
from text2ct.simulation.anatomy_scene import Scene
from text2ct.simulation.instance import Distractor
from text2ct.simulation.patients import Patient

BOTH = ("right", "left")


class DistractorModel:
    """One kind of thing beside the 18 findings; it must not look like one of them.

    Attributes:
        kind: Its name.
        region: Where in the report it stands.
        weight: How often it is drawn relative to the others, at 50 years.
        ageing: The power of age / 50 that the weight grows with.
        sides: The sides it may have; ("",) where a side means nothing.
        sizes_mm: Smallest and largest diameter, or None where a report states none.
        counts: Fewest and most.
        findings: Templates of the sentence, with slots ``<side>`` and ``<size>``.
        many: The same for more than one; empty where ``findings`` serves.
        impression: Templates of the item, of the same slots.
    """

    kind: ClassVar[str]
    region: ClassVar[str]
    weight: ClassVar[float] = 1.0
    ageing: ClassVar[float] = 0.0
    sides: ClassVar[tuple[str, ...]] = ("",)
    sizes_mm: ClassVar[tuple[int, int] | None] = None
    counts: ClassVar[tuple[int, int]] = (1, 1)
    findings: ClassVar[tuple[str, ...]]
    many: ClassVar[tuple[str, ...]] = ()
    impression: ClassVar[tuple[str, ...]]

    def chance(self, patient: Patient) -> float:
        """The weight at the patient's age."""
        return self.weight * (patient.age / 50.0) ** self.ageing

    def draw(self, rng: np.random.Generator) -> Distractor:
        """Draw side, size in whole mm and number."""
        side = self.sides[int(rng.integers(len(self.sides)))]
        size = None
        if self.sizes_mm is not None:
            low, high = self.sizes_mm
            size = float(round(low + (high - low) * rng.beta(1.3, 2.2)))  # small ones are more frequent
        return Distractor(self.kind, side, size, int(rng.integers(self.counts[0], self.counts[1] + 1)))

    def prepare(self, anatomy: Anatomy, item: Distractor, rng: np.random.Generator) -> None:
        """Change the anatomy before anything is painted; ``rng`` starts in the same state as in `apply`."""

    def apply(self, scene: Scene, item: Distractor, rng: np.random.Generator) -> None:
        """Paint it into the healthy chest; ``rng`` is its own stream."""

    def say(self, item: Distractor) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Templates of the sentence and of the item in the Impression."""
        return (self.many if item.count > 1 and self.many else self.findings), self.impression


def radius_mm(scene: Scene, item: Distractor) -> float:
    """Half the diameter in canonical mm."""
    return scene.anatomy.canonical_mm(item.size_mm or 10.0) / 2


def sign_of(item: Distractor) -> float:
    """The sign of x: +1 on the patient's right, -1 on the left."""
    return -1.0 if item.side == "left" else 1.0
