"""``evaluate --guidance``: volumes of a split's own reports at several guidance scales, measured and on one plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from text2ct.augment.requests import requests_of_split
from text2ct.console import info
from text2ct.errors import UserError
from text2ct.evaluating.measures import Names
from text2ct.evaluating.sets import evaluate_sets, read_real
from text2ct.files import write_json
from text2ct.workflow import BUNDLED_PACK, find_pack

if TYPE_CHECKING:
    from text2ct.evaluation.generator import Settings
    from text2ct.manifests import Workspace


def sweep_guidance(
    workspace: Workspace,
    settings: Settings,
    guidances: Sequence[float],
    names: Names | None = None,
    *,
    count: int = 100,
    model: str | None = None,
    real: Path | None = None,
    run: str | None = None,
    command: str = "",
    whole: bool = False,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Generate from the reports of the split that is compared, for evaluation alone, and measure each scale.

    The same reports and the same noise at every scale. Volumes go to ``synthetic/<run>/``, which no command takes by
    itself; ``mix`` refuses them, since their reports are of held-out patients. Writes ``reports/<run>/guidance.json``.

    Args:
        workspace: Where to look, and where volumes and results go.
        settings: Which metrics, on which grid; its seed is that of the volumes.
        guidances: Scales, 0 or more; 1 is the conditional model alone.
        names: What measures.
        count: Volumes at each scale, one a report.
        model: The pack that generates; by default the bundled one.
        real: A real manifest; by default the workspace's.
        run: Name of the folders.
        command: What runs it again, for the page.
        whole: As for :func:`text2ct.evaluating.sets.evaluate_sets`.
        dry_run: Say what it takes, and write nothing.

    Returns:
        ``sweep``: a row for each scale; ``n_real``, ``n_synthetic`` and the paths of what was written.

    Raises:
        UserError: The split has no reports, a scale is impossible, or as ``synthesize`` and ``evaluate_sets``.
    """
    from text2ct.augment import synthesize
    from text2ct.diffusion import load_pack
    from text2ct.evaluation.generator.sets import real_rows
    from text2ct.reports.guidance import write_guidance_report

    names = names or Names()
    scales = sorted(set(guidances))
    if not scales or scales[0] < 0:
        raise UserError("guidance scales are numbers of 0 and more, as 0,1.5,3,5")
    if run is not None and "/" in run:
        raise UserError(f"'{run}' cannot name a sweep, whose scales are runs inside it; leave the '/' out")
    own = read_real(workspace, real, dry_run)
    requests = requests_of_split(own, settings.split, count, settings.seed)
    if len(requests) < count:
        info(f"{settings.split} has {len(requests)} reports, and {count} are asked for: one volume of each is made")
    pack = load_pack(find_pack(workspace, model or BUNDLED_PACK))
    name = run or f"guidance-{pack.info.name}"
    sweep, made = [], []
    for scale in scales:
        info(f"guidance {scale:g}")
        done = synthesize(
            requests, pack=pack, workspace=workspace, run=f"{name}/{scale:g}", seed=settings.seed,
            sampling={"guidance_scale": scale}, device=names.device, engine=names.engine, dry_run=dry_run,
        )  # fmt: skip
        made.append(done)
        if dry_run:
            continue
        found = evaluate_sets(
            workspace, settings, names, real=real, synthetic=Path(done["manifest"]), run=f"{name}/{scale:g}",
            command=command, whole=whole,
        )  # fmt: skip
        sweep.append({"guidance": scale, "evaluation": found["evaluation"]} | _row(found))
        n_real = found["n_real"]
    if dry_run:
        total = {key: sum(one[key] for one in made) for key in ("volumes", "seconds", "bytes")}
        return {
            "dry_run": True,
            "n_real": len(real_rows(own, settings.split)),
            "n_synthetic": total.pop("volumes"),
            "notes": ["this is what generating takes; measuring each scale comes on top"],
            **total,
        }
    folder = workspace.run_dir("reports", name)
    result = {
        "n_real": n_real,
        "n_synthetic": len(requests),
        "model": f"{pack.info.name} {pack.info.version} {pack.sha256[:12]}",
        "sweep": sweep,
        "settings": settings.model_dump(mode="json"),
    }
    write_json(folder / "guidance.json", result)
    page = write_guidance_report(result, folder, command=command)
    return result | {"report": str(page), "guidance": str(folder / "guidance.json")}


def _row(found: dict[str, Any]) -> dict[str, Any]:
    """What a scale is told by."""
    fid, facts, clip = found.get("fid_2p5d", {}), found.get("factual", {}), found.get("clip_score", {})
    return {
        "fid_2p5d": fid.get("mean"),
        "fid_2p5d_ci": fid.get("ci"),
        "floor_ratio": fid.get("floor", {}).get("ratio"),
        "fid_3d": found.get("fid_3d"),
        "macro_precision": facts.get("macro_precision_synthetic"),
        "macro_auc": facts.get("macro_auc_synthetic"),
        "macro_auc_ci": facts.get("macro_auc_synthetic_ci"),
        "ratio": facts.get("ratio"),
        "text_image": clip.get("text_image"),
    }
