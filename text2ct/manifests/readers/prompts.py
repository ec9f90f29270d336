"""Prompts to generate from: our prompts.csv and the VLM3D challenge's prompts.json."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from text2ct.errors import UserError
from text2ct.files import read_json
from text2ct.manifests._ids import parse_volume_names
from text2ct.manifests._labels import find_column, read_label_table
from text2ct.manifests._schema import coerce, problems, refuse, validate
from text2ct.manifests.readers._request import Reader, Request


def read_prompts_csv(request: Request) -> pd.DataFrame:
    """Read ``prompts.csv``: a ``prompt`` column, and the labels and the scan each came from where known.

    The prompt goes to ``findings_text``. A row that a person added without a volume becomes its own patient
    ``prompt-<row>`` of data set ``prompts``; a volume may stand several times.
    """
    labels = read_label_table(request.path, require=False, id_column=False)
    table = labels.table

    def cells(column: str, default: pd.Series | str) -> pd.Series:
        name = find_column(table, (column,))
        values = table[name].str.strip() if name else pd.Series("", index=table.index, dtype="str")
        return values.where(values != "", default)

    numbered = pd.Series([f"prompt-{row + 1}" for row in range(len(table))], index=table.index, dtype="str")
    volume = cells("volume", numbered)
    parsed = parse_volume_names(volume)
    dataset = cells("dataset", request.dataset or "prompts")
    frame = labels.labels.assign(
        dataset=dataset,
        volume=volume,
        patient=cells("patient", parsed["patient"]),
        scan=parsed["scan"],
        split=cells("split", request.split),
        source=pd.Series("real", index=table.index, dtype="str").mask(dataset.str.startswith("simulated"), "simulated"),
        findings_text=cells("prompt", ""),
    )
    frame = coerce(frame)
    empty = [f"row {row + 2}: the prompt is empty" for row in frame.index[frame["findings_text"] == ""]]
    refuse(str(request.path), [*labels.problems, *empty, *problems(frame, unique=False)])
    return frame


def read_vlm3d(request: Request) -> pd.DataFrame:
    """Read the challenge's list of ``{"input_image_name": ..., "report": ...}``; all labels are unknown."""
    entries = read_json(request.path)
    if not isinstance(entries, list) or not entries:
        expected = "[{'input_image_name': ..., 'report': ...}, ...]"
        raise UserError(f"{request.path} is no list of prompts: expected {expected}")
    rows: list[dict[str, str]] = []
    found = []
    for number, entry in enumerate(entries, start=1):
        fields = entry if isinstance(entry, dict) else {}
        name, report = fields.get("input_image_name"), fields.get("report")
        for field, value in (("input_image_name", name), ("report", report)):
            if not isinstance(value, str) or not value.strip():
                found.append(f"entry {number}: '{field}' is {value!r}; expected text")
        rows.append({"volume": Path(str(name)).name, "findings_text": str(report).strip()})
    refuse(str(request.path), found)
    frame = pd.DataFrame(rows)
    frame["patient"] = frame["scan"] = parse_volume_names(frame["volume"])["scan"]
    frame = frame.assign(dataset=request.dataset or "vlm3d", split=request.split, source="real")
    return validate(frame, str(request.path))


PROMPTS_CSV = Reader(
    "prompts-csv",
    "a prompts.csv with a prompt column",
    lambda path, columns: "prompt" in columns,
    read_prompts_csv,
    frozenset({"split", "dataset"}),
)
VLM3D = Reader(
    "vlm3d-prompts",
    "a VLM3D prompts.json",
    lambda path, columns: path.is_file() and path.suffix.lower() == ".json",
    read_vlm3d,
    frozenset({"split", "dataset"}),
)
