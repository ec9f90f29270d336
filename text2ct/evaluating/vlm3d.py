"""``evaluate --profile vlm3d``: a submission beside its ground truth, under the challenge's keys."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from text2ct.console import info
from text2ct.errors import UserError
from text2ct.evaluating.measures import Names, find_classifier, find_scorer
from text2ct.files import write_json
from text2ct.findings import FINDINGS

if TYPE_CHECKING:
    from text2ct.manifests import Workspace


def evaluate_vlm3d(
    workspace: Workspace,
    predictions: Path,
    ground_truth: Path,
    *,
    grid: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    prompts: Path | None = None,
    names: Names | None = None,
    run: str | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Write ``reports/<run>/metrics.json``: the challenge's keys, 4 decimals; see :mod:`text2ct.evaluation.vlm3d`.

    Args:
        workspace: Holds caches and the result.
        predictions: A folder of ``.mha`` or NIfTI volumes, or a zip of them.
        ground_truth: A folder of the real volumes of the same names.
        grid: Voxels on which slices are compared.
        spacing_mm: Their size.
        prompts: ``prompts.json``; without it there is no text score.
        names: What measures: ``classifier`` is the run whose 18 outputs FVD compares; without any there is no FVD.
        run: Name of the report's folder.
        dry_run: Say how much there is to measure, and write nothing.

    Returns:
        ``metrics``, ``computed_with``, numbers of volumes, ``notes`` and the path of ``metrics.json``.

    Raises:
        UserError: Volumes have no partner, cannot be read or show nothing.
    """
    from text2ct.classifiers import predict
    from text2ct.classifiers.cache import CachedVolumes
    from text2ct.classifiers.config import Preprocessing
    from text2ct.compute import keep_freed_memory, pick_device
    from text2ct.evaluation.generator.backbones import BUNDLED, slice_encoder
    from text2ct.evaluation.generator.evaluate import cache_of
    from text2ct.evaluation.generator.folders import estimate_of_folders, frames_of_folders
    from text2ct.evaluation.generator.sets import measured
    from text2ct.evaluation.vlm3d import WATER, clip_scores_of, fid_planes, fvd_of_chunks, rounded

    names = names or Names()
    on_slices = Preprocessing(size=grid, spacing_mm=spacing_mm)
    workspace.run_dir("reports", run or "")
    if dry_run:
        return estimate_of_folders(predictions, ground_truth, workspace, on_slices)
    frames = frames_of_folders(predictions, ground_truth, prompts, workspace)
    keep_freed_memory()
    notes: list[str] = []
    where = pick_device(names.device)
    scorer = find_scorer(workspace, names)
    encoder = slice_encoder(names.backbone or BUNDLED, device=where)
    in_water = scorer.grid.model_copy(update={"pad_hu": WATER})

    def on(preprocessing: Preprocessing) -> tuple[CachedVolumes, CachedVolumes]:
        cache = cache_of(workspace, preprocessing)
        sides = zip(frames, ("real", "synthetic"), strict=True)
        first, second = (measured(rows, workspace, cache, name, names.engine).volumes for rows, name in sides)
        return first, second

    scores: dict[str, float | None] = dict(fid_planes(*on(on_slices), encoder, where))
    texts = frames[1]["prompt"].tolist()
    scores |= clip_scores_of(*on(in_water), texts, scorer)
    reader = None
    try:
        reader = find_classifier(workspace, names.classifier)
    except UserError as error:
        if names.classifier is not None:
            raise
        notes.append(f"FVD_CTNet is left out: {error}")
    if reader is not None:
        outputs = []
        for rows in frames:
            said = predict(reader, rows, workspace, device=names.device, calibrated=False)[list(FINDINGS)].to_numpy()
            outputs.append(np.log(np.clip(said, 1e-12, 1)) - np.log(np.clip(1 - said, 1e-12, 1)))
        scores["FVD_CTNet"] = fvd_of_chunks(*outputs)
    if prompts is None:
        notes.append("CLIPScore and CLIPScore_mean are left out: give --prompts")
    notes.append("figures are the challenge's only with the weights of its scorer: see computed_with")
    for note in notes:
        info(note)
    folder = workspace.run_dir("reports", run or f"vlm3d-{predictions.stem}")
    metrics = rounded(scores)
    write_json(folder / "metrics.json", metrics)
    found = {
        "n_real": len(frames[0]),
        "n_synthetic": len(frames[1]),
        "metrics": metrics,
        "computed_with": {
            "slices": encoder.name,
            "clip": scorer.name,
            "fvd": None if reader is None else str(reader),
            "grid": list(grid),
            "spacing_mm": list(spacing_mm),
        },
        "notes": notes,
        "metrics_file": str(folder / "metrics.json"),
    }
    write_json(folder / "evaluation.json", found)
    return found
