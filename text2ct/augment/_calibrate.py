"""Which label sets to ask for: the training scans' own ones, reweighted as little as the aims allow.

The same arithmetic as in surveys: calibration of weights to known totals (Deville & Sarndal 1992,
"Calibration estimators in survey sampling", JASA 87, the raking distance), made whole by an integer programme.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp, minimize

# A label set is asked for at most e^8, or 3,000, times more often than chance would: beyond it an aim has no solution.
_MAX_TILT = 8.0
# For the sake of companions less than for a target: where both cannot be had, the target's aim comes first.
_MAX_COMPANION_TILT = 4.0
# Price of missing an aim by one volume, and where it is a target's prevalence, beside costs of at most 40.
_PRICE, _TARGET_PRICE = 1e3, 1e5


@dataclass(frozen=True)
class LabelSets:
    """Distinct label sets that may be asked for.

    Attributes:
        labels: (S, 18) of 1, 0 and NaN for unknown.
        scans: (S,) training scans with exactly these labels; 0 for a set that none has.
        share: (S,) how often chance would ask for each, sums to 1.
    """

    labels: np.ndarray
    scans: np.ndarray
    share: np.ndarray


@dataclass(frozen=True)
class Aims:
    """What a plan should reach.

    Attributes:
        targets: Indices of the findings to raise.
        prevalence: Share of positives among known scans that each target should have, in (0, 1).
        without: Share of the synthetic volumes of known label that should lack each target, in [0, 1).
        association: Largest absolute phi of source and any label, in (0, 1].
    """

    targets: list[int]
    prevalence: float
    without: float
    association: float


def volumes_needed(labels: np.ndarray, aims: Aims) -> int:
    """The fewest synthetic volumes with which every target, taken alone, can have all of its aims.

    With K known and P positive training scans, prevalence t, share without s, association m, and M synthetic volumes
    of known label: ``M (1 - s) >= t (M + K) - P`` gives ``M >= (t K - P) / (1 - s - t)``, and phi at prevalence t,
    which is ``(t - P/K) sqrt(K / M) / sqrt(t (1 - t))``, gives ``M >= K (t - P/K)^2 / (m^2 t (1 - t))``. Since volumes
    are whole, t K - P is taken one larger; and since a synthetic volume knows a label as often as a training scan does,
    M is divided by the share of those that do.
    """
    t = aims.prevalence
    known = (~np.isnan(labels[:, aims.targets])).sum(axis=0)
    lacking = t * known - (labels[:, aims.targets] == 1).sum(axis=0) + 1
    for_without = lacking / (1 - aims.without - t)
    for_association = lacking**2 / known / (aims.association**2 * t * (1 - t))
    return math.ceil((np.maximum(for_without, for_association) * len(labels) / known).max() - 1e-9)


def choose_counts(
    labels: np.ndarray, sets: LabelSets, aims: Aims, volumes: int, rng: np.random.Generator
) -> np.ndarray:
    """How many volumes to ask of each label set.

    First shares: of all distributions over the sets whose expected counts meet the aims, the one of least
    Kullback-Leibler divergence from ``sets.share``. Then whole numbers: every ``volumes * share`` is rounded up or
    down by an integer programme, which draws (a rounding up is as likely as its fraction) and meets the aims exactly.
    Aims that exclude each other are missed by as little as possible, targets' prevalences last.

    Args:
        labels: (n, 18) of the training scans.
        sets: The label sets to choose from.
        aims: What to reach.
        volumes: Volumes in all, at least 1.
        rng: Decides the rounding.

    Returns:
        (S,) int, with the sum ``volumes``.
    """
    gains, is_target = _gains(labels, sets, aims, volumes)
    expected = volumes * _shares(sets.share, gains, np.where(is_target, _MAX_TILT, _MAX_COMPANION_TILT))
    base = np.floor(expected + 1e-9).astype(int)
    fraction = np.clip(expected - base, 1e-9, 1 - 1e-9)
    # The largest of u and fraction, both as log odds: alone, each set would be rounded up with chance `fraction`.
    value = np.log(fraction / (1 - fraction)) + rng.logistic(size=len(fraction))
    n_sets, n_gains = gains.shape
    whole = LinearConstraint(np.concatenate([np.ones(n_sets), np.zeros(n_gains)])[None], *[volumes - base.sum()] * 2)
    met = LinearConstraint(np.hstack([gains.T, np.eye(n_gains)]), lb=-gains.T @ base)
    solution = milp(
        np.concatenate([-value, np.where(is_target, _TARGET_PRICE, _PRICE)]),
        integrality=np.concatenate([np.ones(n_sets), np.zeros(n_gains)]),
        bounds=Bounds(0, np.concatenate([np.ones(n_sets), np.full(n_gains, np.inf)])),
        constraints=[whole, met],
        # A limit of nodes and not of time, so that the same request gives the same plan.
        options={"mip_rel_gap": 1e-3, "node_limit": 200},
    )
    return base + np.rint(solution.x[:n_sets]).astype(int)


def association_interval(share: np.ndarray, real: np.ndarray, synthetic: np.ndarray, phi: float) -> np.ndarray:
    """Shares of positives among synthetic volumes at which |phi| of source and label stays within a limit.

    With p positive of K real and q of M synthetic, ``w = M / (M + K)`` and ``d = q - p``, phi is
    ``d sqrt(w (1 - w)) / sqrt(r (1 - r))`` with ``r = p + w d``; its square is a quadratic in d.

    Args:
        share: (L,) p, in [0, 1].
        real: (L,) K, more than 0.
        synthetic: (L,) M, more than 0.
        phi: The limit, in (0, 1].

    Returns:
        (2, L) lowest and highest q, in [0, 1].
    """
    w = synthetic / (synthetic + real)
    c = phi**2 / (w * (1 - w))
    a, b = 1 + c * w**2, -c * w * (1 - 2 * share)
    root = np.sqrt(b**2 + 4 * a * c * share * (1 - share))
    return np.clip(share + np.array([-b - root, -b + root]) / (2 * a), 0, 1)


def _gains(labels: np.ndarray, sets: LabelSets, aims: Aims, volumes: int) -> tuple[np.ndarray, np.ndarray]:
    """(S, G) what one volume of each set brings toward each aim, met where the volumes' sum is at least 0."""
    known = ~np.isnan(sets.labels)
    present, lacking = (sets.labels == 1).astype(float), (sets.labels == 0).astype(float)
    seen = (~np.isnan(labels)).sum(axis=0)
    positive = (labels == 1).sum(axis=0)
    t, targets = aims.prevalence, aims.targets
    reach = present - t * known - (t * seen - positive) / volumes
    usable = np.flatnonzero((seen > 0) & known.any(axis=0))
    synthetic = volumes * np.maximum(sets.share @ known, 1e-9)[usable]
    low, high = association_interval(
        positive[usable] / seen[usable], seen[usable], np.maximum(synthetic, 1.0), aims.association
    )
    # A target's prevalence comes before its association; half a volume more is what whole numbers need.
    needed = t + (t * seen - positive)[usable] / np.maximum(synthetic, 1.0) + 0.5 / np.maximum(synthetic, 1.0)
    high = np.where(np.isin(usable, targets), np.clip(np.maximum(high, needed), 0, 1), high)
    columns = [
        reach[:, targets],
        lacking[:, targets] - aims.without * known[:, targets],
        present[:, usable] - low * known[:, usable],
        high * known[:, usable] - present[:, usable],
    ]
    gains = np.hstack(columns)
    return gains, np.arange(gains.shape[1]) < len(targets)


def _shares(prior: np.ndarray, gains: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """The distribution of least divergence from ``prior`` under which every gain is at least 0 on average.

    It is ``prior * exp(gains @ tilt)``, where ``tilt >= 0`` minimises the logarithm of that product's sum.
    """

    def dual(tilt: np.ndarray) -> tuple[float, np.ndarray]:
        exponent = gains @ tilt
        weights = prior * np.exp(exponent - exponent.max())
        total = weights.sum()
        return float(math.log(total) + exponent.max()), gains.T @ weights / total

    start = np.zeros(gains.shape[1])
    tilt = minimize(dual, start, jac=True, method="L-BFGS-B", bounds=Bounds(0, limits)).x
    exponent = gains @ tilt
    weights = prior * np.exp(exponent - exponent.max())
    return weights / weights.sum()
