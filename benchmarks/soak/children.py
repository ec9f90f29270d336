"""Commands as processes: started in a group of their own, watched, killed; and disks that are small or read-only."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-c", "from text2ct.cli import main; main()")
# One thread, so that what is compared byte for byte was computed alike.
THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def environment() -> dict[str, str]:
    """That of a command: this checkout, one thread."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("TEXT2CT_")}
    return inherited | THREADS | {"PYTHONPATH": str(REPOSITORY)}


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    said: str

    @property
    def result(self) -> dict[str, Any]:
        """What ``--json`` printed."""
        return json.loads(self.out)

    @property
    def in_words(self) -> bool:
        """Whether it ended as a command may: done, or with one clear line."""
        return self.code in (0, 1, 2) and "Traceback" not in self.said


def command(*words: object, limit_s: float = 600.0, cwd: Path | None = None) -> Ended:
    """Run ``text2ct`` with these words in a process of its own."""
    done = subprocess.run(
        [*COMMAND, *map(str, words)], env=environment(), capture_output=True, text=True, timeout=limit_s, cwd=cwd
    )
    return Ended(done.returncode, done.stdout, done.stderr)


class Forked:
    """A command in a fork of this process, whose modules are loaded: what is timed and killed is the work.

    Args:
        words: Of the command line.
        log: Where it writes what it says.
    """

    def __init__(self, words: Sequence[object], log: Path) -> None:
        self.pid = os.fork()
        if self.pid == 0:
            _become(list(map(str, words)), log)
        self.log = log

    def wait(self) -> int:
        """The exit code; negative when a signal ended it."""
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)

    def kill(self) -> int:
        """SIGKILL to it and all that it started."""
        with suppress(ProcessLookupError):  # it may have ended
            os.killpg(self.pid, signal.SIGKILL)
        return self.wait()


def _become(words: list[str], log: Path) -> None:
    """Be the command; never returns."""
    code = 70
    try:
        os.setsid()
        sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        sys.argv = ["text2ct", *words]
        from text2ct.cli import main

        main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def forked(words: Sequence[object], log: Path) -> tuple[int, float]:
    """Run a command in a fork: its exit code and how many seconds it took."""
    begun = time.monotonic()
    return Forked(words, log).wait(), time.monotonic() - begun


def load_modules() -> None:
    """Load what commands load, before the first fork."""
    import lightning  # noqa: F401
    import nibabel  # noqa: F401
    import SimpleITK  # noqa: F401
    import torch

    import text2ct.augment.gate
    import text2ct.classifiers
    import text2ct.cli
    import text2ct.diffusion
    import text2ct.evaluation.benchmark
    import text2ct.reports
    import text2ct.scoring  # noqa: F401

    torch.set_num_threads(1)  # a fork has no threads of its parent's


@contextmanager
def small_disk(where: Path, megabytes: int) -> Iterator[Path | None]:
    """A tmpfs of so many megabytes at ``where``; None where this user may not mount one."""
    where.mkdir(parents=True, exist_ok=True)
    if not _mount("-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(where)):
        yield None
        return
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", str(where)], check=False, capture_output=True)


@contextmanager
def read_only(folder: Path) -> Iterator[bool]:
    """Make a folder read-only by mounting it upon itself, since root ignores permissions; False where it cannot be."""
    bound = _mount("--bind", str(folder), str(folder))
    try:
        yield bound and _mount("-o", "remount,ro,bind", str(folder))
    finally:
        if bound:
            subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)


def _mount(*words: str) -> bool:
    try:
        return subprocess.run(["mount", *words], check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def memory_mb(pid: int | str = "self", what: str = "VmRSS") -> float:
    """Resident memory of a process, or another line of its status, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) / 1024
    return 0.0


def handles(pid: int | str = "self") -> int:
    """Open files of a process."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
