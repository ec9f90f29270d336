"""The log of a training: each step once, whatever was killed in between."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from text2ct.steplog import METRICS, StepLog, last_step


def write(folder: Path, steps: range, begin: int) -> None:
    log = StepLog(folder)
    log.begin(begin)
    for step in steps:
        log.add(step, {"loss": 1 / step}, learning_rate=0.1)


@pytest.mark.parametrize("killed_at", [0, 3, 7])
def test_a_training_that_goes_on_logs_each_step_once(tmp_path: Path, killed_at: int) -> None:
    """From its checkpoint, which may be older than the last row; the row in writing is dropped."""
    write(tmp_path, range(1, 8), 0)
    with (tmp_path / METRICS).open("a") as stream:
        stream.write("8,0.1,0.")
    write(tmp_path, range(killed_at + 1, 11), killed_at)
    rows = pd.read_csv(tmp_path / METRICS)
    assert rows["step"].tolist() == list(range(1, 11))
    assert rows["loss"].tolist() == pytest.approx([1 / step for step in range(1, 11)])
    assert (rows["seconds_per_step"] >= 0).all()
    assert last_step(tmp_path) == 10


def test_a_folder_without_a_log_is_at_step_0(tmp_path: Path) -> None:
    assert last_step(tmp_path) == 0
    (tmp_path / METRICS).write_bytes(b"\xff\xfe")
    assert last_step(tmp_path) == 0
