"""Columns of a manifest: names, order and what each holds."""

from __future__ import annotations

import pandas as pd

from text2ct.findings import FINDINGS

IDENTITY = ("dataset", "volume", "patient", "scan", "split", "source", "root", "path")
TEXTS = ("findings_text", "impression_text")
GEOMETRY = ("spacing_x", "spacing_y", "spacing_z", "size_x", "size_y", "size_z")

COLUMNS: tuple[str, ...] = (*IDENTITY, *FINDINGS, *TEXTS, *GEOMETRY, "sha256")
"""Every manifest has these, in this order."""

SYNTHETIC_COLUMNS: tuple[str, ...] = (
    "prompt",
    "prompt_dataset",
    "prompt_volume",
    "seed",
    "pack",
    "pack_sha256",
    "guidance_scale",
    "steps",
    "gate",
)
"""Further columns of a manifest that holds a synthetic row."""

OPTIONAL_COLUMNS: tuple[str, ...] = ("sampling_weight", "intensity", "notes")
"""Columns that a manifest may have: how often a training row is drawn, relative to the others (absent or NaN: 1); how
a volume's voxels were found to be HU, with the evidence; and what else is remarkable about its file."""

SPLITS: tuple[str, ...] = ("train", "validation", "test")
SOURCES: tuple[str, ...] = ("real", "synthetic", "simulated")

STRINGS = (
    *IDENTITY,
    *TEXTS,
    "sha256",
    "prompt",
    "prompt_dataset",
    "prompt_volume",
    "pack",
    "pack_sha256",
    "gate",
    "intensity",
    "notes",
)
FLOATS = (*FINDINGS, *GEOMETRY, "guidance_scale", "sampling_weight")
INTEGERS = ("seed", "steps")


def complete(frame: pd.DataFrame) -> pd.DataFrame:
    """Give ``frame`` every manifest column, in order, unknown where it has none.

    Absent text is ``""``, absent numbers are NaN (never 0). The synthetic columns stand only where a row
    is synthetic, optional ones only where they are given. Values are left as they are:
    :func:`text2ct.manifests.validate` checks them.
    """
    frame = frame.reset_index(drop=True)
    synthetic = "source" in frame and bool((frame["source"] == "synthetic").any())
    wanted = [*COLUMNS, *(SYNTHETIC_COLUMNS if synthetic else ()), *(c for c in OPTIONAL_COLUMNS if c in frame)]
    return pd.DataFrame({name: frame[name] if name in frame else _unknown(name, len(frame)) for name in wanted})


def _unknown(name: str, rows: int) -> pd.Series:
    if name in STRINGS:
        return pd.Series([""] * rows, dtype="str")
    if name in INTEGERS:
        return pd.Series([pd.NA] * rows, dtype="Int64")
    return pd.Series([float("nan")] * rows, dtype="float64")
