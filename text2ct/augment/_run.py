"""A synthesis run on disk: what was asked, which volumes are done, and what proves it."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from pathlib import Path

import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from text2ct.augment._scans import NAMES
from text2ct.console import warn
from text2ct.errors import UserError
from text2ct.files import read_json, sha256_file, write_json

REQUEST_FILE = "request.json"
TRY_FILE = "try.json"
"""Marks a run in which a gate made rejected volumes again: that gate's manifest holds them, judged."""
_FROM_REQUEST = {
    "pack", "pack_sha256", "guidance_scale", "guidance_interval", "steps", "solver", "time_location", "time_scale",
    "decode", "batch_size",
}  # fmt: skip
# 48 bits survive a table that stores numbers as float64.
SEED_BITS = 48


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RunRequest(_Strict):
    """Everything that decides the voxels of a run; its digest names the run."""

    version: int = 1
    pack: str
    pack_sha256: str
    seed: int
    guidance_scale: float
    guidance_interval: tuple[float, float]
    steps: int
    solver: str
    time_location: float
    time_scale: float
    decode: str
    format: str
    batch_size: int
    volumes: int
    requests_sha256: str

    @property
    def digest(self) -> str:
        """SHA-256 of the request as canonical JSON."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @property
    def run_name(self) -> str:
        """The run's name when the user gives none: the same request finds the same folder again."""
        return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', self.pack).strip('-.') or 'pack'}-{self.digest[:8]}"


class Sidecar(_Strict):
    """What is known of one synthetic volume, beside it as JSON."""

    volume: str
    prompt: str
    labels: dict[str, int | None]
    prompt_dataset: str
    prompt_volume: str
    prompt_patient: str
    prompt_split: str
    seed: int
    pack: str
    pack_sha256: str
    guidance_scale: float
    guidance_interval: tuple[float, float]
    steps: int
    solver: str
    time_location: float = 0.0
    time_scale: float = 1.0
    decode: str
    batch_size: int
    size: tuple[int, int, int] | None = None
    spacing_mm: tuple[float, float, float] | None = None
    hu_min: float | None = None
    hu_max: float | None = None
    hu_mean: float | None = None
    sha256: str | None = None

    def asks_the_same(self, other: Sidecar) -> bool:
        """Whether both stem from one request, whatever was measured on the voxels."""
        measured = {"size", "spacing_mm", "hu_min", "hu_max", "hu_mean", "sha256"}
        return self.model_dump(exclude=measured) == other.model_dump(exclude=measured)


def volume_seed(seed: int, prompt: str, occurrence: int) -> int:
    """The seed of one volume, from the run's seed, its prompt and how often the prompt came before.

    Neither the order of other prompts nor the batch enters; seed 0 is a seed like any other.

    Returns:
        An integer in [0, 2**48).
    """
    key = json.dumps([seed, prompt, occurrence]).encode()
    return int.from_bytes(hashlib.sha256(key).digest()[: SEED_BITS // 8], "big")


def requests_digest(requests: pd.DataFrame) -> str:
    """SHA-256 of the rows of a requests table."""
    rows = [
        [None if isinstance(v, float) and math.isnan(v) else v for v in row]
        for row in requests.itertuples(index=False, name=None)
    ]
    return hashlib.sha256(json.dumps(rows, ensure_ascii=True).encode()).hexdigest()


def planned_sidecars(requests: pd.DataFrame, request: RunRequest) -> list[Sidecar]:
    """One sidecar per volume, in order, before anything is generated."""
    seen: Counter[str] = Counter()
    names: Counter[str] = Counter()
    sidecars = []
    width = max(6, len(str(len(requests))))
    for index, row in enumerate(requests.to_dict("records")):
        stem = row["name"] or f"synthetic_{index:0{width}d}"
        names[stem] += 1
        if names[stem] > 1:
            stem = f"{stem}_{names[stem]}"
        prompt = row["prompt"]
        sidecars.append(
            Sidecar(
                volume=f"{stem}.{request.format}",
                prompt=prompt,
                labels={name: None if math.isnan(row[name]) else int(row[name]) for name in NAMES},
                prompt_dataset=row["dataset"],
                prompt_volume=row["volume"],
                prompt_patient=row["patient"],
                prompt_split=row["split"],
                seed=volume_seed(request.seed, prompt, seen[prompt]),
                **request.model_dump(include=_FROM_REQUEST),
            )
        )
        seen[prompt] += 1
    twice = [name for name, times in Counter(s.volume for s in sidecars).items() if times > 1]
    if twice:
        raise UserError("two volumes would get the same file name; rename them in the prompts", twice)
    return sidecars


class RunFolder:
    """``synthetic/<run>/``: request.json, pack.json, volumes/, sidecars/, manifest.csv."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest = path / "manifest.csv"

    def volume(self, sidecar: Sidecar) -> Path:
        """Where a volume's voxels are."""
        return self.path / "volumes" / sidecar.volume

    def sidecar(self, sidecar: Sidecar) -> Path:
        """Where a volume's sidecar is."""
        return self.path / "sidecars" / f"{sidecar.volume}.json"

    def check(self, request: RunRequest) -> None:
        """Refuse to continue a run that was asked for something else.

        Raises:
            UserError: The folder holds another request, or files without one.
        """
        file = self.path / REQUEST_FILE
        if not file.exists():
            there = [p.name for p in self.path.iterdir()] if self.path.is_dir() else []
            if any(name != TRY_FILE and not name.startswith(".") for name in there):
                raise UserError(f"{self.path} holds files but no {REQUEST_FILE}; give another --run")
            return
        before, now = read_json(file), request.model_dump(mode="json")
        if before != now:
            known = before if isinstance(before, dict) else {}
            problems = [
                f"{key}: then {known.get(key)}, now {value}" for key, value in now.items() if known.get(key) != value
            ]
            raise UserError(
                f"run '{self.path.name}' was made from another request; give another --run, or none",
                problems,
            )

    def begin(self, request: RunRequest) -> None:
        """Write the request, so that later commands can tell what this run is."""
        file = self.path / REQUEST_FILE
        if not file.exists():
            write_json(file, request.model_dump(mode="json"))

    def done(self, planned: Sidecar) -> Sidecar | None:
        """The finished sidecar of a volume, or None when it is to be made (again).

        A volume counts as done only if its sidecar stems from the same request and its file has the
        sidecar's SHA-256; anything else is said and remade.
        """
        file, voxels = self.sidecar(planned), self.volume(planned)
        if not file.exists():
            return None
        try:
            found = Sidecar.model_validate(read_json(file))
        except (UserError, ValidationError):
            warn(f"{file.name} is damaged; the volume is made again")
            return None
        if not found.asks_the_same(planned) or found.sha256 is None:
            warn(f"{file.name} does not belong to this request; the volume is made again")
            return None
        if not voxels.is_file() or sha256_file(voxels) != found.sha256:
            warn(f"{planned.volume} is {'altered' if voxels.is_file() else 'missing'}; it is made again")
            return None
        return found
