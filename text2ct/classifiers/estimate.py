"""How long a training will take and how much disk it needs, from a few measured steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from text2ct.classifiers import runs
from text2ct.classifiers.augmentation import classical_augmentation
from text2ct.classifiers.config import RunConfig
from text2ct.classifiers.losses import masked_bce
from text2ct.classifiers.model import build_classifier
from text2ct.classifiers.planning import TrainingData
from text2ct.compute import autocast

NOTHING_LEFT = {"seconds": 0.0, "seconds_reading": 0.0, "seconds_training": 0.0}
NOTHING_LEFT |= {"bytes": 0, "bytes_cache": 0, "bytes_run": 0}
"""The estimate for a run that has ended."""

_COPIES_OF_THE_WEIGHTS = 6
"""In a run's folder at most: weights, two moments of AdamW, best weights, their average, the chosen model."""


def estimate(config: RunConfig, data: TrainingData, out_dir: Path, device: torch.device) -> dict[str, Any]:
    """Measure one volume's reading and a few steps on noise, and multiply.

    Returns:
        ``seconds`` (of which ``seconds_reading`` bring volumes to the grid), ``bytes`` at most (of which
        ``bytes_cache`` are shared with other runs) and ``seconds_per_step``.
    """
    settings, missing = config.training, data.cache.missing
    reading = 0.0
    if missing:
        reading = len(missing) * _seconds(lambda: data.cache.preprocess(missing[0]))
    state = runs.read_resume(out_dir)
    made = 0 if state is None else int(torch.load(state, map_location="cpu", weights_only=True)["global_step"])
    left = settings.steps - made

    classifier = build_classifier(config, initial=False).to(device)
    optimizer = torch.optim.AdamW(classifier.parameters())
    part = settings.part_size
    noise_hu = torch.randint(-1000, 1000, (part, 1, *config.preprocessing.size)).float()
    labels = torch.zeros(part, len(config.findings), device=device)
    augment = classical_augmentation(config.preprocessing.spacing_mm) if settings.augment else None

    def predict() -> torch.Tensor:
        with autocast(device):
            logits: torch.Tensor = classifier(noise_hu.to(device))
        return logits

    def step() -> None:
        for _ in range(settings.accumulate):
            if augment is not None:
                torch.stack([augment(volume_hu) for volume_hu in noise_hu])
            masked_bce(predict(), labels).backward()
        optimizer.step()
        _wait(device)

    def validate() -> None:
        with torch.inference_mode():
            predict().cpu()

    with torch.random.fork_rng(devices=[]):
        per_step, per_batch = _typical(step), _typical(validate)
    looks = -(-left // settings.validate_every)
    batches = -(-len(data.validation.names) // part)
    training = left * per_step + looks * batches * per_batch
    weights = sum(value.nbytes for value in classifier.state_dict().values())
    bytes_cache, bytes_run = len(missing) * data.cache.bytes_per_volume(), _COPIES_OF_THE_WEIGHTS * weights
    return {
        "seconds_per_step": per_step,
        "seconds": reading + training,
        "seconds_reading": reading,
        "seconds_training": training,
        "bytes": bytes_cache + bytes_run,
        "bytes_cache": bytes_cache,
        "bytes_run": bytes_run,
    }


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _typical(work: Callable[[], object]) -> float:
    """Median of three calls; the first, which allocates, is not counted."""
    work()
    return float(np.median([_seconds(work) for _ in range(3)]))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
