"""However a gradient is computed (in parts, twice, cached), it is the gradient of the whole batch."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from text2ct.diffusion.clip import Clip3D
from text2ct.diffusion.flow import RectifiedFlow
from text2ct.diffusion.init import PRESETS
from text2ct.diffusion.training import ClipTraining, DiffusionTraining
from text2ct.diffusion.training.clip import ClipModule
from text2ct.diffusion.training.diffusion import DiffusionModule
from text2ct.diffusion.training.processes import Share
from text2ct.diffusion.training.step import StepModule
from text2ct.diffusion.unet import Unet
from text2ct.errors import UserError
from text2ct.findings import FINDINGS

TINY = PRESETS["tiny"]
Batch = dict[str, Tensor]


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def gradients(module: nn.Module) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    module.zero_grad()
    return found


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    assert one.keys() == other.keys()
    assert any(value.abs().max() > 1e-3 for value in one.values())
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], atol=tolerance, rtol=1e-4, msg=name)


def clip_batch(count: int = 5, *, volumes: bool = True) -> Batch:
    ids = torch.randint(2, 400, (count, 32))
    ids[:, 0], ids[:, 20:] = 0, 1
    labels = (torch.rand(count, len(FINDINGS)) < 0.4).float()
    labels[0, :5] = torch.nan  # unknown labels, so that means over parts would not be the mean
    batch = {"token_ids": ids, "labels": labels, "details": torch.rand(count, len(FINDINGS), 3)}
    batch["told"] = torch.rand(count, len(FINDINGS)) < 0.8
    return batch | ({"unit": torch.rand(count, 1, 16, 16, 16)} if volumes else {})


@pytest.mark.parametrize(("volumes", "label_weight"), [(True, 0.0), (True, 1.0), (False, 1.0)])
@pytest.mark.parametrize("micro_batch", [None, 1, 2, 5])
def test_cached_gradients_are_those_of_the_whole_batch(
    micro_batch: int | None, volumes: bool, label_weight: float
) -> None:
    network = Clip3D(TINY.clip)
    module = ClipModule(network, ClipTraining(label_weight=label_weight, micro_batch=micro_batch, batch_size=5))
    batch = clip_batch(volumes=volumes)
    whole = module.losses(batch)
    whole["loss"].backward()
    expected = gradients(module)
    losses = module.backward_batch(batch)
    assert_same(expected, gradients(module))
    for name, value in whole.items():
        torch.testing.assert_close(losses[name], value, msg=name)


def test_cached_gradients_survive_autocast() -> None:
    """Autocast keeps the weights it has cast; those of the pass without a graph must not be used by the other."""
    module = ClipModule(Clip3D(TINY.clip), ClipTraining(micro_batch=2))
    batch = clip_batch(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        module.losses(batch)["loss"].backward()
        expected = gradients(module)
        module.backward_batch(batch)
        found = gradients(module)
    assert found.keys() == expected.keys()
    one, other = (torch.cat([part[name].flatten() for name in expected]) for part in (expected, found))
    assert float((one - other).norm()) < 0.05 * float(one.norm())


def test_both_passes_of_cached_gradients_draw_alike() -> None:
    """With dropout in the tower, the second embedding is the first one again."""

    class Noisy(ClipModule):
        seen: list[Tensor]

        def embed(self, batch: Batch) -> Batch:
            embedded = super().embed(batch)
            embedded["text"] = nn.functional.dropout(embedded["text"])
            self.seen.append(embedded["text"].detach())
            return embedded

    module = Noisy(Clip3D(TINY.clip), ClipTraining(micro_batch=2))
    module.seen = []
    module.backward_batch(clip_batch(4))
    first, second, again_first, again_second = module.seen
    assert torch.equal(first, again_first)
    assert torch.equal(second, again_second)
    assert not torch.equal(first == 0, second == 0)


def diffusion_batch(count: int = 5) -> Batch:
    return {
        "latent": torch.randn(count, 4, 4, 4, 4),
        "context": torch.randn(count, 3, TINY.clip.projection_dim),
        "spacing": torch.full((count, 3), 2000.0),
        "noise": torch.randn(count, 4, 4, 4, 4),
        "time_draw": torch.rand(count),
        "drop_draw": torch.rand(count),
    }


def diffusion_module(unet: Unet, **settings: Any) -> StepModule:
    return DiffusionModule(copy.deepcopy(unet), DiffusionTraining(**settings), RectifiedFlow(TINY.flow), 1.0)


@pytest.mark.parametrize(
    "settings", [{"gradient_checkpointing": True}, {"micro_batch": 2}, {"micro_batch": 9}], ids=str
)
def test_parts_and_checkpoints_give_the_same_gradient(settings: dict[str, Any]) -> None:
    unet = Unet(TINY.unet)
    for weight in unet.out.parameters():  # MAISI begins at zero, which would hide the rest
        nn.init.normal_(weight, std=0.1)
    plain, other = diffusion_module(unet), diffusion_module(unet, **settings)
    batch = diffusion_batch()
    expected = plain.losses(batch)["loss"]
    expected.backward()
    found = other.backward_batch(batch)["loss"]
    torch.testing.assert_close(found, expected.detach())
    assert_same(gradients(plain), gradients(other))
    assert other.state_dict().keys() == plain.state_dict().keys()


def test_checkpointed_blocks_are_computed_twice() -> None:
    calls = {True: 0, False: 0}
    for checkpointed in calls:
        module = diffusion_module(Unet(TINY.unet), gradient_checkpointing=checkpointed)

        def count(*_: Any, checkpointed: bool = checkpointed) -> None:
            calls[checkpointed] += 1

        module.network.middle_block.resnet_1.register_forward_hook(count)  # type: ignore[union-attr]
        module.backward_batch(diffusion_batch(1))
    assert calls == {True: 2, False: 1}


def test_shares_are_the_batch() -> None:
    shares = [Share(rank, 3).of(12) for rank in range(3)]
    assert [number for share in shares for number in range(12)[share]] == list(range(12))
    with pytest.raises(UserError, match="a batch of 10 cannot be shared evenly by 3"):
        Share(0, 3).of(10)
