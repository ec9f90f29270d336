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
# A shorter Impression ("Right pleural effusion.") is a phrase of the trade and tells nothing of one patient.
_TELLING_WORDS = 5
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
        self._datasets = {_plain(dataset) for dataset in frame["dataset"].unique()}
        self._patients = {(_plain(dataset), _plain(patient)) for dataset, patient in self.patients}
        self._volumes = {
            (_plain(dataset), _plain(volume))
            for dataset, volume, patient in zip(frame["dataset"], frame["volume"], frame["patient"], strict=True)
            if (dataset, patient) in self.patients
        }
        self._patient_names = {patient for _, patient in self._patients}
        self._volume_names = {volume for _, volume in self._volumes}
        self._texts: set[str] = set()
        for findings_text, impression_text in set(zip(rows["findings_text"], rows["impression_text"], strict=True)):
            self._texts.add(normalise_text(report_prompt(findings_text, impression_text)))
            self._texts.add(normalise_text(findings_text))
        self._texts |= _telling_impressions(frame)
        self._texts.discard("")

    def __bool__(self) -> bool:
        return bool(self.patients)

    def volumes(self, datasets: pd.Series, volumes: pd.Series, *, by_name: bool = False) -> np.ndarray:
        """Which volumes are a held-out patient's, by the manifest or by how they are spelled, in any letter case.

        Args:
            datasets: (n,) data sets.
            volumes: (n,) names of volumes.
            by_name: In a data set that the manifest does not know (a list of prompts without that column has
                its own name), the name of a held-out volume or patient is enough.

        Returns:
            (n,) bool.
        """
        spelled = parse_volume_names(volumes.str.strip())["patient"]
        return np.array(
            [
                self._is_patient(dataset, patient, by_name) or self._is_volume(dataset, volume, by_name)
                for dataset, volume, patient in zip(datasets, volumes, spelled, strict=True)
            ],
            dtype=bool,
        )

    def has_patient(self, dataset: str, patient: str) -> bool:
        """Whether a patient is held out; in a data set that the manifest does not know, by the name alone."""
        return self._is_patient(dataset, patient, by_name=True)

    def is_patient(self, dataset: str, patient: str) -> bool:
        """Whether a patient of this data set is held out, in any letter case."""
        return self._is_patient(dataset, patient, by_name=False)

    def _is_patient(self, dataset: str, patient: str, by_name: bool) -> bool:
        dataset, patient = _plain(dataset), _plain(patient)
        unknown = by_name and dataset not in self._datasets
        return patient in self._patient_names if unknown else (dataset, patient) in self._patients

    def _is_volume(self, dataset: str, volume: str, by_name: bool) -> bool:
        dataset, volume = _plain(dataset), _plain(volume)
        unknown = by_name and dataset not in self._datasets
        return volume in self._volume_names if unknown else (dataset, volume) in self._volumes

    def has_text(self, prompt: str) -> bool:
        """Whether a prompt is, word for word, a held-out report, its Findings, or its Impression.

        An Impression that another report has too, or of fewer than five words, is anybody's.
        """
        return self.has_key(normalise_text(prompt))

    def has_key(self, normalised: str) -> bool:
        """The same for a text that :func:`normalise_text` has reduced already."""
        return normalised in self._texts

    def among(self, identities: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """The held-out ones among (dataset, patient) identities, sorted."""
        return in_common(self.patients, identities)


def in_common(identities: Iterable[tuple[str, str]], others: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The (dataset, patient) identities that are among others too, in any letter case, sorted."""
    known = {(_plain(dataset), _plain(patient)) for dataset, patient in others}
    return sorted(one for one in identities if (_plain(one[0]), _plain(one[1])) in known)


def _plain(name: str) -> str:
    """A name as names are compared: neither letter case nor spaces around it tell two apart."""
    return name.strip().casefold()


def _telling_impressions(frame: pd.DataFrame) -> set[str]:
    """Impressions of held-out reports, normalised, that are long enough to tell and in no other report."""
    is_held_out = frame["split"].isin(HELD_OUT)
    held_out, others = (
        {normalise_text(text) for text in frame.loc[rows, "impression_text"].unique()}
        for rows in (is_held_out, ~is_held_out)
    )
    return {text for text in held_out - others if len(text.split()) >= _TELLING_WORDS}
