"""Weights from files into modules: names, shapes and values checked, memory for each tensor taken once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from text2ct.errors import UserError, first_of

SHOWN = 20
Shape = tuple[int, ...]


def shapes(state: Mapping[str, Tensor]) -> dict[str, Shape]:
    """Name to shape."""
    return {name: tuple(value.shape) for name, value in state.items()}


def expected_shapes(build: Callable[[Any], nn.Module], config: BaseModel) -> dict[str, Shape]:
    """Names and shapes of the state of a module that is never given memory."""
    with torch.device("meta"):
        return shapes(built(build, config).state_dict())


def built(build: Callable[[Any], Any], config: BaseModel) -> Any:
    """Build a component.

    Raises:
        UserError: Its configuration has fields of the right types that make no network together.
    """
    try:
        return build(config)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # MONAI, transformers and torch raise what the numbers lead them to
        name = getattr(build, "__name__", "component")
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"a config.json describes no {name} that can be built: {reason}") from error


def fit_problems(found: Mapping[str, Shape], expected: Mapping[str, Shape], owner: str) -> list[str]:
    """Every name that is missing, surplus or of another shape, sorted."""
    problems = [f"{name}: missing" for name in expected.keys() - found.keys()]
    problems += [f"{name}: not a parameter of {owner}" for name in found.keys() - expected.keys()]
    problems += [
        f"{name}: shape {found[name]}, expected {expected[name]}"
        for name in found.keys() & expected.keys()
        if found[name] != expected[name]
    ]
    return sorted(problems)


def is_finite(value: Tensor) -> bool:
    """Whether a tensor holds neither NaN nor an infinity; takes no memory of the tensor's size."""
    if not value.is_floating_point() or not value.numel():
        return True
    # The smallest and the largest are NaN where any value is.
    return all(bool(end.isfinite()) for end in value.aminmax())


def not_finite(state: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that hold NaN or an infinity."""
    return [name for name, value in state.items() if not is_finite(value)]


def load_module(
    build: Callable[[Any], nn.Module],
    config: BaseModel,
    weights: Path,
    part: Callable[[Any], nn.Module] | None = None,
) -> nn.Module:
    """Build a module around the weights of a safetensors file, in evaluation mode.

    Floating-point weights become float32, as the modules' arithmetic is. Nothing is drawn at random first, and
    weights stored in float32 are mapped, so they take memory when they are first read.

    Args:
        build: Makes the module that the file belongs to.
        config: Its configuration.
        weights: The file.
        part: Makes a part of the module: then only the part's weights are read.

    Raises:
        UserError: The file is damaged, does not fit the configuration, or holds values that are not finite.
    """
    try:
        with safe_open(weights, framework="pt") as stream:
            found = {name: tuple(stream.get_slice(name).get_shape()) for name in stream.keys()}  # noqa: SIM118
            owner = getattr(build, "__name__", "this component")
            problems = fit_problems(found, expected_shapes(build, config), owner)
            if problems:
                raise UserError(f"{weights} does not fit its config.json", first_of(problems, SHOWN))
            with torch.device("meta"):
                module = built(part or build, config)
            expected = module.state_dict()
            state = {name: stream.get_tensor(name).to(value.dtype) for name, value in expected.items()}
    except SafetensorError as error:
        raise UserError(f"{weights} is not a whole safetensors file: {error}") from error
    _refuse_not_finite(weights, state)
    module.load_state_dict(state, assign=True)
    # Sums over channels are contiguous in this layout, which every backend's 3D convolution is fastest in.
    return module.eval().requires_grad_(False).to(memory_format=torch.channels_last_3d)


def _refuse_not_finite(path: Path, state: Mapping[str, Tensor]) -> None:
    bad = not_finite(state)
    if bad:
        raise UserError(f"{path} holds NaN or infinite weights; get it again", first_of(bad, SHOWN))
