"""The released weights from the Hugging Face hub to a pack: sizes first, downloads that go on, checksums always."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from text2ct.diffusion import released
from text2ct.diffusion.cleaning import TextCleaning
from text2ct.diffusion.importing import read_released, write_released
from text2ct.diffusion.pack import Pack
from text2ct.diffusion.unfinished import check_name, making_pack, refuse_in_use
from text2ct.errors import UserError
from text2ct.hub import BYTES_PER_SECOND, DEFAULT_REVISION, RemoteFile, Source, check_space, fetch, hub_errors, open_hub

DOWNLOADS = ".download"


@dataclass(frozen=True)
class Remote:
    """The released files at one commit of a hub repository."""

    source: Source
    files: dict[str, RemoteFile]

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(file.bytes for file in self.files.values())


def find_remote(
    repository: str = released.REPOSITORY, *, revision: str = DEFAULT_REVISION, endpoint: str | None = None
) -> Remote:
    """Ask the hub for the released files: their sizes, checksums and commit.

    Args:
        repository: OWNER/NAME.
        revision: Branch, tag or commit.
        endpoint: The hub's address; the library's own (``HF_ENDPOINT``) if None.

    Raises:
        UserError: The hub cannot be reached or refuses, or the repository lacks a file.
    """
    api = open_hub(endpoint)
    with hub_errors(repository, revision, api.endpoint):
        info = api.model_info(repository, revision=revision, files_metadata=True)
    found = {item.rfilename: item for item in info.siblings or ()}
    missing = [name for name in released.FILES.values() if name not in found]
    if missing:
        raise UserError(
            f"{repository} at {revision} is not a repository of the released weights; it lacks",
            [*missing, f"it has {', '.join(sorted(found)[:10]) or 'no files'}"],
        )
    files: dict[str, RemoteFile] = {}
    for component, name in released.FILES.items():
        lfs = found[name].lfs
        if lfs is None:
            raise UserError(f"{repository} states no SHA-256 for {name}, so a download could not be checked")
        files[component] = RemoteFile(name, lfs.size, lfs.sha256)
    return Remote(Source(repository, str(info.sha), endpoint), files)


def download(remote: Remote, folder: Path) -> dict[str, Path]:
    """Fetch the files, going on with partial ones, and check each against the hub's checksum.

    Returns:
        Component to file.

    Raises:
        UserError: The hub fails, the disk is too small, or a file is not what the hub states.
    """
    return {
        component: fetch(remote.source, file, folder / file.name, folder) for component, file in remote.files.items()
    }


def _request(repository: str, name: str, text_cleaning: TextCleaning) -> dict[str, Any]:
    return {"pull": repository, "name": name, "text_cleaning": text_cleaning}


def check_pull(out: Path, repository: str, *, name: str, text_cleaning: TextCleaning) -> None:
    """Refuse what :func:`pull_pack` would refuse of its folder, before the hub is asked anything.

    Raises:
        UserError: ``name`` is no pack's name, or ``out`` is in use.
    """
    check_name(name)
    refuse_in_use(out, _request(repository, name, text_cleaning))


def pull_pack(
    out: Path,
    remote: Remote,
    *,
    name: str = "text2ct",
    text_cleaning: TextCleaning = released.TEXT_CLEANING,
) -> Pack:
    """Download and import the released weights; the same call goes on where it was stopped.

    What was begun at another commit, or with another name or cleaning, is refused.

    Args:
        out: The pack's folder; downloads lie in it until the pack is whole.
        remote: From :func:`find_remote`.
        name: The pack's name.
        text_cleaning: As for :func:`text2ct.diffusion.importing.import_pack`.

    Raises:
        UserError: The disk is too small, the hub fails, a file is not what the hub states, or ``out`` is in use.
    """
    check_name(name)
    source = remote.source
    request = _request(source.repository, name, text_cleaning)
    with making_pack(out, request | {"commit": source.commit}):
        folder = out / DOWNLOADS
        _check_space(out, remote, folder)
        files = download(remote, folder)
        origin = f" From {source.repository} at {source.commit[:12]}."
        pack = write_released(out, read_released(files), name=name, text_cleaning=text_cleaning, source=origin)
        shutil.rmtree(folder)
    return pack


def estimate_pull(remote: Remote) -> dict[str, float]:
    """``seconds`` at 100 Mbit/s and ``bytes`` while the downloads lie beside the pack."""
    return {"seconds": round(remote.bytes / BYTES_PER_SECOND, 1), "bytes": 2 * remote.bytes}


def _check_space(out: Path, remote: Remote, folder: Path) -> None:
    """The downloads and the pack made of them lie side by side for a while."""
    here = sum(path.stat().st_size for path in folder.glob("*")) if folder.is_dir() else 0
    needed = max(0, remote.bytes - here) + remote.bytes
    check_space(out, needed, "the downloads and the pack made of them")
