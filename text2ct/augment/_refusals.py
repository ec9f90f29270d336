"""Why a synthetic volume may not be mixed in: each rule names the volumes it refuses."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pandas as pd

from text2ct.augment._scans import held_out_patients
from text2ct.augment.gate import gates_of
from text2ct.augment.leaks import HeldOut
from text2ct.console import warn
from text2ct.errors import UserError
from text2ct.files import read_json, sha256_file
from text2ct.manifests import Workspace

_SHOWN = 20


def refuse_leaks(real: pd.DataFrame, synthetic: pd.DataFrame, workspace: Workspace) -> None:
    """Refuse synthetic volumes that carry knowledge of validation or test patients into training.

    Raises:
        UserError: A volume is not marked as synthetic training data, is a held-out volume in disguise,
            its prompt is a held-out patient's or a held-out report word for word, its generator was
            trained on a held-out patient (or its ``pack.json`` cannot be verified), or its gate was trained
            on one or calibrated on a test patient (or its ``gate.json`` is missing).
    """
    held_out = HeldOut(real)
    problems = [
        *_row_problems(real, synthetic, held_out),
        *_pack_problems(synthetic, held_out, workspace),
        *_gate_problems(real, synthetic, workspace),
    ]
    if problems:
        more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise UserError(
            "these synthetic volumes would leak validation or test patients into training; make them again "
            "from training reports, with a pack and a gate that have not seen those patients",
            problems[:_SHOWN] + more,
        )


def _row_problems(real: pd.DataFrame, synthetic: pd.DataFrame, held_out: HeldOut) -> Iterable[str]:
    sums = set(real.loc[real["split"].isin(("validation", "test")), "sha256"]) - {""}
    held_prompt = held_out.volumes(synthetic["prompt_dataset"], synthetic["prompt_volume"])
    for row, prompt_is_held_out in zip(synthetic.to_dict("records"), held_prompt, strict=True):
        volume = row["volume"]
        if row["source"] != "synthetic":
            yield f"{volume}: its source is '{row['source']}', not synthetic"
        if row["split"] != "train":
            yield f"{volume}: synthetic volumes belong to the training split, not to '{row['split']}'"
        if (row["dataset"], row["patient"]) in held_out.patients or row["sha256"] in sums:
            yield f"{volume}: it is a validation or test volume"
        if prompt_is_held_out:
            yield f"{volume}: its prompt comes from {row['prompt_volume']}, a validation or test patient's"
        elif held_out.has_text(row["prompt"]):
            yield f"{volume}: its prompt is, word for word, the report of a validation or test patient"


def _pack_problems(synthetic: pd.DataFrame, held_out: HeldOut, workspace: Workspace) -> Iterable[str]:
    """Compare each generator's training patients with the held-out ones."""
    if not held_out:
        return
    for _, rows in synthetic.groupby(["pack", "pack_sha256"], sort=True):
        pack, digest = str(rows["pack"].iloc[0]), str(rows["pack_sha256"].iloc[0])
        if not digest:
            warn(
                f"{len(rows)} synthetic volumes do not say which pack made them: whether it was trained on "
                "validation or test patients cannot be checked"
            )
            continue
        kept = pack_folder(rows, digest, workspace)
        if kept is None:
            yield (
                f"{len(rows)} volumes of pack '{pack}', {rows['volume'].iloc[0]} among them: its pack.json "
                "is not beside the volumes, or is another one, so its training patients cannot be checked"
            )
            continue
        seen = _seen(read_json(kept / "pack.json"), held_out)
        if seen:
            yield f"{len(rows)} volumes of pack '{pack}', trained on validation or test patients: {seen}"


def refuse_pack(record: Any, real: pd.DataFrame) -> None:
    """Refuse a pack that was trained on validation or test patients.

    Args:
        record: What its ``pack.json`` says.
        real: The real manifest.

    Raises:
        UserError: It was; some of them are named.
    """
    seen = _seen(record, HeldOut(real))
    if seen:
        raise UserError(
            f"the pack '{record['name']}' was trained on validation or test patients ({seen}); what it makes would "
            "leak them into training; give another with --model"
        )


def _seen(record: Any, held_out: HeldOut) -> str:
    """Held-out patients that a pack was trained on, the first by name; "" for none."""
    seen = [f"{d}/{p}" for d, p in sorted(held_out.patients) if trained_on(record, d, p)]
    return ", ".join(seen[:5]) + (f" and {len(seen) - 5} more" if len(seen) > 5 else "")


def _gate_problems(real: pd.DataFrame, synthetic: pd.DataFrame, workspace: Workspace) -> Iterable[str]:
    """Compare whom each gate knows with the held-out patients: validation patients may calibrate it, no others."""
    held_out, test = held_out_patients(real), held_out_patients(real[real["split"] == "test"])
    for record in gates_of(synthetic, workspace):
        chosen = synthetic.loc[synthetic["gate"].str.contains(f"@{record.run}", regex=False), "volume"]
        for how, known, forbidden in (
            ("trained on validation or test patients", record.trained_on, held_out),
            ("calibrated on test patients", record.calibrated_on, test),
        ):
            seen = [f"{dataset}/{patient}" for dataset, patient in sorted(forbidden.intersection(known))]
            if seen:
                listed = ", ".join(seen[:5]) + (f" and {len(seen) - 5} more" if len(seen) > 5 else "")
                yield f"{len(chosen)} volumes, {chosen.iloc[0]} among them, of the gate '{record.run}', {how}: {listed}"


def pack_folder(rows: pd.DataFrame, digest: str, workspace: Workspace) -> Path | None:
    """Where the run of these volumes kept the ``pack.json`` that the manifest names by its SHA-256."""
    folders: dict[Path, None] = {}
    for root, path in rows[["root", "path"]].drop_duplicates().itertuples(index=False):
        folders[workspace.resolve(root, path).parent.parent] = None
    for folder in folders:
        file = folder / "pack.json"
        if file.is_file() and sha256_file(file) == digest:
            return folder
    return None


def trained_on(record: Any, dataset: str, patient: str) -> bool:
    """Whether a pack (its ``pack.json``) was trained on a patient.

    Patients are listed by name (``*`` stands for any letters) or as a range of numbers; a data set
    without either counts as seen whole.
    """
    for data in record.get("trained_on", ()):
        if data.get("dataset") != dataset:
            continue
        names, first, last = data.get("patients") or (), data.get("first"), data.get("last")
        if not names and first is None and last is None:
            return True
        if any(fnmatchcase(patient, name) for name in names):
            return True
        number = re.search(r"\d+$", patient)
        low, high = 0 if first is None else first, float("inf") if last is None else last
        if (first is not None or last is not None) and number and low <= int(number.group()) <= high:
            return True
    return False
