"""The Hugging Face hub: what a repository has, downloads that go on, checksums always, one line for every refusal."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal
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
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers

from text2ct import console
from text2ct.errors import UserError
from text2ct.files import sha256_file

DEFAULT_REVISION = "main"
# Nothing is measured before a download: 100 Mbit/s.
BYTES_PER_SECOND = 12.5e6
# Paths in one question about files.
_PATHS_AT_ONCE = 500
# An answer that concerns who asks, so that no other file will do better.
_REFUSALS = (401, 403, 407)


class FileError(UserError):
    """One file could not be had; the next one may."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a hub repository.

    Attributes:
        name: Its path there.
        bytes: Its size.
        sha256: What the hub states of a large file; "" for a small one, which it keeps in git.
        git_sha1: What the hub states of a small one: git's id of its contents.
    """

    name: str
    bytes: int
    sha256: str = ""
    git_sha1: str = ""

    def is_whole(self, path: Path) -> bool:
        """Whether the file at ``path`` has the bytes that the hub states."""
        if not path.is_file() or path.stat().st_size != self.bytes:
            return False
        if self.sha256:
            return sha256_file(path) == self.sha256
        content = path.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == self.git_sha1


@dataclass(frozen=True)
class Source:
    """A hub repository at one commit.

    Attributes:
        repository: OWNER/NAME.
        commit: Everything is fetched from this one, whatever is uploaded meanwhile.
        endpoint: The hub's address; the library's own (``HF_ENDPOINT``) if None.
        kind: What the repository holds.
    """

    repository: str
    commit: str
    endpoint: str | None = None
    kind: Literal["model", "dataset"] = "model"

    @property
    def address(self) -> str:
        """Of the hub."""
        return self.endpoint or HfApi().endpoint


def open_hub(endpoint: str | None) -> HfApi:
    """The hub at an address, with the token of ``HF_TOKEN`` or ``hf auth login`` if there is one.

    Raises:
        UserError: ``endpoint`` is no address; said here, before the network's library does in its own words.
    """
    api = HfApi(endpoint=endpoint)
    address = api.endpoint
    try:
        parts = urlsplit(address)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # a bracket without its fellow, a port that is no number
        whole = False
    if not whole or not address.isprintable() or " " in address:
        raise UserError(f"--endpoint is '{address}'; expected an address that begins with http:// or https://")
    return api


def open_dataset(repository: str, *, revision: str = DEFAULT_REVISION, endpoint: str | None = None) -> Source:
    """A data set's repository at the commit that ``revision`` names now.

    Args:
        repository: OWNER/NAME.
        revision: Branch, tag or commit.
        endpoint: As in :class:`Source`.

    Raises:
        UserError: The hub cannot be reached or refuses.
    """
    api = open_hub(endpoint)
    with hub_errors(repository, revision, api.endpoint):
        # Only the commit is asked for: the whole answer lists every file, of which CT-RATE has 100,000.
        info = api.dataset_info(repository, revision=revision, expand=["sha"])
    return Source(repository, str(info.sha), endpoint, "dataset")


def find_files(source: Source, names: list[str]) -> dict[str, RemoteFile]:
    """Size and checksum of those files that the repository has, by name.

    Raises:
        UserError: The hub cannot be reached or refuses.
    """
    api = open_hub(source.endpoint)
    found: dict[str, RemoteFile] = {}
    for start in range(0, len(names), _PATHS_AT_ONCE):
        with hub_errors(source.repository, source.commit, source.address):
            asked = names[start : start + _PATHS_AT_ONCE]
            answer = api.get_paths_info(source.repository, asked, revision=source.commit, repo_type=source.kind)
        for item in answer:
            if isinstance(item, RepoFile):
                large = item.lfs
                found[item.path] = (
                    RemoteFile(item.path, large.size, sha256=large.sha256)
                    if large
                    else RemoteFile(item.path, item.size, git_sha1=item.blob_id)
                )
    return found


@contextmanager
def hub_errors(repository: str, revision: str, endpoint: str) -> Iterator[None]:
    """Turn whatever the hub or the network says into one line.

    Raises:
        FileError: An answer that concerns the file asked for, or a connection that failed.
        UserError: An answer that concerns who asks, or the repository.
    """
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
        why = {
            401: "log in with `hf auth login` or set HF_TOKEN",
            403: "the token does not allow it",
            407: "the proxy wants to know who asks; check HTTPS_PROXY",
        }
        kind = UserError if status in _REFUSALS else FileError
        raise kind(f"{endpoint} answered {status} for {repository}; {why.get(status, 'try again later')}") from None
    except (HTTPError, ConnectionError) as error:
        raise FileError(
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


def fetch(source: Source, file: RemoteFile, target: Path, partials: Path, *, counter: str = "") -> Path:
    """Download one file, going on with what is there of it, and check it against the hub's checksum.

    Args:
        source: The repository.
        file: From :func:`find_files`.
        target: Where it goes; what is whole there already is not asked for again.
        partials: Folder of what is not whole yet, on the same disk as ``target``.
        counter: Said before its name, as ``3/50``.

    Raises:
        FileError: The connection failed, or the file is gone or not what the hub states.
        UserError: The hub refuses.
    """
    if file.is_whole(target):
        return target
    partial = partial_of(file, partials)
    partials.mkdir(parents=True, exist_ok=True)
    partial.touch()
    if partial.stat().st_size > file.bytes:
        partial.write_bytes(b"")
    url = hf_hub_url(
        source.repository, file.name, revision=source.commit, endpoint=source.endpoint, repo_type=source.kind
    )
    with hub_errors(source.repository, source.commit, source.address), partial.open("r+b") as stream:
        have = stream.seek(0, 2)
        here = f", {have / 1e6:.0f} MB are here" if have else ""
        console.info(f"{counter} {file.name}: {file.bytes / 1e6:.0f} MB{here}".strip())
        _get(url, stream, have, file)
    if not file.is_whole(partial):
        found = sha256_file(partial)
        partial.unlink()
        stated = f"SHA-256 {found[:12]}…, expected {file.sha256[:12]}…" if file.sha256 else "another git id"
        raise FileError(f"{file.name} is not what {source.repository} states ({stated}); it was removed, run it again")
    target.parent.mkdir(parents=True, exist_ok=True)
    return partial.replace(target)


def _get(url: str, stream: BinaryIO, have: int, file: RemoteFile) -> None:
    headers = build_hf_headers() | {"Accept-Encoding": "identity"}
    try:
        http_get(url, stream, resume_size=have, headers=headers, expected_size=file.bytes, displayed_filename=file.name)
    except (HfHubHTTPError, ConnectionError):
        raise
    except OSError as error:
        if error.errno is not None:  # a full disk, say
            raise
        raise FileError(f"{file.name} ended early; run it again, what was downloaded is kept") from None


def partial_of(file: RemoteFile, partials: Path) -> Path:
    """Where an unfinished download lies; named by content, so that another version is not gone on with."""
    return partials / f"{(file.sha256 or file.git_sha1)[:16]}.partial"


def check_space(folder: Path, needed: int, what: str) -> None:
    """Refuse to begin what the disk cannot hold.

    Args:
        folder: Where it goes; it need not exist.
        needed: Bytes.
        what: What needs them, in words.

    Raises:
        UserError: Less is free.
    """
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise UserError(
            f"{folder} needs {needed / 1e9:.1f} GB ({what}) and has {free / 1e9:.1f} GB free; "
            "free some space or choose another folder"
        )
