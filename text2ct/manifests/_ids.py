"""Volume names of CT-RATE, taken apart into patient, scan and reconstruction.

``train_1_a_2.nii.gz`` is patient ``train_1``, scan ``train_1_a``, reconstruction 2. Ids of different
data sets share spellings, so a patient is always identified by (dataset, patient).
"""

from __future__ import annotations

import re
from typing import NamedTuple

import pandas as pd

from text2ct.suffixes import without_suffix

_CT_RATE = re.compile(r"((train|valid)_[0-9]+)_([a-z]+)(?:_([0-9]+))?")


class VolumeId(NamedTuple):
    """The parts of a volume's name.

    Attributes:
        patient: For example ``train_1``.
        scan: For example ``train_1_a``; labels and reports belong to a scan.
        reconstruction: 1, 2, ...; several of one scan are never independent samples.
    """

    patient: str
    scan: str
    reconstruction: int


def base_name(name: str) -> str:
    """A volume's name without its folder."""
    return name.replace("\\", "/").rpartition("/")[2]


def stem(name: str) -> str:
    """A volume's name without folder and file extension."""
    return without_suffix(base_name(name))


def stems(names: pd.Series) -> pd.Series:
    """Volume names without folder and file extension."""
    # A plain loop over strings is four times as fast as pandas' string methods, which loop as well.
    return pd.Series([stem(name) for name in names.tolist()], index=names.index, dtype="str")


def _parts(name: str) -> tuple[str, str, int, str]:
    """Patient, scan, reconstruction, and CT-RATE's part or "" of one name."""
    bare = stem(name)
    found = _CT_RATE.fullmatch(bare)
    if found is None:
        return bare, bare, 1, ""
    patient, part, letter, reconstruction = found.groups()
    return patient, f"{patient}_{letter}", int(reconstruction or 1), part


def parse_volume_names(names: pd.Series) -> pd.DataFrame:
    """Take many names apart at once.

    Args:
        names: (n,) volume names, with or without folder and extension.

    Returns:
        (n,) rows with the index of ``names``: ``patient``, ``scan``, ``reconstruction`` (int), and
        ``part``, which is ``train`` or ``valid`` for a CT-RATE name and ``""`` for any other.
    """
    parts = [_parts(name) for name in names.tolist()]
    frame = pd.DataFrame(parts, index=names.index, columns=["patient", "scan", "reconstruction", "part"])
    return frame.astype({"patient": "str", "scan": "str", "reconstruction": "int64", "part": "str"})


def parse_volume_name(name: str) -> VolumeId:
    """Take one volume's name apart; a name that is not CT-RATE's is its own patient and scan.

    Example:
        >>> parse_volume_name("train_1_a_2.nii.gz")
        VolumeId(patient='train_1', scan='train_1_a', reconstruction=2)
        >>> parse_volume_name("case-07.mha")
        VolumeId(patient='case-07', scan='case-07', reconstruction=1)
    """
    patient, scan, reconstruction, _ = _parts(name)
    return VolumeId(patient, scan, reconstruction)
