"""Two folders of volumes as manifests: predictions and ground truth of the same names, as challenges exchange them."""

from __future__ import annotations

import lzma
import shutil
import time
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from text2ct.classifiers.cache import VolumeCache
from text2ct.classifiers.config import Preprocessing
from text2ct.errors import UserError, first_of
from text2ct.evaluation.predictions import volume_key
from text2ct.files import sha256_file
from text2ct.findings import FINDINGS
from text2ct.manifests import Workspace, read, validate

SUFFIXES = (".nii.gz", ".nii", ".mha")
_DAMAGED = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, RuntimeError, NotImplementedError
)  # fmt: skip
_ROOM = 1.1  # of the disk that a zip's content takes


def is_folder_of_volumes(path: Path) -> bool:
    """Whether a path is a folder with volumes, or a zip, and no manifest."""
    if path.is_dir():
        return not (path / "manifest.csv").is_file() and (any(_volumes(path)) or any(path.glob("*.zip")))
    return path.suffix.lower() == ".zip"


def frames_of_folders(
    predictions: Path, ground_truth: Path, prompts: Path | None, workspace: Workspace
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A real and a synthetic manifest of volumes that are paired by their names without file type.

    Args:
        predictions: A folder of ``.mha`` or NIfTI volumes, a zip of them, or a folder with such a zip.
        ground_truth: A folder (or zip) of the real volumes of the same names.
        prompts: The challenge's ``prompts.json``; without it there is nothing to compare with text.
        workspace: Declares the folders as roots; a zip's volumes are kept in its cache.

    Returns:
        Real rows, all of the split ``test``, and synthetic rows; labels are unknown.

    Raises:
        UserError: A folder is empty, two files have one name, or names differ.
    """
    made, real = (_named(_opened(path, workspace), name) for path, name in (
        (predictions, "predictions"), (ground_truth, "ground truth")))  # fmt: skip
    _refuse_unpaired(made, real)
    texts = {} if prompts is None else _texts(prompts)
    untold = sorted(made.keys() - texts.keys()) if prompts is not None else []
    if untold:
        raise UserError(f"{prompts} has no prompt for {len(untold)} volumes", first_of(untold))
    names = sorted(made)
    unknown: dict[str, object] = dict.fromkeys(FINDINGS, float("nan"))
    common: list[dict[str, Any]] = [
        {"volume": name, "patient": name, "scan": name, "findings_text": texts.get(name, "")} | unknown
        for name in names
    ]
    own = [
        row | {"dataset": "ground-truth", "source": "real", "split": "test", "volume": real[row["volume"]].name}
        for row in common
    ]
    of_prompts = [
        row
        | {
            "dataset": "predictions", "source": "synthetic", "split": "train", "volume": made[row["volume"]].name,
            "prompt": texts.get(row["volume"], ""), "prompt_dataset": "ground-truth",
            "prompt_volume": real[row["volume"]].name,
        }
        for row in common
    ]  # fmt: skip
    return (
        _placed(own, [real[name] for name in names], workspace, "ground-truth"),
        _placed(of_prompts, [made[name] for name in names], workspace, "predictions"),
    )


def estimate_of_folders(
    predictions: Path, ground_truth: Path, workspace: Workspace, grid: Preprocessing
) -> dict[str, Any]:
    """What a dry run says of two folders: how many volumes, and what bringing them to the grid takes; writes nothing.

    Raises:
        UserError: As :func:`frames_of_folders`, or a zip has not been unpacked.
    """
    made, real = (_named(_opened(path, workspace, dry_run=True), "volumes") for path in (predictions, ground_truth))
    _refuse_unpaired(made, real)
    volumes = VolumeCache(workspace.path / "cache" / "volumes", grid, dry_run=True)
    begun = time.perf_counter()
    volumes.preprocess(next(iter(made.values())))
    seconds, n = time.perf_counter() - begun, len(made) + len(real)
    return {
        "dry_run": True,
        "n_real": len(real),
        "n_synthetic": len(made),
        "volumes_to_read": n,
        "seconds": round(seconds * n, 1),
        "bytes": volumes.bytes_per_volume() * n,
    }


def _refuse_unpaired(made: Mapping[str, Path], real: Mapping[str, Path]) -> None:
    problems = [f"{name}: no ground truth" for name in sorted(made.keys() - real.keys())]
    problems += [f"{name}: no prediction" for name in sorted(real.keys() - made.keys())]
    if problems:
        raise UserError(
            f"{len(made)} predictions and {len(real)} real volumes do not belong together; give one of each name",
            first_of(problems),
        )


def _placed(rows: list[dict[str, object]], files: list[Path], workspace: Workspace, root: str) -> pd.DataFrame:
    name, inside = workspace.root_for(files[0].parent, root)
    placed = [row | {"root": name, "path": inside + file.name} for row, file in zip(rows, files, strict=True)]
    return validate(pd.DataFrame(placed), root)


def _texts(prompts: Path) -> dict[str, str]:
    if prompts.suffix.lower() != ".json":
        raise UserError(f"{prompts} is no prompts.json: expected [{{'input_image_name': ..., 'report': ...}}, ...]")
    frame = read(prompts)
    return {volume_key(name): text for name, text in zip(frame["volume"], frame["findings_text"], strict=True)}


def _volumes(folder: Path) -> Iterable[Path]:
    return (path for path in folder.iterdir() if path.name.lower().endswith(SUFFIXES) and not path.name.startswith("."))


def _named(folder: Path, what: str) -> dict[str, Path]:
    found: dict[str, Path] = {}
    twice = []
    for path in sorted(_volumes(folder)):
        key = volume_key(path.name)
        if key in found:
            twice.append(f"{found[key].name} and {path.name}")
        found[key] = path
    if not found:
        raise UserError(f"{folder} holds no {what}: expected volumes ending in {', '.join(SUFFIXES)}")
    if twice:
        raise UserError(f"two {what} have one name in {folder}; keep one of each", first_of(twice))
    return found


def _opened(path: Path, workspace: Workspace, *, dry_run: bool = False) -> Path:
    """The folder of volumes: the path itself, or what a zip holds, without its folders."""
    if path.is_dir() and any(_volumes(path)):
        return path
    archives = sorted(path.glob("*.zip")) if path.is_dir() else [path]
    if not archives:
        raise UserError(f"{path} holds neither volumes ending in {', '.join(SUFFIXES)} nor a zip of them")
    if len(archives) > 1:
        raise UserError(f"{path} holds {len(archives)} zips ({archives[0].name}, ...); name the one that is meant")
    archive = archives[0]
    if not archive.is_file():
        raise UserError(f"{archive} does not exist; give a folder of volumes or a zip of them")
    if archive.suffix.lower() != ".zip":
        raise UserError(f"{archive} is one file; give a folder of volumes or a zip of them")
    target = workspace.path / "cache" / "unzipped" / sha256_file(archive)[:16]
    if target.is_dir():
        return target
    if dry_run:
        raise UserError(
            f"{archive} is not unpacked yet, which a dry run does not do; unpack it, or leave --dry-run out"
        )
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [one for one in opened.infolist() if one.filename.lower().endswith(SUFFIXES)]
            names = [PurePosixPath(one.filename).name for one in members]
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise UserError(f"volumes of {archive} have one name in several folders", first_of(twice))
            target.parent.mkdir(parents=True, exist_ok=True)
            needed, free = sum(one.file_size for one in members), shutil.disk_usage(workspace.path).free
            if needed * _ROOM > free:
                raise UserError(f"{archive} unpacks to {needed / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free")
            partial = target.with_name(f".partial-{target.name}")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            for one, name in zip(members, names, strict=True):
                with opened.open(one) as source, (partial / name).open("wb") as sink:
                    shutil.copyfileobj(source, sink)
            partial.rename(target)
    except _DAMAGED as error:
        raise UserError(f"{archive} cannot be unpacked: {error}") from error
    return target
