"""Solvers of the flow's equation ``dx/dt = -v``, from noise at t = 1 to data at t = 0.

Each takes at most as many evaluations as there are times, so they can be compared at equal cost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor

Velocity = Callable[[Tensor, float], Tensor]
# A velocity, the noise and the times in [0, 1], falling, the last of them 0 for every solver but the released Euler.
Solver = Callable[[Velocity, Tensor, Sequence[float]], Tensor]


def euler(velocity: Velocity, x: Tensor, times: Sequence[float]) -> Tensor:
    """First order: one evaluation a step."""
    for t, after in zip(times, [*times[1:], 0.0], strict=True):
        x = x + (t - after) * velocity(x, t)
    return x


def heun(velocity: Velocity, x: Tensor, times: Sequence[float]) -> Tensor:
    """Second order by two evaluations a step, the last step Euler's (Karras et al. 2022, arXiv 2206.00364, alg. 1)."""
    times = times[::2]
    for t, after in zip(times, [*times[1:], 0.0], strict=True):
        v = velocity(x, t)
        reached = x + (t - after) * v
        x = reached if after == 0 else x + (t - after) * (v + velocity(reached, after)) / 2
    return x


def adams_bashforth(velocity: Velocity, x: Tensor, times: Sequence[float]) -> Tensor:
    """Second order by the slope of the last two velocities, for steps of any size; the first step is Euler's."""
    last: tuple[float, Tensor] | None = None
    for t, after in zip(times, [*times[1:], 0.0], strict=True):
        v = velocity(x, t)
        slope = v if last is None else v + (t - after) / (2 * (last[0] - t)) * (v - last[1])
        x, last = x + (t - after) * slope, (t, v)
    return x


def dpm_solver(velocity: Velocity, x: Tensor, times: Sequence[float]) -> Tensor:
    """DPM-Solver++(2M) for this path (Lu et al. 2022, arXiv 2211.01095, alg. 2).

    The data ``x_0 = x + t·v`` is extrapolated over the half log signal-to-noise ratio ``log((1 - t) / t)``; the
    last step, which has none, is of first order, and so are the two that touch pure noise.
    """
    last: tuple[float, Tensor] | None = None
    for t, after in zip(times, [*times[1:], 0.0], strict=True):
        data = x + t * velocity(x, t)
        wanted = data
        if last is not None and last[0] < 1 and after > 0:
            ratio = (_half_log_snr(t) - _half_log_snr(last[0])) / (_half_log_snr(after) - _half_log_snr(t))
            wanted = data + (data - last[1]) / (2 * ratio)
        x, last = (after / t) * x + (1 - after / t) * wanted, (t, data)
    return x


def _half_log_snr(t: float) -> float:
    return math.log((1 - t) / t)


SOLVERS: dict[str, Solver] = {
    "euler": euler,
    "heun": heun,
    "adams-bashforth": adams_bashforth,
    "dpm-solver": dpm_solver,
}
