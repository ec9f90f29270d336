"""Which of the 18 findings a simulated patient has: a Gaussian copula fitted on CT-RATE's validation labels.

Each finding has a latent liability; the finding is present where the liability exceeds a threshold. The
liabilities' correlations are tetrachoric (Pearson 1900). Age and sex are a part of each liability, so older
patients have more calcification, while marginals and co-occurrence of the population stay as fitted.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

from text2ct.errors import UserError
from text2ct.files import read_json
from text2ct.findings import FINDINGS

if TYPE_CHECKING:  # patients are drawn from what is here
    from text2ct.simulation.patients import Scan

PREVALENCE_FILE = Path(__file__).with_name("prevalence.json")


@dataclass(frozen=True)
class Prevalence:
    """Fitted numbers of a population, findings in the order of ``FINDINGS``.

    Attributes:
        prevalence: (18,) share of volumes with each finding.
        joint: (18, 18) share of volumes with both findings; what is drawn is tested against it.
        correlation: (18, 18) positive-definite correlation of the latent liabilities.
        age_loading: (18,) correlation of each liability with the normal score of age.
        sex_loading: (18,) correlation of each liability with the normal score of male sex.
        residual: (18, 18) Cholesky factor of what age and sex leave unexplained.
        male_share: Share of men.
        age_quantiles: (n, 2) probabilities and ages in years.
        scans_per_patient: Shares of patients with 1, 2, ... scans.
        reconstructions_per_scan: Shares of scans with 1, 2, ... reconstructions.
    """

    prevalence: np.ndarray
    joint: np.ndarray
    correlation: np.ndarray
    age_loading: np.ndarray
    sex_loading: np.ndarray
    residual: np.ndarray
    male_share: float
    age_quantiles: np.ndarray
    scans_per_patient: np.ndarray
    reconstructions_per_scan: np.ndarray


@cache
def fitted(path: Path = PREVALENCE_FILE) -> Prevalence:
    """Read the fitted numbers.

    Raises:
        UserError: The file lists other findings than the package.
    """
    stored = read_json(path)
    if tuple(stored["findings"]) != FINDINGS:
        raise UserError(f"{path} was fitted for other findings; fit it again with benchmarks/fit_prevalence.py")
    numbers = {key: np.array(value) for key, value in stored.items() if isinstance(value, list) and key != "findings"}
    explained = sum(np.outer(numbers[key], numbers[key]) for key in ("age_loading", "sex_loading"))
    residual = np.linalg.cholesky(numbers["correlation"] - explained)
    return Prevalence(**numbers, residual=residual, male_share=float(stored["male_share"]))


def draw_sex(rng: np.random.Generator) -> str:
    """Draw ``"M"`` or ``"F"`` with the population's shares."""
    return "M" if rng.random() < fitted().male_share else "F"


def draw_age(rng: np.random.Generator) -> int:
    """Draw an age in whole years from the population's quantiles."""
    probabilities, ages = fitted().age_quantiles.T
    return int(np.interp(rng.random(), probabilities, ages))


def draw_count(rng: np.random.Generator, shares: np.ndarray) -> int:
    """Draw 1, 2, ... with ``shares``, (n,), not negative: scans of a patient, reconstructions of a scan."""
    return 1 + int(rng.choice(len(shares), p=shares / shares.sum()))


def _age_score(rng: np.random.Generator, age: float) -> float:
    """Normal score of an age; the rank within a year is random, so that a population scores N(0, 1)."""
    probabilities, ages = fitted().age_quantiles.T
    lower, upper = np.interp([age, age + 1], ages, probabilities)
    return float(ndtri(np.clip(rng.uniform(lower, max(upper, lower)), 0.002, 0.998)))


def _sex_score(rng: np.random.Generator, sex: str) -> float:
    """Normal score of a sex: men take the upper part of N(0, 1), women the lower."""
    female_share = 1.0 - fitted().male_share
    lower, upper = (female_share, 1.0) if sex == "M" else (0.0, female_share)
    return float(ndtri(np.clip(rng.uniform(lower, upper), 1e-4, 1.0 - 1e-4)))


def draw_labels(rng: np.random.Generator, age: float, sex: str) -> np.ndarray:
    """Draw the findings of one patient.

    Args:
        rng: The patient's own stream.
        age: Years; ages outside the fitted population count as its youngest or oldest.
        sex: ``"M"`` or ``"F"``.

    Returns:
        (18,) bool in the order of ``FINDINGS``.

    Raises:
        UserError: ``sex`` is neither ``"M"`` nor ``"F"``.
    """
    if sex not in ("M", "F"):
        raise UserError(f"sex {sex!r} is unknown; expected 'M' or 'F'")
    numbers = fitted()
    liability = numbers.age_loading * _age_score(rng, age) + numbers.sex_loading * _sex_score(rng, sex)
    liability = liability + numbers.residual @ rng.standard_normal(len(FINDINGS))
    return np.asarray(liability > -ndtri(numbers.prevalence))


def scan_labels(scan: Scan) -> np.ndarray:
    """The findings present in a scan.

    Returns:
        (18,) bool in the order of ``FINDINGS``.
    """
    present = {instance.finding for instance in scan.instances}
    return np.array([name in present for name in FINDINGS])
