"""Sentences from templates: alternatives in braces, slots in angle brackets.

``"{Mild|Slight} effusion <is> in <place>"`` first becomes one of its alternatives, then its slots are filled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_CHOICE = re.compile(r"\{([^{}]*)\}")
_SLOT = re.compile(r"<(\w+)>")


def choose(options: Sequence[str], rng: np.random.Generator) -> str:
    """One of the options, all equally likely."""
    return options[int(rng.integers(len(options)))]


def slots_of(template: str) -> set[str]:
    """Names of the slots that a template needs."""
    return set(_SLOT.findall(template))


def expand(template: str, slots: Mapping[str, str], rng: np.random.Generator) -> str:
    """Choose alternatives, fill slots and tidy spaces, articles and the first letter.

    Args:
        template: Text with ``{a|b}`` alternatives, which may nest, and ``<slot>`` names.
        slots: A text for each slot; it may hold alternatives itself.
        rng: Decides the alternatives.

    Returns:
        A phrase without a final full stop.

    Raises:
        KeyError: The template names a slot that ``slots`` lacks.
    """
    text = template
    while True:
        text, filled = _SLOT.subn(lambda match: slots[match.group(1)], text)
        text, chosen = _CHOICE.subn(lambda match: choose(match.group(1).split("|"), rng), text, count=1)
        if not filled and not chosen:
            break
    text = re.sub(r"\s+", " ", text).strip(" .,;")
    text = re.sub(r"\s+([,.;:?)])", r"\1", text)
    text = re.sub(r"[,;]+(?=[,;])", "", text)
    text = re.sub(r"\b([Aa]) (?=[aeio]|8|11 |18 )", r"\1n ", text)
    return text[:1].upper() + text[1:]


@dataclass(frozen=True)
class Style:
    """One reader's habits, drawn once a report.

    Attributes:
        is_seen: How something single is said to be seen, such as "is observed".
        are_seen: The same for many.
        not_seen: How something is said to be absent, such as "was not detected".
        none_seen: The same after "no", such as "was detected".
        opening: What stands before each item of the Impression.
        closing: What stands after each item of the Impression.
        lung_first: The lungs are described before the mediastinum.
        terse: Leaves out many normal statements.
        thorough: Describes every organ in the field.
    """

    is_seen: str
    are_seen: str
    not_seen: str
    none_seen: str
    opening: str
    closing: str
    lung_first: bool
    terse: bool
    thorough: bool

    def slots(self) -> dict[str, str]:
        """The habits as slots ``<is>``, ``<are>``, ``<not>`` and, after "No ...", ``<no>``."""
        return {"is": self.is_seen, "are": self.are_seen, "not": self.not_seen, "no": self.none_seen}


_VERBS = (
    ("is observed", "are observed", "is not observed", "is observed"),
    ("is observed", "are observed", "was not detected", "was detected"),
    ("was observed", "were observed", "was not observed", "was observed"),
    ("was observed", "were observed", "was not detected", "was detected"),
    ("{is seen|is observed}", "{are seen|are observed}", "is not seen", "{is seen|was detected}"),
    ("{was detected|was observed}", "{were detected|were observed}", "was not detected", "was detected"),
    (
        "{is present|is observed|was observed}",
        "{are present|are observed}",
        "{was|is} not detected",
        "was observed",
    ),
)
_MARKS = (("", "."), ("", "."), ("", "."), ("• ", "."), ('" ', ""), ('"', '."'), ("- ", ""))


def draw_style(rng: np.random.Generator) -> Style:
    """Draw a reader's habits."""
    verbs = _VERBS[int(rng.integers(len(_VERBS)))]
    opening, closing = _MARKS[int(rng.integers(len(_MARKS)))]
    thoroughness = rng.random()
    return Style(
        *verbs,
        opening,
        closing,
        lung_first=bool(rng.random() < 0.25),
        terse=bool(thoroughness < 0.25),
        thorough=bool(thoroughness > 0.65),
    )
