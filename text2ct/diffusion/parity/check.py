"""Finds fixtures below a folder and checks each with the code for its kind: the registry."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from text2ct.diffusion.parity.clip3d import check_clip3d
from text2ct.diffusion.parity.folder import Folder
from text2ct.diffusion.parity.names import check_names
from text2ct.diffusion.parity.preprocess import check_preprocess
from text2ct.diffusion.parity.result import ArrayResult
from text2ct.diffusion.parity.sampler import check_full_size_times, check_sampler
from text2ct.diffusion.parity.training_step import check_training_step
from text2ct.diffusion.parity.vae import check_vae
from text2ct.errors import UserError


@dataclass(frozen=True)
class Kind:
    """A kind of fixture.

    Attributes:
        files: Patterns that all match a file of its folder; of a tuple of them, one is enough.
        check: Compares ours with it.
    """

    files: tuple[str | tuple[str, ...], ...]
    check: Callable[[Folder], Iterator[ArrayResult]]

    def missing(self, path: Path) -> list[str]:
        """The files of this kind that a folder lacks."""
        options = [(entry,) if isinstance(entry, str) else entry for entry in self.files]
        return [" or ".join(names) for names in options if not any(any(path.glob(name)) for name in names)]


KINDS = (
    Kind(("clip3d_state_dict.pt", ("text.npz", "text_own.npz", "vision.npz")), check_clip3d),
    Kind(("unet_ckpt.pt", "sampler.npz"), check_sampler),
    Kind(("autoencoder_state_dict.pt", "vae.npz"), check_vae),
    Kind(("input.nii.gz", "expected.npz"), check_preprocess),
    Kind(("unet_before.pt", "training.npz"), check_training_step),
    Kind(("timesteps_full_size_*.json",), check_full_size_times),
    Kind(("keys_full.json",), check_names),
)

# What a file of other contents than a fixture's leads to; JSON that is a list where an object was expected, a size of
# zero, an array of text.
_MALFORMED = (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class ParityReport:
    """All compared arrays, and what is wrong with the folders that could not be compared."""

    arrays: tuple[ArrayResult, ...]
    damaged: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether every array is within its tolerance."""
        return not self.damaged and all(result.holds for result in self.arrays)


def check_parity(root: Path) -> ParityReport:
    """Run ours on every fixture below ``root`` and compare, in float32 on the CPU.

    Raises:
        UserError: No fixture is there.
    """
    if not root.is_dir():
        raise UserError(f"{root} is not a folder")
    results: list[ArrayResult] = []
    damaged: list[str] = []
    found = False
    for path in sorted({root, *(path for path in root.rglob("*") if path.is_dir())}):
        for kind in KINDS:
            missing = kind.missing(path)
            if len(missing) == len(kind.files):
                continue
            found = True
            if missing:
                damaged.append(f"{path} lacks {', '.join(missing)}")
                continue
            folder = Folder(path, path.relative_to(root).as_posix() if path != root else root.resolve().name)
            try:
                with torch.random.fork_rng(devices=[]):
                    results += kind.check(folder)
            except UserError as error:
                damaged.append(str(error))
            except _MALFORMED as error:
                damaged.append(f"{path}: not of the expected format ({type(error).__name__}: {error})")
    if not found:
        raise UserError(f"{root} holds no parity fixtures: no folder below it has the files of a kind that is known")
    return ParityReport(tuple(results), tuple(damaged))
