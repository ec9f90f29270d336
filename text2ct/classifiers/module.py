"""The Lightning module: one recipe for every classifier."""

from __future__ import annotations

import math
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from text2ct.classifiers.augmentation import classical_augmentation
from text2ct.classifiers.calibration import fit_temperature
from text2ct.classifiers.config import Preprocessing, Training
from text2ct.classifiers.dataset import DrawnVolumes, VolumeTable
from text2ct.classifiers.losses import TrainingLoss, masked_bce
from text2ct.classifiers.metrics import ScanAuc, scan_auc
from text2ct.errors import UserError

Batch = tuple[Tensor, Tensor]


class ClassifierTraining(pl.LightningModule):
    """AdamW, warm-up and cosine, a masked loss; the weights best on validation macro AUC are kept.

    An "epoch" is the stretch of steps between two validations, so a checkpoint always lies between two
    stretches and a resumed training draws the same batches with the same random numbers.

    Args:
        classifier: HU volumes -> logits.
        settings: The recipe.
        preprocessing: The grid, whose spacing the augmentation needs.
        train: Training volumes.
        validation: Validation volumes.
        order: (steps * batch_size,) row of each draw.
    """

    def __init__(
        self,
        classifier: nn.Module,
        settings: Training,
        preprocessing: Preprocessing,
        train: VolumeTable,
        validation: VolumeTable,
        order: np.ndarray,
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self.settings = settings
        self.train_table, self.validation_table, self.order = train, validation, order
        self.augment = classical_augmentation(preprocessing.spacing_mm) if settings.augment else None
        self.averaged = (
            AveragedModel(classifier, multi_avg_fn=get_ema_multi_avg_fn(settings.ema_decay), use_buffers=True)
            if settings.ema_decay > 0
            else None
        )
        self.loss = TrainingLoss(settings, train.labels)
        labels_of_row = np.isfinite(train.labels).sum(axis=1)
        self.known = labels_of_row[order].reshape(settings.steps, settings.batch_size).sum(axis=1)
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {}
        self._losses: list[Tensor] = []
        self._outputs: list[Tensor] = []

    # data

    def train_dataloader(self) -> DataLoader[Batch]:
        """The batches of the current stretch, a step's in ``accumulate`` parts."""
        settings = self.settings
        first = self.current_epoch * settings.validate_every
        last = min(first + settings.validate_every, settings.steps)
        stretch = DrawnVolumes(
            self.train_table,
            self.order,
            start=first * settings.batch_size,
            stop=last * settings.batch_size,
            augment=self.augment,
            seed=settings.seed,
        )
        return DataLoader(stretch, batch_size=settings.part_size)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Every validation volume once, in the table's order."""
        table = self.validation_table
        return DataLoader(DrawnVolumes(table, np.arange(len(table.names))), batch_size=self.settings.part_size)

    # steps

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Give dropout random numbers that depend on the step and its part alone."""
        parts = self.settings.accumulate
        torch.manual_seed(self.settings.seed * 1_000_003 % 2**62 + self.global_step * parts + batch_idx % parts)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one batch, or of one part of it.

        A part returns its share of the step's loss, which is a mean over the known labels of all parts, times the
        number of parts, since Lightning divides by that.

        Raises:
            UserError: The loss is not finite.
        """
        volume_hu, labels = batch
        of_step = int(self.known[self.global_step])
        loss: Tensor = self.settings.accumulate * self.loss(self.classifier(volume_hu), labels, of_step)
        if not bool(torch.isfinite(loss)):
            raise UserError(
                f"the loss is not finite at step {self.global_step + 1}; lower the learning rate "
                f"(now {self.settings.learning_rate:g}) or check the volumes"
            )
        self._losses.append(loss.detach())
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Move the average of the weights, once a step."""
        if self.averaged is not None and (batch_idx + 1) % self.settings.accumulate == 0:
            self.averaged.update_parameters(self.classifier)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect the logits of one batch."""
        self._outputs.append(self.kept_model()(batch[0]).float().cpu())

    def on_validation_epoch_end(self) -> None:
        """Score the validation scans, write a line of history, keep the weights if they are the best."""
        logits = torch.cat(self._outputs).double()
        self._outputs.clear()
        table = self.validation_table
        auc = scan_auc(torch.sigmoid(logits).numpy(), table.labels, table.scans)
        labels = torch.from_numpy(table.labels).double()
        self.history.append(self._history_row(auc, float(masked_bce(logits, labels))))
        if not self.best or auc.macro > self.best["macro_auc"]:
            weights = {name: value.detach().cpu().clone() for name, value in self.kept_model().state_dict().items()}
            self.best = {"macro_auc": auc.macro, "step": self.global_step, "undefined": list(auc.undefined)}
            self.best |= {"weights": weights, "temperature": fit_temperature(logits, labels)}

    def kept_model(self) -> nn.Module:
        """What is validated and saved: the average of the weights, if one is kept."""
        return self.classifier if self.averaged is None else self.averaged.module

    def _history_row(self, auc: ScanAuc, validation_loss: float) -> dict[str, Any]:
        losses, self._losses = self._losses, []
        return {
            "step": self.global_step,
            "learning_rate": float(self.trainer.optimizers[0].param_groups[0]["lr"]),
            "train_loss": float(torch.stack(losses).mean()),
            "validation_loss": validation_loss,
            "validation_macro_auc": auc.macro,
            **{finding: auc.by_finding.get(finding, float("nan")) for finding in (*auc.by_finding, *auc.undefined)},
        }

    # optimisation and state

    def configure_optimizers(self) -> Any:
        """AdamW without decay on biases and norms; linear warm-up, then a cosine to zero, per step."""
        settings = self.settings
        matrices = [p for p in self.classifier.parameters() if p.ndim > 1]
        vectors = [p for p in self.classifier.parameters() if p.ndim <= 1]
        groups = [
            {"params": matrices, "weight_decay": settings.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate)
        warmup = round(settings.warmup_fraction * settings.steps)

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / (warmup + 1)
            share = (step - warmup) / max(1, settings.steps - warmup)
            return 0.5 * (1 + math.cos(math.pi * min(1.0, share)))

        scheduler = {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put history and best weights into the state that a resumed training starts from."""
        checkpoint["text2ct_history"] = self.history
        checkpoint["text2ct_best"] = self.best

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take them back."""
        self.history = checkpoint["text2ct_history"]
        self.best = checkpoint["text2ct_best"]
