"""Slips of the pen at a low rate: real reports are translated and typed in haste."""

from __future__ import annotations

import re

import numpy as np

_WORD = re.compile(r"\b[a-z]{6,}\b")
REPORT_RATE = 0.2
_SWAPS = (
    ("mediastinal", "mediastenal"),
    ("millimetric", "milimetric"),
    ("atelectasis", "atelectesis"),
    ("sequelae", "sequele"),
    ("sections", "cross-sections"),
    ("abdomen", "west"),
    ("window", "windov"),
    ("observed", "observerd"),
    ("normal", "natural"),
    ("detected", "dedected"),
)


def slip(text: str, rng: np.random.Generator) -> str:
    """Put at most two slips into a text, mostly none.

    Args:
        text: A report's section.
        rng: Decides whether, which and where.

    Returns:
        The text, with a word misspelt, doubled or started in lower case.
    """
    if rng.random() >= REPORT_RATE:
        return text
    for _ in range(int(rng.integers(1, 3))):
        kind = rng.random()
        if kind < 0.45:
            right, wrong = _SWAPS[int(rng.integers(len(_SWAPS)))]
            text = text.replace(right, wrong, 1)
        else:
            words = list(_WORD.finditer(text))
            if not words:
                return text
            start, end = words[int(rng.integers(len(words)))].span()
            word = text[start:end]
            place = int(rng.integers(1, len(word) - 2))
            if kind < 0.65:
                word = word[:place] + word[place + 1] + word[place] + word[place + 2 :]
            elif kind < 0.85:
                word = word[:place] + word[place + 1 :]
            else:
                word = f"{word} {word}"
            text = text[:start] + word + text[end:]
    return text
