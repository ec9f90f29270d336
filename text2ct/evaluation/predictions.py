"""Predictions and labels as CSV or a challenge's JSON: reading, checking, and lining them up by volume."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from text2ct.errors import UserError
from text2ct.files import read_json
from text2ct.findings import FINDINGS
from text2ct.suffixes import without_suffix

ID_COLUMNS = ("VolumeName", "AccessionNo", "volume")
_SHOWN = 10  # problems of one kind that are listed; the rest is counted


def id_column(frame: pd.DataFrame) -> str | None:
    """Name of the column that identifies a row, or None."""
    return next((name for name in ID_COLUMNS if name in frame.columns), None)


def volume_key(name: object) -> str:
    """Identifier without folder and file type, so that ``a/x.nii.gz``, ``x.mha`` and ``x`` agree."""
    return without_suffix(str(name).strip().replace("\\", "/").rsplit("/", 1)[-1])


def _some(problems: Sequence[str], what: str) -> list[str]:
    rest = len(problems) - _SHOWN
    return [*problems[:_SHOWN], *([f"... and {rest} more {what}"] if rest > 0 else [])]


def _load(path: Path) -> pd.DataFrame:
    if Path(path).suffix.lower() == ".json":
        return _load_challenge(Path(path))
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise UserError(f"{path} cannot be read as CSV: {error}; expected a header and one row a volume") from error


def _load_challenge(path: Path) -> pd.DataFrame:
    """Probabilities as VLM3D's classification task exchanges them: a list of images, wrapped or not, as text cells."""
    content: Any = read_json(path)
    # The platform wraps the list: [{"outputs": [{"value": {"predictions": [...]}}]}].
    for key in ("outputs", "value", "predictions"):
        only = content[0] if isinstance(content, list) and len(content) == 1 else content
        if isinstance(only, dict) and key in only:
            content = only[key]
    entries = content if isinstance(content, list) else []
    rows = []
    for entry in entries:
        fields = entry if isinstance(entry, dict) else {}
        values = fields.get("probabilities")
        if not isinstance(values, dict) or not isinstance(fields.get("input_image_name"), str):
            break
        rows.append({"VolumeName": fields["input_image_name"], **{str(key): str(one) for key, one in values.items()}})
    if not rows or len(rows) < len(entries):
        raise UserError(
            f"{path} is no list of predictions: expected {{'input_image_name': ..., 'probabilities': {{finding: p}}}} "
            "for each image"
        )
    return pd.DataFrame(rows).fillna("")


def _probability(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0.0 <= value <= 1.0 else None


def _label(text: str) -> float | None:
    if text.strip().lower() in ("", "nan"):
        return float("nan")
    value = _probability(text)
    return value if value in (0.0, 1.0) else None


def _parse(
    raw: pd.DataFrame, origin: str, convert: Callable[[str], float | None], expected: str
) -> tuple[pd.DataFrame, list[str]]:
    """Numbers of a text table, and every problem of it."""
    problems: list[str] = []
    missing = [name for name in FINDINGS if name not in raw.columns]
    if missing:
        problems.append(f"{origin}: missing columns: {', '.join(missing)}")
    if raw.empty:
        problems.append(f"{origin}: no rows")
    ids = id_column(raw)
    out: dict[str, Sequence[object]] = {}
    where = [f"row {row + 2}" for row in range(len(raw))]  # as an editor counts: the header is line 1
    if ids is not None:
        out[ids] = [name.strip() for name in raw[ids]]
        keys = pd.Series([volume_key(name) for name in raw[ids]], dtype=str)
        where = [f"{line} ({name})" for line, name in zip(where, raw[ids], strict=True)]
        problems += [f"{origin}: {where[row]}: empty {ids}" for row in np.flatnonzero((keys == "").to_numpy())]
        counts = keys[keys != ""].value_counts(sort=False)
        repeated = [f"{origin}: {key} occurs {n} times" for key, n in counts[counts > 1].items()]
        problems += _some(repeated, "duplicates")
    wrong: list[str] = []
    for name in FINDINGS:
        if name in raw.columns:
            values = [convert(text) for text in raw[name]]
            for row, value in enumerate(values):
                if value is None:
                    wrong.append(f"{origin}: {where[row]}: '{name}' is {raw[name].iloc[row] or 'empty'}; {expected}")
            out[name] = [float("nan") if value is None else value for value in values]
    return pd.DataFrame(out), problems + _some(wrong, "wrong values")


def _parse_predictions(path: Path) -> tuple[pd.DataFrame, list[str]]:
    return _parse(_load(path), Path(path).name, _probability, "expected a probability from 0 to 1")


def _parse_labels(path: Path) -> tuple[pd.DataFrame, list[str]]:
    raw = _load(path)
    frame, problems = _parse(raw, Path(path).name, _label, "expected 0, 1 or empty")
    for name in ("dataset", "patient", "scan"):
        empty = raw[name].str.strip() == "" if name in raw.columns else None
        if empty is None or empty.all():
            continue
        if empty.any():
            problems.append(
                f"{Path(path).name}: {int(empty.sum())} cells of '{name}' are empty, row {int(empty.argmax()) + 2} "
                "first; fill the column in, or take it out"
            )
        frame[name] = raw[name].str.strip().to_numpy()
    return frame, problems


def read_predictions(path: Path) -> pd.DataFrame:
    """Read probabilities: an id column (``VolumeName`` or ``AccessionNo``, optional) and 18 findings.

    A file that ends in ``.json`` is read as the VLM3D challenge's classification task writes it.

    Raises:
        UserError: Every problem of the file: missing columns, duplicates, values outside [0, 1].
    """
    frame, problems = _parse_predictions(path)
    if problems:
        raise UserError(f"{path} holds no usable predictions; mend these", problems)
    return frame


def read_labels(path: Path) -> pd.DataFrame:
    """Read labels (1, 0, or empty for unknown) with the same columns; a manifest serves as well.

    Raises:
        UserError: Every problem of the file: missing columns, duplicates, values other than 0, 1, empty.
    """
    frame, problems = _parse_labels(path)
    if problems:
        raise UserError(f"{path} holds no usable labels; mend these", problems)
    return frame


def read_pair(predictions: Path, labels: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read both files and check that they belong together, with all problems in one message.

    Raises:
        UserError: Every problem of both files, ids that only one of them has included.
    """
    predicted, problems = _parse_predictions(predictions)
    truth, more = _parse_labels(labels)
    problems += more
    if len(predicted) and len(truth):
        problems += pairing_problems(predicted, truth, Path(predictions).name, Path(labels).name)
    if problems:
        raise UserError(f"{predictions} and {labels} cannot be scored; mend these", problems)
    return predicted, truth


def pairing_problems(
    predictions: pd.DataFrame, labels: pd.DataFrame, name_a: str = "predictions", name_b: str = "labels"
) -> list[str]:
    """What keeps two tables from being lined up: ids on one side only, or row counts without ids."""
    ids_a, ids_b = id_column(predictions), id_column(labels)
    if ids_a is None and ids_b is None:
        if len(predictions) == len(labels):
            return []
        return [
            f"no id column, and {name_a} has {len(predictions)} rows, {name_b} {len(labels)}: add VolumeName to both"
        ]
    if ids_a is None or ids_b is None:
        without = name_a if ids_a is None else name_b
        return [f"{without} has no VolumeName or AccessionNo column, but the other file has one; add it"]
    keys_a = {volume_key(name): name for name in predictions[ids_a]}
    keys_b = {volume_key(name): name for name in labels[ids_b]}
    only_a = [f"{keys_a[key]} is only in {name_a}" for key in sorted(keys_a.keys() - keys_b.keys())]
    only_b = [f"{keys_b[key]} is only in {name_b}" for key in sorted(keys_b.keys() - keys_a.keys())]
    return _some(only_a, f"only in {name_a}") + _some(only_b, f"only in {name_b}")
