"""Weights, gradients, moments and averages cut over the processes, for networks that do not fit a card (FSDP).

Torch's `fully_shard` cuts the weights of each block along their first axis, gathers them when the block is computed,
and averages gradients as it cuts them (Rajbhandari et al. 2020, arXiv 1910.02054; Zhao et al. 2023, arXiv 2304.11277).
What lies between the blocks stays whole in every process. Checkpoints hold whole tensors: a run goes on with another
number of processes, and without sharding.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from text2ct.diffusion.training.processes import AveragingStrategy, share_weights, world_size

# Gathering fewer weights takes longer than it saves.
MANY = 2**16


class ShardingStrategy(AveragingStrategy):
    """Processes, launching and start as with whole weights; afterwards blocks are cut."""

    def model_to_device(self) -> None:
        """Nothing yet: a device may not have room for all weights."""

    def configure_ddp(self) -> None:
        """Move, share and cut block after block of the network and of its average, then move and share the rest."""
        mesh = init_device_mesh(self.root_device.type, (world_size(),))
        assert isinstance(self.model, nn.Module)
        networks = [network for name, network in self.model.named_children() if name in ("network", "ema")]
        for block in itertools.chain.from_iterable(map(blocks, networks)):
            refused = {weight for weight in block.parameters() if not weight.dim() or not weight.numel()}
            block.to(self.root_device)
            share_weights(block)
            for weight in block.parameters():
                weight.data = weight.data.contiguous()  # packs open with weights in channels-last order
            fully_shard(block, mesh=mesh, reshard_after_forward=True, ignored_params=refused)
        self.model.to(self.root_device)
        share_weights(self.model)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The weights, whole; every process takes part."""
        return {name: whole(value) for name, value in super().lightning_module_state_dict().items()}

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """An optimiser's moments, whole; every process takes part."""
        found: dict[str, Any] = super().optimizer_state(optimizer)
        moments = {
            index: {name: whole(value) for name, value in of_one.items()} for index, of_one in found["state"].items()
        }
        return found | {"state": moments}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Cut the moments as the weights are."""
        states = []
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            moments = {
                index: {name: _cut_as(weights[index], value) for name, value in of_one.items()}
                for index, of_one in state["state"].items()
            }
            states.append(state | {"state": moments})
        super().load_optimizer_state_dict({**checkpoint, "optimizer_states": states})


def blocks(module: nn.Module) -> Iterator[nn.Module]:
    """What is cut, if it has many weights: modules in lists that have no lists, as layers have, and single layers."""
    for child in module.children():
        listed = isinstance(module, nn.ModuleList) and not any(isinstance(m, nn.ModuleList) for m in child.modules())
        if sum(weight.numel() for weight in child.parameters(recurse=listed)) >= MANY:
            yield child
        else:
            yield from blocks(child)


def is_cut(value: object) -> bool:
    """Whether a tensor is cut over the processes."""
    return isinstance(value, DTensor)


def whole(value: Any) -> Any:
    """A tensor that is cut, gathered on the CPU by every process; whatever else it is, itself."""
    return value.full_tensor().cpu() if isinstance(value, DTensor) else value


def apart(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """Those that are whole and those that are cut, which one call of torch cannot take together; no empty list."""
    found: tuple[list[Tensor], list[Tensor]] = ([], [])
    for tensor in tensors:
        found[is_cut(tensor)].append(tensor)
    return [one for one in found if one]


def clip_gradients(kinds: Sequence[Sequence[Tensor]], largest: float) -> None:
    """Scale the gradients of all weights, as :func:`apart` gives them, down to a norm of at most ``largest``."""
    norms = [whole(nn.utils.get_total_norm([p.grad for p in kind if p.grad is not None])) for kind in kinds]
    total = norms[0] if len(norms) == 1 else torch.stack([norm.to(norms[0].device) for norm in norms]).norm()
    for kind in kinds:
        nn.utils.clip_grads_with_norm_(kind, largest, total.to(kind[0].device))


def _cut_as(weight: Tensor, value: Any) -> Any:
    if isinstance(weight, DTensor) and isinstance(value, Tensor) and value.shape == weight.shape:
        return distribute_tensor(value.to(weight.device), weight.device_mesh, weight.placements)
    return value
