"""What `synthesize` is asked for: prompts.csv, VLM3D prompts.json, annotated reports, or a sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from text2ct.augment._scans import NAMES, label_matrix, training_rows
from text2ct.augment.leaks import report_prompt
from text2ct.augment.prompts import PROMPT_COLUMNS, make_prompts
from text2ct.console import info
from text2ct.errors import UserError
from text2ct.manifests import by_scan, read
from text2ct.suffixes import without_suffix

# ``name``: the file name asked for, without format; "" lets the run choose.
REQUEST_COLUMNS = (*PROMPT_COLUMNS, "name")


def read_requests(
    path: Path,
    *,
    findings: Sequence[str] | None = None,
    count: int | None = None,
    seed: int = 0,
    names: Path | None = None,
) -> pd.DataFrame:
    """Read prompts from a file, whatever its kind.

    - ``prompts.csv`` (a ``prompt`` column; also edited by a person): its rows, in order; missing
      label columns are unknown labels.
    - VLM3D ``prompts.json``: one row per image; labels unknown, the output named after the image.
    - Annotated reports, or any manifest or label table with reports: prompts from its training rows.

    Args:
        path: The file.
        findings: Keep prompts that show at least one of these findings (full names).
        count: Prompts to draw from a table of reports; for lists of prompts `synthesize` counts.
        seed: Seed of that draw.
        names: Table of CT-RATE names for annotated reports.

    Returns:
        Columns :data:`REQUEST_COLUMNS`.

    Raises:
        UserError: The file cannot be read, or nothing in it fits; every problem of it is named.
    """
    path = Path(path)
    frame = read(path, names=names)
    is_vlm3d = path.suffix.lower() == ".json"
    if is_vlm3d or _is_prompt_list(path):
        requests = _rows_as_requests(frame)
        if is_vlm3d:
            requests["name"] = [without_suffix(name) for name in requests["volume"]]
            info(f"{len(requests)} prompts without labels: `mix` will leave their volumes out")
        if findings:
            requests = _showing(requests, findings)
    else:
        scans, _ = by_scan(training_rows(frame))
        if findings:
            wanted = count if count is not None else len(_showing(scans, findings))
            requests = make_prompts(frame, list(findings), wanted, seed)
        else:
            requests = _rows_as_requests(scans).iloc[:count]
        requests = requests[requests["prompt"] != ""]
    if requests.empty:
        raise UserError(f"{path} has no prompt" + (f" labelled with {' or '.join(findings)}" if findings else ""))
    return check_requests(requests, str(path))


def requests_of_split(frame: pd.DataFrame, split: str, count: int, seed: int = 0) -> pd.DataFrame:
    """Requests from the own reports of a split, one a scan, to judge a generator by; ``mix`` refuses their volumes.

    Args:
        frame: A real manifest.
        split: Its split.
        count: Most requests; drawn at random where there are more.
        seed: Of the draw.

    Raises:
        UserError: The split has no reports, or the count is below 1.
    """
    if count < 1:
        raise UserError(f"the count is {count}; expected 1 or more")
    rows = frame[(frame["split"] == split) & (frame["source"] != "synthetic")]
    requests = _rows_as_requests(by_scan(rows)[0]) if len(rows) else pd.DataFrame(columns=["prompt"])
    requests = requests[requests["prompt"] != ""]
    if requests.empty:
        raise UserError(f"the real manifest has no reports in the split '{split}' to generate from")
    if len(requests) > count:
        requests = requests.sample(count, random_state=seed).sort_index()
    return check_requests(requests, f"the split '{split}'")


def text_request(text: str, findings: Sequence[str] = ()) -> pd.DataFrame:
    """One request from a sentence; labels are unknown except the findings that the user states."""
    row = {"prompt": text} | {name: 1.0 if name in findings else np.nan for name in NAMES}
    return check_requests(pd.DataFrame([row]), "the text")


def check_requests(requests: pd.DataFrame, origin: str) -> pd.DataFrame:
    r"""Complete the columns, reset the index and refuse what cannot be generated or stored.

    Line breaks become ``\n``, as manifests store them, so that the prompt read back is the prompt used.

    Raises:
        UserError: No row, an empty prompt, a text that is not plain Unicode, a label that is not 0, 1 or
            empty, or an unknown column; all of them at once.
    """
    problems = [f"unknown column '{c}'" for c in requests.columns if c not in REQUEST_COLUMNS]
    if "prompt" not in requests:
        raise UserError(f"{origin} cannot be used as prompts", [*problems, "column 'prompt' is missing"])
    requests = requests.reindex(columns=list(REQUEST_COLUMNS)).reset_index(drop=True)
    for column in REQUEST_COLUMNS:
        if column not in NAMES:
            texts = requests[column].astype(object).where(requests[column].notna(), "").astype(object)
            requests[column] = [str(text).replace("\r\n", "\n").replace("\r", "\n") for text in texts]
    for row, values in enumerate(requests[NAMES].astype(object).itertuples(index=False), start=1):
        for name, value in zip(NAMES, values, strict=True):
            if not (pd.isna(value) or value in (0, 1)):
                problems.append(f"row {row}: '{name}' is {value}; expected 0, 1 or empty")
    for row, (prompt, name) in enumerate(zip(requests["prompt"], requests["name"], strict=True), start=1):
        if not prompt.strip():
            problems.append(f"row {row}: the prompt is empty")
        if any(_is_unfit(character) for character in prompt):
            problems.append(f"row {row}: the prompt has control characters or broken Unicode")
        if name and not re.fullmatch(r"(?!\.)[\w.\- ]{1,200}", name):
            problems.append(f"row {row}: '{name}' cannot name a file")
    if requests.empty:
        problems.append("there is no prompt")
    if problems:
        raise UserError(f"{origin} cannot be used as prompts", problems)
    return requests.astype(dict.fromkeys(NAMES, "float64"))


def _is_unfit(character: str) -> bool:
    code = ord(character)
    return (code < 32 and character not in "\t\n") or 0xD800 <= code < 0xE000


def _is_prompt_list(path: Path) -> bool:
    if not path.is_file() or path.suffix.lower() == ".json":
        return False
    with path.open(encoding="utf-8-sig") as stream:
        cells = re.split(r"[,;\t]", stream.readline())
    columns = {cell.strip().strip('"') for cell in cells}
    # A manifest of synthetic volumes has prompts too, and is no list of them.
    return "prompt" in columns and "source" not in columns


def _showing(rows: pd.DataFrame, findings: Sequence[str]) -> pd.DataFrame:
    unknown = [name for name in findings if name not in NAMES]
    if unknown:
        raise UserError("findings are given by their full names", unknown)
    columns = [NAMES.index(name) for name in findings]
    return rows[(label_matrix(rows)[:, columns] == 1).any(axis=1)]


def _rows_as_requests(rows: pd.DataFrame) -> pd.DataFrame:
    texts = zip(rows["findings_text"], rows["impression_text"], strict=True)
    return rows[[*NAMES, "dataset", "volume", "patient", "split"]].assign(prompt=[report_prompt(*t) for t in texts])
