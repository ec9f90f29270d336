"""What ``evaluate`` does: finds the two sets and what measures them, and writes the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from text2ct import manifests
from text2ct.augment.gate import newest_ungated
from text2ct.console import info
from text2ct.errors import UserError
from text2ct.files import write_json
from text2ct.workflow import BUNDLED_PACK, find_pack, manifest_in, real_rows

if TYPE_CHECKING:
    from text2ct.evaluation.generator import Measures, Settings
    from text2ct.manifests import Workspace


def evaluate_sets(
    workspace: Workspace,
    settings: Settings,
    *,
    real: Path | None = None,
    synthetic: Path | None = None,
    backbone: str | None = None,
    backbone_3d: str | None = None,
    clip: str | None = None,
    classifier: Path | None = None,
    run: str | None = None,
    device: str = "auto",
    command: str = "",
    whole: bool = False,
    dry_run: bool = False,
) -> dict[str, Any]:
    """A synthetic set beside a real one; writes ``reports/<run>/evaluation.json`` and its page.

    Args:
        workspace: Where to look, and where the result goes.
        settings: Which metrics, on which grid.
        real: A real manifest; by default the workspace's, which it does not replace.
        synthetic: A manifest; by default that of the newest run of ``synthesize``, as it was generated.
        backbone: As for :func:`text2ct.evaluation.generator.backbones.slice_encoder`.
        backbone_3d: As for :func:`text2ct.evaluation.generator.backbones_3d.volume_encoder`; by default the 3D CLIP.
        clip: The pack whose 3D CLIP scores; by default the bundled one.
        classifier: A run for ``factual``; by default the newest, if there is one.
        run: Name of the report's folder.
        device: ``auto``, ``cpu``, ``cuda``, ...
        command: What runs it again, for the page.
        whole: Leave out, with a note, metrics for which there is nothing here, instead of refusing.
        dry_run: Say how much there is to measure, and write nothing.

    Returns:
        What ``evaluate --json`` prints.

    Raises:
        UserError: As :func:`text2ct.evaluation.generator.evaluate`, or something that is named does not exist.
    """
    from text2ct.evaluation.generator import estimate, evaluate
    from text2ct.reports.evaluation import write_evaluation_report

    source = (manifest_in(synthetic) if synthetic else newest_ungated(workspace)).resolve()
    made = manifests.read_manifest(source)
    own = _real(workspace, real, dry_run)
    info(f"{'would measure' if dry_run else 'measuring'} {source}")
    left_out = _left_out(own, workspace, classifier) if whole else {}
    metrics = tuple(one for one in settings.metrics if one not in left_out)
    settings = settings.model_copy(update={"metrics": metrics})
    measures = _measures(workspace, metrics, backbone, backbone_3d, clip, classifier, device)
    if dry_run:
        return estimate(own, made, workspace, settings, measures)
    found = evaluate(own, made, workspace, settings, measures)
    found["notes"] += [f"{metric} was not measured: {reason}" for metric, reason in left_out.items()]
    name = source.parent.name if source.name == "manifest.csv" else source.stem
    folder = workspace.run_dir("reports", run or f"evaluation-{name}")
    found |= {"real": str(real or workspace.run_dir("real") / "manifest.csv"), "synthetic": str(source)}
    write_json(folder / "evaluation.json", found)
    page = write_evaluation_report(found, folder, title=f"Evaluation of {name}", command=command)
    return found | {"report": str(page), "evaluation": str(folder / "evaluation.json")}


def _measures(
    workspace: Workspace,
    metrics: Sequence[str],
    backbone: str | None,
    backbone_3d: str | None,
    clip: str | None,
    classifier: Path | None,
    device: str,
) -> Measures:
    """The networks that these metrics need, by their names."""
    from text2ct.compute import pick_device
    from text2ct.diffusion import load_pack
    from text2ct.evaluation.generator import Measures
    from text2ct.evaluation.generator.backbones import BUNDLED, slice_encoder
    from text2ct.evaluation.generator.backbones_3d import CLIP, volume_encoder

    where, whole = pick_device(device), backbone_3d or CLIP
    by_clip = {"alignment", "privacy", "diversity"} | ({"fid_3d"} if whole == CLIP else set())
    pack = load_pack(find_pack(workspace, clip or BUNDLED_PACK)) if by_clip & {*metrics} else None
    if whole.startswith("classifier:"):
        whole = f"classifier:{_classifier(workspace, Path(whole.removeprefix('classifier:')))}"
    return Measures(
        encoder=slice_encoder(backbone or BUNDLED, device=where) if "fidelity" in metrics else None,
        encoder_3d=volume_encoder(whole, pack=pack, device=where) if "fid_3d" in metrics else None,
        pack=pack,
        classifier=_classifier(workspace, classifier) if "factual" in metrics else None,
        device=device,
    )


def _real(workspace: Workspace, path: Path | None, dry_run: bool) -> pd.DataFrame:
    """The real manifest, which replaces nothing; a dry run writes nothing either."""
    if path is not None and not dry_run:
        return manifests.read(path, workspace=workspace)
    return real_rows(workspace, path, dry_run)


def _left_out(real: pd.DataFrame, workspace: Workspace, classifier: Path | None) -> dict[str, str]:
    """Metrics that lack what they need here, and why."""
    found = {}
    if classifier is None:
        try:
            workspace.newest("classifiers")
        except UserError as error:
            found["factual"] = str(error)
    if not ((real["split"] == "train") & (real["path"] != "") & (real["source"] != "synthetic")).any():
        found["privacy"] = "the real manifest has no training volumes with files"
    return found


def _classifier(workspace: Workspace, given: Path | None) -> Path:
    """A run by its folder or name, else the newest.

    Raises:
        UserError: There is none.
    """
    if given is None:
        return workspace.newest("classifiers")
    named = workspace.run_dir("classifiers") / given
    for folder in (given, named):
        if folder.is_dir():
            return folder
    raise UserError(f"'{given}' is neither a run's folder nor a run in {workspace.run_dir('classifiers')}")
