"""One step of the three trainings: its losses, gradient, update and average; :mod:`.loop` makes a run of it.

Optimisation is Lightning's manual one, since a step may compute its gradient in parts: micro-batches, devices, two
players.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from text2ct.diffusion.training.config import TrainingConfig
from text2ct.diffusion.training.draws import torch_seed
from text2ct.diffusion.training.processes import average
from text2ct.diffusion.training.sharding import apart, clip_gradients, is_cut

Batch = dict[str, Tensor]


def micro_batches(batch: Batch, size: int | None, device: torch.device) -> Iterator[tuple[Batch, float]]:
    """Parts of at most ``size`` cases, moved to ``device`` one at a time, and their shares of the batch."""
    count = len(next(iter(batch.values())))
    size = size or count
    for start in range(0, count, size):
        part = {name: value[start : start + size].to(device, non_blocking=True) for name, value in batch.items()}
        yield part, min(size, count - start) / count


def progress_of(config: TrainingConfig, steps: int, spent_s: float) -> float:
    """Share of a run that is done, in [0, 1], by steps or by time, whichever is further."""
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

    def on_train_start(self) -> None:
        """List what every step goes through: walking the modules each time keeps a GPU waiting."""
        self._learning = [p for p in self.parameters() if p.requires_grad]
        self._clipped = apart(self.trained_parameters())
        averages = () if self.ema is None else (self.ema, self.network)
        self._averages = [(apart(one.parameters()), list(one.buffers())) for one in averages]

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One step of the optimiser; the losses are kept for the log."""
        torch.manual_seed(torch_seed(self.config.seed, self.trainer.global_step, stream=1 + self.global_rank))
        for optimizer in self.trainer.optimizers:
            optimizer.zero_grad()
        losses = self.backward_batch(batch)
        average(p.grad for p in self._learning if p.grad is not None)
        if self.config.gradient_clip is not None:
            clip_gradients(self._clipped, self.config.gradient_clip)
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
        return progress_of(self.config, self.trainer.global_step, self.spent_s)

    def trained_parameters(self) -> list[nn.Parameter]:
        """What the (first) optimiser changes."""
        return [p for p in self.parameters() if p.requires_grad]

    def configure_optimizers(self) -> Any:
        """Adam, or AdamW where there is weight decay."""
        return self.optimizer_of(self.trained_parameters())

    def optimizer_of(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """An optimiser as configured."""
        rate, decay = self.config.learning_rate, self.config.weight_decay
        cut = any(map(is_cut, parameters))
        fused = parameters[0].device.type == "cuda" and not cut
        each: Any = {"fused": fused, "foreach": False if cut else None}  # whole and cut weights go into no one call
        if decay:
            return torch.optim.AdamW(parameters, rate, weight_decay=decay, **each)
        return torch.optim.Adam(parameters, rate, **each)

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
        if not self._averages:
            return
        step = self.trainer.global_step
        decay = min(self.config.ema_decay or 0.0, (1 + step) / (10 + step))
        (averaged, own_buffers), (current, buffers) = self._averages
        with torch.no_grad():
            for ours, theirs in zip(averaged, current, strict=True):
                torch._foreach_lerp_(ours, theirs, 1 - decay)
            if buffers:
                torch._foreach_copy_(own_buffers, buffers)

    @property
    def result(self) -> nn.Module:
        """The network to be used afterwards: the averaged one if there is one."""
        return self.network if self.ema is None else self.ema
