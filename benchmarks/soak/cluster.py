"""Ray workers killed under a command, one and all at once: the result is that of the command that nobody killed."""

from __future__ import annotations

import importlib.util
import os
import signal
import time
from pathlib import Path

from benchmarks.soak.children import Forked, forked, load_modules
from benchmarks.soak.kills import COMMANDS, begin, differences, in_folder, prepare
from benchmarks.soak.outcome import Outcome

_RAY = ["--engine", "ray", "--workers", "2", "--cpus-per-worker", "0.5"]
_PATIENCE_S = 120.0


def cluster(only: tuple[str, ...] = ("preprocess", "synthesize")) -> list[Outcome]:
    """Kill a worker, then all of a machine, under each command."""
    if importlib.util.find_spec("ray") is None:
        return [Outcome("ray", skipped="the extra cluster is not installed")]
    load_modules()
    with in_folder() as base:
        prepare(base, patients=24)
        return [_killed(base, name, whole_node) for name in only for whole_node in (False, True)]


def _killed(base: Path, name: str, whole_node: bool) -> Outcome:
    found = Outcome(f"ray: {'all workers' if whole_node else 'a worker'} killed under {name}")
    log, reference = base / "ray.log", base / f"reference-{name}"
    if not reference.is_dir():
        begin(base)
        code, _ = forked(COMMANDS[name], log)
        if code:
            raise RuntimeError(log.read_text()[-1000:])
        (base / "work").rename(reference)
    work = begin(base)
    log.unlink(missing_ok=True)
    words = COMMANDS[name]
    if "--workers" in words:
        at = words.index("--workers")
        words = words[:at] + words[at + 2 :]
    process = Forked([*words, *_RAY], log)
    killed = _kill_workers(process.pid, work, whole_node)
    code = process.wait()
    said = log.read_text()
    found.expect(killed > 0, "no worker was at work")
    found.expect(code == 0, f"it ended with {code}: {said[-600:]}")
    found.expect("Traceback" not in said, f"a traceback: {said[-600:]}")
    found.problems += differences(work, reference) if code == 0 else []
    found.figures = {"workers killed": killed}
    return found


def _kill_workers(parent: int, work: Path, all_of_them: bool) -> int:
    """SIGKILL workers of a command once some volumes are written; how many."""
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until:
        workers = [pid for pid in _descendants(parent) if "_Worker" in _title(pid)]
        written = sum(1 for suffix in ("nii.gz", "mha") for _ in work.rglob(f"volumes/**/*.{suffix}"))
        if workers and written >= 2:
            for pid in workers if all_of_them else workers[:1]:
                os.kill(pid, signal.SIGKILL)
            return len(workers) if all_of_them else 1
        time.sleep(0.02)
    return 0


def _descendants(parent: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    found, left = [], [parent]
    while left:
        more = children.get(left.pop(), [])
        found += more
        left += more
    return found


def _title(pid: int) -> str:
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode("latin-1")
    except OSError:
        return ""
