"""What must never reach training: patients and reports of the validation and test splits."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
import pandas as pd

from text2ct.augment._scans import HELD_OUT, held_out_patients
from text2ct.manifests import parse_volume_names

_HEADINGS = re.compile(r"\b(?:findings|impressions?)\s*:")
_WORDS = re.compile(r"[^\W_]+")
# The quick way for plain English: everything but letters and digits becomes a space.
_ASCII_GAPS = {code: " " for code in range(128) if not chr(code).isalnum()}


def normalise_text(text: str) -> str:
    r"""A report reduced to its words, so that spacing, case, punctuation and headings do not hide a copy.

    >>> normalise_text("Findings: Normal  lungs.\nImpression: -") == normalise_text("normal lungs")
    True
    """
    text = text.casefold()
    if ":" in text:
        text = _HEADINGS.sub(" ", text)
    return " ".join(text.translate(_ASCII_GAPS).split() if text.isascii() else _WORDS.findall(text))


def report_prompt(findings_text: str, impression_text: str) -> str:
    """The prompt that a report makes: its Findings, then its Impression; "" when it has neither."""
    return " ".join(part for part in (findings_text.strip(), impression_text.strip()) if part)


class HeldOut:
    """The patients and report texts of a manifest's validation and test splits.

    Args:
        frame: A manifest. Identity is (dataset, patient), since origins share spellings.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        rows = frame[frame["split"].isin(HELD_OUT)]
        self.patients = held_out_patients(frame)
        self._patient_of = dict(zip(zip(frame["dataset"], frame["volume"], strict=True), frame["patient"], strict=True))
        self._texts: set[str] = set()
        for findings_text, impression_text in set(zip(rows["findings_text"], rows["impression_text"], strict=True)):
            self._texts.add(normalise_text(report_prompt(findings_text, impression_text)))
            self._texts.add(normalise_text(findings_text))
        self._texts.discard("")

    def __bool__(self) -> bool:
        return bool(self.patients)

    def volumes(self, datasets: pd.Series, volumes: pd.Series) -> np.ndarray:
        """Which volumes are a held-out patient's, by the manifest or by name; ``(n,)`` bool."""
        spelled = parse_volume_names(volumes)["patient"]
        found = [
            (dataset, patient) in self.patients or (dataset, self._patient_of.get((dataset, volume))) in self.patients
            for dataset, volume, patient in zip(datasets, volumes, spelled, strict=True)
        ]
        return np.array(found, dtype=bool)

    def has_text(self, prompt: str) -> bool:
        """Whether a prompt is, word for word, a held-out report or its Findings."""
        return self.has_key(normalise_text(prompt))

    def has_key(self, normalised: str) -> bool:
        """The same for a text that :func:`normalise_text` has reduced already."""
        return normalised in self._texts

    def among(self, identities: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """The held-out ones among (dataset, patient) identities, sorted."""
        return sorted(self.patients.intersection(identities))
