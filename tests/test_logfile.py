"""``--log-file``: every line is JSON, the end says how it ended, and secrets stay out."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from text2ct import console
from text2ct._cli_shared import end_strictly, guarded
from text2ct.cli import app
from text2ct.locks import LOCK, working_in
from text2ct.logfile import logging_to

TOKEN = "hf_" + "x" * 30


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def run(*words: object, code: int = 0, **environment: str) -> str:
    result = CliRunner(env=environment).invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == code, result.stderr
    return result.stderr


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "text2ct.jsonl"


@pytest.mark.parametrize("place", ["before", "after", "environment"])
def test_the_option_stands_before_or_after_the_command_or_in_the_environment(
    tmp_path: Path, log: Path, place: str
) -> None:
    command = ("status", "--workspace", tmp_path / "none")
    if place == "environment":
        run(*command, TEXT2CT_LOG_FILE=str(log))
    else:
        option = ("--log-file", log)
        run(*((*option, *command) if place == "before" else (*command, *option)), TEXT2CT_LOG_FILE=str(tmp_path / "no"))
        assert not (tmp_path / "no").exists()
    start, end = lines(log)
    assert (start["event"], end["event"], end["exit_code"]) == ("start", "end", 0)
    assert start["command"] == "status"
    assert start["run"] == end["run"]
    assert datetime.fromisoformat(start["ts"]).utcoffset() is not None
    assert end["seconds"] >= 0


def test_a_mistake_ends_with_its_exit_code_and_words(tmp_path: Path, log: Path) -> None:
    (tmp_path / "file").touch()
    said = run("status", "--workspace", tmp_path / "file", "--log-file", log, code=2)
    message, end = lines(log)[1:]
    assert message["level"] == end["level"] == "error"
    assert message["message"] == end["error"]
    assert said.strip() == f"error: {end['error']}"
    assert end["exit_code"] == 2
    run("status", "--workspace", tmp_path / "none", "--log-file", log)
    assert len({line["run"] for line in lines(log)}) == 2


def test_a_log_that_cannot_be_opened_is_said_before_any_work(tmp_path: Path) -> None:
    said = run("simulate", "--patients", "1", "--out", tmp_path / "out", "--log-file", tmp_path, code=2)
    assert said.startswith("error: cannot open the log")
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("failure", "code", "error"),
    [
        (typer.Exit(1), 1, None),
        (KeyboardInterrupt(), 2, "interrupted; what was finished is kept, and the same command goes on from there"),
        (OSError(28, "No space left on device"), 2, "No space left on device; mend that and run it again"),
        (ValueError("a defect"), 1, "ValueError: a defect"),
    ],
    ids=["strict", "ctrl-c", "full disk", "defect"],
)
def test_however_it_ends(log: Path, failure: BaseException, code: int, error: str | None) -> None:
    other = typer.Typer()

    @other.command()
    @guarded
    def work() -> None:
        raise failure

    result = CliRunner().invoke(other, ["--log-file", str(log)])
    assert result.exit_code == code
    end = lines(log)[-1]
    assert end["exit_code"] == code
    assert end["error"] == error


def test_a_strict_end_says_why(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    end_strictly(False, quarantined=3)
    end_strictly(True, quarantined=0, failed=[], unmet=None)
    with pytest.raises(typer.Exit) as ended, logging_to(log, "work"):
        end_strictly(True, quarantined=3, failed=["a.nii.gz"], unmet=None)
    assert ended.value.exit_code == 1
    assert lines(log)[-1]["error"] == "3 quarantined, 1 failed, which --strict makes a failure"
    assert "3 quarantined" in capsys.readouterr().err


def test_progress_in_the_log_and_in_the_lock_agrees_with_the_work(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "TELL_S", 0.0)
    with logging_to(log, "work"), working_in(tmp_path / "run"), console.progress("volumes", 12) as advance:
        advance(4)  # there already
        for _ in range(8):
            advance(1)
        note = json.loads((tmp_path / "run" / LOCK).read_text("utf-8"))
        assert (note["doing"], note["done"], note["total"]) == ("volumes", 12, 12)
    told = [line for line in lines(log) if line["event"] == "progress"]
    assert [line["done"] for line in told] == [0, 4, 5, 6, 7, 8, 9, 10, 11, 12, 12]
    assert {line["total"] for line in told} == {12}
    assert told[0]["seconds_left"] is None
    assert told[-1]["seconds_left"] == 0
    middle = told[5]
    assert middle["seconds_left"] >= 0


def test_the_time_left_follows_the_pace_of_what_is_made_now(monkeypatch: pytest.MonkeyPatch, log: Path) -> None:
    """What was there already, and came in one leap, promises nothing."""
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with logging_to(log, "work"), console.progress("steps", 1000) as advance:
        now[0] += 1
        advance(900)
        for _ in range(5):
            now[0] += 10
            advance(1)
    told = [line for line in lines(log) if line["event"] == "progress" and line["seconds_left"] is not None]
    assert told[-1]["seconds_left"] == pytest.approx(95 * 10)


def test_secrets_are_not_written(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", 'plain-"secret"')
    with logging_to(log, "pull"):
        console.info(f'{TOKEN} and plain-"secret" at https://me:{"p" * 9}@mirror.example/x')
        console.warn("https://mirror.example:8080/path is no secret")
    text = log.read_text("utf-8")
    assert "plain-" not in text
    assert TOKEN not in text
    assert "ppp" not in text
    assert "https://***@mirror.example/x" in text
    assert "https://mirror.example:8080/path" in text
    lines(log)


def test_a_full_disk_is_said_once_and_the_work_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    with logging_to(Path("/dev/full"), "work"):
        console.info("first")
        console.info("second")
    said = capsys.readouterr().err
    assert said.count("cannot write to the log") == 1
    assert "second" in said


def test_a_line_that_was_cut_short_spoils_no_other(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    write = os.write
    with logging_to(log, "work"):
        monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:20]))
        console.info("lost")
        monkeypatch.setattr(os, "write", write)
        console.info("kept")
    whole = [line for line in log.read_text("utf-8").splitlines() if line.endswith("}")]
    assert [json.loads(line).get("message") for line in whole] == [None, "kept", None]
