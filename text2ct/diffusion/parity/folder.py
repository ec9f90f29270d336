"""A fixture's files, read with a clear word about what is missing or damaged."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel
from torch import nn

from text2ct.diffusion.checkpoints import check_state, read_checkpoint, state_of
from text2ct.diffusion.training.config import parse_config
from text2ct.diffusion.weights import shapes
from text2ct.errors import UserError
from text2ct.files import read_json


class Arrays(Mapping[str, NDArray[Any]]):
    """The arrays of an ``.npz`` file; one that is asked for and absent is named."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with path.open("rb") as stream, np.load(stream) as stored:
                self._arrays = {name: stored[name] for name in stored.files}
        except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} cannot be read as arrays: {error}") from error

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._arrays:
            raise UserError(f"{self._path} lacks the array '{name}'")
        return self._arrays[name]

    def __contains__(self, name: object) -> bool:
        return name in self._arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def tensor(self, name: str) -> torch.Tensor:
        """An array as a tensor."""
        return torch.from_numpy(np.asarray(self[name]))


@dataclass(frozen=True)
class Folder:
    """One variant of a fixture.

    Attributes:
        path: Its folder.
        variant: The folder's name in the table.
    """

    path: Path
    variant: str

    def has(self, name: str) -> bool:
        """Whether it holds a file."""
        return (self.path / name).is_file()

    def arrays(self, name: str) -> Arrays:
        """An ``.npz`` file of it."""
        return Arrays(self.path / name)

    def json(self, name: str = "config.json") -> Any:
        """A JSON file of it."""
        return read_json(self.path / name)

    def checkpoint(self, name: str) -> dict[str, Any]:
        """A ``.pt`` file of it."""
        return read_checkpoint(self.path / name)

    def config(self, model: type[BaseModel], values: dict[str, Any], fixed: dict[str, Any]) -> Any:
        """Our configuration of a released one.

        Args:
            model: Ours.
            values: Theirs.
            fixed: Keys of theirs that ours has no choice about, with the one value that it knows; None for any.

        Raises:
            UserError: A key that is not known, or a value that ours cannot have.
        """
        origin = self.path / "config.json"
        wrong = [
            f"{key} is {values[key]}; only {known} is known"
            for key, known in fixed.items()
            if known is not None and values.get(key, known) != known
        ]
        if wrong:
            raise UserError(f"{origin} describes another network", wrong)
        return parse_config(model, {key: value for key, value in values.items() if key not in fixed}, origin)

    def build(
        self, make: Callable[[Any], nn.Module], config: BaseModel, name: str, state: Mapping[str, Any]
    ) -> nn.Module:
        """Our network with the fixture's weights, in evaluation mode; ``name`` is the file that they are from."""
        module = make(config)
        path = self.path / name
        tensors = state_of(path, state)
        check_state(path, tensors, shapes(module.state_dict()), f"the {type(module).__name__} of config.json")
        module.load_state_dict(tensors)
        return module.eval()
