"""What a pack of simulated patients is built of, and what of it could not be built."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from text2ct.diffusion.clip import ClipConfig, TextConfig
from text2ct.diffusion.ctvit import CTViTConfig
from text2ct.diffusion.fit import misfits
from text2ct.diffusion.flow import FlowConfig
from text2ct.diffusion.gaussian import GaussianUnetConfig
from text2ct.diffusion.info import SIMULATED, PackInfo, Sampling, TrainingData
from text2ct.diffusion.pack import Pack
from text2ct.diffusion.training.cases import check_pack_patients
from text2ct.diffusion.training.config import ClipTraining, DiffusionTraining
from text2ct.diffusion.unet import UnetConfig
from text2ct.diffusion.vae import LinearBlocksConfig
from text2ct.errors import UserError
from text2ct.findings import FINDINGS
from text2ct.simulation.patients import FIRST_JUDGED, PACK_PATIENTS


class StartPack(BaseModel):
    """The pack that a build goes on from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    version: str
    sha256: str
    latent_scale_factor: float

    @classmethod
    def of(cls, pack: Pack) -> StartPack:
        """What a configuration says of ``pack``."""
        info = pack.info
        return cls(
            name=info.name, version=info.version, sha256=pack.sha256, latent_scale_factor=info.latent_scale_factor
        )


class BuildConfig(BaseModel):
    """Everything that decides a pack built from simulated patients; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = "simulated-64"
    version: str = "0.6.0"
    start: StartPack | None = Field(
        default=None, description="tokenizer, autoencoder and 3D CLIP are this pack's, and its network trains on"
    )
    notes: tuple[str, ...] = Field(default=(), description="what the model card says of how it was made, besides")
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
    # As many cases as the bundled pack's two rounds had: half an hour of a GPU; on a CPU the minutes end it.
    train_diffusion: DiffusionTraining = DiffusionTraining(
        steps=28188, minutes=300, batch_size=64, learning_rate=5e-4, warmup_steps=200, poly_power=1,
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


def check_start(config: BuildConfig, start: Pack | None) -> None:
    """Refuse a pack to go on from that is not the configuration's, or whose parts are others.

    Raises:
        UserError: What differs.
    """
    if start is None:
        if config.start is not None:
            named = f"{config.start.name} {config.start.version}"
            raise UserError(f"the configuration goes on from {named}; name that pack with --start")
        return
    if config.start != StartPack.of(start):
        raise UserError("the configuration goes on from another pack than the one that was given with --start")
    if (config.name, config.version) == (start.info.name, start.info.version):
        raise UserError(
            f"the pack would be called {config.name} {config.version}, as the one that it goes on from; give it a name "
            "or a version of its own in --config"
        )
    info = pack_info(config, start.info.latent_scale_factor)
    wanted: dict[str, Any] = {"clip": config.clip, "vae": config.vae, "unet": config.unet, "scheduler": config.flow}
    problems = [
        f"its {name} has another configuration"
        for name, part in wanted.items()
        if not start.has(name) or getattr(start, name).config != part
    ]
    problems += [
        f"its {name} is {getattr(start.info, name)}, not {getattr(info, name)}"
        for name in ("grid", "spacing_mm", "conditioning", "text_length", "text_cleaning", "objective", "hu_range")
        if getattr(start.info, name) != getattr(info, name)
    ]
    if start.info.trained_on != info.trained_on:
        problems.append("it learnt from other patients than these; name them with first_patient and patients")
    if problems:
        raise UserError(f"the build cannot go on from '{start.info.name}'", problems)


def pack_info(config: BuildConfig, scale_factor: float, trained_on: tuple[TrainingData, ...] | None = None) -> PackInfo:
    """What ``pack.json`` says of a pack built so, before its components and files are known.

    Args:
        config: What was built.
        scale_factor: What latents are multiplied by.
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
        latent_scale_factor=scale_factor,
        conditioning="tokens",
        text_length=config.text_length,
        defaults=config.defaults,
    )
