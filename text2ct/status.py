"""``text2ct status``: the runs of a workspace, told by the files that commands leave there and by their locks.

Nothing heavy is imported and no volume is opened, so that a large workspace is looked through in seconds.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from text2ct.errors import UserError
from text2ct.locks import LOCK, holder
from text2ct.steplog import METRICS, last_step

_STAGES = ("vae", "clip", "diffusion")
# What commands leave in a folder before the first thing is done there.
_BEGUN = (LOCK, "source.json", "cases", "encoded", "launch.json", "request.json", "records", "dataset", "config.json")


@dataclass(frozen=True)
class _Facts:
    """What a run's files say; None where they do not."""

    kind: str
    finished: bool
    unit: Literal["volumes", "steps", "trainings", ""] = ""
    done: int | None = None
    total: int | None = None
    failed: int = 0


def status(workspace: Path, folders: Sequence[Path] = ()) -> dict[str, Any]:
    """What was made, is being made and was left unfinished.

    Args:
        workspace: The workspace's folder; it may be absent or empty.
        folders: Runs elsewhere, such as the work folder of a training of the core.

    Returns:
        ``workspace``, ``runs`` (each with ``kind``, ``name``, ``state``: done, running, stopped or
        unknown, ``done``, ``failed``, ``left``, ``unit``, ``seconds_left``, ``bytes``, and who works there:
        ``doing``, ``command``, ``pid``, ``host``, ``since``), ``bytes``, ``cache_bytes`` and ``free_bytes``.

    Raises:
        UserError: The workspace is a file, or a named folder does not exist.
    """
    if workspace.exists() and not workspace.is_dir():
        raise UserError(f"{workspace} is a file; name a folder as the workspace")
    absent = [str(folder) for folder in folders if not folder.is_dir()]
    if absent:
        raise UserError("these are no folders; name the folder of a run", absent)
    disk = _Disk()
    runs = [_row(name, path, facts, disk) for name, path, facts in _runs(workspace)]
    runs += [_row(str(path), path, _outside(path), disk) for path in folders]
    there = next(folder for folder in (workspace, *workspace.absolute().parents) if folder.exists())
    return {
        "workspace": str(workspace),
        "runs": runs,
        "bytes": disk.bytes(workspace),
        "cache_bytes": disk.bytes(workspace / "cache"),
        "free_bytes": shutil.disk_usage(there).free,
    }


def _runs(workspace: Path) -> Iterator[tuple[str, Path, _Facts]]:
    kinds: dict[str, Callable[[Path], _Facts]] = {
        "cohorts": _cohort,
        "synthetic": _synthetic,
        "mixed": lambda folder: _Facts("mixed", (folder / "manifest.csv").is_file()),
        "classifiers": _classifier,
        "reports": _report,
        "packs": _pack,
    }
    for kind, facts in kinds.items():
        for folder in _folders(workspace / kind):
            # Runs may lie in a folder of runs, as the scales of `evaluate --guidance`.
            inner = _folders(folder) if kind in ("synthetic", "reports") and not _files(folder) else []
            for one in inner or [folder]:
                yield one.relative_to(workspace).as_posix(), one, facts(one)
    for name in _files(workspace / "scores"):
        if name.endswith(".json"):
            yield f"scores/{name.removesuffix('.json')}", workspace / "scores" / name, _Facts("score", True)
    if (workspace / "preprocessed").is_dir():
        yield "preprocessed", workspace / "preprocessed", _preprocessed(workspace / "preprocessed")


def _row(name: str, path: Path, facts: _Facts, disk: _Disk) -> dict[str, Any]:
    held, note = _holder(path)
    begun = bool(facts.done or facts.total or note) or any((path / mark).exists() for mark in _BEGUN)
    state = "running" if held else "done" if facts.finished else "stopped" if begun else "unknown"
    done, total = facts.done, facts.total
    if total is None and not facts.finished and note.get("total") is not None:
        done, total = note["done"], note["total"]
    left = 0 if state == "done" else None if done is None or total is None else max(0, total - done - facts.failed)
    return {
        "kind": facts.kind,
        "name": name,
        "state": state,
        "done": done,
        "failed": facts.failed,
        "left": left,
        "unit": facts.unit,
        "seconds_left": _seconds_left(path, note) if held else None,
        "doing": note.get("doing") if held else None,
        "bytes": disk.bytes(path),
        **{key: note.get(key) for key in ("command", "pid", "host", "since")},
    }


def _holder(folder: Path) -> tuple[bool, dict[str, Any]]:
    """The lock of a run, or that of a part of it."""
    for one in (folder, *_folders(folder)):
        held, note = holder(one)
        if held or note:
            return held, note
    return False, {}


def _seconds_left(folder: Path, note: dict[str, Any]) -> float | None:
    """What the running command said last, less the time since; of a benchmark, by its trainings."""
    if note.get("seconds_left") is not None:
        return max(0.0, round(note["seconds_left"] - (time.time() - note["at"]), 1))
    trainings = [_mtime(path) for path in _trainings(folder)]
    begun = datetime.fromisoformat(note["since"]).timestamp() if "since" in note else time.time()
    ended = [moment for moment in trainings if moment is not None and moment >= begun]
    if not ended:
        return None
    left = sum(moment is None for moment in trainings)
    return max(0.0, round((max(ended) - begun) / len(ended) * left - (time.time() - max(ended)), 1))


def _synthetic(folder: Path) -> _Facts:
    record = _json(folder / "gate.json")
    accepted, rejected = (_number(record, "counts", verdict) for verdict in ("accepted", "rejected"))
    if accepted is not None and rejected is not None:
        count = accepted + rejected
        return _Facts("gated", (folder / "manifest.csv").is_file(), "volumes", count, count)
    total = _number(_json(folder / "request.json"), "volumes")
    if total is None:
        return _Facts("gated", False, "volumes")
    done = _count(folder / "sidecars", ".json")
    return _Facts("synthetic", done >= total and (folder / "manifest.csv").is_file(), "volumes", done, total)


def _classifier(folder: Path) -> _Facts:
    if folder.name == "benchmark":
        trainings = [one for one in _folders(folder) if (one / "request.json").is_file()]
        ended = sum((one / "done.json").is_file() for one in trainings)
        return _Facts("trainings", ended == len(trainings), "trainings", ended, len(trainings))
    config = _json(folder / "config.json")
    total = _number(config, "training", "steps")
    finished = config.get("model") is not None
    return _Facts("classifier", finished, "steps", total if finished else last_step(folder), total)


def _report(folder: Path) -> _Facts:
    if (folder / "benchmark-plan.json").is_file():
        trainings = _trainings(folder)
        ended = sum(path.is_file() for path in trainings)
        finished = (folder / "benchmark.json").is_file()
        return _Facts("benchmark", finished, "trainings", ended, len(trainings) or None)
    measured = ("evaluation.json", "comparison.json", "guidance.json")
    if any((folder / name).is_file() for name in measured):
        return _Facts("evaluation", True)
    return _Facts("report", (folder / "report.html").is_file())


def _trainings(report: Path) -> list[Path]:
    """Of each training of a benchmark the file that says that it is done."""
    names = _json(report / "trainings.json").get("trainings")
    place = report.parent.parent / "classifiers" / "benchmark"
    return [place / str(name) / "done.json" for name in names] if isinstance(names, list) else []


def _cohort(folder: Path) -> _Facts:
    made = _count(folder / "dataset", ".nii.gz")
    return _Facts("cohort", (folder / "manifest.csv").is_file(), "volumes", made)


def _preprocessed(folder: Path) -> _Facts:
    made = _count(folder / "records", ".json")
    return _Facts("preprocessed", (folder / "manifest.csv").is_file(), "volumes", made, failed=_quarantined(folder))


def _quarantined(folder: Path) -> int:
    try:
        with (folder / "quarantine.csv").open(newline="", encoding="utf-8") as stream:
            return max(0, sum(1 for _ in csv.reader(stream)) - 1)
    except (OSError, UnicodeDecodeError, csv.Error):
        return 0


def _pack(folder: Path) -> _Facts:
    """A pack, or the work folder of one that is being trained."""
    if (folder / "pack.json").is_file() or (folder / ".unfinished.json").is_file():
        return _Facts("pack", (folder / "pack.json").is_file())
    trained = (folder.with_name(folder.name.removesuffix("-work")) / "pack.json").is_file()
    stages = [one for one in _STAGES if (folder / one / METRICS).is_file()]
    if not stages:
        return _Facts("core training", trained)
    latest = folder / max(stages, key=lambda one: _mtime(folder / one / METRICS) or 0.0)
    total = _number(_json(latest / "config.json"), "training", "steps")
    done = last_step(latest)
    return _Facts("core training", trained or (total is not None and done >= total), "steps", done, total)


def _outside(folder: Path) -> _Facts:
    """A run somewhere else, told by what lies in it."""
    kinds: dict[str, Callable[[Path], _Facts]] = {
        "simulation.json": _cohort,
        "records": _preprocessed,
        "request.json": _synthetic,
        "history.csv": _classifier,
        "patients.json": _classifier,
        "report.html": _report,
        "benchmark-plan.json": _report,
    }
    return next((facts for mark, facts in kinds.items() if (folder / mark).exists()), _pack)(folder)


def _json(path: Path) -> dict[str, Any]:
    """A small JSON object; an empty one where there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _number(found: dict[str, Any], *keys: str) -> int | None:
    """The whole number at the end of these keys; None if there is none."""
    value: Any = found
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, int) else None


def _mtime(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def _folders(folder: Path) -> list[Path]:
    return [Path(entry.path) for entry in _entries(folder) if entry.is_dir() and not entry.name.startswith(".")]


def _files(folder: Path) -> list[str]:
    return [entry.name for entry in _entries(folder) if entry.is_file() and not entry.name.startswith(".")]


def _count(folder: Path | str, suffix: str) -> int:
    """Files below a folder whose names end so; links are not followed."""
    return sum(
        _count(entry.path, suffix)
        if entry.is_dir(follow_symlinks=False)
        else entry.name.endswith(suffix) and not entry.name.startswith(".")
        for entry in _entries(folder)
    )


class _Disk:
    """Bytes of the files below folders, each file asked once; links are not followed."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def bytes(self, path: Path | str) -> int:
        """Of a folder or of a file; 0 for what is not there."""
        key = os.fspath(path)
        if key not in self._known:
            inside = _entries(key)
            self._known[key] = sum(map(self._of, inside)) if inside else _bytes(Path(key))
        return self._known[key]

    def _of(self, entry: os.DirEntry[str]) -> int:
        return self.bytes(entry.path) if entry.is_dir(follow_symlinks=False) else _bytes(entry)


def _bytes(file: os.DirEntry[str] | Path) -> int:
    try:
        facts = file.stat(follow_symlinks=False)
    except OSError:  # absent, or replaced meanwhile
        return 0
    return 0 if stat.S_ISDIR(facts.st_mode) else facts.st_size


def _entries(folder: Path | str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:  # absent, or removed meanwhile
        return []
