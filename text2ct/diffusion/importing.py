"""The released ``.pt`` files to a pack: the same numbers, under the same names, in files that hold no code."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from text2ct import console
from text2ct.diffusion import released
from text2ct.diffusion.checkpoints import check_state, drop_position_ids, read_checkpoint, state_of
from text2ct.diffusion.cleaning import TextCleaning
from text2ct.diffusion.clip_vocabulary import clip_tokenizer
from text2ct.diffusion.components import COMPONENT_TYPES, type_of
from text2ct.diffusion.pack import Pack, Part, save_networks
from text2ct.diffusion.unfinished import check_name, making_pack, refuse_in_use
from text2ct.diffusion.weights import expected_shapes
from text2ct.errors import UserError

# The released CLIP checkpoint is of a module that holds the towers as `model`.
CLIP_PREFIX = "model."
UNET_STATE = "unet_state_dict"
# Read, written and hashed on one core.
BYTES_PER_SECOND = 3e8


@dataclass(frozen=True)
class ReleasedWeights:
    """Weights read from the released files and found to fit.

    Attributes:
        states: Component to its state, in our modules' names.
        scale_factor: What latents are multiplied by.
    """

    states: dict[str, dict[str, Tensor]]
    scale_factor: float

    @property
    def bytes(self) -> int:
        """Of all tensors."""
        return sum(value.nbytes for state in self.states.values() for value in state.values())


def read_released(files: dict[str, Path]) -> ReleasedWeights:
    """Read and check released files.

    Args:
        files: Component (``vae``, ``unet`` or ``clip``) to its file; any of them may be absent, not all.

    Raises:
        UserError: Everything that is wrong with any of them.
    """
    if not files:
        raise UserError("name at least one of --autoencoder, --unet and --clip")
    states: dict[str, dict[str, Tensor]] = {}
    scale_factor = released.SCALE_FACTOR
    errors: list[UserError] = []
    for component, path in files.items():
        try:
            found = read_checkpoint(path)
            if component == "unet" and UNET_STATE in found:
                scale_factor = _scale_factor(path, found)
                found = found[UNET_STATE]
            states[component] = _checked(component, path, found)
        except UserError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise UserError("these files cannot be imported", [str(error) for error in errors])
    return ReleasedWeights(states, scale_factor)


def _scale_factor(path: Path, checkpoint: dict[str, Any]) -> float:
    try:
        value = float(checkpoint["scale_factor"])
    except KeyError:
        raise UserError(f"{path} has '{UNET_STATE}' but no 'scale_factor'; the latents' scale is not known") from None
    except (TypeError, ValueError, RuntimeError):
        raise UserError(f"{path}: 'scale_factor' is not a number") from None
    if not 0 < value < math.inf:
        raise UserError(f"{path}: 'scale_factor' is {value}; expected a positive number")
    return value


def _checked(component: str, path: Path, found: dict[str, Any]) -> dict[str, Tensor]:
    """A component's state in our names, compared with what the released sizes have."""
    config = released.NETWORKS[component]
    entry = COMPONENT_TYPES[type_of(config)]
    expected = expected_shapes(entry.build, config)
    prefix = CLIP_PREFIX if component == "clip" else ""
    state = drop_position_ids(state_of(path, found))
    check_state(path, state, {prefix + name: shape for name, shape in expected.items()}, f"the released {component}")
    return {name.removeprefix(prefix): value for name, value in state.items()}


def import_pack(
    out: Path,
    files: dict[str, Path],
    *,
    name: str = "text2ct",
    text_cleaning: TextCleaning = released.TEXT_CLEANING,
) -> Pack:
    """Turn released checkpoints into a pack; weights keep the type that they come in.

    Args:
        out: The pack's folder: absent, empty, or left by the same import when it was stopped.
        files: As for :func:`read_released`.
        name: The pack's name.
        text_cleaning: Which cleaning the text tower was trained with is not known; see
            :mod:`text2ct.diffusion.cleaning`.

    Raises:
        UserError: Everything that is wrong with the files, or ``out`` is in use.
    """
    check_name(name)
    sources = {component: [str(path.resolve()), _size(path)] for component, path in files.items()}
    request = {"import": sources, "name": name, "text_cleaning": text_cleaning}
    refuse_in_use(out, request)
    weights = read_released(files)
    with making_pack(out, request):
        return write_released(out, weights, name=name, text_cleaning=text_cleaning)


def estimate_import(files: dict[str, Path]) -> dict[str, float]:
    """``seconds`` and ``bytes`` of an import; the files are read and checked, so a bad one is found."""
    size = read_released(files).bytes
    return {"seconds": round(1 + size / BYTES_PER_SECOND, 1), "bytes": size}


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def write_released(
    out: Path, weights: ReleasedWeights, *, name: str, text_cleaning: TextCleaning, source: str = ""
) -> Pack:
    """Write the pack of checked weights; ``source`` is where they are from, for its description."""
    info = released.released_info(name, weights.scale_factor, text_cleaning, source)
    networks = {component: Part(released.NETWORKS[component], state) for component, state in weights.states.items()}
    if "clip" not in networks:
        console.info("without --clip the pack reads no texts")
    return save_networks(out, info, networks, released.FLOW, clip_tokenizer, dtype=None)
