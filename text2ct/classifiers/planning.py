"""What a training will do, checked and resolved before its first step."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from text2ct import console, volumes
from text2ct.classifiers.cache import VolumeCache
from text2ct.classifiers.config import DataRecord, Preprocessing, RunConfig, Training, WindowSetting
from text2ct.classifiers.dataset import VolumeTable, brought_forward, draw_order, make_table
from text2ct.classifiers.model import check_grid
from text2ct.classifiers.registry import find
from text2ct.classifiers.rows import (
    check_gate,
    check_held_out,
    check_splits,
    check_validation,
    known_to_makers,
    prompt_origins,
    row_weights,
    usable_rows,
)
from text2ct.classifiers.warm_start import check_init

if TYPE_CHECKING:
    from text2ct.manifests import Workspace


@dataclass(frozen=True)
class TrainingData:
    """Everything that is drawn from while training.

    Args:
        train: Training volumes.
        validation: Validation volumes.
        order: (steps * batch_size,) training row of each draw.
        prompts: ``prompt_dataset`` and ``prompt_volume`` of the synthetic training rows.
        makers: Whom the packs and gates behind these rows were trained on.
        cache: Where the grids lie.
    """

    train: VolumeTable
    validation: VolumeTable
    order: np.ndarray
    prompts: pd.DataFrame
    makers: list[dict[str, Any]]
    cache: VolumeCache


def validations(settings: Training, validation_volumes: int) -> int:
    """How often a training looks at its validation volumes: at most six times, at least twice.

    In between, looking costs at most about a quarter of the training; a volume that is learnt from costs three times
    one that is only predicted, since the gradient takes two further passes.
    """
    affordable = 3 * settings.steps * settings.batch_size // (4 * validation_volumes)
    return min(settings.steps, max(2, min(6, affordable)))


def plan_run(
    manifest: pd.DataFrame,
    workspace: Workspace,
    *,
    name: str,
    options: Mapping[str, Any],
    preprocessing: Mapping[str, Any],
    training: Mapping[str, Any],
    cache_dir: Path | None,
    sampling_weights: np.ndarray | pd.Series | None,
    init: Path | None = None,
    dry_run: bool = False,
) -> tuple[RunConfig, TrainingData]:
    """Resolve a training to its configuration and its data; in a dry run no volume is written to the cache.

    Raises:
        UserError: Settings, rows or volumes that do not serve.
    """
    spec = find(name)
    grid = Preprocessing.of("the grid", preprocessing)
    resolved_options = spec.config.of(f"the options of classifier '{name}'", options)
    recipe = {"learning_rate": spec.learning_rate, "weight_decay": spec.weight_decay, **training}
    chooses_looks = "validate_every" not in recipe
    settings = Training.of("the training settings", {"validate_every": 1} | recipe)
    check_grid(spec, resolved_options, grid.size)

    manifest = manifest.reset_index(drop=True)
    rows, left_out = usable_rows(manifest)
    train_rows, validation_rows = rows["split"] == "train", rows["split"] == "validation"
    check_splits(rows, train_rows, validation_rows)
    check_held_out(manifest, workspace)
    check_gate(rows[train_rows], workspace, name, settings.seed)
    if chooses_looks:
        looks = validations(settings, int(validation_rows.sum()))
        settings = settings.model_copy(update={"validate_every": -(-settings.steps // looks)})
    weights = row_weights(manifest, rows, train_rows, sampling_weights)

    cache = VolumeCache(cache_dir or workspace.path / "cache" / "volumes", grid, dry_run=dry_run)
    train = make_table(rows[train_rows], workspace, cache, "training")
    validation = make_table(rows[validation_rows], workspace, cache, "validation")
    check_validation(validation)
    megabytes = cache.bytes_per_volume() * len(rows) / 1e6
    console.info(
        f"{len(train.names)} training and {len(validation.names)} validation volumes, "
        f"{megabytes:.0f} MB in {cache.folder}"
        + (f"; {left_out} rows without any known label left out" if left_out else "")
    )

    digest = hashlib.sha256(f"{train.digest()} {validation.digest()}".encode())
    digest.update(b"" if weights is None else np.ascontiguousarray(weights, dtype=np.float64).tobytes())
    config = RunConfig(
        classifier=name,
        options=resolved_options.model_dump(mode="json"),
        preprocessing=grid,
        windows=tuple(
            WindowSetting(name=w, centre=volumes.WINDOWS[w].centre, width=volumes.WINDOWS[w].width)
            for w in spec.windows
        ),
        training=settings,
        data=DataRecord(
            train_volumes=len(train.names),
            validation_volumes=len(validation.names),
            left_out_without_label=left_out,
            weighted_sampling=weights is not None,
            sha256=digest.hexdigest(),
        ),
    )
    if init is not None:
        config = config.model_copy(update={"init": check_init(init, config, manifest)})
    order = draw_order(len(train.names), settings.steps * settings.batch_size, settings.seed, weights)
    if settings.synthetic_until < 1:
        synthetic = (rows.loc[train_rows, "source"] == "synthetic").to_numpy()
        order = brought_forward(order, synthetic, settings.synthetic_until)
    learnt = rows[train_rows]
    prompts, makers = prompt_origins(learnt), known_to_makers(learnt, workspace)
    return config, TrainingData(train, validation, order, prompts, makers, cache)
