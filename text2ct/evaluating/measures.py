"""The networks that measure, by the names that users give them, and which metrics can be measured here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from text2ct.engines import LOCAL, Engine
from text2ct.errors import UserError
from text2ct.findings import FINDINGS
from text2ct.workflow import BUNDLED_PACK, find_pack

if TYPE_CHECKING:
    from text2ct.evaluation.generator import Measures, Settings
    from text2ct.evaluation.generator.scorers import Scorer
    from text2ct.manifests import Workspace


@dataclass(frozen=True)
class Names:
    """What users name.

    Attributes:
        backbone: As for :func:`text2ct.evaluation.generator.backbones.slice_encoder`; by default the bundled one.
        backbone_3d: As for :func:`text2ct.evaluation.generator.backbones_3d.volume_encoder`; by default the 3D CLIP.
        clip: The pack whose 3D CLIP scores, or ``ctclip:FOLDER``; by default the bundled pack.
        classifier: A run; by default the newest.
        device: ``auto``, ``cpu``, ``cuda``, ...
        engine: Where volumes are brought to the grid and described.
    """

    backbone: str | None = None
    backbone_3d: str | None = None
    clip: str | None = None
    classifier: Path | None = None
    device: str = "auto"
    engine: Engine = LOCAL


def find_measures(workspace: Workspace, settings: Settings, names: Names) -> Measures:
    """The networks that the metrics of ``settings`` need.

    Raises:
        UserError: Something that is named or needed does not exist.
    """
    from text2ct.compute import pick_device
    from text2ct.evaluation.generator import Measures
    from text2ct.evaluation.generator.backbones import BUNDLED, slice_encoder
    from text2ct.evaluation.generator.backbones_3d import CLIP, volume_encoder

    metrics, where, whole = {*settings.metrics}, pick_device(names.device), names.backbone_3d or CLIP
    by_clip = {"alignment", "privacy", "diversity"} | ({"fid_3d"} if whole == CLIP else set())
    scorer = find_scorer(workspace, names) if by_clip & metrics else None
    if whole.startswith("classifier:"):
        whole = f"classifier:{find_classifier(workspace, Path(whole.removeprefix('classifier:')))}"
    return Measures(
        encoder=slice_encoder(names.backbone or BUNDLED, device=where) if "fidelity" in metrics else None,
        encoder_3d=volume_encoder(whole, scorer=scorer, device=where) if "fid_3d" in metrics else None,
        scorer=scorer,
        classifier=find_classifier(workspace, names.classifier) if "factual" in metrics else None,
        device=names.device,
        engine=names.engine,
    )


def find_scorer(workspace: Workspace, names: Names) -> Scorer:
    """The 3D CLIP that is named.

    Raises:
        UserError: There is none.
    """
    from text2ct.compute import pick_device
    from text2ct.diffusion import load_pack
    from text2ct.evaluation.generator.scorers import CTCLIP, CtClipScorer, PackScorer

    where, name = pick_device(names.device), names.clip or BUNDLED_PACK
    if name.startswith(CTCLIP):
        return CtClipScorer(Path(name.removeprefix(CTCLIP)), where)
    return PackScorer(load_pack(find_pack(workspace, name)), where)


def find_classifier(workspace: Workspace, given: Path | None) -> Path:
    """A run by its folder or name, else the newest.

    Raises:
        UserError: There is none.
    """
    return workspace.newest("classifiers") if given is None else workspace.find_run("classifiers", given)


def would_miss(absent: Mapping[str, str]) -> list[str]:
    """What a dry run says of :func:`left_out`."""
    return [f"{metric} would be left out: {reason}" for metric, reason in absent.items()]


def left_out(real: pd.DataFrame, workspace: Workspace, names: Names, split: str) -> dict[str, str]:
    """Metrics that lack what they need here, and why."""
    from text2ct.evaluation.generator.factual import check_reader
    from text2ct.evaluation.generator.sets import real_rows

    found = {}
    if real[list(FINDINGS)].isna().all(axis=None):
        found["factual"] = "no label of the real volumes is known"
    elif names.classifier is None:
        try:
            check_reader(workspace.newest("classifiers"), real_rows(real, split), workspace)
        except UserError as error:
            found["factual"] = str(error).splitlines()[0]
    if not ((real["split"] == "train") & (real["path"] != "") & (real["source"] != "synthetic")).any():
        found["privacy"] = "the real manifest has no training volumes with files"
    return found
