"""Real volumes as the pack's decoder would draw them: what its look alone does to a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from text2ct import console
from text2ct.errors import UserError
from text2ct.evaluation.arm_volumes._stored import StoredVolume, key_of
from text2ct.suffixes import without_suffix

if TYPE_CHECKING:
    from text2ct.diffusion import Pack
    from text2ct.manifests import Workspace
    from text2ct.volumes import Volume


def reconstructed(
    rows: pd.DataFrame, workspace: Workspace, pack: Pack | str | Path, folder: Path, *, device: str = "auto"
) -> pd.DataFrame:
    """Each volume through the pack's autoencoder and nothing else: the posterior's mean, decoded.

    A volume is brought to the pack's grid first (``crop-pad``), and its new affine says where that lies. The same
    call keeps what is there and whole, as long as its source and the pack are the same.

    Args:
        rows: Manifest rows with files, most often the real training rows.
        workspace: Resolves the rows' roots, and gives ``folder`` its own.
        pack: A pack, its name or its folder; of its parts only the VAE is used.
        folder: Where ``volumes`` and ``records`` go.
        device: As for :func:`text2ct.compute.pick_device`.

    Returns:
        The rows in their order, with new ``volume``, ``root``, ``path``, ``sha256``, size and spacing. Data set,
        patient, scan, split, source, labels and all else stay: it is the same scan of the same patient.

    Raises:
        UserError: The pack has no VAE or its parts do not fit its grid, a row has no file or another one than the
            manifest says, or a volume is given twice.
    """
    from text2ct.compute import pick_device
    from text2ct.diffusion import load_pack

    where = pick_device(device)
    loaded = load_pack(pack) if isinstance(pack, str | Path) else pack
    loaded.vae  # noqa: B018 (refuses a pack without one before anything is read)
    loaded.check_fit()
    folder = Path(folder)
    sources = _sources(rows, workspace)
    stored = [
        StoredVolume(folder, name, key_of("reconstructed", digest, loaded.sha256))
        for name, (_, digest) in zip(_names(rows), sources, strict=True)
    ]
    missing = [number for number, volume in enumerate(stored) if not volume.is_done()]
    with console.progress("volumes through the autoencoder", len(missing)) as advance:
        for start in range(0, len(missing), loaded.usual_batch):
            batch = missing[start : start + loaded.usual_batch]
            decoded = _through_vae(loaded, [sources[number][0] for number in batch], where)
            for number, volume in zip(batch, decoded, strict=True):
                stored[number].write(volume)
            advance(len(batch))
    folder.mkdir(parents=True, exist_ok=True)
    root, prefix = workspace.root_for(folder, "reconstructed")
    columns = [volume.columns(root, prefix) | {"volume": Path(volume.name).name} for volume in stored]
    made = rows.reset_index(drop=True)
    made[list(columns[0])] = pd.DataFrame(columns)
    return made


def _sources(rows: pd.DataFrame, workspace: Workspace) -> list[tuple[Path, str]]:
    """File and SHA-256 of each row."""
    from text2ct.classifiers.cache import content_sha256

    found, problems = [], []
    for row in rows.to_dict("records"):
        try:
            path = workspace.resolve(row["root"], row["path"])
            digest = content_sha256(path)
            if row["sha256"] not in ("", digest):
                raise UserError(f"{path} is not the file that the manifest was made of; make the manifest again")
            found.append((path, digest))
        except UserError as error:
            problems.append(f"{row['volume']}: {error}")
    if problems or not found:
        raise UserError("these volumes cannot go through the autoencoder", problems or ["there are none"])
    return found


def _names(rows: pd.DataFrame) -> list[str]:
    """A file name for each row, in a folder of its data set."""
    sets = rows["dataset"].str.replace(r"[^A-Za-z0-9._-]", "_", regex=True)
    stems = rows["volume"].map(without_suffix)
    names = sets + "/" + stems + "-reconstructed.nii.gz"
    twice = names[names.duplicated()]
    if len(twice):
        raise UserError(f"{len(twice)} volumes are given twice; give each row once", twice.head(10).tolist())
    return names.tolist()


@torch.inference_mode()
def _through_vae(pack: Pack, paths: list[Path], device: torch.device) -> list[Volume]:
    """Volumes on the pack's grid after the autoencoder; one batch, padded to the pack's usual size.

    What a convolution gives depends on the shape of its batch, so all batches have the same.
    """
    from dataclasses import replace

    from text2ct import volumes
    from text2ct.compute import autocast
    from text2ct.diffusion.generate import decode_latents

    on_grid = [volumes.to_grid(volumes.read(path), pack.info.grid, pack.info.spacing_mm) for path in paths]
    low, high = pack.info.hu_range
    unit = np.zeros((pack.usual_batch, 1, *pack.info.grid), dtype=np.float32)
    for index, volume in enumerate(on_grid):
        unit[index, 0] = (np.clip(volume.hu, low, high) - low) / (high - low)
    vae = pack.vae.to(device)
    with autocast(device):
        mean: Any = vae.encode(torch.from_numpy(unit).to(device))[0]
    hu = decode_latents(pack, mean.float(), pack.info.defaults.decode)
    return [replace(volume, hu=decoded) for volume, decoded in zip(on_grid, hu, strict=False)]
