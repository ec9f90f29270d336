"""The one exception that a user's mistake raises, and how a long list of problems is cut."""

from __future__ import annotations

from collections.abc import Sequence


def first_of(problems: Sequence[str], most: int = 10) -> list[str]:
    """The first ``most`` problems and how many more there are."""
    more = len(problems) - most
    return [*problems[:most], *([f"and {more} more"] if more > 0 else [])]


# A file may hold a cell of megabytes; a line that quotes it stays readable.
_LONGEST_LINE = 2000


class UserError(Exception):
    """A mistake that the user can mend, or a refusal that protects a study.

    The command line prints the message without a traceback and exits with code 2.

    Args:
        message: One sentence that says what is wrong and what to do.
        problems: Every single problem found, one line each, so that all are mended in one go.
    """

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        self.problems = tuple(problems)
        lines = [message, *(f"  - {problem}" for problem in self.problems)]
        super().__init__("\n".join(map(_cut, lines)))


def _cut(line: str) -> str:
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}... ({len(line):,} letters)"
