"""What a run is: the same identity goes on from the checkpoint, any other is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from text2ct.errors import UserError
from text2ct.files import read_json, write_json

# Longer values are not shown in a message: lists of sizes.
_SHOWN = 24


def start_of(pack_sha256: str, *, scratch: bool, seed: int) -> dict[str, Any]:
    """Where a training starts, for its identity: the pack, and its weights or random ones of the seed."""
    return {"start": {"pack": pack_sha256, "weights": f"random, of seed {seed}" if scratch else "the pack's"}}


def claim_run(out: Path, identity: Mapping[str, Any], *, begun: bool, write: bool) -> None:
    """Record ``identity`` in ``config.json`` of a run's folder.

    Args:
        out: The run's folder.
        identity: Settings, sizes, start and data; JSON values.
        begun: Whether there is a checkpoint to go on from.
        write: Only compare if false.

    Raises:
        UserError: The folder holds a run of another identity; what differs is named.
    """
    path = out / "config.json"
    resolved = json.loads(json.dumps(dict(identity)))
    if begun:
        differing = differences(read_json(path), resolved) if path.is_file() else ["config.json is missing"]
        if differing:
            raise UserError(
                f"{out} holds another run ({'; '.join(differing)}); choose another work folder, or remove this one to "
                "start anew"
            )
    if write:
        write_json(path, resolved)


def differences(then: Any, now: Any, name: str = "") -> list[str]:
    """What differs between two JSON values, one line for each entry: its name, what it was and what it is."""
    if isinstance(then, dict) and isinstance(now, dict):
        keys = sorted(then.keys() | now.keys())
        return [line for key in keys for line in differences(then.get(key), now.get(key), f"{name}.{key}".strip("."))]
    if then == now:
        return []
    return [f"{name}: {_short(then)} then, {_short(now)} now"]


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= _SHOWN else f"{text[:12]}…"
