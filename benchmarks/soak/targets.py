"""What reads each format, through the functions that the commands call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from text2ct.errors import UserError


def volume(path: Path, sandbox: Path) -> None:
    """As ``preprocess`` does: a file that is no volume is quarantined."""
    from text2ct import volumes
    from text2ct.manifests import Workspace

    space = Workspace.open(sandbox / "workspace")
    out = sandbox / "workspace" / "preprocessed"
    done = volumes.preprocess([path], out, size=(8, 8, 8), spacing_mm=(40.0, 40.0, 40.0), workspace=space)
    if len(done.quarantine):
        raise UserError(f"quarantined: {done.quarantine['reasons'].iloc[0]}")


def table(path: Path, sandbox: Path) -> None:
    from text2ct.augment.requests import read_requests
    from text2ct.evaluation.predictions import read_labels, read_predictions
    from text2ct.manifests import Workspace, read, read_metadata

    space = Workspace.open(sandbox / "workspace")
    if path.name == "metadata.csv":
        read_metadata(path)
    elif path.name == "predictions.csv":
        read_predictions(path)
        read_labels(path)
    elif path.name == "prompts.csv":
        read_requests(path)
    else:
        frame = read(path, workspace=space)
        for root, inside in zip(frame["root"], frame["path"], strict=True):
            if inside and root in space.roots:
                resolved = space.resolve(root, inside).resolve()
                assert resolved.is_relative_to(space.roots[root].resolve()), f"{inside} leaves its root"


def settings(path: Path, sandbox: Path) -> None:
    from text2ct._cli_core import _settings_in
    from text2ct.augment import read_plan
    from text2ct.augment.gate import read_config
    from text2ct.augment.requests import read_requests
    from text2ct.diffusion.training import DiffusionTraining, parse_config
    from text2ct.evaluation.predictions import read_predictions
    from text2ct.manifests import Workspace
    from text2ct.status import status

    readers: dict[str, Callable[[Path], Any]] = {
        "prompts.json": read_requests,
        "predictions.json": read_predictions,
        "plan.json": read_plan,
        "training.json": lambda file: parse_config(DiffusionTraining, _settings_in(file), file),
        "workspace.json": lambda file: (Workspace.open(file.parent).roots, status(file.parent)),
        "b.yaml": lambda file: read_requests(file),
    }
    readers.get(path.name, read_config)(path)
    del sandbox


def pack(path: Path, sandbox: Path) -> None:
    from text2ct.diffusion.pack import list_packs, load_pack, verify_pack

    del sandbox
    list_packs(path.parent)
    load_pack(path).misfits()
    verify_pack(path)


def checkpoint(path: Path, sandbox: Path) -> None:
    if path.suffix == ".npz":
        volume(path, sandbox)
        return
    from text2ct.diffusion.checkpoints import read_checkpoint, state_of

    state_of(path, read_checkpoint(path))


def archive(path: Path, sandbox: Path) -> None:
    from text2ct.evaluation.generator.folders import frames_of_folders
    from text2ct.manifests import Workspace

    other = path.with_name("truth.zip" if path.name == "predictions.zip" else "predictions.zip")
    frames_of_folders(path, other, None, Workspace.open(sandbox / "workspace"))


TARGETS: dict[str, Callable[[Path, Path], None]] = {
    "nifti": volume, "metaimage": volume, "nrrd": volume, "dicom": volume, "npz": volume, "zarr": volume, "csv": table,
    "json": settings, "toml-yaml": settings, "pack": pack, "checkpoint": checkpoint, "zip": archive,
}  # fmt: skip
ALLOWED = (UserError,)
"""How a broken file may end, beside with a result."""
