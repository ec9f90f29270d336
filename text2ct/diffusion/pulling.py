"""The released weights from the Hugging Face hub to a pack: sizes first, downloads that go on, checksums always."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers

from text2ct import console
from text2ct.diffusion import released
from text2ct.diffusion.cleaning import TextCleaning
from text2ct.diffusion.importing import read_released, write_released
from text2ct.diffusion.pack import Pack
from text2ct.diffusion.unfinished import check_name, making_pack, refuse_in_use
from text2ct.errors import UserError
from text2ct.files import sha256_file

DOWNLOADS = ".download"
DEFAULT_REVISION = "main"
# A dry run has no connection to measure: 100 Mbit/s.
BYTES_PER_SECOND = 12.5e6


@dataclass(frozen=True)
class RemoteFile:
    """A file of a hub repository.

    Attributes:
        name: Its path there.
        bytes: Its size.
        sha256: What the hub states.
    """

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Remote:
    """The released files at one commit of a hub repository."""

    repository: str
    commit: str
    files: dict[str, RemoteFile]
    endpoint: str | None

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
    api = HfApi(endpoint=endpoint)
    _check_address(api.endpoint)
    with _hub_errors(repository, revision, api.endpoint):
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
    return Remote(repository, str(info.sha), files, endpoint)


def _check_address(endpoint: str) -> None:
    """Refuse what is no address of a hub, before the network's library does in its own words."""
    try:
        address = urlsplit(endpoint)
        whole = address.scheme in ("http", "https") and bool(address.hostname) and (address.port or 1) > 0
    except ValueError:  # a bracket without its fellow, a port that is no number
        whole = False
    if not whole or not endpoint.isprintable() or " " in endpoint:
        raise UserError(f"--endpoint is '{endpoint}'; expected an address that begins with http:// or https://")


@contextmanager
def _hub_errors(repository: str, revision: str, endpoint: str) -> Iterator[None]:
    """Turn whatever the hub or the network says into one line."""
    try:
        yield
    except GatedRepoError:
        raise UserError(
            f"{repository} asks you to accept its terms first: do so on its page at {endpoint}, then log in with "
            "`hf auth login` or set HF_TOKEN"
        ) from None
    except RepositoryNotFoundError:
        raise UserError(
            f"there is no repository '{repository}' at {endpoint}, or it is private: check the name, or log in with "
            "`hf auth login` or HF_TOKEN"
        ) from None
    except RevisionNotFoundError:
        raise UserError(f"{repository} has no revision '{revision}'") from None
    except HFValidationError:
        raise UserError(f"'{repository}' is not the name of a repository; expected OWNER/NAME") from None
    except OfflineModeIsEnabled:
        raise UserError("the hub library is in offline mode; unset HF_HUB_OFFLINE to download") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        why = {401: "log in with `hf auth login` or set HF_TOKEN", 403: "the token does not allow it"}
        raise UserError(
            f"{endpoint} answered {status} for {repository}; {why.get(status, 'try again later')}"
        ) from None
    except (HTTPError, ConnectionError) as error:
        raise UserError(
            f"{endpoint} cannot be reached ({str(error) or type(error).__name__}); check the network and run it again, "
            "what was downloaded is kept"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{endpoint} does not answer as a Hugging Face hub does; check --endpoint") from None
    except Exception as error:
        # Which network library it is, is the hub library's choice, so its class cannot be imported.
        if type(error).__name__ != "InvalidURL":
            raise
        raise UserError(f"{endpoint} is not an address ({error}); check --endpoint") from None


def download(remote: Remote, folder: Path) -> dict[str, Path]:
    """Fetch the files, going on with partial ones, and check each against the hub's checksum.

    Returns:
        Component to file.

    Raises:
        UserError: The hub fails, the disk is too small, or a file is not what the hub states.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return {component: _fetch(remote, file, folder) for component, file in remote.files.items()}


def _fetch(remote: Remote, file: RemoteFile, folder: Path) -> Path:
    done = folder / file.name
    if done.is_file() and sha256_file(done) == file.sha256:
        return done
    # Named by content: what is there of another version is not gone on with.
    partial = folder / f"{file.sha256[:16]}.partial"
    partial.touch()
    if partial.stat().st_size > file.bytes:
        partial.write_bytes(b"")
    url = hf_hub_url(remote.repository, file.name, revision=remote.commit, endpoint=remote.endpoint)
    with (
        _hub_errors(remote.repository, remote.commit, remote.endpoint or HfApi().endpoint),
        partial.open("r+b") as stream,
    ):
        have = stream.seek(0, 2)
        console.info(f"{file.name}: {file.bytes / 1e6:.0f} MB" + (f", {have / 1e6:.0f} MB are here" if have else ""))
        headers = build_hf_headers() | {"Accept-Encoding": "identity"}
        http_get(url, stream, resume_size=have, headers=headers, expected_size=file.bytes, displayed_filename=file.name)
    found = sha256_file(partial)
    if found != file.sha256:
        partial.unlink()
        raise UserError(
            f"{file.name} is not what {remote.repository} states (SHA-256 {found[:12]}…, expected "
            f"{file.sha256[:12]}…); it was removed, run it again"
        )
    return partial.replace(done)


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
    request = _request(remote.repository, name, text_cleaning)
    with making_pack(out, request | {"commit": remote.commit}):
        folder = out / DOWNLOADS
        _check_space(out, remote, folder)
        files = download(remote, folder)
        source = f" From {remote.repository} at {remote.commit[:12]}."
        pack = write_released(out, read_released(files), name=name, text_cleaning=text_cleaning, source=source)
        shutil.rmtree(folder)
    return pack


def estimate_pull(remote: Remote) -> dict[str, float]:
    """``seconds`` at 100 Mbit/s and ``bytes`` while the downloads lie beside the pack."""
    return {"seconds": round(remote.bytes / BYTES_PER_SECOND, 1), "bytes": 2 * remote.bytes}


def _check_space(out: Path, remote: Remote, folder: Path) -> None:
    """The downloads and the pack made of them lie side by side for a while."""
    here = sum(path.stat().st_size for path in folder.glob("*")) if folder.is_dir() else 0
    needed = max(0, remote.bytes - here) + remote.bytes
    free = shutil.disk_usage(out).free
    if free < needed:
        raise UserError(
            f"{out} needs {needed / 1e9:.1f} GB (the downloads and the pack made of them) and has "
            f"{free / 1e9:.1f} GB free; free some space or choose another folder"
        )
