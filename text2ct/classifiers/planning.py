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
from text2ct.classifiers.dataset import VolumeTable, draw_order, make_table
from text2ct.classifiers.metrics import scan_auc
from text2ct.classifiers.model import check_grid
from text2ct.classifiers.registry import find
from text2ct.errors import UserError
from text2ct.findings import FINDINGS

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
        cache: Where the grids lie.
    """

    train: VolumeTable
    validation: VolumeTable
    order: np.ndarray
    prompts: pd.DataFrame
    cache: VolumeCache


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
    # six looks at the validation scans, but not so often that they cost more than the training
    recipe.setdefault("validate_every", max(1, -(-int(recipe.get("steps", 300)) // 6)))
    settings = Training.of("the training settings", recipe)
    check_grid(spec, resolved_options, grid.size)

    manifest = manifest.reset_index(drop=True)
    rows, left_out = _usable_rows(manifest)
    train_rows, validation_rows = rows["split"] == "train", rows["split"] == "validation"
    _check_splits(rows, train_rows, validation_rows)
    _check_held_out(manifest)
    _check_gate(rows[train_rows], workspace, name, settings.seed)
    weights = _row_weights(manifest, rows, train_rows, sampling_weights)

    cache = VolumeCache(cache_dir or workspace.path / "cache" / "volumes", grid, dry_run=dry_run)
    train = make_table(rows[train_rows], workspace, cache, "training")
    validation = make_table(rows[validation_rows], workspace, cache, "validation")
    _check_validation(validation)
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
    order = draw_order(len(train.names), settings.steps * settings.batch_size, settings.seed, weights)
    return config, TrainingData(train, validation, order, _prompt_origins(rows[train_rows]), cache)


def _usable_rows(manifest: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Rows of the two splits that have a known label, and how many have none."""
    needed = ("dataset", "volume", "patient", "scan", "split", "source", "root", "path", *FINDINGS)
    missing = [column for column in needed if column not in manifest.columns]
    if missing:
        raise UserError("the manifest lacks columns", missing)
    rows = manifest[manifest["split"].isin(("train", "validation"))]
    known = rows[list(FINDINGS)].notna().any(axis=1)
    if len(rows) and not known.any():
        raise UserError("no row has a known label; a classifier needs some of the 18 finding columns filled in")
    return rows[known], int((~known).sum())


def _check_splits(rows: pd.DataFrame, train_rows: pd.Series, validation_rows: pd.Series) -> None:
    for split, chosen in (("train", train_rows), ("validation", validation_rows)):
        if not chosen.any():
            raise UserError(f"the manifest has no labelled rows with split '{split}'; split it by patient first")
    synthetic = rows[validation_rows & (rows["source"] == "synthetic")]
    if len(synthetic):
        raise UserError(
            "synthetic volumes cannot choose a checkpoint; validation rows must be real",
            [str(volume) for volume in synthetic["volume"].head(10)],
        )
    identity = rows["dataset"].astype(str) + "/" + rows["patient"].astype(str)
    both = sorted(set(identity[train_rows]) & set(identity[validation_rows]))
    if both:
        raise UserError(f"{len(both)} patients are in train and in validation; split by patient", both[:10])


def _check_held_out(manifest: pd.DataFrame) -> None:
    """Refuse training rows that carry the manifest's own validation or test patients."""
    from text2ct.augment.leaks import HeldOut

    train = manifest[manifest["split"] == "train"]
    test = manifest[manifest["split"] == "test"]
    identities = [set(zip(part["dataset"], part["patient"], strict=True)) for part in (train, test)]
    leaks = [f"{dataset}/{patient}: in train and in test" for dataset, patient in sorted(set.intersection(*identities))]
    texts = ("findings_text", "impression_text", "prompt", "prompt_dataset", "prompt_volume")
    known = manifest.assign(**{name: "" for name in texts if name not in manifest.columns})
    made = known[(known["split"] == "train") & (known["source"] == "synthetic")].fillna(dict.fromkeys(texts, ""))
    if len(made):
        held_out = HeldOut(known.fillna(dict.fromkeys(texts, "")))
        told = held_out.volumes(made["prompt_dataset"], made["prompt_volume"]) | made["prompt"].map(held_out.has_text)
        leaks += [f"{volume}: its prompt is of a validation or test patient" for volume in made.loc[told, "volume"]]
    if leaks:
        more = [f"and {len(leaks) - 10} more"] if len(leaks) > 10 else []
        raise UserError("this manifest would leak held-out patients into training; mend it", leaks[:10] + more)


def _check_gate(train_rows: pd.DataFrame, workspace: Workspace, name: str, seed: int) -> None:
    """Refuse volumes that were chosen by a classifier of the same architecture or seed."""
    from text2ct.augment.gate import refuse_same_judge

    refuse_same_judge(train_rows, workspace, name, seed)


def _check_validation(validation: VolumeTable) -> None:
    undefined = scan_auc(np.zeros(validation.labels.shape), validation.labels, validation.scans).undefined
    if len(undefined) == len(FINDINGS):
        raise UserError(
            "no finding has both a positive and a negative validation scan, so no checkpoint can be chosen; "
            "add validation patients"
        )
    if undefined:
        console.warn(f"one class only among the validation scans, so left out of the mean AUC: {', '.join(undefined)}")


def _row_weights(
    manifest: pd.DataFrame,
    rows: pd.DataFrame,
    train_rows: pd.Series,
    sampling_weights: np.ndarray | pd.Series | None,
) -> np.ndarray | None:
    """Sampling weights of the training rows, in their order; the manifest's index counts from 0."""
    if sampling_weights is None:
        return None
    values = np.asarray(sampling_weights, dtype=np.float64)
    if values.shape != (len(manifest),):
        raise UserError(f"{values.size} sampling weights for {len(manifest)} manifest rows; give one for each row")
    chosen: np.ndarray = values[rows.index[train_rows].to_numpy()]
    if not np.isfinite(chosen).all() or (chosen < 0).any() or chosen.sum() <= 0:
        raise UserError("sampling weights must be finite and not negative, with some above 0 among the training rows")
    return chosen


def _prompt_origins(train_rows: pd.DataFrame) -> pd.DataFrame:
    columns = ["prompt_dataset", "prompt_volume"]
    if not set(columns) <= set(train_rows.columns):
        return pd.DataFrame({column: [] for column in columns})
    return train_rows.loc[train_rows["source"] == "synthetic", columns].fillna("")
