"""What each command does, as functions: they take a workspace, return the command's JSON object and log to stderr."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from text2ct import augment, manifests
from text2ct.augment.plan import DEFAULT_EXPECTED_GAIN, DEFAULT_MAX_ASSOCIATION, DEFAULT_MAX_RATIO
from text2ct.augment.prompts import MAX_USES_PER_PROMPT, Source
from text2ct.augment.requests import text_request
from text2ct.console import info, warn
from text2ct.errors import UserError
from text2ct.files import atomic_path, read_json
from text2ct.findings import resolve_list, slug
from text2ct.manifests import UnderrepresentedRule, Workspace

# The embedded cohort: small enough to render in about a minute, large enough for a test set of
# about a hundred patients. Half of the patients are CT-RATE's `valid`, of which three quarters are the test set.
EMBEDDED_PATIENTS = 280
EMBEDDED_VALID_FRACTION = 0.55
# Not a seed that people type first: a cohort of their own then shares no patient with the embedded one.
EMBEDDED_SEED = 2506
BUNDLED_PACK = "simulated-64"
DEFAULT_COUNT = 8
# `report` answers in seconds also where it must compose every prompt, at about a millisecond each.
MAX_COMPOSED = 1000


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
    if target.exists():
        with atomic_path(target.with_name("manifest-new.csv")) as temporary:
            manifests.write_manifest(frame, temporary)
        new = target.with_name("manifest-new.csv")
        if new.read_bytes() == target.read_bytes():
            new.unlink()
            return
        previous = target.with_name("manifest-previous.csv")
        target.replace(previous)
        new.replace(target)
        warn(f"{target} now describes another data set; the one before is kept as {previous.name}")
        return
    manifests.write_manifest(frame, target)


def find_pack(workspace: Workspace, name: str) -> str:
    """A pack's folder in the workspace's ``packs`` if one has this name, else the name or path itself."""
    inside = workspace.path / "packs" / name
    return str(inside) if (inside / "pack.json").is_file() else name


def pack_record(workspace: Workspace, name: str) -> dict[str, Any]:
    """What ``pack.json`` says of a pack, read without the libraries that open one, which take seconds to load.

    Raises:
        UserError: There is no such pack.
    """
    given = Path(find_pack(workspace, name))
    bundled = Path(__file__).parent / "diffusion" / "packs" / name
    for folder in (given, bundled):
        if (folder / "pack.json").is_file():
            return read_json(folder / "pack.json")
    raise UserError(f"'{name}' is neither a pack's folder nor a bundled pack; see `text2ct models list`")


def findings_of(labels: str) -> list[str]:
    """Findings from what a user typed, saying what was understood.

    Raises:
        UserError: A label is unknown; the nearest names are given.
    """
    names = []
    for match in resolve_list(labels):
        if match.given.strip().lower() != match.finding.lower():
            others = f" (not {' or '.join(match.others)})" if match.others else ""
            info(f"'{match.given}' means {match.finding}{others}")
        names.append(match.finding)
    return list(dict.fromkeys(names))


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


def report(
    workspace: Workspace,
    path: Path | None = None,
    *,
    rule: UnderrepresentedRule | None = None,
    labels: str | None = None,
    target_prevalence: float = 0.15,
    max_ratio: float = DEFAULT_MAX_RATIO,
    max_association: float = DEFAULT_MAX_ASSOCIATION,
    expected_gain: float = DEFAULT_EXPECTED_GAIN,
    unseen: bool = False,
    model: str = BUNDLED_PACK,
    estimate: bool = False,
    device: str = "auto",
    seed: int = 0,
    names: Path | None = None,
    run: str | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Prevalence, imbalance, a plan and the prompts for the under-represented findings.

    Args:
        workspace: Where the report is written.
        path: A manifest, a CT-RATE folder, a label table or annotated reports; by default the real data.
        rule: When a finding counts as under-represented.
        labels: Findings to plan for, as typed; by default the under-represented ones that the pack renders.
        target_prevalence: What the plan aims at, in (0, 1).
        max_ratio: At most this many synthetic volumes per training scan.
        max_association: Largest phi of source and label that the plan may bring, in (0, 1].
        expected_gain: AUC that a target is hoped to gain; the plan marks targets whose test scans cannot show it.
        unseen: Whether the plan may ask for plausible label sets that no training scan has.
        model: The pack that will make the volumes: which findings it renders, how long a volume takes.
        estimate: Measure the pack's time per volume on this device; it takes some seconds to minutes.
        device: Where to measure.
        seed: Seed of the plan's draws.
        names: The table of CT-RATE names of annotated reports.
        run: Name of the report's folder.
        dry_run: Only summarise; plan and write nothing.

    Returns:
        The ``report`` object of the command line.
    """
    from text2ct.reports import write_imbalance_report

    wanted = findings_of(labels) if labels else None
    if path is None and dry_run:
        frame = manifests.read_manifest(workspace.newest("real"))
    elif path is not None and (names is not None or dry_run):
        frame = manifests.read(path, names=names, workspace=None if dry_run else workspace)
    else:
        frame, _ = real_manifest(workspace, path)
    rule = rule or UnderrepresentedRule()
    summary = manifests.summarise(frame, rule=rule)
    source = path.resolve().stem if path is not None else "real"
    folder = workspace.run_dir("reports", run or f"imbalance-{slug(source)}")
    result = summary.to_json() | {"plan": None, "prompts": None, "report": str(folder / "report.html")}
    if dry_run:
        return result | {"dry_run": True}
    if frame["split"].isin(("validation", "test")).all():
        warn("every row is in validation or test, so there is nothing to plan from: no plan.json, no prompts.csv")
    else:
        # From the training scans alone: test labels choose nothing.
        if not (frame["split"] != "").any():
            warn("the table has no split: every scan counts as a training scan; leave your test patients out of it")
        pack = pack_record(workspace, model)
        plan = augment.make_plan(
            frame,
            findings=wanted,
            rule=rule,
            target_prevalence=target_prevalence,
            max_ratio=max_ratio,
            max_association=max_association,
            expected_gain=expected_gain,
            unseen=unseen,
            fidelity=pack.get("fidelity", {}),
            seed=seed,
        )
        seconds = _seconds_per_volume(find_pack(workspace, model), device) if estimate else None
        result |= _write_plan(plan.with_cost(pack["name"], pack["grid"], seconds), frame, folder)
    title = f"Imbalance of {path.resolve().name if path is not None else 'the real data'}"
    write_imbalance_report(result, folder, title=title, next_steps=_next_steps(result))
    return result


def _seconds_per_volume(pack: str, device: str) -> float:
    from text2ct.diffusion import estimate_seconds, load_pack

    loaded = load_pack(pack)
    return estimate_seconds(loaded, device=device, batch_size=loaded.usual_batch)


def _write_plan(plan: augment.Plan, frame: pd.DataFrame, folder: Path) -> dict[str, Any]:
    """Write ``plan.json`` and ``prompts.csv``; return what the report says of them."""
    plan.write(folder / "plan.json")
    result: dict[str, Any] = {
        "plan": str(folder / "plan.json"),
        "plan_notes": list(plan.notes),
        "planned_volumes": plan.total,
        "plan_cost": plan.cost.model_dump() if plan.cost else None,
        "plan_findings": {name: row.model_dump() for name, row in plan.findings.items()},
    }
    if plan.total:
        prompts = augment.make_prompts(frame, plan, seed=plan.seed, max_composed=MAX_COMPOSED)
        with atomic_path(folder / "prompts.csv") as temporary:
            prompts.to_csv(temporary, index=False)
        result["prompts"] = str(folder / "prompts.csv")
    return result


def _next_steps(result: dict[str, Any]) -> list[tuple[str, str]]:
    if not result["prompts"]:
        return []
    return [
        (
            "Read and edit the prompts, then generate their volumes:",
            f"text2ct synthesize --prompts {result['prompts']}",
        ),
        ("Mix them with the real training volumes:", "text2ct mix --ratio 0.5"),
    ]


def requests_for(
    workspace: Workspace,
    *,
    labels: str | None = None,
    plan: Path | None = None,
    prompts: Path | None = None,
    text: str | None = None,
    count: int | None = None,
    seed: int = 0,
    source: Source = "reports",
    max_uses: int = MAX_USES_PER_PROMPT,
    dry_run: bool = False,
) -> pd.DataFrame:
    """The prompts that ``synthesize`` was asked for, whichever way; source and limit are for those made here.

    A dry run in a workspace without real data makes none: stand-ins of the right number serve its estimate.

    Raises:
        UserError: Nothing or more than one of plan, prompts and text is given, or the input is bad.
    """
    given = [name for name, value in (("--plan", plan), ("--prompts", prompts), ("--text", text)) if value is not None]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)} exclude each other; give one of them")
    findings = findings_of(labels) if labels else None
    if text is not None:
        return text_request(text, findings or ())
    if prompts is not None:
        return augment.read_requests(prompts, findings=findings, count=count, seed=seed)
    if plan is not None and findings:
        raise UserError("--labels and --plan exclude each other; the plan names its findings")
    if plan is None and not findings:
        raise UserError("say what to make: --labels effusion, --plan plan.json, --prompts FILE or --text '...'")
    if dry_run and not (workspace.run_dir("real") / "manifest.csv").exists():
        info("there is no real data: the embedded cohort is simulated first, the volumes' time and disk come on top")
        embed_cohort(workspace, dry_run=True)
        number = count or (augment.read_plan(plan).total if plan else DEFAULT_COUNT)
        return pd.concat([text_request("A report of the embedded cohort.", findings or ())] * max(number, 1))
    frame, _ = real_manifest(workspace)
    wanted = augment.read_plan(plan) if plan is not None else findings or []
    if plan is None:
        count = count or DEFAULT_COUNT
    return augment.make_prompts(frame, wanted, count=count, seed=seed, source=source, max_uses=max_uses)


def mix(
    workspace: Workspace,
    *,
    ratio: float,
    strategy: Literal["targeted", "uniform"] = "targeted",
    real: Path | None = None,
    synthetic: Path | None = None,
    seed: int = 0,
    strict: bool = False,
    run: str | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Real and synthetic training volumes in one manifest; see :func:`text2ct.augment.mix`."""
    frame, _ = real_manifest(workspace, real)
    source = synthetic or workspace.newest("synthetic")
    info(f"mixing with {source}")
    made = manifests.read_manifest(source)
    return augment.mix(
        frame,
        made,
        ratio=ratio,
        strategy=strategy,
        seed=seed,
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
    workers: int | None = None,
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
        file_format: ``nii.gz`` or ``mha``.
        metadata: CT-RATE's metadata table, for volumes of its first generation.
        workers: Processes; by default one a core.
        dry_run: Only count what would be done.

    Returns:
        The ``preprocess`` object of the command line.
    """
    from text2ct import volumes

    folder = out or workspace.path / "preprocessed"
    given: Any = list(inputs)
    if len(inputs) == 1 and inputs[0].suffix == ".csv":
        given = manifests.read_manifest(inputs[0])
    workers = workers or os.cpu_count() or 1
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
            "seconds": round(len(found) * _seconds_for_one(found, size, spacing_mm, fit) / workers, 1),
        }
    done = volumes.preprocess(
        given,
        folder,
        size=size,
        spacing_mm=spacing_mm,
        fit=fit,
        format=file_format,
        metadata=metadata,
        workspace=workspace,
        workers=workers,
    )
    for row in done.quarantine.to_dict("records"):
        warn(f"quarantined {row['source']}: {row['reasons']}")
    return {
        "manifest": str(done.manifest_path),
        "volumes": len(done.manifest),
        "quarantined": len(done.quarantine),
        "quarantine": str(done.quarantine_path),
        "resumed": done.resumed,
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
            volumes.to_grid(volumes.read(path), size, spacing_mm, fit=fit)
        except UserError:
            continue
        return time.perf_counter() - begun
    return 0.0
