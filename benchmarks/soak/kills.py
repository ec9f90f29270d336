"""Commands killed at random moments and called again: the result is that of the command that nobody killed."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.soak.children import Forked, forked, load_modules
from benchmarks.soak.outcome import Outcome

# What may differ between two runs of one command, and nothing else: how long something took, and when it was made.
_SECONDS = r'"seconds_per_step": [0-9.e+-]+'
_DECLARED = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00"
MAY_DIFFER: dict[str, tuple[str, ...]] = {
    "config.json": (_SECONDS,),
    "done.json": (_SECONDS, _DECLARED, r'"files": "[0-9a-f]{64}"'),  # of files with seconds in them
    "benchmark-plan.json": (_DECLARED,),
    "benchmark.json": (_SECONDS, _DECLARED, r'"resumed": \d+'),
    "report.html": (_DECLARED,),
    "report.md": (_DECLARED,),
    "metrics.csv": (r"(?m)(?<=,)[0-9.]+(?=,[^,\n]*$)",),  # the seconds of a step
}

COMMANDS: dict[str, list[str]] = {
    "synthesize": [
        "synthesize", "--prompts", "work/prompts.json", "--model", "work/tiny", "--steps", "2", "--batch-size", "2",
        "--run", "a", "--workspace", "work/w",
    ],
    "preprocess": [
        "preprocess", "cohort/dataset", "--out", "work/pre", "--grid", "20", "--spacing", "14", "--workers", "1",
        "--workspace", "work/w",
    ],
    "train": [
        "train", "work/w/real/manifest.csv", "--grid", "16", "--spacing", "18", "--steps", "120", "--batch-size", "2",
        "--run", "t", "--workspace", "work/w",
    ],
    "benchmark": [
        "benchmark", "--arms", "real,real+oversampled", "--seeds", "1", "--steps", "6", "--grid", "16",
        "--spacing", "18", "--batch-size", "2", "--run", "b", "--workspace", "work/w",
    ],
}  # fmt: skip

QUICK_COMMANDS = ("synthesize", "train")


def kills(rounds: int, seed: int = 0, only: tuple[str, ...] = tuple(COMMANDS)) -> list[Outcome]:
    """Kill each command so many times."""
    load_modules()
    with in_folder() as base:
        prepare(base)
        return [_killed(name, rounds, seed) for name in only]


@contextmanager
def in_folder() -> Iterator[Path]:
    """Work in a folder of its own, which goes."""
    import os

    before = Path.cwd()
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    os.chdir(folder)
    try:
        yield folder
    finally:
        os.chdir(before)
        shutil.rmtree(folder, ignore_errors=True)


def prepare(base: Path, patients: int = 16) -> None:
    """A small cohort, a pack with random weights, prompts and a workspace in ``start``, which rounds begin from."""
    start, log = base / "start", base / "log"
    cohort = ["--patients", patients, "--grid", "24", "--spacing", "12", "--valid-fraction", "0.5", "--workers", "1"]
    for words in (
        ["simulate", *cohort, "--out", "cohort"],
        ["models", "init", "start/tiny"],
        ["report", "cohort", "--workspace", "start/w"],
    ):
        code, _ = forked(words, log)
        if code:
            raise RuntimeError(f"{words} ended with {code}: {log.read_text()[-2000:]}")
    prompts = [{"input_image_name": f"p_{n}.mha", "report": f"Effusion of {n} cm."} for n in range(40)]
    (start / "prompts.json").write_text(json.dumps(prompts))
    shutil.rmtree(start / "w" / "reports", ignore_errors=True)


def begin(base: Path) -> Path:
    """The folder ``work`` as it is before the command; always at one place, since files may name their own."""
    work = base / "work"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(base / "start", work)
    return work


def _killed(name: str, rounds: int, seed: int) -> Outcome:
    base, rng = Path.cwd(), np.random.default_rng([seed, *name.encode()])
    found, words, log = Outcome(f"kill {name}"), COMMANDS[name], base / f"{name}.log"
    work, reference = begin(base), base / f"reference-{name}"
    code, seconds = forked(words, log)
    found.expect(code == 0, f"uninterrupted, it ended with {code}: {_end(log)}")
    shutil.rmtree(reference, ignore_errors=True)
    work.rename(reference)
    killed, went_on = 0, []
    for number in range(rounds):
        work = begin(base)
        at = float(rng.uniform(0.0, seconds))
        process = Forked(words, log)
        if _ended_within(process, at):
            process.wait()
        else:
            killed += process.kill() == -9
        left = whole(work, reference)
        log.unlink(missing_ok=True)
        code, took = forked(words, log)
        went_on.append(took)
        problems = left + ([f"called again, it ended with {code}: {_end(log)}"] if code else [])
        problems += [] if code else differences(work, reference)
        if "Traceback" in log.read_text():
            problems.append(f"a traceback: {_end(log)}")
        found.tried += 1
        found.problems += [f"round {number}, killed after {at:.2f} s: {problem}" for problem in problems]
    found.figures = {"killed": killed, "uninterrupted (s)": round(seconds, 1)}
    found.figures["called again (s, mean)"] = round(float(np.mean(went_on)), 1) if went_on else 0
    return found


def _ended_within(process: Forked, seconds: float) -> bool:
    """Whether the process ends by itself in this time; waits for it without collecting it."""
    import os
    import time

    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return True
        time.sleep(0.002)
    return False


def _end(log: Path) -> str:
    return " | ".join(log.read_text().splitlines()[-6:])[-800:]


def _files(folder: Path) -> dict[str, Path]:
    """Everything that is there for good: no lock, nothing partial."""
    return {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def differences(work: Path, reference: Path) -> list[str]:
    """What two folders do not share, but for what may differ."""
    ours, theirs = _files(work), _files(reference)
    problems = [f"{name} is missing" for name in sorted(theirs.keys() - ours.keys())]
    problems += [f"{name} is left over" for name in sorted(ours.keys() - theirs.keys())]
    for name in sorted(ours.keys() & theirs.keys()):
        if ours[name].read_bytes() == theirs[name].read_bytes():
            continue
        patterns = MAY_DIFFER.get(ours[name].name, ())
        texts = [_without(path.read_bytes().decode("latin-1"), patterns) for path in (ours[name], theirs[name])]
        if texts[0] != texts[1]:
            problems.append(f"{name} differs: {_first_difference(*texts)}")
    return problems


def _first_difference(ours: str, theirs: str) -> str:
    lines = zip(ours.splitlines(), theirs.splitlines(), strict=False)
    return next((f"'{one.strip()[:200]}', not '{two.strip()[:200]}'" for one, two in lines if one != two), "its end")


def _without(text: str, patterns: tuple[str, ...]) -> str:
    for pattern in patterns:
        text = re.sub(pattern, "", text)
    return text.strip()


def whole(work: Path, reference: Path) -> list[str]:
    """Files that a killed command left under their final names and that are not whole."""
    theirs = _files(reference)
    problems = []
    for name, path in _files(work).items():
        if name in theirs and path.read_bytes() == theirs[name].read_bytes():
            continue
        try:
            _READ.get("".join(path.suffixes[-1:]), bytes)(path.read_bytes())
        except Exception as error:  # whatever its reader makes of half a file
            problems.append(f"{name} is left half-written: {type(error).__name__}: {error}")
    return problems


def _ends(data: bytes) -> None:
    if not data.endswith(b"\n"):
        raise ValueError("its last line does not end")


def _checkpoint(data: bytes) -> None:
    import io

    import torch

    torch.load(io.BytesIO(data), weights_only=True)


def _array(data: bytes) -> None:
    import io

    np.load(io.BytesIO(data), allow_pickle=False)


def _weights(data: bytes) -> None:
    from safetensors.torch import load

    load(data)


_READ: dict[str, Callable[[bytes], object]] = {
    ".json": json.loads, ".csv": _ends, ".gz": gzip.decompress, ".npy": _array, ".ckpt": _checkpoint,
    ".pt": _checkpoint,    ".safetensors": _weights,
}  # fmt: skip
