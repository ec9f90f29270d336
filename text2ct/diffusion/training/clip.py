"""Training of 3D CLIP: symmetric InfoNCE, helped by the labels where the data has them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from text2ct.diffusion.clip import Clip3D
from text2ct.diffusion.tokenizer import TextTokenizer
from text2ct.diffusion.training.cases import DETAILS, Cases
from text2ct.diffusion.training.config import ClipTraining
from text2ct.diffusion.training.loop import Batch, StepModule, epoch_indices, fit, load_result, step_generator
from text2ct.diffusion.training.vae import hu_to_unit
from text2ct.errors import UserError
from text2ct.findings import FINDINGS

# CLIP's largest temperature multiplier (Radford et al. 2021, arXiv 2103.00020, section 2.5).
MAX_LOGIT_SCALE = 100.0
VARIANTS = 3


def contrastive_loss(text: Tensor, image: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE of (n, d) unit vectors, row i of one belonging to row i of the other."""
    logits = scale * text @ image.T
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def _known(loss: Tensor, target: Tensor) -> Tensor:
    """Mean of ``loss`` where ``target`` is known (not NaN)."""
    known = ~target.isnan()
    return torch.where(known, loss, 0).sum() / known.sum().clamp(min=1)


def _bce(logits: Tensor, target: Tensor) -> Tensor:
    return _known(F.binary_cross_entropy_with_logits(logits, target.nan_to_num(), reduction="none"), target)


class ClipModule(StepModule):
    """3D CLIP in training, with heads that are dropped afterwards.

    Reading a report from nothing takes long, reading an impression does not: training may begin with the
    labels of impressions, go on with those of whole reports, and then bring in the volumes.

    One linear head reads the 18 labels from both embeddings. Query i of a tower with at least 18 queries
    reads finding i: its label, severity and sides.
    """

    def __init__(self, network: Clip3D, config: ClipTraining) -> None:
        super().__init__(network, config)
        self.settings = config
        dim = network.config.projection_dim
        self.label_head = nn.Linear(dim, len(FINDINGS))
        self.reads_details = network.config.text.queries >= len(FINDINGS)
        if self.reads_details:
            self.detail_head = nn.Parameter(torch.randn(len(FINDINGS), dim, 1 + len(DETAILS)) * dim**-0.5)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Losses of ``unit`` volumes, ``token_ids``, ``labels`` and ``details``."""
        network: Clip3D = self.network  # type: ignore[assignment]
        settings = self.settings
        text = network.encode_text(batch["token_ids"])
        zero = text.embedding.new_zeros(())
        # Every part is always named, so that the columns of the log stay.
        parts = dict.fromkeys(("contrastive", "labels_image", "labels_text", "labels_queries", "details"), zero)
        # Unit vectors have elements of about dim**-0.5; the head expects about 1.
        size = text.embedding.shape[1] ** 0.5
        if "unit" in batch:
            image = network.encode_volume(batch["unit"])
            scale = network.logit_scale.exp().clamp(max=MAX_LOGIT_SCALE)
            parts["contrastive"] = contrastive_loss(text.embedding, image, scale)
            parts["labels_image"] = _bce(self.label_head(image * size), batch["labels"])
        loss = settings.contrastive_weight * parts["contrastive"] + settings.label_weight * parts["labels_image"]
        if settings.label_weight:
            parts["labels_text"] = _bce(self.label_head(text.embedding * size), batch["labels"])
            loss = loss + settings.label_weight * parts["labels_text"]
            if self.reads_details and text.queries is not None:
                queries = text.queries[:, : len(FINDINGS)]
                read = torch.einsum("nfd,fdk->nfk", queries, self.detail_head)
                parts["labels_queries"] = _bce(read[..., 0], batch["labels"])
                severity = _known(
                    (read[..., 1].sigmoid() - batch["details"][..., 0].nan_to_num()) ** 2, batch["details"][..., 0]
                )
                parts["details"] = severity + _bce(read[..., 2:], batch["details"][..., 1:])
                loss = loss + settings.label_weight * (parts["labels_queries"] + parts["details"])
        return {"loss": loss, **parts}


def clip_batches(cases: Cases, tokenizer: TextTokenizer, config: ClipTraining) -> Callable[[int], Batch]:
    """Pairs of volume and text by step; the text is the whole report, its impression or its findings."""

    def make(step: int) -> Batch:
        draw = step_generator(config.seed, step)
        indices = epoch_indices(len(cases), config.batch_size, config.seed, step)
        variants = draw.choice(VARIANTS, size=len(indices), p=(0.6, 0.2, 0.2))
        if step < config.short_steps:
            variants[:] = 1
        texts = [cases.texts[i].text(int(variant)) for i, variant in zip(indices, variants, strict=True)]
        # No longer than the longest text, in steps of 32: the padding is not read.
        longest = -(-min(config.text_length, max(tokenizer.lengths(texts))) // 32) * 32
        ids = tokenizer.encode(texts, min(config.text_length, longest))
        batch = {
            "token_ids": torch.from_numpy(ids),
            "labels": torch.from_numpy(cases.labels[indices]),
            "details": torch.from_numpy(cases.details[indices]),
        }
        if step >= max(config.short_steps, config.text_only_steps):
            batch["unit"] = hu_to_unit(np.stack([cases.volume_hu(int(i)) for i in indices]))[:, None]
        return batch

    return make


def train_clip(
    cases: Cases,
    clip: Clip3D,
    tokenizer: TextTokenizer,
    config: ClipTraining,
    out: Path,
    *,
    device: str = "auto",
    stop_at: int | None = None,
) -> nn.Module:
    """Train ``clip`` on ``cases``; the same call resumes.

    Raises:
        UserError: The text length exceeds the tower's positions, or the tokenizer its vocabulary.
    """
    text = clip.config.text
    if config.text_length > text.max_position_embeddings:
        raise UserError(
            f"text_length {config.text_length} exceeds the tower's {text.max_position_embeddings} positions"
        )
    if tokenizer.vocab_size > text.vocab_size or tokenizer.end_id != text.eos_token_id:
        raise UserError("the tokenizer does not fit the text tower: vocabulary or end-of-text id differ")
    module = ClipModule(clip, config)
    fit(module, clip_batches(cases, tokenizer, config), out, device=device, stop_at=stop_at)
    return load_result(module, out)
