"""Pulling from a stand-in hub: sizes, checksums, downloads that go on, and every refusal in one line."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from stand_in_hub import Hub, serving
from typer.testing import CliRunner

from text2ct.cli import app
from text2ct.diffusion import released, verify_pack
from text2ct.diffusion.pulling import DOWNLOADS

from .released_stand_in import NETWORKS, checkpoint_files


@pytest.fixture(scope="module")
def served_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    files = checkpoint_files(tmp_path_factory.mktemp("hub")).values()
    return {path.name: path.read_bytes() for path in files}


@pytest.fixture
def hub(served_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(released, "NETWORKS", NETWORKS)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    # The library writes whole chunks, and waits a second before it asks for the rest.
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with serving(Hub(dict(served_files))) as hub:
        yield hub


def pull(hub: Hub, *words: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(
        app, ["models", "pull", *map(str, words)], env={"HF_ENDPOINT": hub.url}, catch_exceptions=False
    )
    assert "Traceback" not in done.stderr
    return done.exit_code, done.stderr


def test_the_three_files_become_a_pack_and_the_downloads_go(hub: Hub, tmp_path: Path) -> None:
    out = tmp_path / "pack"
    code, message = pull(hub, hub.repository, out)
    assert code == 0, message
    total = sum(map(len, hub.files.values()))
    assert message.startswith(f"to download {total / 1e9:.2f} GB in 3 files")
    info = verify_pack(out)
    assert set(info.components) == {"clip", "vae", "unet", "scheduler"}
    assert f"From {hub.repository} at {hub.commit[:12]}." in info.description
    assert sorted(path.name for path in out.iterdir()) == ["clip", "pack.json", "scheduler", "unet", "vae"]
    assert set(hub.tokens) == {"Bearer hf_secret"}


def test_a_dropped_connection_is_taken_up_where_it_was(hub: Hub, tmp_path: Path) -> None:
    """Within one command: the library asks for the rest."""
    name = released.FILES["unet"]
    hub.cut[name] = 5000
    assert pull(hub, hub.repository, tmp_path / "pack")[0] == 0
    assert [asked for what, asked in hub.asked if what == name] == ["", "bytes=5000-"]


def test_a_command_that_failed_goes_on_when_it_is_run_again(hub: Hub, tmp_path: Path) -> None:
    """Across commands: finished files are not asked for again, the partial one from its last byte."""
    first, cut, last = (released.FILES[component] for component in ("vae", "unet", "clip"))
    out = tmp_path / "pack"
    hub.cut[cut], hub.broken_after_cut = 7000, True
    code, message = pull(hub, hub.repository, out)
    assert code == 2
    assert "answered 500" in message
    assert [name for name, _ in hub.asked] == [first, cut, cut]
    assert not (out / "pack.json").exists()
    hub.status.clear()
    hub.asked.clear()
    code, message = pull(hub, hub.repository, out)
    assert code == 0, message
    assert hub.asked == [(cut, "bytes=7000-"), (last, "")]
    verify_pack(out)


def test_bytes_that_are_not_what_the_hub_states_are_removed(hub: Hub, tmp_path: Path) -> None:
    name = released.FILES["vae"]
    hub.tampered = {name}
    code, message = pull(hub, hub.repository, tmp_path / "pack")
    assert code == 2
    assert f"{name} is not what {hub.repository} states" in message
    assert list((tmp_path / "pack" / DOWNLOADS).iterdir()) == []
    hub.tampered = set()
    assert pull(hub, hub.repository, tmp_path / "pack")[0] == 0


def test_a_missing_file_is_named(hub: Hub, tmp_path: Path) -> None:
    del hub.files[released.FILES["clip"]]
    hub.files["README.md"] = b"text"
    code, message = pull(hub, hub.repository, tmp_path / "pack")
    assert code == 2
    assert f"lacks\n  - {released.FILES['clip']}\n" in message
    assert "README.md" in message
    assert not (tmp_path / "pack").exists()


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("nobody/nothing",), 200, "there is no repository 'nobody/nothing'"),
        (("not a name",), 200, "'not a name' is not the name of a repository"),
        (("someone/weights", "--revision", "v9"), 200, "has no revision 'v9'"),
        (("someone/weights",), 403, "accept its terms"),
        (("someone/weights",), 401, "answered 401"),
        (("someone/weights",), 503, "answered 503"),
        (("someone/weights", "--endpoint", "hub.example"), 200, "begins with http:// or https://"),
        (("someone/weights", "--endpoint", "http://[::1"), 200, "begins with http:// or https://"),
        (("someone/weights", "--endpoint", "http://"), 200, "begins with http:// or https://"),
        (("someone/weights", "--endpoint", "http://a:b"), 200, "begins with http:// or https://"),
        (("someone/weights", "--endpoint", "http://a b"), 200, "begins with http:// or https://"),
        (("someone/weights", "--endpoint", "http://xn--"), 200, "check "),
        (("someone/weights",), 404, "answered 404"),
        (("someone/weights", "--endpoint", "http://127.0.0.1:9"), 200, "cannot be reached"),
        (("a", "b", "c"), 200, "expected [REPO] OUT, not 4 words"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_the_hub_refuses_is_one_line(hub: Hub, tmp_path: Path, words, status: int, says: str) -> None:
    hub.status["info"] = status
    code, message = pull(hub, *words, tmp_path / "pack")
    assert code == 2
    assert says in message
    assert len(message.strip().splitlines()) == 1
    assert not (tmp_path / "pack").exists()


def test_a_file_that_is_gone_is_one_line(hub: Hub, tmp_path: Path) -> None:
    hub.status[released.FILES["unet"]] = 404
    code, message = pull(hub, hub.repository, tmp_path / "pack")
    assert code == 2
    assert "answered 404" in message
    assert not (tmp_path / "pack" / "pack.json").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--name", "other"), "name was text2ct, now other"),
        (("--text-cleaning", "ftfy"), "text_cleaning was bert, now ftfy"),
        ((), "commit was c0ffee"),
    ],
    ids=["name", "cleaning", "commit"],
)
def test_what_was_begun_otherwise_does_not_go_on(hub: Hub, tmp_path: Path, words, says: str) -> None:
    out = tmp_path / "pack"
    hub.status[released.FILES["vae"]] = 500
    assert pull(hub, hub.repository, out)[0] == 2
    hub.status.clear()
    hub.asked.clear()
    if not words:
        hub.commit = "d0" * 20
    code, message = pull(hub, hub.repository, *words, out)
    assert code == 2
    assert f"unfinished pack of another request; choose another folder, or remove it\n  - {says}" in message
    assert hub.asked == []


def test_a_folder_in_use_is_refused_before_the_hub_is_asked(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    code, message = pull(hub, hub.repository, tmp_path)
    assert code == 2
    assert "is not empty" in message
    assert pull(hub, hub.repository, "--name", "a b", tmp_path / "pack")[0] == 2
    assert hub.tokens == []


def test_a_full_disk_is_said_before_anything_is_fetched(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    code, message = pull(hub, hub.repository, tmp_path / "pack")
    assert code == 2
    assert "GB free; free some space" in message
    assert hub.asked == []


def test_a_dry_run_states_the_size_and_fetches_nothing(hub: Hub, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, ["models", "pull", hub.repository, str(tmp_path / "pack"), "--endpoint", hub.url, "--dry-run"]
    )
    assert done.exit_code == 0
    assert "in 3 files" in done.stdout
    assert hub.asked == []
    assert not (tmp_path / "pack").exists()
