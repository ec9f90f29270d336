"""A folder in which a pack is being made: empty at first, or left by the same command when it was stopped."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from text2ct.diffusion.info import NAME_PATTERN
from text2ct.errors import UserError
from text2ct.files import read_json, write_json
from text2ct.locks import LOCK, working_in

MARK = ".unfinished.json"
# What a command leaves that is stopped before its mark is whole.
_OURS = {LOCK, f".partial-{MARK}"}


def check_name(name: str) -> None:
    """Refuse what cannot be a pack's name.

    Raises:
        UserError: It is empty, or holds more than letters, digits, dots, dashes and underscores.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        raise UserError(f"'{name}' cannot be a pack's name; use letters, digits, '.', '_' and '-'")


def refuse_in_use(out: Path, request: dict[str, Any]) -> None:
    """Refuse a folder that a pack of ``request`` cannot be made in.

    Args:
        out: The pack's folder.
        request: What decides the pack, as JSON values; or the part of it that is known already.

    Raises:
        UserError: ``out`` is a file, a finished pack, or holds anything but an unfinished pack of this request.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; name a folder for the pack")
    if not out.is_dir() or all(path.name in _OURS for path in out.iterdir()):
        return
    if (out / "pack.json").exists():
        raise UserError(f"{out} holds a finished pack; choose another folder, or remove it")
    if not (out / MARK).is_file():
        raise UserError(f"{out} is not empty; choose another folder")
    begun = read_json(out / MARK)
    if not isinstance(begun, dict) or not request.keys() <= begun.keys():
        raise UserError(f"{out} holds an unfinished pack of another request; choose another folder, or remove it")
    differences = [f"{key} was {begun[key]}, now {value}" for key, value in request.items() if begun[key] != value]
    if differences:
        raise UserError(
            f"{out} holds an unfinished pack of another request; choose another folder, or remove it", differences
        )


@contextmanager
def making_pack(out: Path, request: dict[str, Any]) -> Iterator[None]:
    """Hold ``out`` for a pack; the mark stays where the block is left early, so the same request goes on.

    Args:
        out: The pack's folder.
        request: What decides the pack, as JSON values.

    Raises:
        UserError: As for :func:`refuse_in_use`, or another command is making a pack there.
    """
    refuse_in_use(out, request)
    with working_in(out, instead="choose another folder"):
        # Another command may have begun, or finished, since.
        refuse_in_use(out, request)
        write_json(out / MARK, request)
        yield
        (out / MARK).unlink()
