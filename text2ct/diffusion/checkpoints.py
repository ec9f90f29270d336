"""PyTorch checkpoints from elsewhere: read without running any code in them, and told apart when they are bad."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from text2ct.diffusion.weights import Shape, first_of, fit_problems, not_finite, shapes
from text2ct.errors import UserError


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's dictionary; large tensors are mapped, not read.

    Raises:
        UserError: No such file, not a checkpoint, damaged, or one that holds code.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist")
    if path.is_dir():
        raise UserError(f"{path} is a folder; name the checkpoint file in it")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty; get it again")
    try:
        # Checkpoints older than PyTorch 1.6 are plain pickles, which cannot be mapped.
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path) or None)
    except pickle.UnpicklingError as error:
        reason = str(error)
        if any(word in reason.lower() for word in ("global", "reduce", "instantiate", "build instruction")):
            raise UserError(
                f"{path} holds code, not weights alone, and is not loaded; get the weights from their authors as a "
                f"state dict ({_reason(reason)})"
            ) from None
        raise UserError(f"{path} is not a PyTorch checkpoint, or is damaged; get it again") from None
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError, OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} is not a whole PyTorch checkpoint; get it again ({str(error).splitlines()[0][:120]})"
        ) from None
    if not isinstance(found, dict):
        raise UserError(f"{path} holds a {type(found).__name__}, not a state dict")
    return found


def _reason(message: str) -> str:
    """The sentence of PyTorch's long message that names what was refused."""
    sentences = [line.strip() for line in message.splitlines()]
    return next((line for line in sentences if "WeightsUnpickler error" in line), sentences[0])[:160]


def state_of(path: Path, found: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a state dict, each with memory of its own.

    Raises:
        UserError: A value is no tensor.
    """
    strange = [f"{name}: {type(value).__name__}" for name, value in found.items() if not isinstance(value, Tensor)]
    if strange or not found:
        raise UserError(f"{path} is not a state dict: names of tensors were expected", first_of(strange or ["empty"]))
    return {
        name: value if value.untyped_storage().nbytes() == value.numel() * value.element_size() else value.clone()
        for name, value in found.items()
    }


def check_state(path: Path, state: Mapping[str, Tensor], expected: Mapping[str, Shape], owner: str) -> None:
    """Compare a state's names and shapes with those expected, and its values with numbers.

    Raises:
        UserError: Every difference, key by key, the first 20 and how many more.
    """
    problems = fit_problems(shapes(state), expected, owner)
    if problems:
        raise UserError(f"{path} is not {owner}: {len(problems)} of its entries differ", first_of(problems))
    bad = not_finite(state)
    if bad:
        raise UserError(f"{path} holds NaN or infinite weights; get it again", first_of(bad))
