"""PyTorch checkpoints from elsewhere: read without running any code in them, and told apart when they are bad."""

from __future__ import annotations

import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, TypeVar

import torch
from torch import Tensor

from text2ct.diffusion.weights import SHOWN, Shape, fit_problems, not_finite, shapes
from text2ct.errors import UserError, first_of

Value = TypeVar("Value")


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
        with warnings.catch_warnings():
            # What it warns of is refused below, in our words.
            warnings.filterwarnings("ignore", message="Detected pickle protocol", category=UserWarning)
            # Checkpoints older than PyTorch 1.6 are plain pickles, which cannot be mapped.
            stored = zipfile.is_zipfile(path)
            if stored:
                _refuse_packed(path)
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=stored or None)
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} {_why_not_loaded(path, str(error))}") from None
    except (PermissionError, MemoryError) as error:
        raise UserError(f"{path} cannot be read: {error or 'there is too little memory'}") from None
    except Exception:  # the library raises what the bytes happen to lead it to, and its advice is for its own users
        raise UserError(f"{path} is not a whole PyTorch checkpoint: it is cut short or damaged; get it again") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} holds a {type(found).__name__}, not a state dict")
    return found


def _refuse_packed(path: Path) -> None:
    """Refuse compressed parts: PyTorch stores weights as they are, and would map packed bytes as weights."""
    with zipfile.ZipFile(path) as archive:
        packed = [one.filename for one in archive.infolist() if one.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise UserError(f"{path} is a compressed archive, which torch.save does not write; get it again")


def _why_not_loaded(path: Path, message: str) -> str:
    """What is wrong with a file that PyTorch refused, told from its long message or else from the file's opcodes."""
    names = re.findall(r"GLOBAL ([\w.]+)", message)
    if not names and not any(word in message.lower() for word in ("reduce", "instantiate", "build instruction")):
        found = _globals_of(path)
        if found is None:
            return "is not a PyTorch checkpoint, or is damaged; get it again"
        if not found:
            return "is a pickle that torch.save does not write, and is not loaded; get the weights as a state dict"
        names = found
    what = f" ({names[0]})" if names and names[0] else ""
    return f"holds code{what}, not weights alone, and is not loaded; get the weights from their authors as a state dict"


def _globals_of(path: Path) -> list[str] | None:
    """What the pickle in a file would import, read without running it; None if there is no pickle."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as stored:
                name = next((name for name in stored.namelist() if name.endswith("data.pkl")), "")
                with stored.open(name) as member:
                    return _globals_in(member)
        with path.open("rb") as stream:
            return _globals_in(stream)
    except Exception:  # the libraries raise what the bytes lead them to, MemoryError included
        return None


def _globals_in(stream: IO[bytes]) -> list[str]:
    """Names that a pickle imports, without those that weights have; one told in a roundabout way is empty."""
    names: list[str] = []
    recent: list[str | None] = [None, None]
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name in ("GLOBAL", "INST"):
            names.append(str(argument).replace(" ", "."))
        elif opcode.name == "STACK_GLOBAL":
            module, name = recent
            names.append(f"{module}.{name}" if module and name else "")
        if opcode.name not in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
            recent = [recent[1], str(argument) if "UNICODE" in opcode.name else None]
    return [name for name in names if not name.startswith("torch.") and name != "collections.OrderedDict"]


def state_of(path: Path, found: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a state dict, each with memory of its own.

    Raises:
        UserError: A value is no tensor.
    """
    strange = [f"{name}: {type(value).__name__}" for name, value in found.items() if not isinstance(value, Tensor)]
    if strange or not found:
        raise UserError(
            f"{path} is not a state dict: names of tensors were expected", first_of(strange or ["empty"], SHOWN)
        )
    return {
        name: value if value.untyped_storage().nbytes() == value.numel() * value.element_size() else value.clone()
        for name, value in found.items()
    }


def drop_position_ids(state: Mapping[str, Value]) -> dict[str, Value]:
    """A state without a text tower's positions 0..511, which old versions of transformers stored with the weights."""
    return {name: value for name, value in state.items() if not name.endswith(".embeddings.position_ids")}


def check_state(path: Path, state: Mapping[str, Tensor], expected: Mapping[str, Shape], owner: str) -> None:
    """Compare a state's names and shapes with those expected, and its values with numbers.

    Raises:
        UserError: Every difference, key by key, the first 20 and how many more.
    """
    problems = fit_problems(shapes(state), expected, owner)
    if problems:
        raise UserError(f"{path} is not {owner}: {len(problems)} of its entries differ", first_of(problems, SHOWN))
    bad = not_finite(state)
    if bad:
        raise UserError(f"{path} holds NaN or infinite weights; get it again", first_of(bad, SHOWN))
