"""Report, plan and prompts as the commands make them: from a manifest to what `synthesize` is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from text2ct import augment, hygiene, manifests
from text2ct.augment._scans import training_rows
from text2ct.augment.plan import DEFAULT_EXPECTED_GAIN, DEFAULT_MAX_ASSOCIATION, DEFAULT_MAX_RATIO
from text2ct.augment.prompts import MAX_USES_PER_PROMPT, Source
from text2ct.augment.requests import text_request
from text2ct.console import info, warn
from text2ct.errors import UserError
from text2ct.fidelity import read_fidelity
from text2ct.files import atomic_path, read_json
from text2ct.findings import resolve_list, slug
from text2ct.locks import working_in
from text2ct.manifests import UnderrepresentedRule, Workspace
from text2ct.workflow import BUNDLED_PACK, embed_cohort, find_pack, real_manifest

DEFAULT_COUNT = 8
# `report` answers in seconds also where it must compose every prompt, at about a millisecond each.
MAX_COMPOSED = 1000


def pack_folder(workspace: Workspace, name: str) -> Path:
    """Where a pack lies, found without the libraries that open one, which take seconds to load.

    Raises:
        UserError: There is no such pack.
    """
    given = Path(find_pack(workspace, name))
    bundled = Path(__file__).parent / "diffusion" / "packs" / name
    for folder in (given, bundled):
        if (folder / "pack.json").is_file():
            return folder
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


def report(
    workspace: Workspace,
    path: Path | None = None,
    *,
    rule: UnderrepresentedRule | None = None,
    labels: str | None = None,
    target_prevalence: float | None = None,
    target_irlbl: float | None = None,
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
        target_prevalence: What the plan aims at, in (0, 1); by default 0.15.
        target_irlbl: In its place the largest IRLbl that a target should have.
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
    with working_in(folder):
        result |= _check(frame, folder)
        if frame["split"].isin(("validation", "test")).all():
            warn("every row is in validation or test, so there is nothing to plan from: no plan.json, no prompts.csv")
        else:
            # From the training scans alone: test labels choose nothing.
            if not (frame["split"] != "").any():
                warn("the table has no split: every scan counts as a training scan; leave your test patients out of it")
            pack = pack_folder(workspace, model)
            plan = augment.make_plan(
                frame,
                findings=wanted,
                rule=rule,
                target_prevalence=target_prevalence,
                target_irlbl=target_irlbl,
                max_ratio=max_ratio,
                max_association=max_association,
                expected_gain=expected_gain,
                unseen=unseen,
                fidelity=read_fidelity(pack),
                seed=seed,
            )
            seconds = _seconds_per_volume(find_pack(workspace, model), device) if estimate else None
            record = read_json(pack / "pack.json")
            result |= _write_plan(plan.with_cost(record["name"], record["grid"], seconds), frame, folder)
        title = f"Imbalance of {path.resolve().name if path is not None else 'the real data'}"
        write_imbalance_report(result, folder, title=title, next_steps=_next_steps(result))
    return result


def _check(frame: pd.DataFrame, folder: Path) -> dict[str, Any]:
    """Write ``hygiene.csv``; return what the report says of it."""
    found = hygiene.check_manifest(frame)
    hygiene.write_csv(found, folder / "hygiene.csv")
    return {"hygiene": hygiene.summarise(found, frame), "hygiene_csv": str(folder / "hygiene.csv")}


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
        result["mix_ratio"] = _mix_ratio(plan.total, frame)
    return result


def _mix_ratio(total: int, frame: pd.DataFrame) -> float:
    """The shortest ratio at which ``mix``, which counts real training volumes with files, takes a plan's volumes."""
    rows = training_rows(frame)
    real = int((rows["path"] != "").sum()) or len(rows)
    return shortest_ratio(total, real)


def shortest_ratio(total: int, real: int) -> float:
    """The ratio of fewest digits that, times ``real`` volumes, rounds to ``total``."""
    # Seventeen digits tell any two numbers apart.
    ratios = (float(f"{total / real:.{digits}g}") for digits in range(2, 18))
    return next(ratio for ratio in ratios if round(ratio * real) == total)


def _next_steps(result: dict[str, Any]) -> list[tuple[str, str]]:
    if not result["prompts"]:
        return []
    return [
        (
            "Read and edit the prompts, then generate their volumes:",
            f"text2ct synthesize --prompts {result['prompts']}",
        ),
        ("Mix them with the real training volumes:", f"text2ct mix --ratio {result['mix_ratio']:.17g}"),
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
    source: Source | None = None,
    max_uses: int | None = None,
    dry_run: bool = False,
) -> pd.DataFrame:
    """The prompts that ``synthesize`` was asked for, whichever way.

    Source and limit, by default ``reports`` and 4, are for the texts of findings and plans, which are chosen here.

    A dry run in a workspace without real data makes none: stand-ins of the right number serve its estimate.

    Raises:
        UserError: Nothing or more than one of plan, prompts and text is given, source or limit with prompts or text,
            or the input is bad.
    """
    given = [name for name, value in (("--plan", plan), ("--prompts", prompts), ("--text", text)) if value is not None]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)} exclude each other; give one of them")
    chosen = [name for name, value in (("--source", source), ("--max-uses", max_uses)) if value is not None]
    if chosen and (text is not None or prompts is not None):
        raise UserError(
            f"{' and '.join(chosen)} would do nothing: {given[0]} brings its own texts; "
            "leave them out, or ask with --labels or --plan"
        )
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
    limit = MAX_USES_PER_PROMPT if max_uses is None else max_uses
    return augment.make_prompts(frame, wanted, count=count, seed=seed, source=source or "reports", max_uses=limit)
