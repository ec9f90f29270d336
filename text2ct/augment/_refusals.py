"""Why a synthetic volume may not be mixed in: each rule names the volumes it refuses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pydantic import TypeAdapter, ValidationError

from text2ct.augment._run import Sidecar
from text2ct.augment._scans import HELD_OUT, held_out_patients
from text2ct.augment.gate import gates_of
from text2ct.augment.gate.record import judged_by, other_verdicts
from text2ct.augment.leaks import HeldOut, in_common
from text2ct.console import warn
from text2ct.errors import UserError, first_of
from text2ct.files import read_json, sha256_file
from text2ct.manifests import Workspace

if TYPE_CHECKING:
    from text2ct.diffusion.info import TrainingData

_MAKERS = ["pack", "pack_sha256", "gate"]


def refuse_leaks(real: pd.DataFrame, synthetic: pd.DataFrame, workspace: Workspace) -> None:
    """Refuse synthetic volumes that carry knowledge of validation or test patients into training.

    A manifest without such patients is warned of.

    Raises:
        UserError: A volume is not marked as synthetic training data, is a held-out volume in disguise,
            its prompt is a held-out patient's (by the manifest or the sidecar) or a held-out report word for word,
            its generator was trained on a held-out patient (or its ``pack.json`` cannot be verified), or its gate
            was trained on one or calibrated on a test patient (or its ``gate.json`` is missing).
    """
    held_out = HeldOut(real)
    if not held_out:
        warn(
            "the real manifest has no validation or test rows, so that nothing can be checked for leaks; give the "
            "whole manifest, with its splits"
        )
    problems = [
        *_row_problems(real, synthetic, held_out, workspace),
        *_pack_problems(synthetic, held_out, workspace),
        *_gate_problems(real, synthetic, workspace),
    ]
    _refuse(problems)


def refuse_makers(manifest: pd.DataFrame, held_out: HeldOut, workspace: Workspace) -> None:
    """Refuse a training manifest in which a synthetic volume's generator or gate knows validation or test patients.

    :func:`refuse_leaks` said so when ``mix`` joined the rows; others may have joined them by hand. Volumes that no
    pack made, such as an oracle's, have no generator that could know anyone.

    Raises:
        UserError: As the pack and gate of :func:`refuse_leaks`.
    """
    made = _made(manifest[manifest["split"] == "train"])
    by_pack = made[(made["pack_sha256"] != "").to_numpy() | _beside_a_pack(made, workspace)]
    problems = [*_pack_problems(by_pack, held_out, workspace), *_gate_problems(manifest, made, workspace)]
    _refuse(problems)


def known_to_makers(rows: pd.DataFrame, workspace: Workspace) -> tuple[TrainingData, ...]:
    """Whom the generators and gates behind a manifest's synthetic rows were trained on, each entry once.

    Raises:
        UserError: A ``pack.json`` or ``gate.json`` cannot be understood.
    """
    from text2ct.diffusion.info import TrainingData

    made = _made(rows)
    known: list[TrainingData] = []
    for digest, of_pack in made[made["pack_sha256"] != ""].groupby("pack_sha256", sort=True):
        folder = pack_folder(of_pack, str(digest), workspace)
        known += [] if folder is None else training_data(read_json(folder / "pack.json"))
    for record in gates_of(made, workspace):
        patients: dict[str, list[str]] = {}
        for dataset, patient in sorted(record.trained_on):
            patients.setdefault(dataset, []).append(patient)
        known += [TrainingData(dataset=dataset, patients=tuple(names)) for dataset, names in patients.items()]
    return tuple(dict.fromkeys(known))


def _beside_a_pack(made: pd.DataFrame, workspace: Workspace) -> np.ndarray:
    """Which rows lie beside a ``pack.json``, whether or not they name it."""
    folders = [workspace.resolve(r, p).parent.parent for r, p in zip(made["root"], made["path"], strict=True)]
    beside = {folder: (folder / "pack.json").is_file() for folder in set(folders)}
    return np.array([beside[folder] for folder in folders], dtype=bool)


def _made(rows: pd.DataFrame) -> pd.DataFrame:
    """The synthetic rows, what made and judged them as text, "" where a manifest does not say."""
    made = rows[rows["source"] == "synthetic"]
    made = made.reindex(columns=made.columns.union(_MAKERS, sort=False))
    made[_MAKERS] = made[_MAKERS].astype(object).fillna("")
    return made


def _refuse(problems: list[str]) -> None:
    if problems:
        raise UserError(
            "these synthetic volumes would leak validation or test patients into training; make them again "
            "from training reports, with a pack and a gate that have not seen those patients",
            first_of(problems, 20),
        )


def _row_problems(
    real: pd.DataFrame, synthetic: pd.DataFrame, held_out: HeldOut, workspace: Workspace
) -> Iterable[str]:
    sums = set(real.loc[real["split"].isin(HELD_OUT), "sha256"]) - {""}
    held_prompt = held_out.volumes(synthetic["prompt_dataset"], synthetic["prompt_volume"], by_name=True)
    for row, prompt_is_held_out in zip(synthetic.to_dict("records"), held_prompt, strict=True):
        volume = row["volume"]
        if row["source"] != "synthetic":
            yield f"{volume}: its source is '{row['source']}', not synthetic"
        if row["split"] != "train":
            yield f"{volume}: synthetic volumes belong to the training split, not to '{row['split']}'"
        if held_out.is_patient(row["dataset"], row["patient"]) or row["sha256"] in sums:
            yield f"{volume}: it is a validation or test volume"
        if prompt_is_held_out:
            yield f"{volume}: its prompt comes from {row['prompt_volume']}, a validation or test patient's"
        elif held_out.has_text(row["prompt"]):
            yield f"{volume}: its prompt is, word for word, the report of a validation or test patient"
        elif told := _told_by_sidecar(row, held_out, workspace):
            yield f"{volume}: {told}"


def _pack_problems(synthetic: pd.DataFrame, held_out: HeldOut, workspace: Workspace) -> Iterable[str]:
    """Compare each generator's training patients with the held-out ones."""
    if not held_out:
        return
    for (pack, digest), rows in synthetic.groupby(["pack", "pack_sha256"], sort=True):
        kept = pack_folder(rows, str(digest), workspace)
        if kept is None and not digest:
            warn(
                f"{len(rows)} synthetic volumes do not say which pack made them: whether it was trained on "
                "validation or test patients cannot be checked"
            )
            continue
        if kept is None:
            yield (
                f"{len(rows)} volumes of pack '{pack}', {rows['volume'].iloc[0]} among them: its pack.json "
                "is not beside the volumes, or is another one, so its training patients cannot be checked"
            )
            continue
        try:
            seen = _seen(read_json(kept / "pack.json"), held_out)
        except UserError as error:
            yield f"{len(rows)} volumes of pack '{pack}', {rows['volume'].iloc[0]} among them: {error}"
            continue
        if seen:
            yield f"{len(rows)} volumes of pack '{pack}', trained on validation or test patients: {seen}"


def refuse_pack(record: Any, real: pd.DataFrame) -> None:
    """Refuse a pack that was trained on validation or test patients.

    Args:
        record: What its ``pack.json`` says.
        real: The real manifest.

    Raises:
        UserError: It was, some of them being named; or it does not say whom it was trained on.
    """
    seen = _seen(record, HeldOut(real))
    if seen:
        raise UserError(
            f"the pack '{record['name']}' was trained on validation or test patients ({seen}); what it makes would "
            "leak them into training; give another with --model"
        )


def _seen(record: Any, held_out: HeldOut) -> str:
    """Held-out patients that a pack was trained on, the first by name; "" for none.

    Raises:
        UserError: The record does not tell.
    """
    data = training_data(record)
    if not data and held_out:
        warn(
            f"the pack '{record.get('name', '')}' lists nobody that it was trained on: right for random weights "
            "(`text2ct models init`); of any other pack nobody can tell whether validation or test patients leak"
        )
    seen = [f"{d}/{p}" for d, p in sorted(held_out.patients) if trained_on(data, d, p)]
    return ", ".join(seen[:5]) + (f" and {len(seen) - 5} more" if len(seen) > 5 else "")


def _gate_problems(real: pd.DataFrame, synthetic: pd.DataFrame, workspace: Workspace) -> Iterable[str]:
    """Compare whom each gate knows with the held-out patients: validation patients may calibrate it, no others."""
    held_out, test = held_out_patients(real), held_out_patients(real[real["split"] == "test"])
    for record in gates_of(synthetic, workspace):
        chosen = synthetic.loc[judged_by(synthetic["gate"]) == record.run, "volume"]
        for volume in other_verdicts(synthetic, record):
            yield f"{volume}: its verdict is not the one of the gate '{record.run}'; the manifest was changed"
        for how, known, forbidden in (
            ("trained on validation or test patients", record.trained_on, held_out),
            ("calibrated on test patients", record.calibrated_on, test),
        ):
            seen = [f"{dataset}/{patient}" for dataset, patient in in_common(forbidden, known)]
            if seen:
                listed = ", ".join(seen[:5]) + (f" and {len(seen) - 5} more" if len(seen) > 5 else "")
                yield f"{len(chosen)} volumes, {chosen.iloc[0]} among them, of the gate '{record.run}', {how}: {listed}"


def pack_folder(rows: pd.DataFrame, digest: str, workspace: Workspace) -> Path | None:
    """Where the run of these volumes kept the ``pack.json`` that the manifest names by its SHA-256.

    Where the manifest names none ("" as ``digest``), the one beside the volumes is taken.
    """
    folders: dict[Path, None] = {}
    for root, path in rows[["root", "path"]].drop_duplicates().itertuples(index=False):
        folders[workspace.resolve(root, path).parent.parent] = None
    for folder in folders:
        file = folder / "pack.json"
        if file.is_file() and digest in ("", sha256_file(file)):
            return folder
    return None


def training_data(record: Any) -> tuple[TrainingData, ...]:
    """Whom a pack was trained on, by its ``pack.json``.

    Raises:
        UserError: That cannot be understood.
    """
    from text2ct.diffusion.info import TrainingData

    try:
        told = record.get("trained_on", ()) if isinstance(record, dict) else None
        return TypeAdapter(tuple[TrainingData, ...]).validate_python(told)
    except ValidationError as error:
        raise UserError(
            "its pack.json does not list whom the pack was trained on as {dataset, patients, first, last}"
        ) from error


def trained_on(training: Iterable[TrainingData], dataset: str, patient: str) -> bool:
    """Whether a pack was trained on a patient; letter case does not tell two apart.

    Patients are listed by name (``*`` stands for any letters) or as a range of numbers; a data set
    without either counts as seen whole.
    """
    dataset, patient = dataset.casefold(), patient.casefold()
    for data in training:
        if data.dataset.casefold() != dataset:
            continue
        if not data.patients and data.first is None and data.last is None:
            return True
        if any(fnmatchcase(patient, name.casefold()) for name in data.patients):
            return True
        number = re.search(r"\d+$", patient)
        low, high = data.first or 0, float("inf") if data.last is None else data.last
        if (data.first is not None or data.last is not None) and number and low <= int(number.group()) <= high:
            return True
    return False


def _told_by_sidecar(row: Mapping[Any, Any], held_out: HeldOut, workspace: Workspace) -> str:
    """What the file beside a volume says against it that its manifest row does not; "" for nothing."""
    if not held_out or not row["path"]:
        return ""
    voxels = workspace.resolve(row["root"], row["path"])
    path = voxels.parent.parent / "sidecars" / f"{voxels.name}.json"
    if not path.is_file():
        return "its sidecar is missing, so nobody can tell whose prompt it had" if path.parent.is_dir() else ""
    try:
        sidecar = Sidecar.model_validate(read_json(path))
    except (UserError, ValidationError):
        return f"its sidecar {path.name} is damaged, so nobody can tell whose prompt it had"
    if sidecar.prompt_split in HELD_OUT:
        return f"its prompt belongs to the split '{sidecar.prompt_split}'"
    origin = pd.Series([sidecar.prompt_dataset]), pd.Series([sidecar.prompt_volume])
    patient = sidecar.prompt_patient
    if held_out.volumes(*origin, by_name=True)[0] or held_out.has_patient(sidecar.prompt_dataset, patient):
        return f"its prompt comes from {sidecar.prompt_volume or patient}, a validation or test patient's"
    if held_out.has_text(sidecar.prompt):
        return "its prompt is, word for word, the report of a validation or test patient"
    return ""
