"""From simulated patients to a pack, in stages that each resume: what trains the bundled pack."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load_file, save_file

from text2ct import __version__, console
from text2ct.compute import keep_freed_memory
from text2ct.diffusion.clip import Clip3D, ClipConfig, TextConfig
from text2ct.diffusion.ctvit import CTViTConfig
from text2ct.diffusion.fit import misfits
from text2ct.diffusion.flow import FlowConfig, RectifiedFlow
from text2ct.diffusion.gaussian import GaussianUnet, GaussianUnetConfig
from text2ct.diffusion.info import SIMULATED, PackInfo, Sampling, TrainingData
from text2ct.diffusion.pack import Pack, Part, save_pack
from text2ct.diffusion.tokenizer import TextTokenizer
from text2ct.diffusion.training.cases import Cases, check_pack_patients, render_patients, simulated_case
from text2ct.diffusion.training.clip import ClipModule, train_clip
from text2ct.diffusion.training.config import ClipTraining, DiffusionTraining
from text2ct.diffusion.training.diffusion import DiffusionModule, train_diffusion
from text2ct.diffusion.training.encode import Encoded, encode
from text2ct.diffusion.training.gaussian import fit_gaussian
from text2ct.diffusion.training.linear import fit_linear_blocks
from text2ct.diffusion.training.loop import load_result, read_clock
from text2ct.diffusion.unet import UnetConfig
from text2ct.diffusion.vae import LinearBlocksConfig, LinearBlocksVae
from text2ct.errors import UserError
from text2ct.files import atomic_path, read_json, write_json
from text2ct.findings import FINDINGS
from text2ct.simulation.patients import FIRST_JUDGED, PACK_PATIENTS
from text2ct.workers import available_cores

# What a work folder holds that is made of its cases, the ablation's arms included, and the record of which these were.
STAGES = ("tokenizer.json", "vae", "clip", "encoded", "diffusion", "alignment")
TRAINED_ON = "trained-on.json"


class BuildConfig(BaseModel):
    """Everything that decides a pack built from simulated patients; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = "simulated-64"
    version: str = "0.5.0"
    patients: int = Field(default=8000, ge=1)
    first_patient: int = PACK_PATIENTS.start
    grid: tuple[int, int, int] = (64, 64, 64)
    spacing_mm: tuple[float, float, float] = (5.0, 5.0, 5.0)
    vocab_size: int = 4096
    text_length: int = 384
    vae: LinearBlocksConfig = LinearBlocksConfig(factor=4, latent_channels=24)
    clip: ClipConfig = ClipConfig(
        text=TextConfig(
            vocab_size=4096,
            hidden_size=128,
            intermediate_size=512,
            num_hidden_layers=2,
            num_attention_heads=4,
            bos_token_id=0,
            eos_token_id=1,
            queries=len(FINDINGS),
        ),
        vision=CTViTConfig(
            image_size=(64, 64, 64),
            patch_size=8,
            temporal_patch_size=8,
            dim=96,
            spatial_depth=2,
            temporal_depth=1,
            heads=3,
            channels=4,
            # The whole range, lungs, soft tissue, calcium and metal: HU -1000 to 1000 is 0 to 1.
            windows=((0.0, 1.0), (0.0, 0.35), (0.42, 0.62), (0.55, 1.0)),
            quantize=False,
            unused_parameters=False,
        ),
        projection_dim=128,
    )
    unet: GaussianUnetConfig = GaussianUnetConfig(
        unet=UnetConfig(
            in_channels=48,
            out_channels=24,
            num_channels=(64, 96),
            attention_levels=(False, True),
            num_head_channels=(0, 32),
            num_res_blocks=(3, 1),
            cross_attention_dim=128,
            norm_num_groups=16,
            resblock_updown=False,
        ),
        latent_shape=(24, 16, 16, 16),
        components=24,
        context_shape=(1 + len(FINDINGS), 128),
        text_embedding=64,
    )
    # What a whole chest looks like is decided near pure noise, texture near the data: wide times reach both.
    flow: FlowConfig = FlowConfig(
        training_times="logit-normal", time_location=0.4, time_scale=2.0, timestep_transform=False
    )
    train_clip: ClipTraining = ClipTraining(
        steps=1300, batch_size=24, learning_rate=2e-3, warmup_steps=50, poly_power=1, gradient_clip=1.0,
        weight_decay=0.01, ema_decay=0.99, label_weight=1.0, text_length=384,
        label_texts=0.2, short_steps=300, text_only_steps=450,
    )  # fmt: skip
    train_diffusion: DiffusionTraining = DiffusionTraining(
        steps=11344, minutes=300, batch_size=64, learning_rate=5e-4, warmup_steps=200, poly_power=1,
        gradient_clip=1.0, ema_decay=0.9995, loss="l2",
    )  # fmt: skip
    defaults: Sampling = Sampling(
        steps=12,
        guidance_scale=3.0,
        guidance_interval=(0.0, 0.9),
        solver="adams-bashforth",
        time_location=1.0,
        time_scale=2.0,
    )


def build_pack(work: Path, out: Path, config: BuildConfig, *, device: str = "auto") -> Pack:
    """Render, train and pack; the same call goes on where it was stopped.

    Args:
        work: Folder for cases, latents and checkpoints (a few GB).
        out: The pack's folder.
        config: What to build.
        device: As for :func:`text2ct.compute.pick_device`.

    Raises:
        UserError: As :func:`check_build`; ``work`` belongs to another configuration, or what was trained there to
            other cases.
    """
    check_build(config)
    _claim(work, config)
    grid: dict[str, Any] = {"size": config.grid, "spacing_mm": config.spacing_mm}
    cases = render_patients(work / "cases", config.first_patient, config.patients, **grid)
    _train_stages(cases, work, config, device)
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


def _train_stages(cases: Cases, work: Path, config: BuildConfig, device: str) -> None:
    """Tokenizer, autoencoder, 3D CLIP, latents and contexts, velocity network: what of them is missing."""
    keep_freed_memory()
    _claim_cases(work, cases)
    make_tokenizer(cases, config, work)
    if not _done(work / "vae"):
        console.info("fitting the autoencoder")
        save_vae(fit_linear_blocks(cases, config.vae), work)
    if not _done(work / "clip"):
        console.info("training 3D CLIP")
        train_clip(cases, new_clip(config), load_tokenizer(work), config.train_clip, work / "clip", device=device)
        _finish(work / "clip")
    vae, clip, tokenizer = trained_vae(work, config), trained_clip(work, config), load_tokenizer(work)
    if not _done(work / "encoded"):
        console.info("encoding volumes and reports")
        encode(
            cases, vae, clip, tokenizer, work / "encoded",
            conditioning="tokens", text_length=config.text_length, device=device,
        )  # fmt: skip
        _finish(work / "encoded")
    encoded = Encoded.open(work / "encoded")
    if not _done(work / "diffusion"):
        console.info("training the velocity network")
        network, scale_factor = new_unet(config), 1 / encoded.info["std"]
        fit_gaussian(network, encoded, scale_factor)
        train_diffusion(
            encoded, network, RectifiedFlow(config.flow), config.train_diffusion, work / "diffusion",
            scale_factor=scale_factor, device=device,
        )  # fmt: skip
        _finish(work / "diffusion")


def check_build(config: BuildConfig) -> None:
    """Refuse what could not be built, before anything is rendered.

    Raises:
        UserError: Patients not reserved for packs, or components that do not fit each other or the grid.
    """
    check_pack_patients(config.first_patient, config.patients)
    if config.first_patient + config.patients > FIRST_JUDGED:
        raise UserError(f"patients from {FIRST_JUDGED} on only judge and measure packs; train on earlier ones")
    check_parts(config)


def check_parts(config: BuildConfig) -> None:
    """Refuse components that do not fit each other or the grid.

    Raises:
        UserError: All that does not fit.
    """
    problems = misfits(pack_info(config, 1.0), {"clip": config.clip, "vae": config.vae, "unet": config.unet})
    if config.clip.vision.image_size != config.grid:
        problems.append(f"the grid is {config.grid}, but clip.vision.image_size is {config.clip.vision.image_size}")
    if config.vocab_size > config.clip.text.vocab_size:
        problems.append(f"vocab_size is {config.vocab_size}, but the text tower has {config.clip.text.vocab_size}")
    if problems:
        raise UserError("the parts of the pack would not fit together", problems)


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
    std = Encoded.open(work / "encoded").info["std"]
    vae, clip, unet = trained_vae(work, config), trained_clip(work, config), trained_unet(work, config)
    parts = {
        "clip": Part(config.clip, clip.state_dict()),
        "vae": Part(config.vae, vae.state_dict()),
        "unet": Part(config.unet, unet.state_dict()),
        "scheduler": Part(config.flow),
    }
    return save_pack(out, pack_info(config, std, trained_on), parts, load_tokenizer(work))


def pack_info(config: BuildConfig, std: float, trained_on: tuple[TrainingData, ...] | None = None) -> PackInfo:
    """What ``pack.json`` says of a pack built so, before its components and files are known.

    Args:
        config: What was built.
        std: Standard deviation of all training latents.
        trained_on: Whose cases were learnt from; the configuration's simulated patients if None.
    """
    simulated = TrainingData(
        dataset=SIMULATED, first=config.first_patient, last=config.first_patient + config.patients - 1
    )
    whose = "simulated patients" if trained_on is None else "the patients listed"
    return PackInfo(
        name=config.name,
        version=config.version,
        licence="Apache-2.0",
        description=f"Small text-to-CT pack trained on {whose} only; not for clinical use.",
        components={},
        trained_on=(simulated,) if trained_on is None else trained_on,
        grid=config.grid,
        spacing_mm=config.spacing_mm,
        latent_scale_factor=1 / std,
        conditioning="tokens",
        text_length=config.text_length,
        defaults=config.defaults,
    )


def run_summary(folder: Path) -> dict[str, Any]:
    """``steps``, ``minutes`` and ``device`` of a training of the work folder."""
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
    with atomic_path(work / "vae" / "model.safetensors") as temporary:
        save_file({name: value.contiguous() for name, value in vae.state_dict().items()}, temporary)
    _finish(work / "vae")


def trained_vae(work: Path, config: BuildConfig) -> LinearBlocksVae:
    """The work folder's autoencoder."""
    vae = LinearBlocksVae(config.vae)
    vae.load_state_dict(load_file(work / "vae" / "model.safetensors"))
    return vae.eval().requires_grad_(False)


def new_unet(config: BuildConfig) -> GaussianUnet:
    """The velocity network before training; its Gaussian is not fitted yet."""
    torch.manual_seed(config.train_diffusion.seed)
    return GaussianUnet(config.unet).to(memory_format=torch.channels_last_3d)


def trained_clip(work: Path, config: BuildConfig) -> Clip3D:
    """Both towers of the work folder's checkpoint."""
    return load_result(ClipModule(new_clip(config), config.train_clip), work / "clip")  # type: ignore[return-value]


def trained_unet(work: Path, config: BuildConfig) -> GaussianUnet:
    """The velocity network of the work folder's checkpoint."""
    module = DiffusionModule(GaussianUnet(config.unet), config.train_diffusion, RectifiedFlow(config.flow), 1.0)
    return load_result(module, work / "diffusion")  # type: ignore[return-value]


def _claim(work: Path, config: BuildConfig) -> None:
    path = work / "build.json"
    resolved = {"text2ct": __version__, **config.model_dump(mode="json")}
    # How the pack samples changes nothing that was trained.
    if path.is_file() and read_json(path) | {"defaults": None} != resolved | {"defaults": None}:
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
