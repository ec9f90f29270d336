"""The processes of one launch of a command: the first one prepares files while the others wait, and not for ever.

SLURM and torchrun start all processes at once. They meet in ``launch.json`` of the work folder, which all of them
see: the first process says there that it is alive, ready or failed. Processes that Lightning starts from the first
one find it ready.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from text2ct.diffusion.training.processes import is_follower
from text2ct.errors import UserError
from text2ct.files import read_json, write_json

T = TypeVar("T")

# Seconds between two signs of life of the first process, and between two looks for one.
BEAT_S = 5.0
LOOK_S = 0.5
# Network file systems show a change after up to a minute; a first process that is silent for longer than this is gone.
SILENCE_S = 300.0
# A failure is believed once it has stood this long: it may be what an earlier launch of the same name has left.
GRACE_S = 20.0
_OWN = "TEXT2CT_LAUNCH"


class Launch:
    """One process among those that the same command has started.

    Args:
        work: A folder that all of them see.
        devices: Processes of each node.
        nodes: Number of machines.

    Attributes:
        follower: Whether this process only computes.
    """

    def __init__(self, work: Path, devices: int = 1, nodes: int = 1) -> None:
        self.path = work / "launch.json"
        self.follower = is_follower(devices, nodes)
        self._alone = devices * nodes == 1

    def prepare(self, make: Callable[[], T]) -> T:
        """What ``make`` makes in the first process; in a follower, what it then opens.

        Raises:
            UserError: In a follower, the first process has failed or is silent.
        """
        if self._alone:
            return make()
        if self.follower:
            self._wait()
            return make()
        name = self._name(own=uuid.uuid4().hex)
        over = threading.Event()
        alive = threading.Thread(target=self._stay_alive, args=(name, over), daemon=True)
        alive.start()
        end = {"launch": name, "state": "ready"}
        try:
            return make()
        except BaseException as error:
            end |= {"state": "failed", "reason": str(error) or "interrupted"}
            raise
        finally:
            over.set()
            alive.join()
            write_json(self.path, end)

    def finish(self) -> None:
        """Remove the meeting point; the followers have passed it by now."""
        if not self._alone and not self.follower:
            self.path.unlink(missing_ok=True)

    def _stay_alive(self, name: str, over: threading.Event) -> None:
        beat = 0
        while True:
            with suppress(UserError):  # a full disk: what is being made will say so
                write_json(self.path, {"launch": name, "state": "working", "beat": beat})
            beat += 1
            if over.wait(BEAT_S):
                return

    def _wait(self) -> None:
        """Return once the first process of this launch is ready."""
        name, last, since = self._name(), None, time.monotonic()
        while True:
            said = self._read()
            if said != last:
                last, since = said, time.monotonic()
            silent_s = time.monotonic() - since
            if said and said["launch"] == name:
                if said["state"] == "ready":
                    return
                if said["state"] == "failed" and silent_s >= GRACE_S:
                    raise UserError(f"the first process of this run has failed: {said['reason']}")
            if silent_s >= SILENCE_S:
                raise UserError(
                    f"the first process of this run has given no sign of life for {SILENCE_S:.0f} s in {self.path}; "
                    "see what it says, and whether all nodes see this folder, then run the same command again"
                )
            time.sleep(LOOK_S)

    def _read(self) -> dict[str, Any] | None:
        try:
            said: dict[str, Any] = read_json(self.path)
        except (UserError, OSError):  # not there yet, or being replaced on a network file system
            return None
        return said

    def _name(self, own: str | None = None) -> str:
        """What the processes of this launch, and of no other, have in common."""
        if "TORCHELASTIC_RUN_ID" in os.environ:
            names = ["TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_PORT"]
        elif "SLURM_JOB_ID" in os.environ:
            names = ["SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"]
        else:
            names = [_OWN]
            if own is not None:
                os.environ[_OWN] = own  # the processes that Lightning starts inherit it
        return "-".join(os.environ.get(name, "") for name in names)
