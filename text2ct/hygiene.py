"""What in a manifest deserves a look before anyone trains on it: leaks, copies, contradictions, placeholders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from text2ct.augment.contradictions import read_report
from text2ct.augment.leaks import normalise_text, report_prompt
from text2ct.files import atomic_path
from text2ct.findings import FINDINGS

COLUMNS = ("dataset", "volume", "check", "detail")

# A shorter report ("Normal chest CT.") is anybody's.
_TELLING_WORDS = 5
# No chest CT has voxels of another size, in mm.
_SPACING_MM = (0.1, 20.0)
_EXAMPLES = 3
_QUOTED = 160
# What a spreadsheet would run as a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_PATIENT, _SCAN = ["dataset", "patient"], ["dataset", "scan"]

Found = Iterator[tuple[int, str]]


def check_manifest(frame: pd.DataFrame) -> pd.DataFrame:
    """Look through a manifest; what is found is to be looked at, and nothing is left out or changed.

    Args:
        frame: A validated manifest.

    Returns:
        One row a volume and check that found something: ``dataset, volume, check, detail``, by check, in the
        manifest's order. The checks are those of :data:`CHECKS`.
    """
    frame = frame.reset_index(drop=True)
    identities = list(zip(frame["dataset"].tolist(), frame["volume"].tolist(), strict=True))
    rows = [
        (*identities[at], name, detail) for name, (_, check) in CHECKS.items() for at, detail in sorted(check(frame))
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS), dtype="str")


def summarise(found: pd.DataFrame, frame: pd.DataFrame) -> dict[str, Any]:
    """The counts of each check, as ``report --json`` prints them.

    Returns:
        Check -> ``{"what": in words, "volumes": n, "scans": n, "examples": [the first volumes]}``; of checks that
        found nothing too.
    """
    scans = frame.drop_duplicates(["dataset", "volume"]).set_index(["dataset", "volume"])["scan"]
    counts = {}
    for name in CHECKS:
        rows = found[found["check"] == name]
        keys = list(zip(rows["dataset"], rows["volume"], strict=True))
        counts[name] = {
            "what": CHECKS[name][0],
            "volumes": len(keys),
            "scans": len({(key[0], scans[key]) for key in keys}),
            "examples": [volume for _, volume in keys[:_EXAMPLES]],
        }
    return counts


def write_csv(found: pd.DataFrame, path: Path) -> None:
    """Write what `check_manifest` found; a cell that a spreadsheet would run as a formula begins with ``'``."""
    safe = found.map(lambda cell: f"'{cell}" if cell.startswith(_FORMULA) else cell)
    with atomic_path(path) as temporary:
        safe.to_csv(temporary, index=False, lineterminator="\n", encoding="utf-8")


def _shared_reports(frame: pd.DataFrame) -> Found:
    """The same words in different splits, and so of different patients."""
    pairs = _texts(frame)
    words = {pair: normalise_text(report_prompt(*pair)) for pair in set(pairs)}
    telling = {text for text in words.values() if len(text.split()) >= _TELLING_WORDS}
    keys = pd.Series([words[pair] for pair in pairs], index=frame.index, dtype="object")
    used = frame[["volume", "split"]].assign(key=keys)[keys.isin(telling) & (frame["split"] != "")]
    splits = used[["key", "split"]].drop_duplicates()
    torn = used[used["key"].isin(splits.loc[splits.duplicated("key"), "key"])]
    for _, group in torn.groupby("key", sort=False):
        firsts = group.drop_duplicates("split")
        for split, rows in group.groupby("split"):
            other = firsts[firsts["split"] != split].iloc[0]
            detail = f"the words of {other['volume']} in {other['split']}; this one is in {split}"
            yield from ((int(at), detail) for at in rows.index)


def _shared_volumes(frame: pd.DataFrame) -> Found:
    """The same file under several names."""
    used = frame.loc[frame["sha256"] != "", ["dataset", "volume", "patient", "split", "sha256"]]
    for _, group in used[used.duplicated("sha256", keep=False)].groupby("sha256", sort=False):
        # Among these stands, for every row, the worst that another can be: of another split, patient or name.
        few = pd.concat([group.drop_duplicates("split"), group.drop_duplicates(_PATIENT).head(2), group.head(2)])
        others: list[Any] = list(few[~few.index.duplicated()].itertuples())
        rows: list[Any] = list(group.itertuples())
        for row in rows:
            worst = max((other for other in others if other.Index != row.Index), key=lambda other: _gravity(other, row))
            stranger, elsewhere = _gravity(worst, row)
            whose = f"of patient {worst.patient}" if stranger else "of the same patient"
            where = f" in {worst.split}" if elsewhere else ""
            yield int(row.Index), f"the file of {worst.volume} {whose}{where}"


def _gravity(other: Any, row: Any) -> tuple[bool, bool]:
    """Whether a copy is of another patient, and whether it is in another split."""
    stranger = (other.dataset, other.patient) != (row.dataset, row.patient)
    return stranger, other.split not in ("", row.split)


def _denied(frame: pd.DataFrame) -> Found:
    """Labels of 1 whose finding the report denies."""
    return _against_report(frame, 1.0)


def _unlabelled(frame: pd.DataFrame) -> Found:
    """Labels of 0 whose finding the report shows."""
    return _against_report(frame, 0.0)


def _against_report(frame: pd.DataFrame, label: float) -> Found:
    labels = {name: frame[name].to_numpy() for name in FINDINGS}
    for at, pair in enumerate(_texts(frame)):
        said = read_report(report_prompt(*pair))
        against = said.denied if label else said.shown
        wrong = [name for name in against if labels[name][at] == label]
        if wrong:
            yield at, "; ".join(f"{name} is {label:g}, the report says '{_quoted(against[name])}'" for name in wrong)


def _texts(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """Findings and Impression of each row."""
    return list(zip(frame["findings_text"].tolist(), frame["impression_text"].tolist(), strict=True))


def _quoted(sentence: str) -> str:
    text = " ".join(sentence.split())
    return text if len(text) <= _QUOTED else f"{text[:_QUOTED]}..."


def _reconstructions(frame: pd.DataFrame) -> Found:
    """Labels that are 1 on one reconstruction of a scan and 0 on another."""
    several = frame[frame.duplicated(_SCAN, keep=False)]
    groups = several.groupby(_SCAN, sort=False)[list(FINDINGS)]
    torn = (groups.transform("max") > groups.transform("min")) & several[list(FINDINGS)].notna()
    said: dict[int, list[str]] = {}
    for name in FINDINGS:
        for at, label in several.loc[torn[name], name].items():
            said.setdefault(int(str(at)), []).append(f"{name} is {label:g}")
    for row, labels in said.items():
        yield row, f"another reconstruction of the scan is labelled otherwise: {', '.join(labels)}"


def _spacing(frame: pd.DataFrame) -> Found:
    """Voxel sizes that are absent, impossible, placeholders, or disputed by the metadata."""
    sizes = frame[["spacing_x", "spacing_y", "spacing_z"]]
    unknown, ones = sizes.isna().any(axis=1), (sizes == 1.0).all(axis=1)
    absurd = ((sizes < _SPACING_MM[0]) | (sizes > _SPACING_MM[1])).any(axis=1)
    for _, group in frame.groupby("dataset", sort=False):
        rows = group.index
        # Of a set without any sizes, or resampled to 1 mm, this is no news.
        for odd, words in ((unknown, "no voxel size is known"), (ones, "1 x 1 x 1 mm, as of an unknown size")):
            if not odd[rows].all():
                yield from ((int(at), words) for at in rows[odd[rows]])
    for at in frame.index[absurd]:
        yield int(at), "voxels of " + " x ".join(f"{size:g}" for size in sizes.loc[at]) + " mm are absurd"
    yield from _noted(frame, lambda note: "the metadata" in note and " mm" in note)


def _no_chest(frame: pd.DataFrame) -> Found:
    """Volumes in which `preprocess` saw no chest."""
    yield from _noted(frame, lambda note: note.startswith("no chest"))


def _noted(frame: pd.DataFrame, wanted: Callable[[str], bool]) -> Found:
    """Notes of `preprocess` of one kind."""
    if "notes" not in frame:
        return
    for at, cell in frame.loc[frame["notes"] != "", "notes"].items():
        said = [note for note in cell.split("; ") if wanted(note)]
        if said:
            yield int(str(at)), "; ".join(said)


CHECKS: dict[str, tuple[str, Callable[[pd.DataFrame], Found]]] = {
    "shared-report": ("a patient of another split has the same report", _shared_reports),
    "shared-volume": ("the same file stands under another name", _shared_volumes),
    "label-denied": ("a finding is labelled 1 and the report denies it", _denied),
    "label-missed": ("a finding is labelled 0 and the report shows it", _unlabelled),
    "reconstructions": ("reconstructions of the scan are labelled otherwise", _reconstructions),
    "spacing": ("the voxel size is unknown, a placeholder, absurd or disputed", _spacing),
    "no-chest": ("the volume seems to show no chest", _no_chest),
}
"""Name -> what it found, in words, and the check: row and detail of each find."""
