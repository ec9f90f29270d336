"""Figures of a pack, measured on simulated patients that it was not trained on."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from text2ct.compute import keep_freed_memory, pick_device
from text2ct.diffusion.block_judge import BlockJudge, macro
from text2ct.diffusion.generate import decode_latents, generate
from text2ct.diffusion.pack import Pack
from text2ct.diffusion.training.cases import Cases
from text2ct.diffusion.training.vae import hu_to_unit


def psnr(reference_hu: np.ndarray, other_hu: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB over a range of 2000 HU."""
    error = np.mean((reference_hu.astype(np.float64) - other_hu) ** 2)
    return float(10 * np.log10(2000.0**2 / error))


@torch.inference_mode()
def measure_pack(
    pack: Pack, cases: Cases, judge: BlockJudge | None = None, *, device: str = "auto", batch_size: int = 8
) -> dict[str, Any]:
    """Figures of ``pack`` on new ``cases``, at its default steps and guidance.

    Args:
        pack: A whole pack.
        cases: Simulated patients that neither the pack nor the judge was trained on.
        judge: Reads findings from volumes; without it the factual figures are left out.
        device: As for :func:`text2ct.compute.pick_device`.
        batch_size: Volumes computed together.

    Returns:
        ``n``; ``psnr_db`` of the autoencoder (mean over volumes); ``dense_bias_hu`` (mean error of voxels above
        300 HU); ``report_to_volume_recall`` at 5 and its chance; ``seconds_per_volume``; ``factual``: the
        judge's macro AUC on the cases' volumes, on their reconstructions, and on volumes generated from their
        reports, and the AUC of each finding on the generated ones.
    """
    keep_freed_memory()
    where = pick_device(device)
    values: list[float] = []
    dense: list[np.ndarray] = []
    text, image, reconstructed = [], [], []
    for start in range(0, len(cases), batch_size):
        indices = range(start, min(start + batch_size, len(cases)))
        hu = np.stack([cases.volume_hu(i) for i in indices])
        unit = hu_to_unit(hu)[:, None].to(where)
        decoded = decode_latents(pack, pack.vae.to(where).encode(unit)[0])
        reconstructed += list(decoded)
        values += [psnr(a, b) for a, b in zip(hu, decoded, strict=True)]
        dense.append((decoded - hu)[hu > 300])
        ids = pack.tokenizer.encode([cases.texts[i].text() for i in indices], pack.info.text_length)
        text.append(pack.clip.to(where).encode_text(torch.from_numpy(ids).to(where)).embedding.cpu())
        image.append(pack.clip.encode_volume(unit).cpu())
    similarity = torch.cat(text) @ torch.cat(image).T
    rank = (similarity > similarity.diagonal()[:, None]).sum(dim=1)
    prompts = [text.text() for text in cases.texts]
    begun = time.monotonic()
    generated = generate(pack, prompts, list(range(len(prompts))), device=where, batch_size=batch_size)
    seconds = (time.monotonic() - begun) / len(prompts)
    figures: dict[str, Any] = {
        "n": len(cases),
        "psnr_db": round(float(np.mean(values)), 2),
        "dense_bias_hu": round(float(np.concatenate(dense).mean()), 1),
        "report_to_volume_recall": {"5": round(float((rank < 5).float().mean()), 3)},
        "report_to_volume_recall_chance": {"5": round(min(1.0, 5 / len(cases)), 3)},
        "seconds_per_volume": round(seconds, 2),
    }
    if judge is not None:
        real = judge.aucs([cases.volume_hu(i) for i in range(len(cases))], cases.labels)
        rebuilt = judge.aucs(reconstructed, cases.labels)
        synthetic = judge.aucs(list(generated), cases.labels)
        figures["factual"] = {
            "macro_auc_real": macro(real),
            "macro_auc_reconstructed": macro(rebuilt),
            "macro_auc_synthetic": macro(synthetic),
            "auc_real": real,
            "auc_synthetic": synthetic,
        }
    return figures
