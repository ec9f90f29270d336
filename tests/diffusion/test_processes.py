"""Two processes at one batch size are one process: gradients, losses, weights; and what several cannot do."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.utilities import rank_zero_only

from text2ct.diffusion.clip import Clip3D
from text2ct.diffusion.init import PRESETS
from text2ct.diffusion.training import DiffusionTraining
from text2ct.diffusion.training.cases import write_cases
from text2ct.diffusion.training.launch import Launch
from text2ct.diffusion.training.loop import LAST
from text2ct.diffusion.training.processes import STRATEGIES, Strategy, check_processes, is_follower
from text2ct.diffusion.training.sharding import blocks
from text2ct.diffusion.unet import Unet
from text2ct.errors import UserError

from . import run_processes
from .conftest import stand_in_case


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same trainings on one process (this one), and on two that hold all weights, or half of them each."""
    folder = tmp_path_factory.mktemp("processes")
    write_cases(folder / "cases", stand_in_case, 6, size=(16, 16, 16), spacing_mm=(20.0, 20.0, 20.0), source="stand-in")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "CUDA_VISIBLE_DEVICES": ""}
    for strategy in STRATEGIES:
        done = subprocess.run(
            [sys.executable, run_processes.__file__, str(folder), "2", strategy],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    run_processes.main(folder, 1, "ddp")
    return folder


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", ["clip", "vae", "diffusion"])
def test_two_processes_have_the_gradients_of_one(name: str, strategy: Strategy, runs: Path) -> None:
    """By Adam's first moments, which are sums of them; weights would magnify what is zero but for rounding."""
    one, two = (torch.load(runs / run / name / LAST, weights_only=True) for run in ("ddp-1", f"{strategy}-2"))
    assert one["global_step"] == two["global_step"] == run_processes.STEPS
    largest = 0.0
    for mine, theirs in zip(one["optimizer_states"], two["optimizer_states"], strict=True):
        assert mine["state"].keys() == theirs["state"].keys()
        for index, state in mine["state"].items():
            torch.testing.assert_close(theirs["state"][index]["exp_avg"], state["exp_avg"], atol=1e-5, rtol=0)
            largest = max(largest, float(state["exp_avg"].abs().max()))
    assert largest > 1e-3


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", ["clip", "vae", "diffusion"])
def test_the_log_is_written_once_with_the_losses_of_the_whole_batch(name: str, strategy: Strategy, runs: Path) -> None:
    one, two = (
        list(csv.DictReader((runs / run / name / "metrics.csv").read_text("utf-8").splitlines()))
        for run in ("ddp-1", f"{strategy}-2")
    )
    assert [int(row["step"]) for row in two] == list(range(1, run_processes.STEPS + 1))
    for mine, theirs in zip(one, two, strict=True):
        for key in mine.keys() - {"seconds", "seconds_per_step"}:
            assert float(theirs[key]) == pytest.approx(float(mine[key]), abs=1e-5), key


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_two_processes_have_trained_is_one_network(strategy: Strategy, runs: Path) -> None:
    """Whole again, and averaged; Adam's first steps are as long where a gradient is rounding, so not to the bit."""
    one, two = (torch.load(runs / run / "trained.pt", weights_only=True) for run in ("ddp-1", f"{strategy}-2"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=4e-4, rtol=0)


@pytest.mark.parametrize(("part", "network", "at_once"), [("unet", Unet, 0.11), ("clip", Clip3D, 0.78)])
def test_nearly_all_of_the_released_networks_is_cut(part: str, network: Any, at_once: float) -> None:
    def count(module: torch.nn.Module) -> int:
        return sum(weight.numel() for weight in module.parameters())

    with torch.device("meta"):
        whole = network(getattr(PRESETS["text2ct"], part))
    parts = [count(block) for block in blocks(whole)]
    assert sum(parts) > 0.999 * count(whole)
    assert max(parts) < at_once * count(whole)


def test_what_several_devices_cannot_do_is_refused_together() -> None:
    odd = DiffusionTraining(batch_size=6, minutes=1.0, compile=True)
    check_processes("cuda:7", 1, 1, odd)  # one process: nothing to share
    with pytest.raises(
        UserError,
        match=r"minutes(.|\n)*compile works with(.|\n)*batch_size is 6, the whole batch's; expected a multiple of 4",
    ):
        check_processes("cpu", 2, 2, odd, "fsdp")


def test_the_first_process_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    assert is_follower(2, 1)
    assert is_follower(1, 2)
    assert not is_follower(1, 1)
    monkeypatch.setattr(rank_zero_only, "rank", 0)
    assert not is_follower(2, 1)


class Clock:
    """Time that passes when a follower sleeps; at each look something may happen."""

    def __init__(self, happens: Callable[[int], None]) -> None:
        self.now, self.looks, self._happens = 0.0, 0, happens

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.looks += 1
        self.now += seconds
        self._happens(self.looks)


def follow(monkeypatch: pytest.MonkeyPatch, work: Path, happens: Callable[[int], None]) -> tuple[str, Clock]:
    clock = Clock(happens)
    with monkeypatch.context() as patch:
        patch.setattr(rank_zero_only, "rank", 1)
        patch.setattr("text2ct.diffusion.training.launch.time", clock)
        return Launch(work, 2).prepare(lambda: "opened"), clock


@pytest.fixture
def torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "this", "TORCHELASTIC_RESTART_COUNT": "0", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("torchrun")
def test_followers_open_what_the_first_process_of_their_own_launch_has_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "earlier")
    assert Launch(tmp_path, 2).prepare(lambda: "made") == "made"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "this")

    def happens(look: int) -> None:
        if look == 3:
            with monkeypatch.context() as patch:
                patch.setattr("text2ct.diffusion.training.launch.time", time)
                patch.setattr(rank_zero_only, "rank", 0)
                Launch(tmp_path, 2).prepare(lambda: "made")

    opened, clock = follow(monkeypatch, tmp_path, happens)
    assert (opened, clock.looks) == ("opened", 3)


@pytest.mark.usefixtures("torchrun")
def test_followers_do_not_wait_for_a_first_process_that_failed_or_died(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse() -> None:
        raise UserError("no row of the manifest")

    with pytest.raises(UserError, match="no row"):
        Launch(tmp_path, 2).prepare(refuse)
    with pytest.raises(UserError, match="first process of this run has failed: no row of the manifest"):
        follow(monkeypatch, tmp_path, lambda look: None)
    beats = 700

    def alive_for_a_while(look: int) -> None:
        state = {"launch": "this-0-1", "state": "working", "beat": min(look, beats)}
        (tmp_path / "launch.json").write_text(json.dumps(state))

    with pytest.raises(UserError, match="no sign of life for 300 s") as raised:
        follow(monkeypatch, tmp_path, alive_for_a_while)
    assert raised.value.problems == ()


def test_one_process_has_nobody_to_meet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And those that Lightning starts find the first one ready."""
    launch = Launch(tmp_path)
    assert launch.prepare(lambda: "made") == "made"
    launch.finish()
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("TEXT2CT_LAUNCH", "of an earlier run")
    for name in ("TORCHELASTIC_RUN_ID", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    first = Launch(tmp_path, 2)
    first.prepare(lambda: "made")
    assert follow(monkeypatch, tmp_path, lambda look: pytest.fail("waits"))[0] == "opened"
    first.finish()
    assert list(tmp_path.iterdir()) == []
