"""Cases to latents and text contexts, once, so that diffusion training reads neither volumes nor texts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor

from text2ct import console
from text2ct.compute import autocast, keep_freed_memory, pick_device
from text2ct.diffusion.clip import TextTower
from text2ct.diffusion.tokenizer import TextTokenizer
from text2ct.diffusion.training.cases import Cases
from text2ct.diffusion.training.clip import VARIANTS
from text2ct.diffusion.training.vae import unit_tensor
from text2ct.diffusion.vae import Vae
from text2ct.engines import LOCAL, Engine
from text2ct.files import read_json, write_json

# Cases encoded together, as many as have few voxels: one, of a full-size grid.
BATCH = 8
BATCH_VOXELS = BATCH * 64**3


@dataclass(frozen=True)
class Encoded:
    """A folder of encoded cases.

    Attributes:
        latents: (n, C, x, y, z) float16, unscaled.
        contexts: (n, variants, tokens, width) float16.
        info: Count, spacing, the standard deviation of all latents, and the digest of the cases.
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


def encode(
    cases: Cases,
    vae: Vae,
    clip: TextTower,
    tokenizer: TextTokenizer,
    out: Path,
    *,
    conditioning: Literal["pooled", "tokens"],
    text_length: int,
    device: str = "auto",
    engine: Engine = LOCAL,
) -> Encoded:
    """Encode all cases: the posterior's mean of each volume, the context of each text variant.

    The same call goes on after the last batch that was finished, so ``out`` belongs to one pair of networks.
    """
    keep_freed_memory()
    encode_volumes(cases, vae, out, device=device, engine=engine)
    encode_texts(cases, clip, tokenizer, out, conditioning=conditioning, text_length=text_length, device=device)
    std = _deviation(np.load(out / "latents.npy", mmap_mode="r"))
    info = {"count": len(cases), "spacing_mm": cases.info["spacing_mm"], "std": std, "cases": cases.digest}
    write_json(out / "encoded.json", info)
    return Encoded.open(out)


def encode_volumes(cases: Cases, vae: Vae, out: Path, *, device: str, engine: Engine = LOCAL) -> None:
    """Write ``latents.npy``, (n, C, x, y, z) float16; on the engine, a batch of volumes at a time."""
    batch_size = max(1, min(BATCH, BATCH_VOXELS // int(np.prod(cases.size))))
    _write(out / "latents.npy", "encoding volumes", len(cases), batch_size, _Volumes(cases, vae, device), engine)
    vae.cpu()  # a training that follows needs the device's memory


def encode_texts(
    cases: Cases,
    clip: TextTower,
    tokenizer: TextTokenizer,
    out: Path,
    *,
    conditioning: Literal["pooled", "tokens"],
    text_length: int,
    device: str,
) -> None:
    """Write ``contexts.npy``, (n, variants, tokens, width) float16."""
    where = pick_device(device)
    clip.to(where).eval()

    @torch.inference_mode()
    def batch(indices: range) -> NDArray[np.float16]:
        texts = [cases.texts[i].text(variant) for i in indices for variant in range(VARIANTS)]
        ids = torch.from_numpy(tokenizer.encode(texts, text_length)).to(where)
        with autocast(where):
            contexts = clip.encode_text(ids).context(conditioning).unflatten(0, (len(indices), VARIANTS))
        return _half(contexts)

    _write(out / "contexts.npy", "encoding reports", len(cases), BATCH, batch, LOCAL)
    clip.cpu()


class _Volumes:
    """The latents of a batch of cases, as a task.

    Args:
        cases: Whose.
        vae: Goes to the device when it is first asked, in each worker.
        device: As for :func:`text2ct.compute.pick_device`.
    """

    def __init__(self, cases: Cases, vae: Vae, device: str) -> None:
        self._cases, self._vae, self._device = cases, vae.eval(), device

    @torch.inference_mode()
    def __call__(self, indices: range) -> NDArray[np.float16]:
        where = pick_device(self._device)
        unit = unit_tensor(np.stack([self._cases.volume_hu(i) for i in indices]))[:, None].to(where)
        with autocast(where):
            return _half(self._vae.to(where).encode(unit)[0])


def _half(values: Tensor) -> NDArray[np.float16]:
    half: NDArray[np.float16] = values.half().cpu().numpy()
    return half


def _write(
    path: Path,
    description: str,
    count: int,
    batch_size: int,
    encode_batch: Callable[[range], NDArray[np.float16]],
    engine: Engine,
) -> None:
    """Fill ``path`` batch by batch; beside it, ``.partial`` and its count of finished cases say where to go on.

    Batches begin at the same cases whatever was interrupted, so the numbers are the same too.
    """
    if path.is_file():
        return
    partial, progress = path.with_suffix(".partial.npy"), path.with_suffix(".progress.json")
    done = read_json(progress)["done"] if progress.is_file() and partial.is_file() else 0
    array = open_memmap(partial, mode="r+") if done else None
    batches = [range(start, min(start + batch_size, count)) for start in range(done, count, batch_size)]
    with console.progress(description, count - done) as advance:
        for indices, values in zip(batches, engine.map(encode_batch, batches), strict=True):
            if array is None:
                path.parent.mkdir(parents=True, exist_ok=True)
                array = open_memmap(partial, mode="w+", dtype=values.dtype, shape=(count, *values.shape[1:]))
            array[indices.start : indices.stop] = values
            array.flush()
            write_json(progress, {"done": indices.stop})
            advance(len(indices))
    partial.replace(path)
    progress.unlink(missing_ok=True)


def _deviation(latents: NDArray[np.float16]) -> float:
    """Standard deviation of all values, reading one case at a time."""
    sums = np.array([(x.sum(), np.square(x).sum()) for x in (case.astype(np.float64) for case in latents)])
    mean, square = sums.sum(axis=0) / latents.size
    return float(np.sqrt(square - mean**2))
