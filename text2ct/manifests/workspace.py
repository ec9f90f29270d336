"""The workspace: where runs live, and the roots that manifest paths are relative to."""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Self

from text2ct.errors import UserError
from text2ct.files import read_json, write_json
from text2ct.locks import changing

OWN_ROOT = "workspace"
"""Name of the root that is the workspace itself, wherever it is moved."""

_KINDS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "real": (
        ("real/manifest.csv", "real/*/manifest.csv"),
        "real data",
        "text2ct simulate, report or synthesize",
    ),
    "synthetic": (("synthetic/*/manifest.csv",), "synthetic volumes", "text2ct synthesize"),
    "mixed": (("mixed/*/manifest.csv",), "a mixed manifest", "text2ct mix"),
    "classifiers": (("classifiers/*/model.safetensors",), "a trained classifier", "text2ct train"),
    "scores": (("scores/*.json",), "scores", "text2ct score"),
    "reports": (("reports/*/report.html",), "a report", "text2ct report or benchmark"),
}
"""Of each kind: what marks a finished output, what it is called, and which command makes one."""


class Workspace:
    """A folder of runs and a table of roots (``workspace.json``); nothing is written before it is needed.

    Args:
        path: The folder; it need not exist yet.

    Attributes:
        path: The folder, absolute.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(os.path.abspath(Path(path).expanduser()))  # noqa: PTH100 (keeps a link's own name)
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file; name a folder as the workspace")

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """The workspace in ``path``; it is made with the first output.

        Raises:
            UserError: ``path`` is a file.
        """
        return cls(path)

    @property
    def _file(self) -> Path:
        return self.path / "workspace.json"

    @property
    def roots(self) -> dict[str, Path]:
        """Every declared root and its absolute folder; ``workspace`` is always among them.

        Raises:
            UserError: ``workspace.json`` cannot be understood.
        """
        declared: Any = {}
        if self._file.exists():
            stored = read_json(self._file)
            declared = stored["roots"] if isinstance(stored, dict) and "roots" in stored else []
            if not isinstance(declared, dict) or not all(isinstance(path, str) for path in declared.values()):
                raise UserError(f"{self._file} is damaged: expected {{'roots': {{name: folder}}}}; mend or remove it")
        return {OWN_ROOT: self.path, **{name: self.path / folder for name, folder in declared.items()}}

    def add_root(self, name: str, path: Path | str) -> str:
        """Declare a folder as root ``name``; a folder inside the workspace is stored relative to it.

        Returns:
            The name.

        Raises:
            UserError: The name is not one word, stands for another folder already, or the folder is absent.
        """
        folder = Path(os.path.abspath(Path(path).expanduser()))  # noqa: PTH100
        self._check_root(name, folder)
        if not self._is_known(name, folder):
            with changing(self._file):
                if not self._is_known(name, folder):
                    self._store(name, folder)
        return name

    @staticmethod
    def _check_root(name: str, folder: Path) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise UserError(f"'{name}' cannot name a root; use letters, digits, '.', '_' and '-'")
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder and cannot be the root '{name}'")

    def _is_known(self, name: str, folder: Path) -> bool:
        roots = self.roots
        if name in roots and not _same(roots[name], folder):
            raise UserError(
                f"the root '{name}' of {self.path} is {roots[name]} already; choose another name for {folder}"
            )
        return name in roots

    def _store(self, name: str, folder: Path) -> None:
        """Add a root to what ``workspace.json`` holds now; the caller keeps other commands from changing it."""
        roots = self.roots | {name: folder}
        stored = {key: self._stored(value) for key, value in sorted(roots.items()) if key != OWN_ROOT}
        write_json(self._file, {"roots": stored})

    def root_for(self, folder: Path | str, preferred: str) -> tuple[str, str]:
        """The root of a folder's files, declared as ``preferred`` (or ``preferred-2``, ...) if new.

        Returns:
            The root's name, and the folder relative to it ("" for the root itself, else with a final ``/``).
        """
        folder = Path(os.path.abspath(Path(folder).expanduser()))  # noqa: PTH100
        if folder.is_relative_to(self.path):
            inside = folder.relative_to(self.path).as_posix()
            return OWN_ROOT, "" if inside == "." else f"{inside}/"
        known = self._name_of(folder)
        if known is not None:
            return known, ""
        self._check_root(preferred, folder)
        with changing(self._file):
            known = self._name_of(folder)  # another command may have declared it since
            if known is None:
                roots = self.roots
                numbered = (f"{preferred}-{number}" for number in itertools.count(2))
                known = preferred if preferred not in roots else next(name for name in numbered if name not in roots)
                self._store(known, folder)
        return known, ""

    def _name_of(self, folder: Path) -> str | None:
        return next((name for name, known in self.roots.items() if _same(known, folder)), None)

    def _stored(self, folder: Path) -> str:
        return folder.relative_to(self.path).as_posix() if folder.is_relative_to(self.path) else folder.as_posix()

    def resolve(self, root: str, path: str) -> Path:
        """The absolute path of a manifest row's file, which need not exist.

        Raises:
            UserError: The root is not declared, or the path is empty, absolute, has ``..`` or leaves the root
                through a link.
        """
        roots = self.roots
        if root not in roots:
            raise UserError(
                f"the root '{root}' of '{path}' is not declared in {self._file}; "
                f"known: {', '.join(sorted(roots))}. Read the data set again with this workspace"
            )
        parts = PurePosixPath(path)
        windows = PureWindowsPath(path)
        outside = parts.is_absolute() or bool(windows.drive or windows.root) or ".." in windows.parts
        if not path or "\0" in path or outside:
            raise UserError(f"'{path}' is refused: a path is relative to its root '{root}' and has no '..'")
        target = roots[root] / parts
        try:
            inside = target.resolve().is_relative_to(roots[root].resolve())
        except (OSError, RuntimeError) as error:
            raise UserError(f"{target} cannot be followed: {error}") from error
        if not inside:
            raise UserError(f"'{path}' is refused: a link in it leaves the root '{root}' ({roots[root]})")
        return target

    def run_dir(self, kind: str, run: str = "") -> Path:
        """The folder of a run, for example ``synthetic/first``; it is not made here.

        A run may lie in a folder of runs, as ``synthetic/benchmark/first``: no command takes such a run by itself.

        Raises:
            UserError: The kind is unknown or the run's name is no plain folder name.
        """
        self._known(kind)
        if run and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@+=-]*(/[A-Za-z0-9][A-Za-z0-9._@+=-]*)?", run):
            raise UserError(f"'{run}' cannot name a run; use letters, digits, '.', '_', '-', '@', '+' and '='")
        return self.path / kind / run

    def newest(self, kind: str) -> Path:
        """The newest finished output of a kind.

        Returns:
            ``manifest.csv`` (real, synthetic, mixed), the run's folder (classifiers, reports)
            or the scores' JSON.

        Raises:
            UserError: There is none yet; the message says which command makes one.
        """
        patterns, noun, command = self._known(kind)
        found = [path for pattern in patterns for path in self.path.glob(pattern) if not path.name.startswith(".")]
        if not found:
            raise UserError(f"{self.path} has no {noun.removeprefix('a ')} yet; run {command} first, or give a path")
        latest = max(found, key=lambda path: (path.stat().st_mtime_ns, path.as_posix()))
        return latest.parent if kind in ("classifiers", "reports") else latest

    def find_run(self, kind: str, given: Path) -> Path:
        """A run's folder, from its name or, where there is none of that name, its path.

        Raises:
            UserError: There is none.
        """
        named = self.run_dir(kind) / given
        for folder in (named, given):
            if folder.is_dir():
                return folder
        raise UserError(f"'{given}' is neither a run's folder nor a run in {self.run_dir(kind)}")

    @staticmethod
    def _known(kind: str) -> tuple[tuple[str, ...], str, str]:
        if kind not in _KINDS:
            raise UserError(f"'{kind}' is no kind of output; expected {', '.join(_KINDS)}")
        return _KINDS[kind]


def _same(first: Path, second: Path) -> bool:
    return first == second or (first.exists() and second.exists() and first.samefile(second))
