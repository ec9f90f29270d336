"""The loop that all three trainings share: Lightning, with randomness that depends on (seed, step) alone.

A batch and every draw made from it come from generators seeded by the run's seed and the step's number, so a
run resumed at any checkpoint sees the data and the noise that an uninterrupted run would have seen.
"""

from __future__ import annotations

import csv
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from text2ct import console
from text2ct.compute import keep_freed_memory, lightning_precision, pick_device
from text2ct.diffusion.training.config import TrainingConfig
from text2ct.errors import UserError
from text2ct.files import atomic_path, read_json, write_json

Batch = dict[str, Any]
LAST = "last.ckpt"


def step_generator(seed: int, step: int, stream: int = 0) -> np.random.Generator:
    """Numpy's generator of one step."""
    return np.random.default_rng(np.random.SeedSequence([seed, step, stream]))


def torch_generator(seed: int, step: int, stream: int = 0) -> torch.Generator:
    """Torch's CPU generator of one step."""
    state = np.random.SeedSequence([seed, step, 100 + stream]).generate_state(2, dtype=np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)


def epoch_indices(count: int, batch_size: int, seed: int, step: int) -> np.ndarray:
    """The cases of one step: each epoch is one permutation, and a batch may span two of them."""
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    out = np.empty(batch_size, dtype=np.int64)
    for epoch in np.unique(positions // count):
        order = step_generator(seed, int(epoch), stream=1).permutation(count)
        here = positions // count == epoch
        out[here] = order[positions[here] % count]
    return out


class StepModule(lightning.LightningModule):
    """A network in training.

    Args:
        network: What is trained; its averaged copy is kept when the configuration asks for it.
        config: Settings of the run.
    """

    ema: nn.Module | None

    def __init__(self, network: nn.Module, config: TrainingConfig) -> None:
        super().__init__()
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

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One step: the losses are kept for the log."""
        losses = self.losses(batch)
        self.last_losses = {name: float(value.detach()) for name, value in losses.items()}
        return losses["loss"]

    def progress(self) -> float:
        """Share of the run that is done, in [0, 1], by steps or by time, whichever is further."""
        done = self.trainer.global_step / self.config.steps
        if self.config.minutes is not None:
            done = max(done, self.spent_s / (60 * self.config.minutes))
        return min(done, 1.0)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam, or AdamW where there is weight decay."""
        parameters = [p for p in self.parameters() if p.requires_grad]
        rate, decay = self.config.learning_rate, self.config.weight_decay
        return torch.optim.AdamW(parameters, rate, weight_decay=decay) if decay else torch.optim.Adam(parameters, rate)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Set this step's learning rate: linear warm-up, then polynomial decay."""
        step = self.trainer.global_step
        warm = min(1.0, (step + 1) / self.config.warmup_steps) if self.config.warmup_steps else 1.0
        rate = self.config.learning_rate * warm * (1 - self.progress()) ** self.config.poly_power
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate
        self.last_rate = rate

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
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
    """An endless iterable of batches that begins at the trainer's present step."""

    def __init__(self, module: StepModule, make: Callable[[int], Batch]) -> None:
        self._module, self._make = module, make

    def __iter__(self) -> Iterator[Batch]:
        step = self._module.trainer.global_step
        while True:
            yield self._make(step) | {"step": step}
            step += 1


class _Bookkeeping(Callback):
    """Clock, CSV log, checkpoints and the end of the time budget."""

    def __init__(self, out: Path, module: StepModule, advance: Callable[[int], None]) -> None:
        self._out, self._module, self._advance = out, module, advance
        self._tick = time.monotonic()

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._tick = time.monotonic()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        module, config = self._module, self._module.config
        now = time.monotonic()
        module.spent_s += now - self._tick
        self._tick = now
        step = trainer.global_step
        self._advance(1)
        if not all(np.isfinite(value) for value in module.last_losses.values()):
            raise UserError(f"the loss is no longer finite at step {step}; lower the learning rate")
        if step % config.log_every == 0 or step == 1:
            self._log(step)
        finished = module.progress() >= 1
        if finished:
            trainer.should_stop = True
        if step % config.checkpoint_every == 0 or finished:
            save_checkpoint(trainer, self._out)

    def _log(self, step: int) -> None:
        module = self._module
        row = {"step": step, "seconds": round(module.spent_s, 2), "learning_rate": module.last_rate}
        row |= module.last_losses
        path = self._out / "log.csv"
        new = not path.is_file()
        with path.open("a", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)

    def state_dict(self) -> dict[str, Any]:
        return {"spent_s": self._module.spent_s}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._module.spent_s = state_dict["spent_s"]


def save_checkpoint(trainer: lightning.Trainer, out: Path) -> None:
    """Write ``last.ckpt``, atomically."""
    with atomic_path(out / LAST) as temporary:
        trainer.save_checkpoint(temporary)


def fit(
    module: StepModule,
    make_batch: Callable[[int], Batch],
    out: Path,
    *,
    device: str = "auto",
    stop_at: int | None = None,
) -> bool:
    """Train to the end of the schedule, going on from the checkpoint in ``out`` if there is one.

    Args:
        module: Network and settings.
        make_batch: The batch of a step, a function of the step's number alone.
        out: Folder of the run: ``config.json``, ``log.csv``, ``last.ckpt``.
        device: As for :func:`text2ct.compute.pick_device`.
        stop_at: Stop early at this step, as an interruption would, with a checkpoint.

    Returns:
        Whether the run is complete.

    Raises:
        UserError: ``out`` holds a run with other settings, or the loss stopped being finite.
    """
    keep_freed_memory()
    out.mkdir(parents=True, exist_ok=True)
    _save_config(module, out)
    where = pick_device(device)
    checkpoint = out / LAST
    steps = module.config.steps
    with warnings.catch_warnings(), console.progress("training", steps) as advance:
        # Lightning advises on logging, workers and hardware, none of which is the user's to change here.
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        warnings.filterwarnings("ignore", category=lightning.pytorch.utilities.warnings.PossibleUserWarning)
        trainer = lightning.Trainer(
            max_steps=min(steps, stop_at or steps),
            max_epochs=-1,
            accelerator={"cuda": "gpu"}.get(where.type, where.type),
            devices=1 if where.index is None else [where.index],
            precision=lightning_precision(where),
            gradient_clip_val=module.config.gradient_clip,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[_Bookkeeping(out, module, advance)],
        )
        resume = str(checkpoint) if checkpoint.is_file() else None
        trainer.fit(module, _Batches(module, make_batch), ckpt_path=resume, weights_only=True)
    save_checkpoint(trainer, out)
    return trainer.global_step >= steps or module.progress() >= 1


def load_result(module: StepModule, out: Path) -> nn.Module:
    """The trained network of a run's checkpoint, in evaluation mode."""
    checkpoint = torch.load(out / LAST, map_location="cpu", weights_only=True)
    module.load_state_dict(checkpoint["state_dict"])
    return module.result.eval().requires_grad_(False)


def _save_config(module: StepModule, out: Path) -> None:
    path = out / "config.json"
    resolved = {
        "training": module.config.model_dump(mode="json"),
        "network": module.network.config.model_dump(mode="json"),  # type: ignore[union-attr,operator]
    }
    if path.is_file() and read_json(path) != resolved:
        raise UserError(f"{out} holds a run with other settings; choose another folder or remove it")
    write_json(path, resolved)
