"""One broken file after another, in a process with little memory and an alarm; started by :mod:`fuzz`.

    python -m benchmarks.soak.broken FORMAT SEED FIRST COUNT FOLDER

The number of a file decides how it is broken, so a failure is made again by its FORMAT, SEED and number:

    python -m benchmarks.soak.broken nifti 0 1234 1 /tmp/folder
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import time
import traceback
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.soak.children import memory_mb
from benchmarks.soak.mutations import Kind, mutate
from benchmarks.soak.seeds import make
from benchmarks.soak.targets import ALLOWED, TARGETS

ROOM_MB = 2048
ALARM_S = 10.0
_KINDS: dict[str, Kind] = {
    ".gz": "gzip", ".nrrd": "binary", ".npz": "zip", ".zarr": "zip", ".pt": "zip", ".ckpt": "zip", ".zip": "zip",
    ".csv": "text", ".json": "text", ".toml": "text", ".yaml": "text", ".yml": "text", ".mhd": "text", ".nhdr": "text",
}  # fmt: skip
_MUST_NOT = (
    "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "pickle.find_class",
    "webbrowser.open", "socket.connect",
)  # fmt: skip
_WRITES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree")


class Watch:
    """What Python is asked to do while a file is read: nothing is run, nothing written outside the sandbox."""

    def __init__(self, sandbox: Path) -> None:
        self.sandbox, self.on, self.seen = os.path.realpath(sandbox), False, list[str]()
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event in _MUST_NOT:
            self.seen.append(f"{event} {arguments[:2]}")
        elif event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            _, mode, flags = arguments
            writes = any(letter in mode for letter in "wax+") if mode else bool(flags & (os.O_WRONLY | os.O_RDWR))
            if writes:
                self._outside(event, arguments[0])
        elif event in _WRITES and isinstance(arguments[0], str | bytes | os.PathLike):
            self._outside(event, arguments[0])

    def _outside(self, event: str, path: Any) -> None:
        real = os.path.realpath(os.fsdecode(path))
        if not real.startswith((self.sandbox + os.sep, "/dev/")):
            self.seen.append(f"{event} {real}")


def break_one(files: Path, target: Path, name: str, seed: int, number: int) -> Path:
    """Copy the seed files and break one of them; returns what is to be read."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode()), number])
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(files, target)
    candidates = sorted(path for path in target.rglob("*") if path.is_file())
    path = candidates[int(rng.integers(len(candidates)))]
    kind = _KINDS.get(path.suffix.lower(), "binary")
    if path.name in ("zarr.json", "config.json") or (path.suffix in (".nrrd", ".mha") and rng.random() < 0.3):
        kind = "text"  # their headers are
    path.write_bytes(mutate(path.read_bytes(), kind, rng))
    if name == "pack":
        if path.name != "pack.json" and rng.random() < 0.8:
            _sum_again(target / "tiny", path)
        return target / "tiny"
    inside = path.relative_to(target)
    if name == "nifti" and rng.random() < 0.03:
        path = path.rename(path.with_name(path.name.replace(".nii.gz", ".nii") if rng.random() < 0.5 else "x.mha"))
    if len(inside.parts) > 1:
        top = target / inside.parts[0]
        headers = sorted(file for file in top.iterdir() if file.suffix in (".mhd", ".nhdr"))
        return headers[0] if headers else top
    return path


def _sum_again(folder: Path, path: Path) -> None:
    """Let ``pack.json`` describe the broken file: whoever makes a pack writes its checksums."""
    from text2ct.files import sha256_file

    described = json.loads((folder / "pack.json").read_text())
    described["files"][path.relative_to(folder).as_posix()] = sha256_file(path)
    (folder / "pack.json").write_text(json.dumps(described))


def _limit_memory() -> None:
    """Forbid more than is taken now and 2 GB."""
    limit = int((memory_mb(what="VmSize") + ROOM_MB) * 2**20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main() -> None:
    name, seed, first, count, folder = sys.argv[1], *map(int, sys.argv[2:5]), Path(sys.argv[5]).resolve()
    sandbox = folder / "sandbox"
    (sandbox / "workspace").mkdir(parents=True, exist_ok=True)
    files = make(name, folder / f"seeds-{name}")
    reports = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(folder / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    os.chdir(sandbox)
    import torch

    torch.set_num_threads(1)
    _read_whole(name, files, sandbox)
    _limit_memory()
    watch = Watch(sandbox)
    for number in range(first, first + count):
        path = break_one(files, sandbox / "in", name, seed, number)
        shutil.rmtree(sandbox / "workspace", ignore_errors=True)
        (sandbox / "workspace").mkdir()
        print(json.dumps({"begun": number}), file=reports, flush=True)
        report: dict[str, Any] = {"number": number}
        before, begun = memory_mb(), time.perf_counter()
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
        signal.setitimer(signal.ITIMER_REAL, ALARM_S)  # ends the process: a handler would wait for C code to return
        watch.on, watch.seen = True, []
        try:
            TARGETS[name](path, sandbox)
            report["ended"] = "read"
        except ALLOWED as error:
            report["ended"] = "refused"
            if len(str(error)) > 20_000:
                report["problem"] = f"a message of {len(str(error))} letters"
        except BaseException:
            report |= {"ended": "broke", "problem": " | ".join(traceback.format_exc().splitlines()[-7:])[-900:]}
        watch.on = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        report |= {"seconds": time.perf_counter() - begun, "mb": memory_mb(what="VmHWM") - before}
        if watch.seen:
            report["problem"] = f"did {watch.seen[:3]}"
        if list(sandbox.rglob("CANARY")) or list(folder.glob("outside*")):
            report["problem"] = "ran code, or wrote outside"
        print(json.dumps(report), file=reports, flush=True)


def _read_whole(name: str, files: Path, sandbox: Path) -> None:
    """Read the seed files as they are, which also loads the modules."""
    for path in sorted(files.iterdir()):
        shutil.rmtree(sandbox / "workspace", ignore_errors=True)
        target = next((one for one in path.glob("*.?hd*")), path) if path.name == "pair" else path
        with suppress(*ALLOWED):
            TARGETS[name](target, sandbox)


if __name__ == "__main__":
    main()
