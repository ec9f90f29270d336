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
from text2ct.compute import device_name
from text2ct.diffusion.generate import generate
from text2ct.diffusion.pack import Pack
from text2ct.files import atomic_path, read_json, write_json
from text2ct.workers import available_cores

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

    def section(self, name: str, measure: Callable[[], dict[str, Any]], **more: Any) -> dict[str, Any]:
        """What ``measure`` said the first time; ``more`` is what decides this section besides."""
        path, question = self.folder / f"{name}.json", self.question | more
        if not path.is_file() or read_json(path)["question"] != question:
            console.info(f"measuring: {name}")
            write_json(path, {"question": question, "found": measure()})
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
                    speed = {"seconds_per_volume": seconds, **_machine(device)}
                    write_json(record, {"prompts_sha256": made_of, **speed})
                out += list(np.load(path, mmap_mode="r"))
                advance(len(some))
        return out

    def speed(self, name: str, count: int) -> dict[str, Any]:
        """``n``, ``seconds_per_volume``, ``device`` and ``cores`` of the first ``count`` volumes.

        The time is the median over their files. Where several machines made them, it is that of the one that made
        most, and ``n`` how many these are; ``device`` and ``cores`` are None where they were not recorded.
        """
        by_machine: dict[tuple[str | None, int | None], list[tuple[int, float]]] = {}
        for start in range(0, count, CHUNK):
            record = read_json(self.folder / name / f"{start:05d}.json")
            made = min(CHUNK, count - start), record["seconds_per_volume"]
            by_machine.setdefault((record.get("device"), record.get("cores")), []).append(made)
        (device, cores), files = max(by_machine.items(), key=lambda item: sum(n for n, _ in item[1]))
        seconds = float(np.median([seconds for _, seconds in files]))
        return {
            "n": sum(n for n, _ in files),
            "seconds_per_volume": round(seconds, 2),
            "device": device,
            "cores": cores,
        }


def _machine(device: torch.device) -> dict[str, Any]:
    return {"device": device_name(device), "cores": available_cores()}
