"""Prompts in, synthetic CT volumes out: batched, seeded per volume, and safe to interrupt."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd

from text2ct.augment._run import RunFolder, RunRequest, Sidecar, planned_sidecars, requests_digest
from text2ct.augment._scans import HELD_OUT, NAMES
from text2ct.augment.prompts import MAX_USES_PER_PROMPT
from text2ct.augment.requests import check_requests
from text2ct.console import info, progress, warn
from text2ct.engines import LOCAL, Engine
from text2ct.errors import UserError
from text2ct.files import sha256_file, write_json, write_text
from text2ct.findings import FINDINGS
from text2ct.locks import working_in
from text2ct.manifests import COLUMNS, SYNTHETIC_COLUMNS, Workspace, write_manifest

Format = Literal["nii.gz", "mha"]
HU_RANGE = (-1000.0, 1000.0)


class PackLike(Protocol):
    """What synthesis needs to know of a model pack (see :class:`text2ct.diffusion.Pack`)."""

    @property
    def info(self) -> Any:
        """``pack.json`` as a typed object: name, defaults."""

    @property
    def sha256(self) -> str:
        """SHA-256 of ``pack.json``."""

    @property
    def usual_batch(self) -> int:
        """Volumes computed together unless told otherwise."""

    @property
    def affine(self) -> np.ndarray:
        """(4, 4) affine of the volumes that the pack makes, RAS+, mm."""


class Generate(Protocol):
    """A generator: one padded batch of prompts to HU volumes (see :func:`text2ct.diffusion.generate`)."""

    def __call__(
        self,
        pack: Any,
        prompts: list[str],
        seeds: list[int],
        *,
        sampling: Any,
        device: str,
        batch_size: int,
    ) -> np.ndarray:
        """Return ``(n, X, Y, Z)`` float32 in HU; row i depends on prompt i, seed i and batch shape."""


class Estimate(Protocol):
    """How long a generator takes (see :func:`text2ct.diffusion.estimate_seconds`)."""

    def __call__(self, pack: Any, *, sampling: Any, device: str, batch_size: int) -> float:
        """Return seconds per volume."""


def synthesize(
    requests: pd.DataFrame,
    *,
    pack: str | Path | PackLike,
    workspace: Workspace,
    run: str | None = None,
    count: int | None = None,
    seed: int = 0,
    sampling: Mapping[str, Any] | None = None,
    format: Format = "nii.gz",
    batch_size: int | None = None,
    device: str = "auto",
    generate: Generate | None = None,
    estimate: Estimate | None = None,
    engine: Engine = LOCAL,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Generate a CT volume per request into ``synthetic/<run>/`` and write its manifest.

    A volume's seed comes from ``seed``, its prompt and how often that prompt came before. Batches are
    fixed by index and always generated whole, so an interrupted run ends in the same bytes. Every
    volume is written atomically, then its sidecar with its SHA-256; on the next call with the same
    request the volumes whose files still have that sum are kept.

    Args:
        requests: Columns of ``text2ct.augment.requests.REQUEST_COLUMNS``; those missing are unknown.
        pack: Name or folder of a model pack, or a loaded one.
        workspace: Where the run's folder lies.
        run: Name of the run; by default from the request, so the same command goes on where it stopped.
        count: Volumes to make, going through the requests in turn; by default one per request.
        seed: Any integer, 0 included.
        sampling: What differs from the pack's own sampling (see :class:`text2ct.diffusion.Sampling`).
        format: ``nii.gz`` or ``mha``.
        batch_size: Volumes per batch; part of the request, since arithmetic depends on the batch's shape. By
            default as many as the pack's grid suggests.
        device: ``auto``, ``cpu``, ``cuda``, ...
        generate: The generator; by default :func:`text2ct.diffusion.generate`.
        estimate: Says what a dry run costs; by default :func:`text2ct.diffusion.estimate_seconds`.
        engine: Where batches are generated and written; their bytes do not depend on it.
        dry_run: Say what would be done, how long and how much disk, and write nothing.

    Returns:
        ``manifest``, ``volumes``, ``resumed``, ``seconds_per_volume`` (None when nothing was made), and
        ``run``; a dry run adds ``dry_run``, ``seconds`` and ``bytes`` (upper bounds for what is left).

    Raises:
        UserError: A bad request, a run of another request, a full or read-only disk, or a pack none of whose
            volumes is finite; some that are not are quarantined.
    """
    requests = _repeat(check_requests(requests, "the prompts"), count)
    _warn_of_repetition(requests)
    held_out = int(requests["split"].isin(HELD_OUT).sum())
    if held_out:
        warn(
            f"{held_out} prompts are of validation or test patients: their volumes must not be trained on, and `mix` "
            "refuses them"
        )
    loaded = _load(pack)
    settings = loaded.info.defaults.updated(**(sampling or {}))
    batch_size = loaded.usual_batch if batch_size is None else batch_size
    _check_settings(format, batch_size)
    request = RunRequest(
        pack=loaded.info.name,
        pack_sha256=loaded.sha256,
        seed=seed,
        **settings.model_dump(),
        format=format,
        batch_size=batch_size,
        volumes=len(requests),
        requests_sha256=requests_digest(requests),
    )
    name = request.run_name if run is None else run
    folder = RunFolder(workspace.run_dir("synthetic", name))
    planned = planned_sidecars(requests, request)
    with working_in(folder.path, unless=dry_run):
        folder.check(request)
        done = [folder.done(sidecar) for sidecar in planned]
        resumed = sum(sidecar is not None for sidecar in done)
        maker = _Maker(loaded, request, settings, folder, device, generate or _generate_by_default)
        result: dict[str, Any] = {"manifest": str(folder.manifest), "volumes": len(planned), "resumed": resumed}
        if dry_run:
            left = len(planned) - resumed
            measure = estimate or _estimate_by_default
            settings_of_run = {"sampling": settings, "device": device, "batch_size": batch_size}
            per_volume = measure(loaded, **settings_of_run) if left else 0.0
            size = int(np.prod(loaded.info.grid)) * 2 * left
            return result | {
                "seconds_per_volume": per_volume,
                "run": name,
                "dry_run": True,
                "seconds": per_volume * left,
                "bytes": size,
            }
        folder.begin(request)
        _keep_pack_record(loaded, folder)
        if resumed:
            info(f"run '{name}': {resumed} of {len(planned)} volumes are there already")
        started = time.perf_counter()
        finished = _make_missing(maker, planned, done, batch_size, engine)
        elapsed = time.perf_counter() - started
        _refuse_none(finished, loaded.info.name)
        _write_if_new(_manifest(finished, name), folder.manifest)
        made = len(finished) - resumed
        result |= {"volumes": len(finished), "quarantined": len(planned) - len(finished)}
        return result | {"seconds_per_volume": elapsed / made if made else None, "run": name}


def _check_settings(format: str, batch_size: int) -> None:
    problems = []
    if format not in ("nii.gz", "mha"):
        problems.append(f"format is '{format}'; expected nii.gz or mha")
    if batch_size < 1:
        problems.append(f"batch size is {batch_size}; expected at least 1")
    if problems:
        raise UserError("nothing can be synthesized with these settings", problems)


def _repeat(requests: pd.DataFrame, count: int | None) -> pd.DataFrame:
    if count is None:
        return requests
    if count < 1:
        raise UserError(f"--count is {count}; expected at least 1")
    return requests.iloc[np.arange(count) % len(requests)].reset_index(drop=True)


def _warn_of_repetition(requests: pd.DataFrame) -> None:
    uses = int(requests["prompt"].value_counts().max())
    if uses > MAX_USES_PER_PROMPT:
        warn(
            f"one prompt is used for {uses} volumes, more than the {MAX_USES_PER_PROMPT} of a plan: they differ in "
            "their noise alone, and what is trained on them sees little that is new"
        )


def _load(pack: str | Path | PackLike) -> PackLike:
    if isinstance(pack, str | Path):
        from text2ct.diffusion import load_pack

        return load_pack(pack)
    return pack


def _generate_by_default(
    pack: Any,
    prompts: list[str],
    seeds: list[int],
    *,
    sampling: Any,
    device: str,
    batch_size: int,
) -> np.ndarray:
    from text2ct.diffusion import generate

    return generate(pack, prompts, seeds, sampling=sampling, device=device, batch_size=batch_size)


def _estimate_by_default(pack: Any, *, sampling: Any, device: str, batch_size: int) -> float:
    from text2ct.diffusion import estimate_seconds

    return estimate_seconds(pack, sampling=sampling, device=device, batch_size=batch_size)


def _keep_pack_record(pack: PackLike, folder: RunFolder) -> None:
    """Copy what is known of the pack beside the volumes.

    `mix` reads in ``pack.json`` whom the generator was trained on, and `benchmark` in ``fidelity.json`` which findings
    it renders.
    """
    source = getattr(pack, "path", None)
    for name in ("pack.json", "fidelity.json"):
        if source is not None and (Path(source) / name).is_file():
            write_text(folder.path / name, (Path(source) / name).read_text(encoding="utf-8"))


class _Maker:
    """Makes the volumes of a batch that are missing, as a task: a worker opens the pack once."""

    def __init__(
        self, pack: PackLike, request: RunRequest, sampling: Any, folder: RunFolder, device: str, generate: Generate
    ) -> None:
        self._pack, self._request, self._sampling, self._folder = pack, request, sampling, folder
        self._device, self._generate = device, generate

    def __call__(self, job: tuple[list[Sidecar], list[int]]) -> list[Sidecar | None]:
        """Write some volumes of a batch; the finished sidecars, None where voxels are no numbers.

        Args:
            job: The whole batch, also when only one volume is missing, since its neighbours shape the arithmetic; and
                which of it are missing.
        """
        batch, lacking = job
        volumes_hu = self._generate(
            self._pack,
            [sidecar.prompt for sidecar in batch],
            [sidecar.seed for sidecar in batch],
            sampling=self._sampling,
            device=self._device,
            batch_size=self._request.batch_size,
        )
        finite = [bool(np.isfinite(hu).all()) for hu in volumes_hu]
        return [self._write(batch[i], volumes_hu[i]) if finite[i] else None for i in lacking]

    def _write(self, planned: Sidecar, hu: np.ndarray) -> Sidecar:
        from text2ct.volumes import Volume, write

        # What is stored are whole HU, so what is measured is too.
        stored = np.rint(np.clip(hu, *HU_RANGE)).astype(np.float32)
        volume = Volume(stored, np.asarray(self._pack.affine, dtype=np.float64))
        path = self._folder.volume(planned)
        write(volume, path)
        finished = planned.model_copy(
            update={
                "size": tuple(int(n) for n in stored.shape),
                "spacing_mm": tuple(float(s) for s in volume.spacing_mm),
                "hu_min": float(stored.min()),
                "hu_max": float(stored.max()),
                "hu_mean": round(float(stored.mean(dtype=np.float64)), 3),
                "sha256": sha256_file(path),
            }
        )
        write_json(self._folder.sidecar(planned), finished.model_dump(mode="json"))
        return finished


def _make_missing(
    maker: _Maker, planned: Sequence[Sidecar], done: Sequence[Sidecar | None], size: int, engine: Engine
) -> list[Sidecar]:
    """Generate every batch that lacks a volume, and return all sidecars in order."""
    finished = list(done)
    batches = [range(start, min(start + size, len(planned))) for start in range(0, len(planned), size)]
    places = [[i for i in batch if finished[i] is None] for batch in batches]
    left = [(batch, place) for batch, place in zip(batches, places, strict=True) if place]
    jobs = [([planned[i] for i in batch], [i - batch.start for i in place]) for batch, place in left]
    with progress("synthesizing", sum(map(len, places))) as advance:
        for (_, place), made in zip(left, engine.map(maker, jobs), strict=True):
            for i, sidecar in zip(place, made, strict=True):
                finished[i] = sidecar
                if sidecar is None:
                    warn(f"quarantined {planned[i].volume}: its voxels are no numbers; it is not in the manifest")
            advance(len(place))
    return [sidecar for sidecar in finished if sidecar is not None]


def _refuse_none(finished: Sequence[Sidecar], pack: str) -> None:
    if not finished:
        raise UserError(f"pack '{pack}' gave voxels that are no numbers; run `text2ct models verify`")


def _write_if_new(frame: pd.DataFrame, path: Path) -> None:
    """Write a manifest unless it is there already: what changes nothing must not make its run the newest."""
    fresh = path.with_name(f".new-{path.name}")
    write_manifest(frame, fresh)
    if path.is_file() and path.read_bytes() == fresh.read_bytes():
        fresh.unlink()
    else:
        fresh.replace(path)


def _manifest(finished: Sequence[Sidecar], run: str) -> pd.DataFrame:
    """The run's manifest: every synthetic volume is its own patient and belongs to training."""
    rows = []
    for sidecar in finished:
        stem = sidecar.volume.removesuffix(".nii.gz").removesuffix(".mha")
        size, spacing = sidecar.size or (), sidecar.spacing_mm or ()
        labels = {name: np.nan if sidecar.labels[name] is None else float(sidecar.labels[name] or 0) for name in NAMES}
        rows.append(
            {
                "dataset": f"synthetic-{run.replace('/', '-')}",
                "volume": sidecar.volume,
                "patient": stem,
                "scan": stem,
                "split": "train",
                "source": "synthetic",
                "root": "workspace",
                "path": f"synthetic/{run}/volumes/{sidecar.volume}",
                **labels,
                "findings_text": "",
                "impression_text": "",
                **{f"spacing_{axis}": value for axis, value in zip("xyz", spacing, strict=False)},
                **{f"size_{axis}": float(value) for axis, value in zip("xyz", size, strict=False)},
                "sha256": sidecar.sha256,
                "gate": "",
                **sidecar.model_dump(
                    include={
                        "prompt",
                        "prompt_dataset",
                        "prompt_volume",
                        "seed",
                        "pack",
                        "pack_sha256",
                        "guidance_scale",
                        "steps",
                    }
                ),
            }
        )
    frame = pd.DataFrame(rows, columns=[*COLUMNS, *SYNTHETIC_COLUMNS])
    return frame.astype({"seed": "Int64", "steps": "Int64", **dict.fromkeys(FINDINGS, "float64")})
