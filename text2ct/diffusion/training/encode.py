"""Cases to latents and text contexts, once, so that diffusion training reads neither volumes nor texts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from text2ct import console
from text2ct.compute import autocast, keep_freed_memory, pick_device
from text2ct.diffusion.clip import Clip3D
from text2ct.diffusion.tokenizer import TextTokenizer
from text2ct.diffusion.training.cases import Cases
from text2ct.diffusion.training.clip import VARIANTS
from text2ct.diffusion.training.vae import hu_to_unit
from text2ct.diffusion.vae import Vae
from text2ct.files import atomic_path, read_json, write_json


@dataclass(frozen=True)
class Encoded:
    """A folder of encoded cases.

    Attributes:
        latents: (n, C, x, y, z) float16, unscaled.
        contexts: (n, variants, tokens, width) float16.
        info: Count, spacing, and the standard deviation of all latents.
    """

    latents: NDArray[np.float16]
    contexts: NDArray[np.float16]
    info: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> Encoded:
        """Map a folder written by :func:`encode`."""
        info = read_json(folder / "encoded.json")
        latents, contexts = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("latents", "contexts"))
        return cls(latents, contexts, info)


@torch.inference_mode()
def encode(
    cases: Cases,
    vae: Vae,
    clip: Clip3D,
    tokenizer: TextTokenizer,
    out: Path,
    *,
    conditioning: Literal["pooled", "tokens"],
    text_length: int,
    batch_size: int = 8,
    device: str = "auto",
) -> Encoded:
    """Encode all cases: the posterior's mean of each volume, the context of each text variant."""
    keep_freed_memory()
    where = pick_device(device)
    vae, clip = vae.to(where).eval(), clip.to(where).eval()
    latents, contexts = [], []
    with console.progress("encoding", len(cases)) as advance:
        for start in range(0, len(cases), batch_size):
            indices = range(start, min(start + batch_size, len(cases)))
            unit = hu_to_unit(np.stack([cases.volume_hu(i) for i in indices]))[:, None].to(where)
            texts = [cases.texts[i].text(variant) for i in indices for variant in range(VARIANTS)]
            ids = torch.from_numpy(tokenizer.encode(texts, text_length)).to(where)
            with autocast(where):
                mean, _ = vae.encode(unit)
                context = clip.encode_text(ids).context(conditioning)
            latents.append(mean.half().cpu().numpy())
            contexts.append(context.half().cpu().unflatten(0, (len(indices), VARIANTS)).numpy())
            advance(len(indices))
    arrays = {"latents": np.concatenate(latents), "contexts": np.concatenate(contexts)}
    for name, array in arrays.items():
        with atomic_path(out / f"{name}.npy") as temporary, temporary.open("wb") as stream:
            np.save(stream, array)
    std = float(arrays["latents"].astype(np.float32).std())
    write_json(out / "encoded.json", {"count": len(cases), "spacing_mm": cases.info["spacing_mm"], "std": std})
    return Encoded.open(out)
