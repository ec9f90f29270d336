"""Train a component on a user's manifest: every training takes a pack and gives a new one."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from text2ct import console
from text2ct.diffusion.components import component_type
from text2ct.diffusion.gaussian import GaussianUnet
from text2ct.diffusion.info import TrainingData
from text2ct.diffusion.pack import Pack, Part, save_pack
from text2ct.diffusion.training.cases import Cases
from text2ct.diffusion.training.clip import train_clip
from text2ct.diffusion.training.config import (
    ClipTraining,
    DiffusionTraining,
    TrainingConfig,
    VaeTraining,
    parse_config,
)
from text2ct.diffusion.training.data import cache_manifest, usable_rows
from text2ct.diffusion.training.diffusion import train_diffusion
from text2ct.diffusion.training.encode import Encoded, encode
from text2ct.diffusion.training.gaussian import fit_gaussian
from text2ct.diffusion.training.linear import fit_linear_blocks
from text2ct.diffusion.training.vae import train_vae
from text2ct.diffusion.vae import LinearBlocksVae
from text2ct.errors import UserError
from text2ct.files import read_json, write_json

if TYPE_CHECKING:
    import pandas as pd

    from text2ct.manifests import Workspace

Component = Literal["vae", "clip", "unet"]
_CONFIGS: dict[str, type[TrainingConfig]] = {"vae": VaeTraining, "clip": ClipTraining, "unet": DiffusionTraining}

# Weights that were trained on the latents or contexts of a component are of no use once it has changed.
_DEPENDENTS: dict[str, tuple[str, ...]] = {"vae": ("unet",), "clip": ("unet",), "unet": ()}


def train_component(
    component: Component,
    frame: pd.DataFrame,
    workspace: Workspace,
    base: Pack,
    out: Path,
    *,
    work: Path,
    settings: Mapping[str, Any] | None = None,
    scratch: bool = False,
    architecture: Pack | None = None,
    device: str = "auto",
) -> Pack:
    """Train one component on a manifest's training patients and write a new pack with it.

    The same call goes on where it was stopped. The new pack lists the patients it has seen, and lacks the
    UNet when the VAE or the CLIP changed, since the old one knows other latents or contexts.

    Args:
        component: ``vae``, ``clip`` or ``unet``.
        frame: A manifest; rows of other splits than ``train`` are not used.
        workspace: Resolves roots to folders.
        base: The pack to start from; its other components are kept.
        out: Folder of the new pack.
        work: Folder of cases, latents and checkpoints.
        settings: Fields of ``VaeTraining``, ``ClipTraining`` or ``DiffusionTraining``.
        scratch: Start from random weights instead of the pack's.
        architecture: The pack whose UNet configuration is used when ``base`` has no UNet.
        device: As for :func:`text2ct.compute.pick_device`.

    Raises:
        UserError: The pack lacks what is needed, a setting is wrong, or ``work`` belongs to other data.
    """
    if out.resolve() == base.path.resolve():
        raise UserError(f"{out} is the pack to start from; give the new pack another folder")
    cases = manifest_cases(frame, workspace, base, work)
    values = dict(settings or {})
    info = base.info
    trained: Any
    if component == "vae":
        config = parse_config(VaeTraining, values)
        vae = _network(base, "vae", scratch)
        if isinstance(vae, LinearBlocksVae):
            console.info("this autoencoder is fitted in closed form: steps, batch size and seed do not matter")
            trained = fit_linear_blocks(cases, vae.config)
        else:
            trained = train_vae(cases, vae, config, work / "vae", device=device)
    elif component == "clip":
        config = parse_config(ClipTraining, {"text_length": info.text_length} | values)
        network = _network(base, "clip", scratch)
        trained = train_clip(cases, network, base.tokenizer, config, work / "clip", device=device)
    else:
        config = parse_config(DiffusionTraining, values)
        encoded = encode_manifest(frame, workspace, base, work, device=device)
        source = base if base.has("unet") else architecture
        if source is None:
            raise UserError(f"the pack '{info.name}' has no UNet; name a pack whose architecture is to be used")
        fresh = scratch or not base.has("unet")
        network = _network(source, "unet", fresh)
        if network.config.in_channels != encoded.latents.shape[1]:
            raise UserError(
                f"the UNet of '{source.info.name}' takes {network.config.in_channels} latent channels and the VAE of "
                f"'{info.name}' gives {encoded.latents.shape[1]}; choose packs that fit together"
            )
        scale = 1 / encoded.info["std"] if fresh else info.latent_scale_factor
        info = info.model_copy(update={"latent_scale_factor": scale})
        if fresh and isinstance(network, GaussianUnet):
            fit_gaussian(network, encoded, scale)
        trained = train_diffusion(
            encoded, network, base.scheduler, config, work / "diffusion", scale_factor=scale, device=device
        )
    parts = _parts(base, leave_out=(component, *_DEPENDENTS[component]))
    parts[component] = Part(trained.config, trained.state_dict())
    info = info.model_copy(update={"name": out.resolve().name, "trained_on": (*info.trained_on, *training_data(frame))})
    return save_pack(out, info, parts, base.tokenizer if base.has("clip") else None)


def estimate_training(
    component: Component,
    frame: pd.DataFrame,
    workspace: Workspace,
    base: Pack,
    *,
    settings: Mapping[str, Any] | None = None,
    scratch: bool = False,
    architecture: Pack | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """How long :func:`train_component` will take and how much disk, from three steps on a few cases.

    Args:
        component: As for :func:`train_component`, and so the rest.
        frame: A manifest.
        workspace: Resolves roots to folders.
        base: The pack to start from.
        settings: Fields of the training's configuration.
        scratch: Start from random weights.
        architecture: The pack whose UNet configuration is used when ``base`` has no UNet.
        device: As for :func:`text2ct.compute.pick_device`.

    Returns:
        ``cases``, ``steps``, ``seconds`` and ``bytes`` (upper bounds).

    Raises:
        UserError: As :func:`train_component`.
    """
    rows = usable_rows(frame)
    few = rows.head(3)
    config = parse_config(_CONFIGS[component], dict(settings or {}))
    trial = dict(settings or {}) | {"steps": 3, "log_every": 1, "minutes": None}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder) / "work"
        begun = time.perf_counter()
        train_component(
            component,
            few,
            workspace,
            base,
            Path(folder) / "pack",
            work=work,
            settings=trial,
            scratch=scratch,
            architecture=architecture,
            device=device,
        )
        whole = time.perf_counter() - begun
        log = work / {"unet": "diffusion"}.get(component, component) / "log.csv"
        times = [float(line.split(",")[1]) for line in log.read_text().splitlines()[1:]] if log.is_file() else [0.0]
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    per_step = (times[-1] - times[0]) / 2
    seconds = per_step * config.steps
    if config.minutes is not None:
        seconds = min(seconds, 60 * config.minutes)
    reading = max(whole - times[-1], 0.0) * len(rows) / len(few)
    return {
        "cases": len(rows),
        "steps": config.steps,
        "seconds": round(seconds + reading, 1),
        "bytes": int(size + (len(rows) - len(few)) * 4 * np.prod(base.info.grid)),
    }


def estimate_encoding(frame: pd.DataFrame, workspace: Workspace, pack: Pack, *, device: str = "auto") -> dict[str, Any]:
    """``cases``, ``seconds`` and ``bytes`` of :func:`encode_manifest`, from two cases."""
    rows = usable_rows(frame)
    few = rows.head(2)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        encode_manifest(few, workspace, pack, Path(folder), device=device)
        share = len(rows) / len(few)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        seconds = (time.perf_counter() - begun) * share
    return {"cases": len(rows), "seconds": round(seconds, 1), "bytes": int(size * share)}


def manifest_cases(frame: pd.DataFrame, workspace: Workspace, pack: Pack, work: Path) -> Cases:
    """The manifest's training volumes and reports on the pack's grid, cached in ``work/cases``."""
    _claim(work, frame)
    folder = work / "cases"
    size, spacing = pack.info.grid, pack.info.spacing_mm
    if (folder / "cases.json").is_file():
        try:
            cases = Cases(folder)
        except UserError:  # interrupted while it was written: it is written again
            pass
        else:
            if (cases.size, tuple(cases.info["spacing_mm"])) == (tuple(size), tuple(spacing)):
                return cases
    return cache_manifest(folder, frame, workspace, size=size, spacing_mm=spacing)


def encode_manifest(
    frame: pd.DataFrame, workspace: Workspace, pack: Pack, work: Path, *, device: str = "auto"
) -> Encoded:
    """Latents and text contexts of the manifest's training rows, cached in ``work/encoded``."""
    folder = work / "encoded"
    marker = folder / "pack.sha256.json"
    if (folder / "encoded.json").is_file() and marker.is_file():
        if read_json(marker) != pack.sha256:
            raise UserError(f"{folder} was encoded by another pack; choose another work folder or remove it")
        return Encoded.open(folder)
    cases = manifest_cases(frame, workspace, pack, work)
    if marker.is_file() and read_json(marker) != pack.sha256:
        raise UserError(f"{folder} was begun by another pack; choose another work folder or remove it")
    write_json(marker, pack.sha256)
    info = pack.info
    return encode(
        cases,
        pack.vae,
        pack.clip,
        pack.tokenizer,
        folder,
        conditioning=info.conditioning,
        text_length=info.text_length,
        device=device,
    )


def training_data(frame: pd.DataFrame) -> tuple[TrainingData, ...]:
    """The training patients of a manifest, by data set."""
    train = frame[(frame["split"] == "train") & (frame["path"] != "")]
    return tuple(
        TrainingData(dataset=str(dataset), patients=tuple(sorted(set(rows["patient"]))))
        for dataset, rows in train.groupby("dataset", sort=True)
    )


def _network(pack: Pack, component: str, scratch: bool) -> Any:
    """A pack's component ready for training, or one of its architecture with random weights."""
    module = getattr(pack, component)
    if not scratch:
        return module.requires_grad_(True).train()
    kind = pack.info.components[component]  # type: ignore[index]
    return component_type(component, kind).build(module.config)


def _parts(pack: Pack, leave_out: tuple[str, ...]) -> dict[str, Part]:
    parts: dict[str, Part] = {}
    for component in pack.info.components:
        if component not in leave_out:
            module = getattr(pack, component)
            parts[component] = Part(module.config, None if component == "scheduler" else module.state_dict())
    return parts


def _claim(work: Path, frame: pd.DataFrame) -> None:
    """Tie ``work`` to one set of training volumes."""
    import pandas as pd

    train = frame[frame["split"] == "train"]
    columns = ["dataset", "volume", "path", "sha256", "findings_text", "impression_text"]
    digest = int(pd.util.hash_pandas_object(train[columns], index=False).sum())
    path = work / "source.json"
    source = {"rows": len(train), "digest": str(digest)}
    if path.is_file() and read_json(path) != source:
        raise UserError(f"{work} belongs to another manifest; choose another work folder or remove it")
    write_json(path, source)
