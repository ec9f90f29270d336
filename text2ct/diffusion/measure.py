"""Figures of a pack, measured on simulated patients that it was not trained on."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from text2ct.compute import keep_freed_memory, pick_device
from text2ct.diffusion.generate import decode_latents, generate
from text2ct.diffusion.pack import Pack
from text2ct.diffusion.training.cases import Cases
from text2ct.diffusion.training.vae import hu_to_unit
from text2ct.findings import FINDINGS


def psnr(reference_hu: np.ndarray, other_hu: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB over a range of 2000 HU."""
    error = np.mean((reference_hu.astype(np.float64) - other_hu) ** 2)
    return float(10 * np.log10(2000.0**2 / error))


@torch.inference_mode()
def measure_pack(pack: Pack, cases: Cases, *, device: str = "auto", batch_size: int = 8) -> dict[str, Any]:
    """Autoencoder, retrieval and speed figures of ``pack`` on new ``cases``.

    Returns:
        ``n``; ``psnr_db`` (mean over volumes); ``dense_bias_hu`` (mean error of voxels above 300 HU);
        ``report_to_volume_recall`` at 5 and its chance; ``seconds_per_volume`` at the pack's defaults.
    """
    keep_freed_memory()
    where = pick_device(device)
    values: list[float] = []
    dense: list[np.ndarray] = []
    text, image = [], []
    for start in range(0, len(cases), batch_size):
        indices = range(start, min(start + batch_size, len(cases)))
        hu = np.stack([cases.volume_hu(i) for i in indices])
        unit = hu_to_unit(hu)[:, None].to(where)
        decoded = decode_latents(pack, pack.vae.to(where).encode(unit)[0])
        values += [psnr(a, b) for a, b in zip(hu, decoded, strict=True)]
        dense.append((decoded - hu)[hu > 300])
        ids = pack.tokenizer.encode([cases.texts[i].text() for i in indices], pack.info.text_length)
        text.append(pack.clip.to(where).encode_text(torch.from_numpy(ids).to(where)).embedding.cpu())
        image.append(pack.clip.encode_volume(unit).cpu())
    similarity = torch.cat(text) @ torch.cat(image).T
    rank = (similarity > similarity.diagonal()[:, None]).sum(dim=1)
    prompts = [cases.texts[i].text() for i in range(min(batch_size, len(cases)))]
    begun = time.monotonic()
    generate(pack, prompts, list(range(len(prompts))), device=where, batch_size=len(prompts))
    seconds = (time.monotonic() - begun) / len(prompts)
    return {
        "n": len(cases),
        "psnr_db": round(float(np.mean(values)), 2),
        "dense_bias_hu": round(float(np.concatenate(dense).mean()), 1),
        "report_to_volume_recall": {"5": round(float((rank < 5).float().mean()), 3)},
        "report_to_volume_recall_chance": {"5": round(min(1.0, 5 / len(cases)), 3)},
        "seconds_per_volume": round(seconds, 2),
    }


def linear_judge(volumes_hu: np.ndarray, blocks: int = 8) -> np.ndarray:
    """Block statistics of volumes for a simple judge: (n, X, Y, Z) HU to (n, 4·blocks³) float32.

    Mean, standard deviation and the shares of dense lung (-700 to -200 HU) and of calcium (above 150 HU).
    """
    n, x, y, z = volumes_hu.shape
    parts = volumes_hu.reshape(n, blocks, x // blocks, blocks, y // blocks, blocks, z // blocks)
    parts = parts.transpose(0, 1, 3, 5, 2, 4, 6).reshape(n, blocks**3, -1)
    stats = (
        parts.mean(-1) / 500,
        parts.std(-1) / 300,
        ((parts > -700) & (parts < -200)).mean(-1),
        (parts > 150).mean(-1),
    )
    return np.concatenate(stats, axis=1).astype(np.float32)


def macro_auc(labels: np.ndarray, scores: np.ndarray) -> tuple[float, dict[str, float]]:
    """AUC of each finding that has both classes in (n, 18) ``labels``, and their mean."""
    each = {
        name: float(roc_auc_score(labels[:, i], scores[:, i]))
        for i, name in enumerate(FINDINGS)
        if 0 < labels[:, i].sum() < len(labels)
    }
    return float(np.mean(list(each.values()))), each
