"""Disks that are full, read-only or slow, and files that vanish: one clear line, and the same command goes on."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.soak.children import Forked, forked, load_modules, read_only, small_disk
from benchmarks.soak.kills import COMMANDS, begin, differences, in_folder, prepare
from benchmarks.soak.outcome import Outcome

STALL_S = 0.2


def disks(quick: bool = False) -> list[Outcome]:
    """Every fault of a disk, with the commands that write, or with one of them."""
    names = ("synthesize",) if quick else ("synthesize", "preprocess", "train")
    load_modules()
    with in_folder() as base:
        prepare(base)
        return [
            *(_full(base, name) for name in names),
            *(_read_only(base, name) for name in names),
            _forbidden(base, names),
            _vanishing(base),
            *([] if quick else [_stalls(base)]),
        ]


def _reference(base: Path, name: str) -> Path:
    """What the command makes where nothing fails."""
    reference = base / f"reference-{name}"
    if not reference.is_dir():
        begin(base)
        code, _ = forked(COMMANDS[name], base / "log")
        if code:
            raise RuntimeError((base / "log").read_text()[-1000:])
        (base / "work").rename(reference)
    return reference


def _words(code: int, log: Path, found: Outcome, expected: int, contains: str) -> None:
    said = log.read_text()
    found.expect(code == expected, f"it ended with {code}: {said[-400:]}")
    found.expect("Traceback" not in said, f"a traceback: {said[-600:]}")
    found.expect(contains in said.lower(), f"'{contains}' is not said: {said[-300:]}")


def _full(base: Path, name: str) -> Outcome:
    """On a disk that is full after a while; with room, the same command goes on and ends in the same bytes."""
    found, log = Outcome(f"disk full: {name}"), base / "full.log"
    reference = _reference(base, name)
    start = sum(file.stat().st_blocks * 512 for file in (base / "start").rglob("*") if file.is_file())
    end = sum(file.stat().st_blocks * 512 for file in reference.rglob("*") if file.is_file())
    shutil.rmtree(base / "work", ignore_errors=True)
    size = max(1, round((start + 0.4 * (end - start)) / 2**20))
    with small_disk(base / "work", size) as disk:
        if disk is None:
            found.skipped = "this user may not mount a tmpfs"
            return found
        shutil.copytree(base / "start", disk, dirs_exist_ok=True)
        filler = disk / ".filler"
        # The disk has whole MB; a file takes what is too much.
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        filler.write_bytes(bytes(max(0, free - int(0.4 * (end - start)))))
        log.unlink(missing_ok=True)
        code, _ = forked(COMMANDS[name], log)
        _words(code, log, found, 2, "no space left")
        filler.unlink()
        os.system(f"mount -o remount,size=200m {disk}")
        code, _ = forked(COMMANDS[name], log)
        found.expect(code == 0, f"with room again it ended with {code}: {log.read_text()[-400:]}")
        found.problems += differences(disk, reference) if code == 0 else []
        found.figures = {"room (MB)": round(0.4 * (end - start) / 2**20, 2)}
    return found


def _read_only(base: Path, name: str) -> Outcome:
    found, log = Outcome(f"read-only output: {name}"), base / "read-only.log"
    work = begin(base)
    log.unlink(missing_ok=True)
    with read_only(work) as is_so:
        if not is_so:
            found.skipped = "this user may not mount a folder read-only"
            return found
        code, _ = forked(COMMANDS[name], log)
        _words(code, log, found, 2, "read-only file system")
    return found


def _forbidden(base: Path, names: tuple[str, ...]) -> Outcome:
    """Folders that may not be written, then volumes that may not be read: root keeps to it without its privilege."""
    found, log = Outcome("no permission"), base / "forbidden.log"
    work = begin(base)
    _allow(work, 0o555)
    for name in names:
        code = _with_fault(COMMANDS[name], log, _obey_permissions)
        _words(code, log, found, 2, "permission denied")
    _allow(work, 0o755)
    victims = sorted((base / "cohort").rglob("*.nii.gz"))[:2]
    for path in victims:
        path.chmod(0o000)
    code = _with_fault(COMMANDS["preprocess"], log, _obey_permissions)
    _words(code, log, found, 0, "2 quarantined")
    for path in victims:
        path.chmod(0o644)
    return found


def _allow(work: Path, mode: int) -> None:
    for path in [work, *work.rglob("*")]:
        if path.is_dir():
            path.chmod(mode)


# CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: what lets root read and write whatever it likes.
_PRIVILEGE, _VERSION = 0b110, 0x20080522


def _obey_permissions() -> None:
    """Give up root's privilege in this process."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    head, sets = (ctypes.c_uint32 * 2)(_VERSION, 0), (ctypes.c_uint32 * 6)()
    libc.capget(head, sets)
    sets[0] &= ~_PRIVILEGE  # effective; the permitted and the other half stay
    if libc.capset(head, sets):
        raise OSError(ctypes.get_errno(), "capset")


def _vanishing(base: Path) -> Outcome:
    """A volume removed between listing and reading is quarantined, and the rest go on."""
    found, log = Outcome("a file vanishes after it was listed"), base / "vanish.log"
    begin(base)
    shutil.copytree(base / "cohort", base / "work" / "cohort")
    words = [word.replace("cohort/dataset", "work/cohort/dataset") for word in COMMANDS["preprocess"]]
    victims = sorted((base / "work" / "cohort").rglob("*.nii.gz"))[-3:]
    code = _with_fault(words, log, lambda: _vanish_when_listed(victims))
    _words(code, log, found, 0, "3 quarantined")
    return found


def _vanish_when_listed(victims: list[Path]) -> None:
    """In the process of the command: remove the files once the folder has been listed."""
    from text2ct.volumes import preprocessing

    listed = preprocessing.find_volumes

    def find(*args: object, **kwargs: object) -> list[Path]:
        volumes = listed(*args, **kwargs)  # type: ignore[arg-type]
        for file in victims:
            file.unlink()
        return volumes

    preprocessing.find_volumes = find  # type: ignore[assignment]


def _stalls(base: Path) -> Outcome:
    """Reads of volumes that take 200 ms longer: nothing fails, and the bytes are the same."""
    found, log = Outcome("reads that stall for 200 ms"), base / "stall.log"
    reference = _reference(base, "preprocess")
    work = begin(base)
    begun = time.monotonic()
    code = _with_fault(COMMANDS["preprocess"], log, _stall_reads)
    found.expect(code == 0, f"it ended with {code}: {log.read_text()[-300:]}")
    found.problems += differences(work, reference)
    found.figures = {"seconds": round(time.monotonic() - begun, 1)}
    return found


def _stall_reads() -> None:
    from text2ct.volumes import jobs

    read = jobs.open_volume

    def slowly(*args: object, **kwargs: object) -> object:
        time.sleep(STALL_S)
        return read(*args, **kwargs)  # type: ignore[arg-type]

    jobs.open_volume = slowly  # type: ignore[assignment]


def _with_fault(words: list[str], log: Path, fault: Callable[[], None]) -> int:
    """Run a command in a fork in which something is amiss."""
    log.unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        fault()
        os._exit(min(255, abs(Forked(words, log).wait())))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
