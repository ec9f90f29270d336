"""Splits by patient, stratified over all findings at once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import pandas as pd

from text2ct.errors import UserError
from text2ct.findings import FINDINGS
from text2ct.manifests._columns import SPLITS

CT_RATE_VALID: dict[str, float] = {"validation": 0.25, "test": 0.75}
"""CT-RATE's ``valid`` part: a quarter of its patients chooses, the others judge."""

DEFAULT_FRACTIONS: dict[str, float] = {"train": 0.7, "validation": 0.1, "test": 0.2}


def split_by_patient(frame: pd.DataFrame, fractions: Mapping[str, float], seed: int = 0) -> pd.Series:
    """Divide patients into splits that resemble each other in every finding.

    Iterative stratification (Sechidis, Tsoumakas & Vlahavas 2011, "On the stratification of multi-label
    data") over patients, a patient being positive for a finding if any of the rows is; unknown counts as
    not positive here and nowhere else. The result depends on patients, labels and seed, not on row order.

    Args:
        frame: A manifest or any table with ``dataset``, ``patient`` and the findings.
        fractions: Share of patients of each split, for example ``{"train": 0.7, "test": 0.3}``; sums to 1.
        seed: Breaks ties.

    Returns:
        (n,) split names with the index of ``frame``; all rows of a (dataset, patient) agree.

    Raises:
        UserError: A split is unknown, a fraction is negative, or they do not sum to 1.
    """
    unknown = sorted(set(fractions) - set(SPLITS))
    if unknown:
        raise UserError(f"unknown split: {', '.join(unknown)}; expected {', '.join(SPLITS)}")
    shares = np.array(list(fractions.values()), dtype=float)
    if not len(shares) or (shares < 0).any() or abs(shares.sum() - 1) > 1e-6:
        raise UserError(f"split fractions must be 0 or more and sum to 1; they are {dict(fractions)}")
    if frame.empty:
        return pd.Series([], index=frame.index, dtype="str")
    keys = ["dataset", "patient"]
    positive = (frame[list(FINDINGS)] == 1).assign(**{key: frame[key] for key in keys})
    patients = positive.groupby(keys, sort=True)[list(FINDINGS)].any()
    names = np.array(list(fractions), dtype=object)
    used = shares > 0
    chosen = names[used][_iterative(patients.to_numpy(dtype=bool), shares[used] / shares[used].sum(), seed)]
    lookup = pd.Series(chosen, index=patients.index, dtype="str")
    rows = pd.MultiIndex.from_frame(frame[keys])
    return pd.Series(lookup.reindex(rows).to_numpy(), index=frame.index, name="split", dtype="str")


def _iterative(labels: np.ndarray, shares: np.ndarray, seed: int) -> np.ndarray:
    """Fold number of each of (n, L) boolean label rows."""
    from iterstrat.ml_stratifiers import IterativeStratification

    if len(shares) == 1:
        return np.zeros(len(labels), dtype=int)
    folds = IterativeStratification(labels=labels, r=shares, random_state=np.random.RandomState(seed))
    return _level(folds, labels, shares)


def _level(folds: np.ndarray, labels: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Bring every fold to its share of rows (largest remainders), moving rows with the fewest positives.

    Iterative stratification follows the rare labels and leaves a small fold a few rows off.
    """
    wanted = np.floor(shares * len(folds)).astype(int)
    remainders = shares * len(folds) - wanted
    wanted[np.argsort(-remainders, kind="stable")[: len(folds) - wanted.sum()]] += 1
    folds = folds.copy()
    spare = wanted - np.bincount(folds, minlength=len(shares))
    for row in np.argsort(labels.sum(axis=1), kind="stable"):
        if spare[folds[row]] < 0:
            spare[folds[row]] += 1
            folds[row] = int(np.argmax(spare))
            spare[folds[row]] -= 1
    return folds


def assign_splits(frame: pd.DataFrame, fractions: Mapping[str, float] | None = None, seed: int = 0) -> pd.DataFrame:
    """A copy of ``frame`` in which patients without a split have one; patients that have one keep it.

    Raises:
        UserError: As :func:`split_by_patient`.
    """
    keys = ["dataset", "patient"]
    given = frame.loc[frame["split"] != "", [*keys, "split"]].drop_duplicates(keys).set_index(keys)["split"]
    frame = frame.copy()
    inherited = given.reindex(pd.MultiIndex.from_frame(frame[keys])).to_numpy()
    frame["split"] = pd.Series(inherited, index=frame.index, dtype="str").fillna("")
    free = frame["split"] == ""
    frame.loc[free, "split"] = split_by_patient(frame[free], fractions or DEFAULT_FRACTIONS, seed)
    return frame


def ct_rate_splits(frame: pd.DataFrame, part: pd.Series) -> pd.Series:
    """CT-RATE's parts as our splits, from a table that holds the whole ``valid`` part with its labels.

    Args:
        frame: As for :func:`split_by_patient`.
        part: (n,) ``train``, ``valid`` or ``""`` of each row.

    Returns:
        (n,) ``train``, ``validation``, ``test`` or ``""``: ``train`` is train, a stratified quarter of the
        patients of ``valid`` is validation and the others are test, the same for every seed.
    """
    split = part.where(part == "train", "").astype("str")
    valid = part == "valid"
    split[valid] = split_by_patient(frame[valid], CT_RATE_VALID, seed=0)
    return split


def ct_rate_split_by_name(patients: pd.Series, part: pd.Series) -> pd.Series:
    """CT-RATE's parts as our splits where the table holds only some patients, so that none can be stratified.

    A patient of ``valid`` is validation when the first byte of the SHA-256 of the id is below 64 (a quarter),
    and test otherwise. Either way it is no training patient.
    """
    quarter = pd.Series(
        [hashlib.sha256(name.encode()).digest()[0] < 64 for name in patients],
        index=patients.index,
        dtype=bool,
    )
    held_out = pd.Series(np.where(quarter, "validation", "test"), index=patients.index, dtype="str")
    return part.where(part != "valid", held_out).astype("str")
