"""From simulated patients to a pack, in stages that each resume: what trains the bundled pack."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from text2ct import __version__, console
from text2ct.compute import keep_freed_memory
from text2ct.diffusion.build_config import (
    BuildConfig,
    check_build,
    check_parts,
    check_start,
    pack_info,
)
from text2ct.diffusion.clip import Clip3D
from text2ct.diffusion.flow import RectifiedFlow
from text2ct.diffusion.gaussian import GaussianUnet
from text2ct.diffusion.info import TrainingData
from text2ct.diffusion.pack import Pack, Part, save_pack
from text2ct.diffusion.tokenizer import TextTokenizer
from text2ct.diffusion.training.cases import Cases, render_patients, simulated_case
from text2ct.diffusion.training.clip import ClipModule, train_clip
from text2ct.diffusion.training.diffusion import DiffusionModule, train_diffusion
from text2ct.diffusion.training.encode import Encoded, encode
from text2ct.diffusion.training.gaussian import fit_gaussian
from text2ct.diffusion.training.identity import start_of
from text2ct.diffusion.training.linear import fit_linear_blocks
from text2ct.diffusion.training.loop import LAST, load_result, read_clock
from text2ct.diffusion.vae import LinearBlocksVae
from text2ct.errors import UserError
from text2ct.files import atomic_path, read_json, write_json
from text2ct.workers import available_cores

# What a work folder holds that is made of its cases, the ablation's arms included, and the record of which these were.
STAGES = ("tokenizer.json", "vae", "clip", "encoded", "diffusion", "alignment")
TRAINED_ON = "trained-on.json"
WEIGHTS = "model.safetensors"


def build_pack(work: Path, out: Path, config: BuildConfig, *, device: str = "auto", start: Pack | None = None) -> Pack:
    """Render, train and pack; the same call goes on where it was stopped.

    Args:
        work: Folder for cases, latents and checkpoints (a few GB).
        out: The pack's folder.
        config: What to build.
        device: As for :func:`text2ct.compute.pick_device`.
        start: The pack that ``config.start`` names.

    Raises:
        UserError: As :func:`check_build` and :func:`check_start`; ``work`` belongs to another configuration, or what
            was trained there to other cases.
    """
    check_build(config)
    check_start(config, start)
    _claim(work, config)
    grid: dict[str, Any] = {"size": config.grid, "spacing_mm": config.spacing_mm}
    cases = render_patients(work / "cases", config.first_patient, config.patients, **grid)
    _train_stages(cases, work, config, device, start)
    return export_pack(work, out, config)


def build_pack_of_cases(
    cases: Cases,
    trained_on: tuple[TrainingData, ...],
    work: Path,
    out: Path,
    config: BuildConfig,
    *,
    device: str = "auto",
) -> Pack:
    """Train and pack as :func:`build_pack` does, on cases of any origin; the configuration's patients do not count.

    Args:
        cases: Volumes on the configuration's grid, with reports and labels.
        trained_on: Whose they are: what ``pack.json`` says of its patients.
        work: Folder for latents and checkpoints.
        out: The pack's folder.
        config: What to build.
        device: As for :func:`text2ct.compute.pick_device`.

    Raises:
        UserError: Components or cases that do not fit the grid; ``work`` belongs to another configuration, or what
            was trained there to other cases.
    """
    check_parts(config)
    if (cases.size, tuple(cases.info["spacing_mm"])) != (config.grid, config.spacing_mm):
        raise UserError(
            f"the cases in {cases.folder} have {cases.size} voxels of {tuple(cases.info['spacing_mm'])} mm and the "
            f"pack {config.grid} of {config.spacing_mm} mm; write them on the pack's grid"
        )
    _claim(work, config)
    _train_stages(cases, work, config, device)
    return export_pack(work, out, config, trained_on)


def _train_stages(cases: Cases, work: Path, config: BuildConfig, device: str, start: Pack | None = None) -> None:
    """Tokenizer, autoencoder, 3D CLIP, latents and contexts, velocity network: what of them is missing."""
    keep_freed_memory()
    _claim_cases(work, cases)
    if start is not None:
        _take_encoders(start, work)
    make_tokenizer(cases, config, work)
    if not _done(work / "vae"):
        console.info("fitting the autoencoder")
        save_vae(fit_linear_blocks(cases, config.vae), work)
    if not _done(work / "clip"):
        console.info("training 3D CLIP")
        train_clip(cases, new_clip(config), load_tokenizer(work), config.train_clip, work / "clip", device=device)
        _finish(work / "clip")
    if _done(work / "diffusion"):
        return
    if not _done(work / "encoded"):
        console.info("encoding volumes and reports")
        encode(
            cases, trained_vae(work, config), trained_clip(work, config), load_tokenizer(work), work / "encoded",
            conditioning="tokens", text_length=config.text_length, device=device,
        )  # fmt: skip
        _finish(work / "encoded")
    console.info("training the velocity network")
    encoded, network, scale_factor = Encoded.open(work / "encoded"), new_unet(config), _scale_factor(work, config)
    if start is None:
        fit_gaussian(network, encoded, scale_factor)
        begun = None
    else:
        network.load_state_dict(start.unet.state_dict())
        begun = start_of(start.sha256, scratch=False, seed=config.train_diffusion.seed)
    train_diffusion(
        encoded, network, RectifiedFlow(config.flow), config.train_diffusion, work / "diffusion",
        scale_factor=scale_factor, device=device, start=begun,
    )  # fmt: skip
    _finish(work / "diffusion")


def _take_encoders(start: Pack, work: Path) -> None:
    """What the network of ``start`` has learnt to answer: its tokenizer, autoencoder and 3D CLIP."""
    if not _done(work / "clip"):
        start.tokenizer.save(work / "tokenizer.json")
        for name in ("vae", "clip"):
            _save_weights(getattr(start, name), work / name / WEIGHTS)
            _finish(work / name)


def estimate_build(config: BuildConfig, *, more_patients: int = 0, more_minutes: float = 0.0) -> dict[str, Any]:
    """``cases``, ``seconds`` and ``bytes`` of :func:`build_pack`: a case is rendered, trainings have their budgets.

    Those without a limit of ``minutes`` are not in the ``seconds``: they are named, in ``not_counted`` and a warning.

    Args:
        config: What would be built.
        more_patients: Patients rendered besides, to measure on.
        more_minutes: Time that is known besides.

    Raises:
        UserError: As :func:`check_build`.
    """
    check_build(config)
    cases = config.patients + more_patients
    simulated_case(config.first_patient, config.grid, config.spacing_mm)  # the first one also loads and caches
    begun = time.perf_counter()
    simulated_case(config.first_patient, config.grid, config.spacing_mm)
    rendering = (time.perf_counter() - begun) * cases / available_cores()
    budgets = {"clip": config.train_clip.minutes, "diffusion": config.train_diffusion.minutes}
    if config.start is not None:
        del budgets["clip"]  # it is taken from there
    minutes = sum(budget or 0.0 for budget in budgets.values()) + more_minutes
    not_counted = [name for name, budget in budgets.items() if budget is None]
    if not_counted:
        console.warn(
            f"the training of {' and '.join(not_counted)} has no limit of minutes: its time is unknown and not counted"
        )
    voxels = int(np.prod(config.grid))
    latent = config.vae.latent_channels * voxels // config.vae.factor**3
    return {
        "cases": cases,
        "seconds": round(rendering + 60 * minutes, 1),
        "not_counted": not_counted,
        "bytes": cases * 2 * (voxels + latent) + 10**9,  # and at most a GB of contexts and checkpoints
    }


def export_pack(work: Path, out: Path, config: BuildConfig, trained_on: tuple[TrainingData, ...] | None = None) -> Pack:
    """Write the pack from the checkpoints as they are, finished or not; arguments as of :func:`pack_info`."""
    vae, clip, unet = trained_vae(work, config), trained_clip(work, config), trained_unet(work, config)
    parts = {
        "clip": Part(config.clip, clip.state_dict()),
        "vae": Part(config.vae, vae.state_dict()),
        "unet": Part(config.unet, unet.state_dict()),
        "scheduler": Part(config.flow),
    }
    return save_pack(out, pack_info(config, _scale_factor(work, config), trained_on), parts, load_tokenizer(work))


def _scale_factor(work: Path, config: BuildConfig) -> float:
    """What makes the deviation of all latents 1, or did so where the pack that the build goes on from began."""
    if config.start is not None:
        return config.start.latent_scale_factor
    return float(1 / Encoded.open(work / "encoded").info["std"])


def run_summary(folder: Path) -> dict[str, Any]:
    """``steps``, ``minutes`` and ``device`` of a training of the work folder; empty if it was taken from a pack."""
    if not (folder / LAST).is_file():
        return {}
    steps, clock = read_clock(folder)
    return {"steps": steps, "minutes": round(clock["spent_s"] / 60, 1), "device": clock.get("device")}


def make_tokenizer(cases: Cases, config: BuildConfig, work: Path) -> TextTokenizer:
    """Train the tokenizer on the cases' reports, once."""
    path = work / "tokenizer.json"
    if not path.is_file():
        tokenizer = TextTokenizer.train((case.text() for case in cases.texts), config.vocab_size)
        tokenizer.save(path)
    return load_tokenizer(work)


def load_tokenizer(work: Path) -> TextTokenizer:
    """The tokenizer of a work folder."""
    return TextTokenizer.load(work / "tokenizer.json")


def new_clip(config: BuildConfig) -> Clip3D:
    """Both towers before training."""
    torch.manual_seed(config.train_clip.seed)
    return Clip3D(config.clip)


def save_vae(vae: LinearBlocksVae, work: Path) -> None:
    """Write the fitted autoencoder to the work folder."""
    _save_weights(vae, work / "vae" / WEIGHTS)
    _finish(work / "vae")


def _save_weights(module: nn.Module, path: Path) -> None:
    with atomic_path(path) as temporary:
        save_file({name: value.contiguous() for name, value in module.state_dict().items()}, temporary)


def trained_vae(work: Path, config: BuildConfig) -> LinearBlocksVae:
    """The work folder's autoencoder."""
    vae = LinearBlocksVae(config.vae)
    vae.load_state_dict(load_file(work / "vae" / WEIGHTS))
    return vae.eval().requires_grad_(False)


def new_unet(config: BuildConfig) -> GaussianUnet:
    """The velocity network before training; its Gaussian is not fitted yet."""
    torch.manual_seed(config.train_diffusion.seed)
    return GaussianUnet(config.unet).to(memory_format=torch.channels_last_3d)


def trained_clip(work: Path, config: BuildConfig) -> Clip3D:
    """Both towers of the work folder: those of the pack that it goes on from, or of its checkpoint."""
    path = work / "clip" / WEIGHTS
    if path.is_file():
        clip = Clip3D(config.clip)
        clip.load_state_dict(load_file(path))
        return clip.eval().requires_grad_(False)
    return load_result(ClipModule(new_clip(config), config.train_clip), work / "clip")  # type: ignore[return-value]


def trained_unet(work: Path, config: BuildConfig) -> GaussianUnet:
    """The velocity network of the work folder's checkpoint."""
    module = DiffusionModule(GaussianUnet(config.unet), config.train_diffusion, RectifiedFlow(config.flow), 1.0)
    return load_result(module, work / "diffusion")  # type: ignore[return-value]


def _claim(work: Path, config: BuildConfig) -> None:
    path = work / "build.json"
    resolved = {"text2ct": __version__, **config.model_dump(mode="json")}
    # How the pack samples, and what its card says, change nothing that was trained.
    untrained = {"defaults": None, "notes": None}
    # A folder from before a build could go on from a pack does not say that it began at none.
    if path.is_file() and {"start": None} | read_json(path) | untrained != resolved | untrained:
        raise UserError(
            f"{work} was begun with another configuration or version of text2ct; choose another --work folder"
        )
    write_json(path, resolved)


def _claim_cases(work: Path, cases: Cases) -> None:
    begun = [name for name in STAGES if (work / name).exists()]
    if begun and not is_trained_on(work, cases):
        raise UserError(
            f"what was trained in {work} learnt from other cases than those in {cases.folder}; remove "
            f"{', '.join(begun)} there to train on these"
        )
    write_json(work / TRAINED_ON, {"cases": cases.digest})


def is_trained_on(work: Path, cases: Cases) -> bool:
    """Whether nothing in the work folder says that its stages learnt from other cases."""
    records = [work / TRAINED_ON, work / "clip" / "config.json", work / "encoded" / "encoded.json"]
    return all(read_json(path).get("cases", cases.digest) == cases.digest for path in records if path.is_file())


def _done(folder: Path) -> bool:
    return (folder / "done.json").is_file()


def _finish(folder: Path) -> None:
    write_json(folder / "done.json", {"done": True})
