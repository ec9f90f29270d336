"""Training of 3D CLIP: symmetric InfoNCE, helped by the labels where the data has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from text2ct.diffusion.clip import Clip3D
from text2ct.diffusion.tokenizer import TextTokenizer
from text2ct.diffusion.training.cases import DETAILS, Cases
from text2ct.diffusion.training.config import ClipTraining
from text2ct.diffusion.training.draws import epoch_indices, step_generator
from text2ct.diffusion.training.loop import MakeBatch, fit, load_result
from text2ct.diffusion.training.processes import Share, Strategy, gather, world_size
from text2ct.diffusion.training.step import Batch, StepModule, micro_batches
from text2ct.diffusion.training.vae import unit_tensor
from text2ct.errors import UserError
from text2ct.findings import FINDINGS

# CLIP's largest temperature multiplier (Radford et al. 2021, arXiv 2103.00020, section 2.5).
MAX_LOGIT_SCALE = 100.0
VARIANTS = 3
# What is said of a finding in a text made of labels alone (CXR-CLIP, You et al. 2023, arXiv 2310.13292).
STATEMENTS = (
    ("{x}.", "No {x}."),
    ("There is {x}.", "There is no {x}."),
    ("{x} is present.", "{x} is not present."),
    ("{x} was observed.", "{x} was not observed."),
    ("{x} is seen.", "No {x} is seen."),
    ("{x} has been detected.", "{x} has not been detected."),
    ("{x} is visible on this scan.", "{x} is absent on this scan."),
    ("CT shows {x}.", "CT shows no {x}."),
    ("The images demonstrate {x}.", "The images do not demonstrate {x}."),
    ("Signs of {x}.", "No signs of {x}."),
    ("Evidence of {x} was found.", "No evidence of {x} was found."),
    ("The patient has {x}.", "The patient does not have {x}."),
    ("Positive for {x}.", "Negative for {x}."),
    ("Chest CT with {x}.", "Chest CT without {x}."),
    ("Appearance of {x}.", "The chest is free of {x}."),
    ("Compatible with {x}.", "{x} was excluded."),
)


def label_text(labels: np.ndarray, draw: np.random.Generator) -> tuple[str, np.ndarray]:
    """A text that states some labels, one to eight of them, and (18,) bool, which it states.

    Args:
        labels: (18,) with 1, 0 or NaN; an unknown label is never stated.
        draw: Decides which and how. Findings that are present are stated twice as often.
    """
    known = np.flatnonzero(~np.isnan(labels))
    told = np.zeros(len(FINDINGS), dtype=bool)
    if not len(known):
        return "", told
    weight = 1.0 + (labels[known] == 1)
    count = min(len(known), int(draw.integers(1, 9)))
    chosen = draw.choice(known, size=count, replace=False, p=weight / weight.sum())
    told[chosen] = True
    said = []
    for index in chosen:
        present, absent = STATEMENTS[int(draw.integers(len(STATEMENTS)))]
        name = FINDINGS[index].lower()
        sentence = (present if labels[index] == 1 else absent).format(x=name)
        said.append(sentence[0].upper() + sentence[1:])
    return " ".join(said), told


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
        """Losses of ``unit`` volumes, ``token_ids``, ``labels`` and ``details``, through one graph."""
        return self.losses_of(self.embed(batch), batch["labels"], batch["details"], batch["told"])

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """What the losses read of each case: ``text``, and where there are, ``queries`` and ``image``."""
        network: Clip3D = self.network  # type: ignore[assignment]
        text = network.encode_text(batch["token_ids"])
        embedded = {"text": text.embedding}
        if self.reads_details and self.settings.label_weight and text.queries is not None:
            embedded["queries"] = text.queries[:, : len(FINDINGS)]
        if "unit" in batch:
            embedded["image"] = network.encode_volume(batch["unit"])
        return embedded

    def losses_of(
        self, embedded: dict[str, Tensor], labels: Tensor, details: Tensor, told: Tensor
    ) -> dict[str, Tensor]:
        """Losses of embeddings, row i of each belonging to row i of the others.

        ``told``, (n, 18) bool, says of which findings a case's text speaks; the text is asked for no other.
        """
        settings, text = self.settings, embedded["text"]
        zero = text.new_zeros(())
        # Every part is always named, so that the columns of the log stay.
        parts = dict.fromkeys(("contrastive", "labels_image", "labels_text", "labels_queries", "details"), zero)
        # Unit vectors have elements of about dim**-0.5; the head expects about 1.
        size = text.shape[1] ** 0.5
        if "image" in embedded:
            scale = self.network.logit_scale.exp().clamp(max=MAX_LOGIT_SCALE)  # type: ignore[operator]
            parts["contrastive"] = contrastive_loss(text, embedded["image"], scale)
            parts["labels_image"] = _bce(self.label_head(embedded["image"] * size), labels)
        loss = settings.contrastive_weight * parts["contrastive"] + settings.label_weight * parts["labels_image"]
        if settings.label_weight:
            labels = labels.masked_fill(~told, torch.nan)
            details = details.masked_fill(~told[..., None], torch.nan)
            parts["labels_text"] = _bce(self.label_head(text * size), labels)
            loss = loss + settings.label_weight * parts["labels_text"]
            if "queries" in embedded:
                read = torch.einsum("nfd,fdk->nfk", embedded["queries"], self.detail_head)
                parts["labels_queries"] = _bce(read[..., 0], labels)
                severity = _known((read[..., 1].sigmoid() - details[..., 0].nan_to_num()) ** 2, details[..., 0])
                parts["details"] = severity + _bce(read[..., 2:], details[..., 1:])
                loss = loss + settings.label_weight * (parts["labels_queries"] + parts["details"])
        return {"loss": loss, **parts}

    def backward_batch(self, batch: Batch) -> dict[str, Tensor]:
        """Gradient of the loss over the whole batch, of all processes and micro-batches.

        Cached gradients (Gao et al. 2021, arXiv 2101.06983): embed every micro-batch without a graph, take the
        loss and its gradient at all embeddings, then embed each micro-batch again and send its part of that
        gradient on. A batch that is one micro-batch is embedded once, with its graph.
        """
        seed = torch.initial_seed()

        def parts(graph: bool) -> Iterator[dict[str, Tensor]]:
            for number, (part, _) in enumerate(micro_batches(batch, self.config.micro_batch, self.device)):
                torch.manual_seed((seed + number) % 2**63)  # both times the same draws
                with torch.set_grad_enabled(graph):
                    embedded = self.embed(part)
                yield embedded

        count = len(batch["token_ids"])
        at_once = (self.config.micro_batch or count) >= count
        embedded = list(parts(graph=at_once))
        # Older versions of torch would use weights that autocast has kept from the pass without a graph.
        torch.clear_autocast_cache()
        whole = {
            name: gather(torch.cat([part[name].detach() for part in embedded])).requires_grad_() for name in embedded[0]
        }
        labels, details, told = (gather(batch[name].to(self.device)) for name in ("labels", "details", "told"))
        losses = self.losses_of(whole, labels, details, told)
        losses["loss"].backward()
        # Every process computes the whole loss, and gradients are averaged over processes: so `world` times.
        mine = Share(self.global_rank, world_size()).of(count * world_size())
        cached = {
            name: (value.grad[mine] * world_size()).split([len(part[name]) for part in embedded])
            for name, value in whole.items()
            if value.grad is not None
        }
        for number, part in enumerate(embedded if at_once else parts(graph=True)):
            torch.autograd.backward([part[name] for name in cached], [cached[name][number] for name in cached])
        return losses


def clip_batches(cases: Cases, tokenizer: TextTokenizer, config: ClipTraining) -> MakeBatch:
    """Pairs of volume and text by step: the whole report, its impression, its findings, or labels in words."""
    reports = np.array([0.6, 0.2, 0.2]) * (1 - config.label_texts)

    def make(step: int, share: Share) -> Batch:
        draw = step_generator(config.seed, step)
        indices = epoch_indices(len(cases), config.batch_size, config.seed, step)
        variants = draw.choice(VARIANTS + 1, size=len(indices), p=(*reports, config.label_texts))
        if step < config.short_steps:
            variants[:] = 1
        texts, told = [], np.zeros((len(indices), len(FINDINGS)), dtype=bool)
        for row, (index, variant) in enumerate(zip(indices, variants, strict=True)):
            text, told[row] = label_text(cases.labels[index], draw) if variant == VARIANTS else ("", False)
            if not text:
                case, kind = cases.texts[index], int(variant) % VARIANTS
                text, told[row] = case.text(kind), case.told(kind)
            texts.append(text)
        # No longer than the longest text, in steps of 32: the padding is not read.
        longest = -(-min(config.text_length, max(tokenizer.lengths(texts))) // 32) * 32
        ids = tokenizer.encode(texts, min(config.text_length, longest))
        mine = share.of(len(indices))
        batch = {
            "token_ids": torch.from_numpy(ids[mine]),
            "labels": torch.from_numpy(cases.labels[indices[mine]]),
            "details": torch.from_numpy(cases.details[indices[mine]]),
            "told": torch.from_numpy(told[mine]),
        }
        if step >= max(config.short_steps, config.text_only_steps):
            batch["unit"] = unit_tensor(np.stack([cases.volume_hu(int(i)) for i in indices[mine]]))[:, None]
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
    devices: int = 1,
    nodes: int = 1,
    strategy: Strategy = "ddp",
    stop_at: int | None = None,
    start: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Train ``clip`` on ``cases``; the same call resumes, and one with another ``start`` is refused.

    Raises:
        UserError: The text length exceeds the tower's positions, or the tokenizer its vocabulary; and as
            :func:`text2ct.diffusion.training.loop.fit`.
    """
    text = clip.config.text
    if config.text_length > text.max_position_embeddings:
        raise UserError(
            f"text_length {config.text_length} exceeds the tower's {text.max_position_embeddings} positions"
        )
    if tokenizer.vocab_size > text.vocab_size or tokenizer.end_id != text.eos_token_id:
        raise UserError("the tokenizer does not fit the text tower: vocabulary or end-of-text id differ")
    module = ClipModule(clip, config)
    batches = clip_batches(cases, tokenizer, config)
    identity = {"cases": cases.digest, **(start or {})}
    place: dict[str, Any] = {"device": device, "devices": devices, "nodes": nodes, "strategy": strategy}
    fit(module, batches, out, **place, stop_at=stop_at, identity=identity)
    return load_result(module, out)
