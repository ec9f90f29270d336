"""Probabilities of the 18 findings from a trained run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from text2ct import console
from text2ct.classifiers.cache import VolumeCache
from text2ct.classifiers.dataset import make_table
from text2ct.classifiers.runs import load_classifier
from text2ct.compute import autocast, pick_device
from text2ct.errors import UserError
from text2ct.findings import FINDINGS

if TYPE_CHECKING:
    from text2ct.manifests import Workspace


def predict(
    run_dir: Path,
    manifest: pd.DataFrame,
    workspace: Workspace,
    *,
    batch_size: int = 8,
    device: str = "auto",
    cache_dir: Path | None = None,
    calibrated: bool = True,
) -> pd.DataFrame:
    """Predict every row of a manifest, whatever its split or labels.

    Batches are padded to one shape, so that a row's probabilities do not depend on how many follow it. Each
    reconstruction of a scan is a row; what judges scans averages their probabilities (``evaluation.score``).

    Args:
        run_dir: A finished run.
        manifest: Rows with files.
        workspace: Resolves the rows' roots.
        batch_size: Volumes a forward pass.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        cache_dir: Where preprocessed volumes lie; None: ``cache/volumes`` of the workspace.
        calibrated: Divide logits by the run's temperature; False gives the network's own probabilities.

    Returns:
        ``VolumeName`` and 18 probabilities, in the manifest's order.

    Raises:
        UserError: A run that is missing, unfinished or damaged; no rows; volumes that cannot be read.
    """
    if batch_size < 1:
        raise UserError(f"batch size {batch_size} is not positive; use 1 or more")
    where = pick_device(device)
    classifier, config = load_classifier(Path(run_dir))
    assert config.model is not None
    temperature = config.model.temperature if calibrated else 1.0
    if manifest.empty:
        raise UserError("there is nothing to predict: the manifest, or the split chosen, has no rows")
    cache = VolumeCache(cache_dir or workspace.path / "cache" / "volumes", config.preprocessing)
    table = make_table(manifest, workspace, cache, "test")
    classifier.to(where)
    probabilities: list[np.ndarray] = []
    with (
        console.progress("predicting", len(table.entries)) as advance,
        torch.inference_mode(),
        autocast(where),
    ):
        for start in range(0, len(table.entries), batch_size):
            batch = _batch(table.entries[start : start + batch_size], batch_size)
            count = min(batch_size, len(table.entries) - start)
            logits = classifier(batch.to(where)).cpu().double()[:count]
            probabilities.append(torch.sigmoid(logits / temperature).numpy())
            advance(count)
    values = np.concatenate(probabilities)
    if not np.isfinite(values).all():
        raise UserError(f"{run_dir} predicts values that are not finite; train the run again")
    result = pd.DataFrame(values, columns=list(FINDINGS))
    result.insert(0, "VolumeName", table.names)
    return result


def _batch(entries: list[Path], batch_size: int) -> Tensor:
    """(batch_size, 1, X, Y, Z) int16 HU; the last entry repeated where there are too few."""
    arrays = [VolumeCache.load(entry) for entry in entries]
    arrays += [arrays[-1]] * (batch_size - len(arrays))
    return torch.from_numpy(np.stack(arrays)[:, None])
