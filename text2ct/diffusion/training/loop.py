"""The loop that all three trainings share: Lightning, with randomness that depends on (seed, step) alone.

A batch and every draw made from it come from generators seeded by the run's seed and the step's number, so a
run resumed at any checkpoint sees the data and the noise that an uninterrupted run would have seen; noise that is
drawn on a GPU, on a GPU of the same model. Optimisation is Lightning's manual one, since a step may compute its
gradient in parts: micro-batches, devices, two players.
"""

from __future__ import annotations

import csv
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
from torch import Tensor, nn

from text2ct import console
from text2ct.compute import device_name, keep_freed_memory, lightning_precision, pick_device
from text2ct.diffusion.training.config import TrainingConfig
from text2ct.diffusion.training.identity import claim_run
from text2ct.diffusion.training.processes import (
    AveragingStrategy,
    Share,
    average,
    check_processes,
    is_follower,
    world_size,
)
from text2ct.errors import UserError
from text2ct.files import atomic_path, write_text

Batch = dict[str, Tensor]
# The cases of a step that are one process's share; draws are made for the whole batch and then shared.
MakeBatch = Callable[[int, Share], Batch]
LAST = "last.ckpt"


def step_generator(seed: int, step: int, stream: int = 0) -> np.random.Generator:
    """Numpy's generator of one step."""
    return np.random.default_rng(np.random.SeedSequence([seed, step, stream]))


def torch_generator(seed: int, step: int, stream: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """Torch's generator of one step; numbers drawn on a GPU depend on its model."""
    return torch.Generator(device).manual_seed(_torch_seed(seed, step, stream))


def _torch_seed(seed: int, step: int, stream: int) -> int:
    state = np.random.SeedSequence([seed, step, 100 + stream]).generate_state(2, dtype=np.uint32)
    return int(state[0]) << 31 | int(state[1]) >> 1


def epoch_indices(count: int, batch_size: int, seed: int, step: int) -> np.ndarray:
    """The cases of one step: each epoch is one permutation, and a batch may span two of them."""
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    out = np.empty(batch_size, dtype=np.int64)
    for epoch in np.unique(positions // count):
        order = step_generator(seed, int(epoch), stream=1).permutation(count)
        here = positions // count == epoch
        out[here] = order[positions[here] % count]
    return out


def micro_batches(batch: Batch, size: int | None, device: torch.device) -> Iterator[tuple[Batch, float]]:
    """Parts of at most ``size`` cases, moved to ``device`` one at a time, and their shares of the batch."""
    count = len(next(iter(batch.values())))
    size = size or count
    for start in range(0, count, size):
        part = {name: value[start : start + size].to(device, non_blocking=True) for name, value in batch.items()}
        yield part, min(size, count - start) / count


def _progress(config: TrainingConfig, steps: int, spent_s: float) -> float:
    done = steps / config.steps
    if config.minutes is not None:
        done = max(done, spent_s / (60 * config.minutes))
    return min(done, 1.0)


class StepModule(lightning.LightningModule):
    """A network in training.

    Args:
        network: What is trained; its averaged copy is kept when the configuration asks for it.
        config: Settings of the run.
    """

    ema: nn.Module | None

    def __init__(self, network: nn.Module, config: TrainingConfig) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network = network
        self.config = config
        self.spent_s = 0.0
        if config.ema_decay is None:
            self.ema = None
        else:
            import copy

            self.ema = copy.deepcopy(network).requires_grad_(False)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The parts of the loss, by name; ``loss`` is minimised."""
        raise NotImplementedError

    def backward_part(self, part: Batch, weight: float) -> dict[str, Tensor]:
        """Add the gradient of a micro-batch that is ``weight`` of the batch; returns its losses."""
        losses = self.losses(part)
        (losses["loss"] * weight).backward()
        return losses

    def backward_batch(self, batch: Batch) -> dict[str, Tensor]:
        """Add the gradient of this process's share, in micro-batches; returns its losses."""
        total: dict[str, Tensor] = {}
        for part, weight in micro_batches(batch, self.config.micro_batch, self.device):
            for name, value in self.backward_part(part, weight).items():
                total[name] = total.get(name, 0) + weight * value.detach()
        return total

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One step of the optimiser; the losses are kept for the log."""
        torch.manual_seed(_torch_seed(self.config.seed, self.trainer.global_step, stream=1 + self.global_rank))
        for optimizer in self.trainer.optimizers:
            optimizer.zero_grad()
        losses = self.backward_batch(batch)
        average(p.grad for p in self.parameters() if p.grad is not None)
        if self.config.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.trained_parameters(), self.config.gradient_clip)
        self.update()
        self._average_weights()  # before any checkpoint of this step
        values = torch.stack([value.detach().float() for value in losses.values()])
        average([values])
        self._last_losses = tuple(losses), values

    def last_losses(self) -> dict[str, float]:
        """Losses of the last step, by name; waits until the device has computed them."""
        names, values = self._last_losses
        return dict(zip(names, values.tolist(), strict=True))

    def update(self) -> None:
        """Let the optimiser step; Lightning counts the steps of its own wrapper."""
        self.optimizers().step()  # type: ignore[union-attr]

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """The batch stays in the host's memory: its parts are moved when their turn comes."""
        return batch

    def progress(self) -> float:
        """Share of the run that is done, in [0, 1], by steps or by time, whichever is further."""
        return _progress(self.config, self.trainer.global_step, self.spent_s)

    def trained_parameters(self) -> list[nn.Parameter]:
        """What the (first) optimiser changes."""
        return [p for p in self.parameters() if p.requires_grad]

    def configure_optimizers(self) -> Any:
        """Adam, or AdamW where there is weight decay."""
        return self.optimizer_of(self.trained_parameters())

    def optimizer_of(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """An optimiser as configured."""
        rate, decay = self.config.learning_rate, self.config.weight_decay
        fused = parameters[0].device.type == "cuda"
        if decay:
            return torch.optim.AdamW(parameters, rate, weight_decay=decay, fused=fused)
        return torch.optim.Adam(parameters, rate, fused=fused)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Set this step's learning rate: linear warm-up, then polynomial decay."""
        step = self.trainer.global_step
        warm = min(1.0, (step + 1) / self.config.warmup_steps) if self.config.warmup_steps else 1.0
        rate = self.config.learning_rate * warm * (1 - self.progress()) ** self.config.poly_power
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        self.last_rate = rate

    def _average_weights(self) -> None:
        """Average the weights, with a decay that starts small so that early weights are forgotten."""
        if self.ema is None:
            return
        step = self.trainer.global_step
        decay = min(self.config.ema_decay or 0.0, (1 + step) / (10 + step))
        with torch.no_grad():
            averaged, current = list(self.ema.parameters()), list(self.network.parameters())
            torch._foreach_lerp_(averaged, current, 1 - decay)  # type: ignore[arg-type]
            for mine, theirs in zip(self.ema.buffers(), self.network.buffers(), strict=True):
                mine.copy_(theirs)

    @property
    def result(self) -> nn.Module:
        """The network to be used afterwards: the averaged one if there is one."""
        return self.network if self.ema is None else self.ema


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
        if trainer.is_global_zero:
            self._forget_after(trainer.global_step)

    def _forget_after(self, step: int) -> None:
        """Drop the log's rows of steps that are computed again."""
        path = self._out / "log.csv"
        if path.is_file():
            header, *rows = path.read_text(encoding="utf-8").splitlines()
            kept = [row for row in rows if row.split(",")[0].isdigit() and int(row.split(",")[0]) <= step]
            write_text(path, "\n".join([header, *kept]) + "\n")

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
            self._log(step, losses)
        if saves:
            save_checkpoint(trainer, self._out)

    def _log(self, step: int, losses: Mapping[str, float]) -> None:
        module = self._module
        row = {"step": step, "seconds": round(module.spent_s, 2), "learning_rate": module.last_rate, **losses}
        path = self._out / "log.csv"
        new = not path.is_file()
        with path.open("a", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)

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
    stop_at: int | None = None,
    identity: Mapping[str, Any] | None = None,
) -> bool:
    """Train to the end of the schedule, going on from the checkpoint in ``out`` if there is one.

    With several devices or nodes, Lightning starts the processes: by running this command again, or it takes
    those that SLURM or torchrun has started.

    Args:
        module: Network and settings.
        make_batch: A process's share of the batch of a step, a function of the step's number alone.
        out: Folder of the run: ``config.json``, ``log.csv``, ``last.ckpt``.
        device: As for :func:`text2ct.compute.pick_device`.
        devices: Devices of each node.
        nodes: Number of machines, all of which see ``out``.
        stop_at: Stop early at this step, as an interruption would, with a checkpoint.
        identity: What decides the result beside settings and sizes: where the weights start, what they are
            trained on. Only a run of the same identity goes on.

    Returns:
        Whether the run is complete.

    Raises:
        UserError: ``out`` holds another run, the devices cannot do it, or the loss stopped being
            finite.
    """
    keep_freed_memory()
    config = module.config
    check_processes(device, devices, nodes, config.batch_size, config.minutes)
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
            strategy=AveragingStrategy() if devices * nodes > 1 else "auto",
            precision=_precision(config, where),
            benchmark=where.type == "cuda",  # steps have one size; cuDNN's guess for 3D convolutions is often slow
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[_Bookkeeping(out, module, advance)],
        )
        resume = str(checkpoint) if checkpoint.is_file() else None
        _fit_until_interrupted(trainer, module, _Batches(module, make_batch), resume)
    return trainer.global_step >= config.steps or module.progress() >= 1


def _is_complete(out: Path, config: TrainingConfig) -> bool:
    steps, clock = read_clock(out)
    return _progress(config, steps, clock["spent_s"]) >= 1


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
