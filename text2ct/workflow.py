"""What each command does, as functions: they take a workspace, return the command's JSON object and log to stderr."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from text2ct import augment, manifests
from text2ct.augment.gate import GATE_SEED, newest_ungated, newest_usable, refuse_unjudged
from text2ct.console import info, warn
from text2ct.engines import LOCAL, Engine
from text2ct.errors import UserError
from text2ct.files import atomic_path
from text2ct.locks import changing, working_in
from text2ct.manifests import Workspace

if TYPE_CHECKING:
    from text2ct.diffusion import Pack

# The embedded cohort: small enough to render in about a minute, large enough for a test set of
# about a hundred patients. Half of the patients are CT-RATE's `valid`, of which three quarters are the test set.
EMBEDDED_PATIENTS = 280
EMBEDDED_VALID_FRACTION = 0.55
# Not a seed that people type first: a cohort of their own then shares no patient with the embedded one.
EMBEDDED_SEED = 2506
BUNDLED_PACK = "simulated-64"


def real_manifest(workspace: Workspace, path: Path | None = None) -> tuple[pd.DataFrame, Path]:
    """The manifest of the real data: ``path``, else the workspace's, else a new embedded cohort.

    Args:
        workspace: Where to look, and where the embedded cohort is made.
        path: A manifest or anything that :func:`text2ct.manifests.read` takes.

    Returns:
        The manifest and its path.

    Raises:
        UserError: The input cannot be read.
    """
    target = workspace.run_dir("real") / "manifest.csv"
    if path is not None:
        frame = manifests.read(path, workspace=workspace)
        own = path.is_file() and path.resolve().is_relative_to(workspace.path)
        if not own and (frame["path"] != "").any():
            _adopt(frame, target)
        return frame, path
    if not target.exists():
        embed_cohort(workspace)
    return manifests.read_manifest(target), target


def real_as_it_is(workspace: Workspace, path: Path | None = None) -> pd.DataFrame | None:
    """The real manifest with nothing written, for dry runs: None where the embedded cohort would have to be made."""
    target = workspace.run_dir("real") / "manifest.csv"
    if path is not None:
        return manifests.read(path)
    return manifests.read_manifest(target) if target.exists() else None


def real_rows(workspace: Workspace, path: Path | None, dry_run: bool) -> pd.DataFrame:
    """The real manifest of a command that cannot be tried without one."""
    if not dry_run:
        return real_manifest(workspace, path)[0]
    frame = real_as_it_is(workspace, path)
    if frame is None:
        raise UserError(
            f"there is no real data in {workspace.path}: without --dry-run the embedded cohort would be simulated "
            "first; give --real, or run `text2ct report`"
        )
    return frame


def embed_cohort(workspace: Workspace, *, dry_run: bool = False) -> Path:
    """Simulate the embedded cohort inside the workspace and make it the workspace's real data.

    Args:
        workspace: Where it goes.
        dry_run: Only say how long it takes and how much disk.

    Returns:
        The path of ``real/manifest.csv``.
    """
    from text2ct.simulation import simulate_cohort

    folder = workspace.path / "cohorts" / f"simulated-seed{EMBEDDED_SEED}"
    target = workspace.run_dir("real") / "manifest.csv"
    patients, share = EMBEDDED_PATIENTS, EMBEDDED_VALID_FRACTION
    if not dry_run:
        info(f"no real data in {workspace.path}: simulating the embedded cohort of {patients} patients in {folder}")
    simulate_cohort(folder, patients, seed=EMBEDDED_SEED, valid_fraction=share, dry_run=dry_run)
    if dry_run:
        return target
    _adopt(manifests.read(folder, workspace=workspace), target)
    return target


def _adopt(frame: pd.DataFrame, target: Path) -> None:
    """Make a manifest the workspace's real data; another one that was there is kept beside it."""
    with changing(target):
        if target.exists():
            with atomic_path(target.with_name("manifest-new.csv")) as temporary:
                manifests.write_manifest(frame, temporary)
            new = target.with_name("manifest-new.csv")
            if new.read_bytes() == target.read_bytes():
                new.unlink()
                return
            previous = _unused(target.with_name("manifest-previous.csv"))
            target.replace(previous)
            new.replace(target)
            warn(f"{target} now describes another data set; the one before is kept as {previous.name}")
            return
        manifests.write_manifest(frame, target)


def _unused(path: Path) -> Path:
    """The path, with the first number that makes it new where it is taken."""
    numbered = (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(2))
    return path if not path.exists() else next(one for one in numbered if not one.exists())


def find_pack(workspace: Workspace, name: str) -> str:
    """A pack's folder in the workspace's ``packs`` if one has this name, else the name or path itself."""
    inside = workspace.path / "packs" / name
    return str(inside) if (inside / "pack.json").is_file() else name


def simulate(
    out: Path,
    patients: int,
    *,
    seed: int = 0,
    grid: tuple[int, int, int] = (64, 64, 64),
    spacing_mm: tuple[float, float, float] = (5.0, 5.0, 5.0),
    valid_fraction: float = 0.4,
    workers: int | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """A simulated cohort in CT-RATE's layout; see :func:`text2ct.simulation.simulate_cohort`."""
    from text2ct.simulation import simulate_cohort

    return simulate_cohort(
        out,
        patients,
        seed=seed,
        size=grid,
        spacing_mm=spacing_mm,
        valid_fraction=valid_fraction,
        workers=workers,
        dry_run=dry_run,
    )


def gate(
    workspace: Workspace,
    *,
    real: Path | None = None,
    synthetic: Path | None = None,
    config: Path | None = None,
    classifier: Path | None = None,
    model: str | None = None,
    best_of: int = 1,
    run: str | None = None,
    seed: int = GATE_SEED,
    device: str = "auto",
    engine: Engine = LOCAL,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Accept or reject synthetic volumes; see :func:`text2ct.augment.gate.gate`.

    Args:
        workspace: Where to look, and where the result goes.
        real: A real manifest; by default the workspace's.
        synthetic: A manifest of ``synthesize``; by default the newest.
        config: A JSON file of settings that differ from the default.
        classifier: A finished run that judges labels.
        model: The pack that made the volumes; by default the one that the manifest names.
        best_of: How often a volume may be made until it is accepted.
        run: Name of the gated folder.
        seed: Of the classifier that the gate trains.
        device: ``auto``, ``cpu``, ``cuda``, ...
        engine: Where volumes are looked at, and made again.
        dry_run: Say what would be judged, and write nothing.
    """
    from text2ct.augment.gate import gate as judge
    from text2ct.augment.gate import read_config

    source = manifest_in(synthetic) if synthetic else newest_ungated(workspace)
    info(f"judging {source}")
    frame = real_rows(workspace, real, dry_run)
    return judge(
        source,
        frame,
        workspace,
        run=run,
        config=read_config(config),
        classifier=classifier,
        pack=pack_of(workspace, manifests.read_manifest(source), model),
        best_of=best_of,
        seed=seed,
        device=device,
        engine=engine,
        dry_run=dry_run,
    )


def manifest_in(path: Path) -> Path:
    """The manifest that is named, by itself or by its folder."""
    return path / "manifest.csv" if path.is_dir() else path


def read_synthetic(path: Path) -> pd.DataFrame:
    """A manifest of synthetic volumes that are to be learnt from.

    Raises:
        UserError: It cannot be read, or a gate's record lies beside it and rows have no verdict.
    """
    rows = manifests.read_manifest(path)
    refuse_unjudged(rows, path)
    return rows


def pack_of(workspace: Workspace, made: pd.DataFrame | None, model: str | None = None) -> Pack | None:
    """The pack that is named, else the one that made these volumes, if it is here and still the same.

    Args:
        workspace: Where a pack's name is looked for first.
        made: A manifest of synthetic volumes.
        model: Name or folder of a pack.

    Raises:
        UserError: The named pack cannot be opened.
    """
    from text2ct.diffusion import load_pack

    if model is not None:
        return load_pack(find_pack(workspace, model))
    if made is None or "pack" not in made:
        return None
    packs: set[Any] = set(made[["pack", "pack_sha256"]].itertuples(index=False, name=None))
    if len(packs) != 1:
        return None
    name, digest = packs.pop()
    try:
        pack = load_pack(find_pack(workspace, name))
    except UserError:
        return None
    return pack if pack.sha256 == digest else None


def mix(
    workspace: Workspace,
    *,
    ratio: float,
    strategy: Literal["targeted", "uniform"] = "targeted",
    real: Path | None = None,
    synthetic: Path | None = None,
    seed: int = 0,
    synthetic_share: float | None = None,
    strict: bool = False,
    run: str | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Real and synthetic training volumes in one manifest; see :func:`text2ct.augment.mix`.

    Without ``synthetic`` the newest run is taken; of a run that was judged, what the gate made of it.
    """
    frame = real_rows(workspace, real, dry_run)
    source = manifest_in(synthetic) if synthetic else newest_usable(workspace)
    info(f"mixing with {source}")
    made = read_synthetic(source)
    return augment.mix(
        frame,
        made,
        ratio=ratio,
        strategy=strategy,
        seed=seed,
        synthetic_share=synthetic_share,
        strict=strict,
        workspace=workspace,
        run=run,
        dry_run=dry_run,
    )


def preprocess(
    workspace: Workspace,
    inputs: Sequence[Path],
    *,
    out: Path | None = None,
    size: tuple[int, int, int] = (64, 64, 64),
    spacing_mm: tuple[float, float, float] = (5.0, 5.0, 5.0),
    fit: Literal["crop-pad", "resize"] = "crop-pad",
    file_format: str = "nii.gz",
    metadata: Path | None = None,
    engine: Engine = LOCAL,
    leave_out_non_chest: bool = False,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Volumes on one grid, with a manifest and a list of what was quarantined.

    Args:
        workspace: Declares the outputs' root.
        inputs: Volumes, DICOM folders, folders of these, or one ``manifest.csv``.
        out: Output folder; by default ``preprocessed`` in the workspace.
        size: Voxels along x, y, z.
        spacing_mm: Voxel size.
        fit: ``crop-pad`` or ``resize``.
        file_format: ``nii.gz``, ``zarr`` or ``mha``.
        metadata: CT-RATE's metadata table, for volumes of its first generation.
        engine: Where volumes are converted.
        leave_out_non_chest: Quarantine volumes that seem to show no chest.
        dry_run: Only count what would be done.

    Returns:
        The ``preprocess`` object of the command line.
    """
    from text2ct import volumes

    folder = out or workspace.path / "preprocessed"
    given: Any = list(inputs)
    if len(inputs) == 1 and inputs[0].suffix == ".csv":
        given = manifests.read_manifest(inputs[0])
    if dry_run:
        if isinstance(given, pd.DataFrame):
            rows = given[given["path"] != ""]
            found = [workspace.resolve(root, path) for root, path in zip(rows["root"], rows["path"], strict=True)]
        else:
            found = volumes.find_volumes(given, leave_out=folder)
        return {
            "manifest": str(folder / "manifest.csv"),
            "volumes": len(found),
            "quarantined": 0,
            "dry_run": True,
            "bytes": len(found) * int(np.prod(size)) * 2,
            "seconds": round(len(found) * _seconds_for_one(found, size, spacing_mm, fit) / engine.workers, 1),
        }
    with working_in(folder, instead="choose another --out"):
        done = volumes.preprocess(
            given,
            folder,
            size=size,
            spacing_mm=spacing_mm,
            fit=fit,
            format=file_format,
            metadata=metadata,
            workspace=workspace,
            engine=engine,
            leave_out_non_chest=leave_out_non_chest,
        )
    for row in done.quarantine.to_dict("records"):
        warn(f"quarantined {row['source']}: {row['reasons']}")
    return {
        "manifest": str(done.manifest_path),
        "volumes": len(done.manifest),
        "quarantined": len(done.quarantine),
        "quarantine": str(done.quarantine_path),
        "resumed": done.resumed,
        "not_chest": done.not_chest,
    }


def _seconds_for_one(
    found: Sequence[Path],
    size: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    fit: Literal["crop-pad", "resize"],
) -> float:
    """Seconds that the first readable volume takes, in memory; 0 where none can be read."""
    from text2ct import volumes

    for path in found:
        begun = time.perf_counter()
        try:
            volumes.to_grid(volumes.open_volume(path), size, spacing_mm, fit=fit)
        except UserError:
            continue
        return time.perf_counter() - begun
    return 0.0
