"""Thousands of broken files of every format that is read: a result or one clear line, soon, in little memory."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.soak.broken import ALARM_S, ROOM_MB
from benchmarks.soak.children import REPOSITORY, environment
from benchmarks.soak.outcome import Outcome
from benchmarks.soak.seeds import SEEDS
from text2ct.volumes.readers import READERS

# Of all files, how many are of each format: volumes are most of what people have.
SHARES = {
    "nifti": 20, "metaimage": 10, "nrrd": 10, "dicom": 8, "npz": 5, "zarr": 7, "csv": 14, "json": 10, "toml-yaml": 2,
    "pack": 7, "checkpoint": 4, "zip": 3,
}  # fmt: skip
_SHOWN = 10
QUICK_FORMATS = ("nifti", "nrrd", "csv")
# A format whose reader ends the process again and again is given up after so many.
_DEATHS = 20


def formats() -> list[str]:
    """The formats that can be tried here."""
    zarr = any("zarr" in name.lower() for name in READERS)
    return [name for name in SEEDS if name != "zarr" or zarr]


def fuzz(files: int, seed: int = 0, only: tuple[str, ...] = ()) -> list[Outcome]:
    """Break so many files in all, and read each.

    Args:
        files: How many.
        seed: Decides with a file's number how it is broken.
        only: Some formats; by default all.
    """
    names = list(only) or formats()
    whole = sum(SHARES[name] for name in names)
    return [_format(name, max(1, round(files * SHARES[name] / whole)), seed) for name in names]


def _format(name: str, count: int, seed: int) -> Outcome:
    found = Outcome(f"fuzz {name}")
    ended = {"read": 0, "refused": 0, "broke": 0}
    slowest, most, at, deaths = 0.0, 0.0, 0, 0
    folder = Path(tempfile.mkdtemp(prefix=f"soak-{name}-"))
    while at < count and deaths < _DEATHS:
        begun = at
        for report in _child(name, seed, at, count - at, folder):
            if "begun" in report:
                begun = report["begun"]
                continue
            at = report["number"] + 1
            found.tried += 1
            ended[report["ended"]] += 1
            slowest, most = max(slowest, report["seconds"]), max(most, report["mb"])
            if "problem" in report:
                found.problems.append(f"{name} {seed} {report['number']}: {report['problem']}")
        if at < count:
            deaths, at = deaths + 1, begun + 1
            found.tried += 1
            found.problems.append(f"{name} {seed} {begun}: {_LAST['end']}")
    shutil.rmtree(folder, ignore_errors=True)
    if not ended["read"] and name != "toml-yaml" and count >= 100:  # those are read nowhere
        found.problems.append(f"{name}: all {count} files were refused: what lies behind the readers was not tried")
    found.figures = {"read": ended["read"], "refused": ended["refused"]}
    found.figures |= {"slowest (s)": round(slowest, 2), "most memory (MB)": round(most)}
    return found


_LAST = {"end": ""}


def _child(name: str, seed: int, first: int, count: int, folder: Path):  # type: ignore[no-untyped-def]
    """What a process reports of its files; how it ended is kept in ``_LAST``."""
    words = [sys.executable, "-m", "benchmarks.soak.broken", name, str(seed), str(first), str(count), str(folder)]
    with subprocess.Popen(words, cwd=REPOSITORY, env=environment(), stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            yield json.loads(line)
    signals = {-14: f"no end in {ALARM_S:.0f} s", -11: "a crash (SIGSEGV)", -6: "a crash (abort)", -9: "killed"}
    _LAST["end"] = signals.get(child.returncode, f"ended with {child.returncode} ({ROOM_MB} MB to spare)")
