"""Several processes that train one network: each takes its share of every batch, gradients are averaged once a step.

Losses are means over cases and shares have one size, so the mean of the processes' gradients is the gradient of
the whole batch: a run on N devices is the run on one device at the same batch size, up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from text2ct.compute import pick_device
from text2ct.diffusion.training.config import TrainingConfig
from text2ct.errors import UserError

# Weights whole in every process, or cut over them.
Strategy = Literal["ddp", "fsdp"]
STRATEGIES: tuple[str, ...] = get_args(Strategy)


@dataclass(frozen=True)
class Share:
    """One process's part of a batch.

    Attributes:
        rank: Number of the process, from 0.
        world: Number of processes.
    """

    rank: int = 0
    world: int = 1

    def of(self, count: int) -> slice:
        """The contiguous part of ``count`` cases that is this process's.

        Raises:
            UserError: The cases cannot be divided evenly.
        """
        if count % self.world:
            raise UserError(f"a batch of {count} cannot be shared evenly by {self.world} processes; choose a multiple")
        size = count // self.world
        return slice(self.rank * size, (self.rank + 1) * size)


class AveragingStrategy(DDPStrategy):
    """Lightning's DDP without its wrapper: processes, devices and launching are Lightning's, averaging is ours.

    The wrapper reduces at every backward; a step here may have several (micro-batches, two players, cached
    gradients), and averages once, after all of them.
    """

    def configure_ddp(self) -> None:
        """Start all processes from the first one's weights."""
        assert isinstance(self.model, nn.Module)
        share_weights(self.model)


def check_processes(device: str, devices: int, nodes: int, config: TrainingConfig, strategy: Strategy = "ddp") -> None:
    """Refuse what several processes cannot do.

    Raises:
        UserError: Too few devices, a numbered device, a time budget, a batch that cannot be shared evenly,
            compiling what is cut, or an unknown strategy.
    """
    if strategy not in STRATEGIES:
        raise UserError(f"there is no strategy '{strategy}'; use {' or '.join(STRATEGIES)}")
    if devices * nodes == 1:
        return
    where = pick_device(device)
    problems = []
    if where.type == "mps" or where.index is not None:
        problems.append(f"device '{device}' is one device; use --device cuda or cpu")
    if where.type == "cuda" and devices > torch.cuda.device_count():
        problems.append(f"{devices} devices a node are asked for and {torch.cuda.device_count()} are present")
    if config.minutes is not None:
        problems.append("a time budget (minutes) works on one device only; give steps")
    if strategy == "fsdp" and getattr(config, "compile", False):
        problems.append("compile works with --strategy ddp only; set one of them otherwise")
    if config.batch_size % (devices * nodes):
        problems.append(
            f"batch_size is {config.batch_size}, the whole batch's; expected a multiple of {devices * nodes}"
        )
    if problems:
        raise UserError(f"{devices} devices on {nodes} nodes cannot train this", problems)


def is_follower(devices: int, nodes: int) -> bool:
    """Whether this process only computes: files and messages are the first one's."""
    rank: int = getattr(rank_zero_only, "rank", 0)  # of the environment, before Lightning has set processes up
    return devices * nodes > 1 and rank != 0


def share_weights(module: nn.Module) -> None:
    """Give all processes the first one's weights and buffers; what is cut over them stays."""
    for value in module.state_dict().values():
        if not isinstance(value, DTensor):
            whole = value.contiguous()
            dist.broadcast(whole, 0)
            value.copy_(whole)


def world_size() -> int:
    """Number of processes in this run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def gather(tensor: Tensor) -> Tensor:
    """(n, ...) of every process to (world·n, ...), in the processes' order, without a graph."""
    if world_size() == 1:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(world_size())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


def average(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its mean over processes, but for those that are cut over them, which are means already."""
    if world_size() == 1:
        return
    for value in tensors:
        if isinstance(value, DTensor):
            continue
        whole = value.contiguous()  # itself, but for weights kept channels-last
        dist.all_reduce(whole)
        value.copy_(whole / world_size())
