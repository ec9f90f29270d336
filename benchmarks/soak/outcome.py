"""What a scenario found."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Outcome:
    """One row of the report.

    Attributes:
        name: Scenario and case.
        tried: How often something was broken, killed or read.
        problems: What went wrong, one line each; with none the case has passed.
        figures: What was measured.
        skipped: Why it could not be tried here; empty if it was.
    """

    name: str
    tried: int = 0
    problems: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    skipped: str = ""

    def expect(self, holds: bool, problem: str) -> None:
        """Count one check, and note the problem where it does not hold."""
        self.tried += 1
        if not holds:
            self.problems.append(problem)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def table(outcomes: list[Outcome]) -> str:
    """The outcomes in Markdown."""
    lines = ["| case | tried | went wrong | measured |", "|---|---|---|---|"]
    for one in outcomes:
        measured = ", ".join(f"{key} {value}" for key, value in one.figures.items())
        wrong = f"skipped: {one.skipped}" if one.skipped else str(len(one.problems))
        lines.append(f"| {one.name} | {one.tried} | {wrong} | {measured} |")
    return "\n".join(lines)
