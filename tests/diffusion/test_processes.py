"""Two processes at one batch size are one process: gradients, losses, weights; and what several cannot do."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from text2ct.diffusion.training.cases import write_cases
from text2ct.diffusion.training.loop import LAST
from text2ct.diffusion.training.processes import after_first, check_processes, is_follower
from text2ct.errors import UserError

from . import run_processes
from .conftest import stand_in_case


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same trainings on one process (this one) and on two."""
    folder = tmp_path_factory.mktemp("processes")
    write_cases(folder / "cases", stand_in_case, 6, size=(16, 16, 16), spacing_mm=(20.0, 20.0, 20.0), source="stand-in")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, run_processes.__file__, str(folder), "2"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    run_processes.main(folder, 1)
    return folder


@pytest.mark.parametrize("name", ["clip", "vae", "diffusion"])
def test_two_processes_have_the_gradients_of_one(name: str, runs: Path) -> None:
    """By Adam's first moments, which are sums of them; weights would magnify what is zero but for rounding."""
    one, two = (torch.load(runs / f"devices-{n}" / name / LAST, weights_only=True) for n in (1, 2))
    assert one["global_step"] == two["global_step"] == 2
    largest = 0.0
    for mine, theirs in zip(one["optimizer_states"], two["optimizer_states"], strict=True):
        assert mine["state"].keys() == theirs["state"].keys()
        for index, state in mine["state"].items():
            torch.testing.assert_close(theirs["state"][index]["exp_avg"], state["exp_avg"], atol=1e-5, rtol=0)
            largest = max(largest, float(state["exp_avg"].abs().max()))
    assert largest > 1e-3


@pytest.mark.parametrize("name", ["clip", "vae", "diffusion"])
def test_the_log_is_written_once_with_the_losses_of_the_whole_batch(name: str, runs: Path) -> None:
    one, two = (
        list(csv.DictReader((runs / f"devices-{n}" / name / "log.csv").read_text().splitlines())) for n in (1, 2)
    )
    assert [row["step"] for row in two] == ["1", "2"]
    for mine, theirs in zip(one, two, strict=True):
        for key in mine.keys() - {"seconds"}:
            assert float(theirs[key]) == pytest.approx(float(mine[key]), abs=1e-5), key


def test_what_several_devices_cannot_do_is_refused_together() -> None:
    check_processes("cuda:7", 1, 1, 3, minutes=1.0)  # one process: nothing to share
    with pytest.raises(UserError, match=r"minutes(.|\n)*batch_size is 6, the whole batch's; expected a multiple of 4"):
        check_processes("cpu", 2, 2, 6, minutes=1.0)


def test_the_first_process_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.pytorch.utilities import rank_zero_only

    monkeypatch.setattr(rank_zero_only, "rank", 1)
    assert is_follower(2, 1)
    assert is_follower(1, 2)
    assert not is_follower(1, 1)
    monkeypatch.setattr(rank_zero_only, "rank", 0)
    assert not is_follower(2, 1)


def test_followers_wait_for_the_first_process(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("text2ct.diffusion.training.processes.time.sleep", waits.append)
    assert after_first(lambda: len(waits), lambda: len(waits) == 3, follower=True) == 3
    assert after_first(lambda: "made", lambda: False, follower=False) == "made"
