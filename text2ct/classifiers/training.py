"""Train a classifier on a manifest: a fixed number of steps, the checkpoint chosen on validation."""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.warnings import PossibleUserWarning

from text2ct import console
from text2ct.classifiers import runs
from text2ct.classifiers.config import ChosenModel, RunConfig
from text2ct.classifiers.estimate import NOTHING_LEFT, estimate
from text2ct.classifiers.model import build_classifier
from text2ct.classifiers.module import ClassifierTraining
from text2ct.classifiers.planning import TrainingData, plan_run
from text2ct.compute import lightning_precision, pick_device
from text2ct.errors import UserError
from text2ct.files import atomic_path
from text2ct.locks import working_in
from text2ct.steplog import StepLog

if TYPE_CHECKING:
    from text2ct.manifests import Workspace

LOG_EVERY = 10
"""Steps between two rows of ``metrics.csv``: at the others nobody waits for a GPU."""


def train(
    manifest: pd.DataFrame,
    workspace: Workspace,
    out_dir: Path,
    *,
    name: str = "cnn3d",
    steps: int = 300,
    batch_size: int = 8,
    seed: int = 0,
    size: tuple[int, int, int] = (64, 64, 64),
    spacing_mm: tuple[float, float, float] = (5.0, 5.0, 5.0),
    class_weights: bool = False,
    augment: bool = False,
    cache_dir: Path | None = None,
    device: str = "auto",
    sampling_weights: np.ndarray | pd.Series | None = None,
    fit: Literal["crop-pad", "resize"] = "crop-pad",
    options: Mapping[str, Any] | None = None,
    recipe: Mapping[str, Any] | None = None,
    init: Path | None = None,
    synthetic_until: float = 1.0,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Train one classifier and keep the weights that are best on the validation scans.

    The same call on the folder of an interrupted run goes on from its last validation, with the same
    draws; on that of a finished run it returns the result at once.

    Args:
        manifest: Rows with ``split`` train and validation; others are ignored. NaN labels are unknown.
        workspace: Resolves the rows' roots.
        out_dir: The run's folder.
        name: An entry of ``CLASSIFIERS``.
        steps: Optimisation steps, whatever the number of rows.
        batch_size: Volumes a step.
        seed: Decides initial weights, order and augmentation.
        size: Grid (X, Y, Z) in voxels.
        spacing_mm: Voxel size of the grid (x, y, z).
        class_weights: Weight positives by negatives per positive, capped.
        augment: Classical augmentation (pose, size, field of view, sharpness, intensities, noise).
        cache_dir: Where preprocessed volumes lie; None: ``cache/volumes`` of the workspace.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        sampling_weights: (len(manifest),) relative frequency of each row, >= 0; None: the manifest's column
            ``sampling_weight``, and without it all rows equally often.
        fit: How volumes come to the grid, as in ``volumes.to_grid``.
        options: Options of the classifier, see its config.
        recipe: Further fields of :class:`~text2ct.classifiers.config.Training`, such as ``learning_rate``,
            ``loss``, ``accumulate``, ``ema_decay`` or ``validate_every``.
        init: A finished run of the same network whose weights this one starts from; None: random ones, or
            pretrained ones where the options say so.
        synthetic_until: Share of the steps, in (0, 1], after which only real volumes are drawn; synthetic ones are
            drawn as often as before, but earlier.
        dry_run: Check everything, measure a few steps, and write nothing.

    Returns:
        ``run``, ``classifier``, ``steps``, ``validation_macro_auc``; also ``chosen_step``,
        ``temperature``, ``undefined_findings``, ``train_volumes``, ``validation_volumes`` and
        ``seconds_per_step``. A dry run has no AUC and adds what :func:`text2ct.classifiers.estimate.estimate` gives.

    Raises:
        UserError: An empty split, no known label, a missing volume, a patient in both splits, a folder with
            another run, a loss that is not finite, an ``init`` that is another network or knows held-out patients.
    """
    chosen_device = pick_device(device)
    named = {
        "steps": steps,
        "batch_size": batch_size,
        "seed": seed,
        "class_weights": class_weights,
        "augment": augment,
        "synthetic_until": synthetic_until,
    }
    config, data = plan_run(
        manifest,
        workspace,
        name=name,
        options=options or {},
        preprocessing={"size": size, "spacing_mm": spacing_mm, "fit": fit},
        training={**(recipe or {}), **named},
        cache_dir=cache_dir,
        sampling_weights=sampling_weights,
        init=init,
        dry_run=dry_run,
    )
    out_dir = Path(out_dir)
    with working_in(out_dir, unless=dry_run):
        stored = _stored(out_dir, config)
        if stored is not None and stored.model is not None:
            runs.load_classifier(out_dir)  # a damaged model is said now, not when it is used
            console.info(f"{out_dir} is trained already; nothing to do")
            return _result(out_dir, stored) | ({"dry_run": True, **NOTHING_LEFT} if dry_run else {})
        if dry_run:
            return {
                "run": str(out_dir),
                "classifier": name,
                "steps": config.training.steps,
                "validation_macro_auc": None,
                "train_volumes": config.data.train_volumes,
                "validation_volumes": config.data.validation_volumes,
                "dry_run": True,
                **estimate(config, data, out_dir, chosen_device),
            }
        if stored is None:
            (out_dir / runs.RESUME).unlink(missing_ok=True)
            runs.write_config(out_dir, config)
        runs.write_patients(out_dir, data.train, data.validation, data.prompts, data.makers, init)
        module, seconds = _fit(config, data, out_dir, chosen_device, init)
        chosen = ChosenModel(
            sha256=runs.write_model(out_dir, module.best["weights"]),
            step=module.best["step"],
            validation_macro_auc=module.best["macro_auc"],
            undefined_findings=tuple(module.best["undefined"]),
            seconds_per_step=seconds,
            temperature=module.best["temperature"],
        )
        runs.write_history(out_dir, module.history)
        final = config.model_copy(update={"model": chosen})
        runs.write_config(out_dir, final)
        (out_dir / runs.RESUME).unlink(missing_ok=True)
        return _result(out_dir, final)


def _stored(out_dir: Path, config: RunConfig) -> RunConfig | None:
    """The configuration in the folder if this run was begun there, or None.

    Raises:
        UserError: Another run lies there.
    """
    if not (out_dir / runs.CONFIG).exists():
        return None
    stored = runs.read_config(out_dir)
    ours = config.model_dump(mode="json", exclude={"model"})
    theirs = stored.model_dump(mode="json", exclude={"model"})
    if ours != theirs:
        differing = sorted(
            f"{part}: {theirs[part]} there, {ours[part]} asked for" for part in ours if ours[part] != theirs[part]
        )
        raise UserError(f"{out_dir} holds another run; choose another folder or delete it", differing)
    return stored


def _result(out_dir: Path, config: RunConfig) -> dict[str, Any]:
    assert config.model is not None
    return {
        "run": str(out_dir),
        "classifier": config.classifier,
        "steps": config.training.steps,
        "validation_macro_auc": config.model.validation_macro_auc,
        "chosen_step": config.model.step,
        "temperature": config.model.temperature,
        "undefined_findings": list(config.model.undefined_findings),
        "train_volumes": config.data.train_volumes,
        "validation_volumes": config.data.validation_volumes,
        "seconds_per_step": config.model.seconds_per_step,
    }


def _fit(
    config: RunConfig, data: TrainingData, out_dir: Path, device: torch.device, init: Path | None
) -> tuple[ClassifierTraining, float]:
    """Run the optimisation; returns the module and the seconds a step of this call took."""
    settings = config.training
    resume = runs.read_resume(out_dir)
    with torch.random.fork_rng(devices=[]), _quiet_lightning():
        if init is None or resume is not None:
            classifier = build_classifier(config, initial=resume is None)
        else:
            console.info(f"starting from the weights of {init}")
            classifier = runs.load_classifier(init)[0].train()
        module = ClassifierTraining(
            classifier,
            settings,
            config.preprocessing,
            data.train,
            data.validation,
            data.order,
        )
        with console.progress(f"training {config.classifier}", settings.steps) as advance:
            watch = _Watch(out_dir, settings.steps, advance)
            trainer = pl.Trainer(
                accelerator="gpu" if device.type == "cuda" else device.type,
                devices=[device.index or 0] if device.type == "cuda" else 1,
                precision=lightning_precision(device),
                max_epochs=math.ceil(settings.steps / settings.validate_every),
                reload_dataloaders_every_n_epochs=1,
                num_sanity_val_steps=0,
                gradient_clip_val=settings.gradient_clip,
                accumulate_grad_batches=settings.accumulate,
                callbacks=[watch],
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                default_root_dir=out_dir,
            )
            try:
                trainer.fit(module, ckpt_path=resume, weights_only=True if resume else None)
            except SystemExit as stop:  # what Lightning makes of Ctrl-C
                raise KeyboardInterrupt from stop
    return module, watch.seconds_per_step


class _Watch(Callback):
    """Shows progress, times steps and saves the state after each validation."""

    def __init__(self, out_dir: Path, steps: int, advance: Any) -> None:
        self.out_dir, self.steps, self.advance = out_dir, steps, advance
        self.timed: list[float] = []
        self._log = StepLog(out_dir)
        self._losses: list[torch.Tensor] = []
        self._shown = 0
        self._began = 0.0

    @property
    def seconds_per_step(self) -> float:
        """Median of this call's steps; 0 if it made none."""
        return float(np.median(self.timed)) if self.timed else 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._log.begin(trainer.global_step)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._began = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *args: Any) -> None:
        self._losses.append(outputs["loss"].detach())
        if trainer.global_step == self._shown:  # a part of a step
            return
        now = time.perf_counter()  # loading included
        self.timed.append(now - self._began)
        self._began = now
        self.advance(trainer.global_step - self._shown)
        self._shown = trainer.global_step
        if trainer.global_step % LOG_EVERY == 0 or trainer.global_step in (1, self.steps):
            self._write(trainer)

    def _write(self, trainer: pl.Trainer) -> None:
        """A row of the log: the mean loss since the one before."""
        losses, self._losses = self._losses, []
        loss = float(torch.stack(losses).mean()) * trainer.accumulate_grad_batches  # each is of a part, and its share
        rate = float(trainer.optimizers[0].param_groups[0]["lr"])
        self._log.add(trainer.global_step, {"loss": loss}, learning_rate=rate)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._losses:  # a training that goes on from here has the same rows
            self._write(trainer)
        with atomic_path(self.out_dir / runs.RESUME) as temporary:
            trainer.save_checkpoint(temporary)


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """No device tables, tips or advice on workers."""
    names = ("lightning", "lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "lightning.fabric")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            # volumes are memory-mapped from the cache: workers would only compete for the same cores
            warnings.simplefilter("ignore", PossibleUserWarning)
            # Lightning's own use of a torch class that torch is renaming
            warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated", category=FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
