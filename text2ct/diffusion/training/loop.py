"""The run that all three trainings share: batches by step, clock, log, checkpoints, resuming; on Lightning."""

from __future__ import annotations

import copy
import logging
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from text2ct import console
from text2ct.compute import device_name, keep_freed_memory, lightning_precision, pick_device
from text2ct.diffusion.training.config import TrainingConfig
from text2ct.diffusion.training.identity import claim_run
from text2ct.diffusion.training.processes import (
    AveragingStrategy,
    Share,
    Strategy,
    check_processes,
    is_follower,
    world_size,
)
from text2ct.diffusion.training.sharding import ShardingStrategy
from text2ct.diffusion.training.step import Batch, StepModule, progress_of
from text2ct.errors import UserError
from text2ct.files import atomic_path
from text2ct.steplog import StepLog

# The cases of a step that are one process's share; draws are made for the whole batch and then shared.
MakeBatch = Callable[[int, Share], Batch]
LAST = "last.ckpt"
# What gloo and NCCL say when another process is gone.
_LOST = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")


class _Batches:
    """An endless iterable of this process's batches, from the trainer's present step on.

    The next batch is made while the present one is computed.
    """

    def __init__(self, module: StepModule, make: MakeBatch) -> None:
        self._module, self._make = module, make

    def __iter__(self) -> Iterator[Batch]:
        step = self._module.trainer.global_step
        share = Share(self._module.global_rank, world_size())
        with ThreadPoolExecutor(1) as ahead:
            following = ahead.submit(self._make, step, share)
            while True:
                batch = following.result()
                step += 1
                following = ahead.submit(self._make, step, share)
                yield batch


class _Bookkeeping(Callback):
    """Clock, CSV log, checkpoints and the end of the time budget."""

    def __init__(self, out: Path, module: StepModule, advance: Callable[[int], None]) -> None:
        self._out, self._module, self._advance = out, module, advance
        self._log = StepLog(out)
        self._tick = time.monotonic()
        self._device: str | None = None
        self._began_on: str | None = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._tick = time.monotonic()
        self._device = device_name(pl_module.device)  # afterwards Lightning moves the module to the CPU
        if self._began_on not in (None, self._device):
            console.warn(
                f"the training in {self._out} began on {self._began_on} and goes on on {self._device}: numbers drawn "
                "there differ, so it will not end where an uninterrupted training would have"
            )
        self._advance(trainer.global_step)  # what was trained before
        if trainer.is_global_zero:
            self._log.begin(trainer.global_step)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        module, config = self._module, self._module.config
        step = trainer.global_step
        self._advance(1)
        logs = step % config.log_every == 0 or step == 1
        saves = step % config.checkpoint_every == 0 or step >= trainer.max_steps
        losses = module.last_losses() if logs or saves else {}  # at other steps nobody waits for a GPU
        now = time.monotonic()
        module.spent_s += now - self._tick
        self._tick = now
        finished = module.progress() >= 1
        if finished:
            trainer.should_stop = saves = True
            losses = module.last_losses()
        if not all(np.isfinite(value) for value in losses.values()):
            raise UserError(f"the loss is no longer finite by step {step}; lower the learning rate")
        if logs and trainer.is_global_zero:
            self._log.add(step, losses, seconds=round(module.spent_s, 2), learning_rate=module.last_rate)
        if saves:
            save_checkpoint(trainer, self._out)

    def state_dict(self) -> dict[str, Any]:
        return {"spent_s": self._module.spent_s, "device": self._device}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._module.spent_s = state_dict["spent_s"]
        self._began_on = state_dict.get("device")


def save_checkpoint(trainer: lightning.Trainer, out: Path) -> None:
    """Write ``last.ckpt``, atomically; every process calls it and the first one writes."""
    if trainer.is_global_zero:
        with atomic_path(out / LAST) as temporary:
            trainer.save_checkpoint(temporary)
    else:
        trainer.save_checkpoint(out / LAST)
    trainer.strategy.barrier()


def fit(
    module: StepModule,
    make_batch: MakeBatch,
    out: Path,
    *,
    device: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    strategy: Strategy = "ddp",
    stop_at: int | None = None,
    identity: Mapping[str, Any] | None = None,
) -> bool:
    """Train to the end of the schedule, going on from the checkpoint in ``out`` if there is one.

    With several devices or nodes, Lightning starts the processes: by running this command again, or it takes
    those that SLURM or torchrun has started.

    Args:
        module: Network and settings.
        make_batch: A process's share of the batch of a step, a function of the step's number alone.
        out: Folder of the run: ``config.json``, ``metrics.csv``, ``last.ckpt``.
        device: As for :func:`text2ct.compute.pick_device`.
        devices: Devices of each node.
        nodes: Number of machines, all of which see ``out``.
        strategy: Of several devices: ``ddp`` keeps all weights on each, ``fsdp`` cuts them over the devices.
        stop_at: Stop early at this step, as an interruption would, with a checkpoint.
        identity: What decides the result beside settings and sizes: where the weights start, what they are
            trained on. Only a run of the same identity goes on.

    Returns:
        Whether the run is complete.

    Raises:
        UserError: ``out`` holds another run, the devices or the strategy cannot do it, or the loss stopped being
            finite.
    """
    keep_freed_memory()
    config = module.config
    check_processes(device, devices, nodes, config, strategy)
    several = devices * nodes > 1
    if not several and strategy != "ddp":
        console.warn(f"one device holds all weights: --strategy {strategy} changes nothing")
    sharded = several and strategy == "fsdp"
    follower = is_follower(devices, nodes)
    claim_run(
        out,
        {
            "training": module.config.model_dump(mode="json"),
            "network": module.network.config.model_dump(mode="json"),  # type: ignore[union-attr,operator]
            **(identity or {}),
        },
        begun=(out / LAST).is_file(),
        write=not follower,
    )
    where = pick_device(device)
    checkpoint = out / LAST
    if checkpoint.is_file() and _is_complete(out, config):
        return True
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        # Lightning advises on logging, workers and hardware, none of which is the user's to change here.
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        warnings.filterwarnings("ignore", category=lightning.pytorch.utilities.warnings.PossibleUserWarning)
        advance = _silent if follower else stack.enter_context(console.progress("training", config.steps))
        trainer = lightning.Trainer(
            max_steps=min(config.steps, stop_at or config.steps),
            max_epochs=-1,
            accelerator={"cuda": "gpu"}.get(where.type, where.type),
            devices=devices if where.index is None else [where.index],
            num_nodes=nodes,
            strategy=ShardingStrategy() if sharded else AveragingStrategy() if several else "auto",
            precision=_precision(config, where),
            benchmark=where.type == "cuda",  # steps have one size; cuDNN's guess for 3D convolutions is often slow
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[_Bookkeeping(out, module, advance)],
        )
        resume = str(checkpoint) if checkpoint.is_file() else None
        # What has been cut is of no use to one process alone.
        kept = copy.deepcopy((module.network, module.ema)) if sharded else (module.network, module.ema)
        _fit_until_interrupted(trainer, module, _Batches(module, make_batch), resume)
        module.network, module.ema = kept
    return trainer.global_step >= config.steps or module.progress() >= 1


def _is_complete(out: Path, config: TrainingConfig) -> bool:
    steps, clock = read_clock(out)
    return progress_of(config, steps, clock["spent_s"]) >= 1


def read_clock(out: Path) -> tuple[int, dict[str, Any]]:
    """Steps of a run's checkpoint, and its clock: ``spent_s`` and ``device``."""
    checkpoint = torch.load(out / LAST, map_location="cpu", weights_only=True, mmap=True)
    return int(checkpoint["global_step"]), next(s for s in checkpoint["callbacks"].values() if "spent_s" in s)


def _fit_until_interrupted(
    trainer: lightning.Trainer, module: StepModule, batches: _Batches, checkpoint: str | None
) -> None:
    """Fit; Ctrl-C is passed on as what it is, where Lightning would end the program and ignore the next one."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, batches, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as error:
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from error
    except RuntimeError as error:
        if world_size() > 1 and any(name in str(error) for name in _LOST):
            raise UserError(
                "another process of this training has ended; see what it said, then run the same command again: "
                "it goes on from the last checkpoint"
            ) from error
        raise


def _silent(steps: int) -> None:
    """A follower's progress, which nobody sees."""


def _precision(config: TrainingConfig, device: torch.device) -> Literal["bf16-mixed", "32-true"]:
    if config.precision == "auto":
        return lightning_precision(device)
    return "bf16-mixed" if config.precision == "bfloat16" else "32-true"


def load_result(module: StepModule, out: Path) -> nn.Module:
    """The trained network of a run's checkpoint, in evaluation mode."""
    checkpoint = torch.load(out / LAST, map_location="cpu", weights_only=True)
    module.load_state_dict(checkpoint["state_dict"])
    result = module.result.eval().requires_grad_(False)
    result._compiled_call_impl = None  # what was compiled for training is not for any other device or shape
    return result
