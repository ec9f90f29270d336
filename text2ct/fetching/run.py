"""A plan's files to its folder: one after another, each checked; one that fails does not stop the rest."""

from __future__ import annotations

import time
from pathlib import PurePosixPath
from typing import Any

from text2ct import hub
from text2ct.console import info, warn
from text2ct.fetching.plan import PARTIALS, Plan

_ATTEMPTS = 3
_PAUSE_SECONDS = 2.0
# So many volumes in a row that fail are no chance: the hub or the network is down.
_GIVE_UP_AFTER = 3


def fetch_plan(plan: Plan) -> dict[str, Any]:
    """Fetch what is missing of a plan; the same call goes on where it was stopped.

    Returns:
        ``root, commit, volumes, scans, patients, bytes`` of what is whole now, ``resumed`` (volumes that were
        whole before) and ``failed`` (names of volumes).

    Raises:
        UserError: The disk is too small, the hub refuses, a table fails, or several volumes fail in a row.
    """
    missing = plan.missing
    hub.check_space(plan.root, plan.bytes_left, f"{len(missing)} files")
    whole, failed, in_a_row = list(plan.here), [], 0
    for number, file in enumerate(missing, start=1):
        try:
            _fetch(plan, file, f"{number}/{len(missing)}")
        except hub.FileError as error:
            in_a_row += 1
            if file in plan.tables or in_a_row == _GIVE_UP_AFTER:
                raise
            failed.append(PurePosixPath(file.name).name)
            warn(f"{failed[-1]} is left out: {error}")
            continue
        in_a_row = 0
        whole.append(file)
    partials = plan.root / PARTIALS
    if partials.is_dir() and not any(partials.iterdir()):
        partials.rmdir()
    resumed = sum(file in plan.here for file in plan.volumes)
    result = {"root": str(plan.root), "commit": plan.source.commit, **plan.counts(whole)}
    return result | {"resumed": resumed, "failed": [*plan.absent, *failed]}


def _fetch(plan: Plan, file: hub.RemoteFile, counter: str) -> None:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            hub.fetch(plan.source, file, plan.root / file.name, plan.root / PARTIALS, counter=counter)
        except hub.FileError as error:
            if attempt == _ATTEMPTS:
                raise
            info(f"{error} (attempt {attempt} of {_ATTEMPTS})")
            time.sleep(_PAUSE_SECONDS * attempt)
        else:
            return
