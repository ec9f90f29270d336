from __future__ import annotations

import itertools
import math

import pytest
import torch

from text2ct.diffusion.flow import TIMESTEPS, FlowConfig, RectifiedFlow, guided
from text2ct.diffusion.solvers import SOLVERS

PLAIN = FlowConfig(timestep_transform=False)


def test_path_ends_at_noise_and_at_data() -> None:
    x_0, noise = torch.randn(2, 2, 1, 3, 3, 3, dtype=torch.float64).unbind()
    ends = RectifiedFlow.path(x_0, noise, torch.tensor([0.0, 1000.0]))
    torch.testing.assert_close(ends.x_t[0], x_0[0])
    torch.testing.assert_close(ends.x_t[1], noise[1])


def test_velocity_is_the_paths_derivative() -> None:
    x_0, noise = torch.randn(2, 1, 1, 2, 2, 2, dtype=torch.float64).unbind()
    a = RectifiedFlow.path(x_0, noise, torch.tensor([500.0]))
    b = RectifiedFlow.path(x_0, noise, torch.tensor([499.0]))
    torch.testing.assert_close((b.x_t - a.x_t) * TIMESTEPS, a.target, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("steps", [1, 7])
@pytest.mark.parametrize("transform", [False, True])
def test_the_straight_flow_is_integrated_exactly(steps: int, transform: bool) -> None:
    """A constant velocity has the solution x + v, whatever the times, since exact steps sum to one."""
    flow = RectifiedFlow(FlowConfig(timestep_transform=transform))
    noise, v = torch.randn(2, 1, 1, 4, 4, 2, dtype=torch.float64).unbind()
    torch.testing.assert_close(flow.sample(lambda x, t: v, noise, steps), noise + v)


def test_euler_converges_to_the_exponential() -> None:
    """``dx/ds = -x`` over s in [0, 1] gives x·exp(-1); Euler's error falls with the step size."""
    flow = RectifiedFlow(PLAIN)
    x = torch.ones(1, 1, 1, 1, 1, dtype=torch.float64)
    errors = [float((flow.sample(lambda x, t: -x, x, n) - torch.exp(-x)).abs()) for n in (20, 40, 80)]
    assert errors[0] > 1.9 * errors[1] > 3.6 * errors[2]


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2), ("adams-bashforth", 2), ("dpm-solver", 1)])
def test_a_solvers_error_falls_with_its_order(solver: str, order: int) -> None:
    """Data N(m, s²) has a velocity and a flow in closed form: ``x = m + s·noise`` at the end."""
    mean, deviation = 0.7, 0.5
    noise = torch.tensor([-1.3], dtype=torch.float64).reshape(1, 1, 1, 1, 1)

    def velocity(x: torch.Tensor, timestep: float) -> torch.Tensor:
        t = timestep / TIMESTEPS
        away = (x - (1 - t) * mean) / ((1 - t) ** 2 * deviation**2 + t**2)
        return mean + ((1 - t) * deviation**2 - t) * away

    exact = mean + deviation * noise
    errors = [float((RectifiedFlow(PLAIN).sample(velocity, noise, n, solver) - exact).abs()) for n in (41, 81, 161)]
    assert all(before > 0.85 * 2**order * after for before, after in itertools.pairwise(errors))


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("steps", [1, 2, 8, 9])
def test_no_solver_evaluates_more_often_than_it_may(solver: str, steps: int) -> None:
    asked: list[float] = []

    def velocity(x: torch.Tensor, timestep: float) -> torch.Tensor:
        asked.append(timestep)
        return x

    RectifiedFlow(PLAIN).sample(velocity, torch.ones(1, 1, 2, 2, 2), steps, solver)
    assert steps - 1 <= len(asked) <= steps
    assert asked == sorted(asked, reverse=True)
    assert asked[0] == TIMESTEPS


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_integrates_the_straight_flow_exactly(solver: str) -> None:
    flow = RectifiedFlow(FlowConfig())
    noise, v = torch.randn(2, 1, 1, 4, 4, 2, dtype=torch.float64).unbind()
    torch.testing.assert_close(flow.sample(lambda x, t: v, noise, 6, solver), noise + v)


@pytest.mark.parametrize("solver", SOLVERS)
def test_released_times_do_not_stop_another_solver(solver: str) -> None:
    """In float16 a thousand released times fall together; only the released Euler takes them so."""
    flow = RectifiedFlow(FlowConfig(step_sizes="released"))
    x = torch.ones(1, 1, 128, 128, 32)[:, :, ::32, ::32, ::8]
    assert flow.sample(lambda x, t: x, x, 1000, solver).isfinite().all()


def test_released_steps_do_not_sum_to_one() -> None:
    flow = RectifiedFlow(FlowConfig(step_sizes="released"))
    ones = torch.ones(1, 1, 16, 12, 8)
    assert float(flow.sample(lambda x, t: ones, 0 * ones, 30).mean()) == pytest.approx(1.0129, abs=1e-3)


@pytest.mark.parametrize("kind", ["uniform", "logit-normal"])
def test_training_times_lie_in_range(kind: str) -> None:
    flow = RectifiedFlow(FlowConfig(training_times=kind, timestep_transform=False))
    times = flow.training_timesteps(flow.draw(1000, torch.Generator().manual_seed(0)), (8, 8, 8))
    assert 0 <= times.min() < 200
    assert 800 < times.max() <= 1000


def test_the_logit_of_training_times_has_the_location_and_scale_asked_for() -> None:
    config = FlowConfig(training_times="logit-normal", time_location=0.6, time_scale=1.5, timestep_transform=False)
    flow = RectifiedFlow(config)
    logits = torch.logit(flow.training_timesteps(flow.draw(20_000, torch.Generator().manual_seed(0)), (8, 8, 8)) / 1000)
    assert float(logits.mean()) == pytest.approx(0.6, abs=0.05)
    assert float(logits.std()) == pytest.approx(1.5, abs=0.05)


@pytest.mark.parametrize("released", [False, True])
def test_shifted_times_still_end_at_the_data(released: bool) -> None:
    flow = RectifiedFlow(FlowConfig(timestep_transform=False, step_sizes="released" if released else "exact"))
    noise, v = torch.randn(2, 1, 1, 4, 4, 2, dtype=torch.float64).unbind()
    for solver in SOLVERS if not released else ("heun",):
        torch.testing.assert_close(flow.sample(lambda x, t: v, noise, 9, solver, 1.6, 2.0), noise + v)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("location", "scale"), [(5.0, 3.0), (-5.0, 3.0), (0.0, 1e-3)])
def test_no_times_fall_together(solver: str, location: float, scale: float) -> None:
    x = torch.ones(1, 1, 2, 2, 2)
    out = RectifiedFlow(PLAIN).sample(lambda x, t: x, x, 1000, solver, location, scale)
    assert out.isfinite().all()


def test_a_shift_moves_times_towards_noise_and_one_leaves_them() -> None:
    flow = RectifiedFlow(PLAIN)
    even, shifted = (flow.sampling_timesteps(8, (4, 4, 4), math.log(s)) for s in (1.0, 3.0))
    assert even == flow.sampling_timesteps(8, (4, 4, 4)) == [1000 - 125 * i for i in range(8)]
    assert shifted[0] == 1000
    assert all(b > a for a, b in zip(even[1:], shifted[1:], strict=True))
    assert shifted == sorted(shifted, reverse=True)
    assert flow.sampling_timesteps(2, (4, 4, 4), math.log(3))[1] == pytest.approx(750)
    ends = flow.sampling_timesteps(8, (4, 4, 4), 0.0, 2.0)
    assert ends[1] > even[1]
    assert ends[4] == pytest.approx(500)
    assert ends[-1] < even[-1]


def test_a_wide_gaussian_needs_times_near_noise() -> None:
    """Data N(0, 20²) in one component: even steps jump over the times at which its value is decided."""
    deviation, noise = 20.0, torch.ones(1, 1, 1, 1, 1, dtype=torch.float64)

    def velocity(x: torch.Tensor, timestep: float) -> torch.Tensor:
        t = timestep / TIMESTEPS
        return ((1 - t) * deviation**2 - t) * x / ((1 - t) ** 2 * deviation**2 + t**2)

    even, shifted = (float(RectifiedFlow(PLAIN).sample(velocity, noise, 12, "heun", s)) for s in (0.0, 2.5))
    assert abs(shifted - deviation) < 0.3 * deviation < abs(even - deviation)


def test_guidance_interpolates() -> None:
    conditional, unconditional = torch.randn(2, 4).unbind()
    torch.testing.assert_close(guided(conditional, unconditional, 1.0), conditional)
    torch.testing.assert_close(guided(conditional, unconditional, 0.0), unconditional)
