"""What a measurement of a pack keeps, so that an interrupted one goes on."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from text2ct import console
from text2ct.diffusion.generate import generate
from text2ct.diffusion.pack import Pack
from text2ct.files import atomic_path, read_json, write_json

BATCH = 8
# Volumes of one file of generated volumes: what an interruption may lose.
CHUNK = 40


class Kept:
    """Sections that are measured once for the same question, and volumes that are made once for the same prompts.

    Args:
        folder: Of one pack and one way of sampling.
        question: What decides the sections beside the pack; another one measures them again.
    """

    def __init__(self, folder: Path, question: dict[str, Any]) -> None:
        self.folder = folder
        self.question = question

    def section(self, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What ``measure`` said the first time."""
        path = self.folder / f"{name}.json"
        if not path.is_file() or read_json(path)["question"] != self.question:
            console.info(f"measuring: {name}")
            write_json(path, {"question": self.question, "found": measure()})
        found: dict[str, Any] = read_json(path)["found"]
        return found

    def volumes(self, name: str, pack: Pack, prompts: Sequence[str], device: torch.device) -> list[NDArray[np.int16]]:
        """A volume of each prompt, seed i for prompt i, rounded to whole HU."""
        out: list[NDArray[np.int16]] = []
        with console.progress(f"generating: {name}", len(prompts)) as advance:
            for start in range(0, len(prompts), CHUNK):
                path = self.folder / name / f"{start:05d}.npy"
                some = list(prompts[start : start + CHUNK])
                record, made_of = path.with_suffix(".json"), hashlib.sha256("\0".join(some).encode()).hexdigest()
                if not (path.is_file() and record.is_file() and read_json(record)["prompts_sha256"] == made_of):
                    seeds = list(range(start, start + len(some)))
                    begun = time.monotonic()
                    made = generate(pack, some, seeds, device=device, batch_size=BATCH)
                    seconds = (time.monotonic() - begun) / len(some)
                    with atomic_path(path) as temporary, temporary.open("wb") as stream:
                        np.save(stream, np.rint(made).astype(np.int16))
                    write_json(record, {"prompts_sha256": made_of, "seconds_per_volume": seconds})
                out += list(np.load(path, mmap_mode="r"))
                advance(len(some))
        return out

    def seconds_per_volume(self, name: str, count: int) -> float:
        """The median over the files of the first ``count`` volumes."""
        files = [self.folder / name / f"{start:05d}.json" for start in range(0, count, CHUNK)]
        return float(np.median([read_json(path)["seconds_per_volume"] for path in files]))
