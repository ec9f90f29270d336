from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from text2ct.diffusion import Pack, generate
from text2ct.diffusion.info import Sampling
from text2ct.errors import UserError

PROMPTS = ["Large pleural effusion.", "Normal chest.", "Emphysema."]


def test_seeds_decide_and_neighbours_do_not(tiny_pack: Pack) -> None:
    """Three volumes in batches of two, alone, and in another order: the same voxels."""
    together = generate(tiny_pack, PROMPTS, [0, 1, 2], device="cpu", batch_size=2)
    assert together.shape == (3, 16, 16, 16)
    assert together.dtype == np.float32
    assert together.min() >= -1000
    assert together.max() <= 1000
    alone = generate(tiny_pack, PROMPTS[:1], [0], device="cpu", batch_size=2)
    reversed_ = generate(tiny_pack, PROMPTS[::-1], [2, 1, 0], device="cpu", batch_size=2)
    np.testing.assert_array_equal(alone[0], together[0])
    np.testing.assert_array_equal(reversed_[0], together[2])


def test_seed_zero_is_a_seed_and_prompts_matter(tiny_pack: Pack) -> None:
    volumes = generate(tiny_pack, [PROMPTS[0], PROMPTS[0], PROMPTS[1]], [0, 1, 0], batch_size=3)
    assert not np.array_equal(volumes[0], volumes[1])
    assert not np.array_equal(volumes[0], volumes[2])


def test_guidance_one_is_the_conditional_flow_alone(tiny_pack: Pack) -> None:
    plain, nearly = (
        generate(tiny_pack, PROMPTS[:1], [3], sampling=Sampling(guidance_scale=scale, steps=1), batch_size=1)
        for scale in (1.0, 1.000001)
    )
    np.testing.assert_allclose(plain, nearly, atol=0.1)


def test_long_prompts_are_cut_with_a_warning(tiny_pack: Pack, capfd: pytest.CaptureFixture[str]) -> None:
    generate(tiny_pack, ["effusion " * 100], [0], batch_size=1)
    assert "more than the pack reads" in capfd.readouterr().err


def test_guidance_acts_within_its_interval_only(tiny_pack: Pack) -> None:
    """Outside of it there is no guidance, so an empty interval is guidance 1, and each half matters."""

    def make(scale: float, *interval: float) -> np.ndarray:
        settings = Sampling(guidance_scale=scale, guidance_interval=interval, steps=4)
        return generate(tiny_pack, PROMPTS[:1], [3], sampling=settings, batch_size=1)

    unguided, whole = make(1.0, 0, 1), make(5.0, 0, 1)
    np.testing.assert_array_equal(make(5.0, 0.5, 0.5), unguided)
    np.testing.assert_array_equal(make(1.0, 0.5, 1), unguided)
    halves = make(5.0, 0, 0.6), make(5.0, 0.6, 1)
    assert all(not np.array_equal(half, other) for half in halves for other in (unguided, whole))


@pytest.mark.parametrize(
    ("scale", "interval", "guided"),
    [
        (5.0, (0.0, 1.0), [True, True, True]),
        (5.0, (0.2, 1.0), [False, True, True]),
        (5.0, (0.0, 0.9), [True, True, False]),
        (1.0, (0.0, 1.0), [False, False, False]),
    ],
)
def test_where_guidance_acts(scale: float, interval: tuple[float, float], guided: list[bool]) -> None:
    """Both ends of the whole path belong to it: a chain of noise prediction ends with an evaluation at 0."""
    settings = Sampling(guidance_scale=scale, guidance_interval=interval)
    assert [settings.guides_at(share) for share in (0.0, 0.5, 1.0)] == guided


@pytest.mark.parametrize("large", [False, True])
def test_an_estimate_counts_what_the_solver_asks_for(tiny_pack: Pack, monkeypatch, large: bool) -> None:
    """With a clock that moves by one at each look: so many evaluations, and a decoding in parts if large."""
    from text2ct.diffusion import estimate

    ticks = itertools.count()
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: float(next(ticks)))
    monkeypatch.setattr(estimate, "is_large", lambda pack: large)
    settings = Sampling(steps=9, solver="heun", guidance_interval=(0.5, 1.0))
    found = estimate.estimate_seconds(tiny_pack, sampling=settings, device="cpu", batch_size=2)
    assert found == (9 + (4 if large else 1)) / 2


def test_a_grid_that_the_networks_cannot_take_is_named(tiny_pack: Pack) -> None:
    info = tiny_pack.info.model_copy(update={"grid": (16, 20, 16)})
    with pytest.raises(UserError, match=r"cannot take its grid \(16, 20, 16\): each axis must be a multiple of 8"):
        generate(dataclasses.replace(tiny_pack, info=info), ["a"], [0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": [0]}, "2 prompts but 1 seeds"),
        ({"seeds": [0, -1]}, "seed -1 is outside"),
        ({"prompts": ["a", " "]}, "prompt 1 is empty"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_mistakes_are_named(tiny_pack: Pack, change: dict, message: str) -> None:
    arguments = {"prompts": ["a", "b"], "seeds": [0, 1]} | change
    with pytest.raises(UserError, match=message):
        generate(tiny_pack, **arguments)
