"""Train a component on a user's manifest: every training takes a pack and gives a new one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from text2ct import console
from text2ct.diffusion.components import Scheduler, component_type
from text2ct.diffusion.ddpm import Ddpm, DdpmConfig
from text2ct.diffusion.fit import grid_multiple
from text2ct.diffusion.flow import FlowConfig, RectifiedFlow
from text2ct.diffusion.gaussian import GaussianUnet
from text2ct.diffusion.info import PackInfo, TrainingData
from text2ct.diffusion.pack import Pack, Part, save_pack
from text2ct.diffusion.training.cases import Cases, cases_are_complete
from text2ct.diffusion.training.clip import train_clip
from text2ct.diffusion.training.config import (
    ClipTraining,
    DiffusionTraining,
    TrainingConfig,
    VaeTraining,
    parse_config,
)
from text2ct.diffusion.training.data import cache_manifest, usable_rows
from text2ct.diffusion.training.diffusion import first_batch_scale, train_diffusion
from text2ct.diffusion.training.encode import Encoded, encode
from text2ct.diffusion.training.gaussian import fit_gaussian
from text2ct.diffusion.training.identity import start_of
from text2ct.diffusion.training.launch import Launch
from text2ct.diffusion.training.linear import fit_linear_blocks
from text2ct.diffusion.training.processes import Strategy, check_processes, is_follower
from text2ct.diffusion.training.vae import train_vae
from text2ct.diffusion.vae import LinearBlocksVae
from text2ct.engines import LOCAL, Engine
from text2ct.errors import UserError
from text2ct.files import read_json, write_json
from text2ct.findings import FINDINGS
from text2ct.locks import working_in

if TYPE_CHECKING:
    import pandas as pd

    from text2ct.manifests import Workspace

Component = Literal["vae", "clip", "unet"]
CONFIGS: dict[str, type[TrainingConfig]] = {"vae": VaeTraining, "clip": ClipTraining, "unet": DiffusionTraining}
# What a new network of an objective is trained with when the pack's scheduler is the other objective's.
_SCHEDULERS: dict[str, Callable[[], Scheduler]] = {
    "velocity": lambda: RectifiedFlow(FlowConfig()),
    "epsilon": lambda: Ddpm(DdpmConfig()),
}

# Weights that were trained on the latents or contexts of a component are of no use once it has changed.
_DEPENDENTS: dict[str, tuple[str, ...]] = {"vae": ("unet",), "clip": ("unet",), "unet": ()}


@dataclass(frozen=True)
class Machines:
    """Where a training runs.

    Attributes:
        device: As for :func:`text2ct.compute.pick_device`.
        devices: Devices of each node.
        nodes: Number of machines, all of which see the same files.
        strategy: ``ddp`` or ``fsdp``, see :func:`text2ct.diffusion.training.loop.fit`.
    """

    device: str = "auto"
    devices: int = 1
    nodes: int = 1
    strategy: Strategy = "ddp"

    @property
    def follower(self) -> bool:
        """Whether this process only computes."""
        return is_follower(self.devices, self.nodes)


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
    machines: Machines | None = None,
) -> Pack | None:
    """Train one component on a manifest's training patients and write a new pack with it.

    The same call goes on where it was stopped; a call that starts from another pack, or has other settings or other
    data, needs another ``work``. The new pack lists the patients it has seen, and lacks the
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
        machines: Where to train; one device if None.

    Returns:
        The new pack; None in the processes of a run that only compute.

    Raises:
        UserError: The pack lacks what is needed, a setting is wrong, its networks cannot take its grid, or ``work``
            belongs to another run or other data.
    """
    if out.resolve() == base.path.resolve():
        raise UserError(f"{out} is the pack to start from; give the new pack another folder")
    machines = machines or Machines()
    values = dict(settings or {})
    config = parse_config(CONFIGS[component], values)
    place: dict[str, Any] = asdict(machines)
    check_processes(**place, config=config)
    launch = Launch(work, machines.devices, machines.nodes)
    with working_in(work, unless=launch.follower, instead="choose another --work"):
        trained: Any
        info = base.info
        scheduler: Scheduler | None = None
        if component == "unet":
            options: dict[str, Any] = {"scratch": scratch, "architecture": architecture, "place": place}
            info, scheduler, trained = _train_unet(frame, workspace, base, work, config, launch=launch, **options)
        else:
            trained = _train_on_cases(component, frame, workspace, base, work, values, scratch, place, launch)
        if launch.follower:
            return None
        launch.finish()
        parts = _parts(base, leave_out=(component, *_DEPENDENTS[component]))
        if scheduler is not None:
            parts["scheduler"] = Part(scheduler.config)
        parts[component] = Part(trained.config, trained.state_dict())
        trained_on = (*info.trained_on, *training_data(frame))
        info = info.model_copy(update={"name": out.resolve().name, "trained_on": trained_on})
        return save_pack(out, info, parts, base.tokenizer if base.has("clip") else None)


def _train_on_cases(
    component: Component,
    frame: pd.DataFrame,
    workspace: Workspace,
    base: Pack,
    work: Path,
    values: Mapping[str, Any],
    scratch: bool,
    place: Mapping[str, Any],
    launch: Launch,
) -> Any:
    """Train the VAE or the CLIP of ``base``, or a new one."""
    info = base.info
    config = parse_config(CONFIGS[component], dict(values))
    network = _network(base, component, scratch, config.seed)
    start = start_of(base.sha256, scratch=scratch, seed=config.seed)
    if component == "clip":
        if tuple(network.config.vision.image_size) != tuple(info.grid):
            raise UserError(
                f"the CLIP of '{info.name}' takes volumes of {network.config.vision.image_size} voxels and the pack's "
                f"grid is {info.grid}; use a pack whose parts belong together"
            )
        config = parse_config(ClipTraining, {"text_length": info.text_length, **values})
        cases = launch.prepare(lambda: manifest_cases(frame, workspace, base, work))
        return train_clip(cases, network, base.tokenizer, config, work / "clip", start=start, **place)
    _check_grid(base, network)
    if isinstance(network, LinearBlocksVae):
        console.info("this autoencoder is fitted in closed form: steps, batch size and seed do not matter")
        if launch.follower:
            return None
        return fit_linear_blocks(manifest_cases(frame, workspace, base, work), network.config)
    cases = launch.prepare(lambda: manifest_cases(frame, workspace, base, work))
    return train_vae(cases, network, config, work / "vae", start=start, **place)


def _train_unet(
    frame: pd.DataFrame,
    workspace: Workspace,
    base: Pack,
    work: Path,
    config: DiffusionTraining,
    *,
    scratch: bool,
    architecture: Pack | None,
    place: Mapping[str, Any],
    launch: Launch,
) -> tuple[PackInfo, Scheduler, Any]:
    """Train the UNet of ``base``, or a new one; returns the pack's description, its scheduler and the UNet."""
    info = base.info
    source = base if base.has("unet") else architecture
    if source is None:
        raise UserError(f"the pack '{info.name}' has no UNet; name a pack whose architecture is to be used")
    fresh = scratch or not base.has("unet")
    objective = config.objective or info.objective
    kind = source.info.components["unet"]
    if not fresh and objective != info.objective:
        raise UserError(
            f"the UNet of '{info.name}' predicts the {info.objective}; the objective '{objective}' needs --scratch"
        )
    if component_type("unet", kind).objective not in (None, objective):
        raise UserError(
            f"a UNet of the type '{kind}' cannot predict '{objective}'; start from a pack of another architecture"
        )
    network = _network(source, "unet", fresh, config.seed)
    if network.config.in_channels != base.vae.config.latent_channels:
        raise UserError(
            f"the UNet of '{source.info.name}' takes {network.config.in_channels} latent channels and the VAE of "
            f"'{info.name}' gives {base.vae.config.latent_channels}; choose packs that fit together"
        )
    _check_grid(base, base.vae, network)
    encoded = launch.prepare(lambda: encode_manifest(frame, workspace, base, work, device=place["device"]))
    _check_shapes(encoded, network, source.info.name)
    scheduler = base.scheduler if objective == info.objective else _SCHEDULERS[objective]()
    scale = info.latent_scale_factor
    if fresh:
        scale = 1 / encoded.info["std"] if config.scale == "all" else first_batch_scale(encoded, config)
    if fresh and isinstance(network, GaussianUnet):
        fit_gaussian(network, encoded, scale)
    start = start_of(base.sha256, scratch=fresh, seed=config.seed) | {"objective": objective}
    trained = train_diffusion(
        encoded, network, scheduler, config, work / "diffusion", scale_factor=scale, start=start, **place
    )
    return info.model_copy(update={"latent_scale_factor": scale, "objective": objective}), scheduler, trained


def manifest_cases(frame: pd.DataFrame, workspace: Workspace, pack: Pack, work: Path) -> Cases:
    """The manifest's training volumes and reports on the pack's grid, cached in ``work/cases``.

    Raises:
        UserError: No row can be used, a volume cannot be read, or ``work`` belongs to another manifest.
    """
    claim_manifest(work, frame, workspace)
    folder = work / "cases"
    size, spacing = pack.info.grid, pack.info.spacing_mm
    if cases_are_complete(folder):
        cases = Cases(folder)
        if (cases.size, tuple(cases.info["spacing_mm"])) == (tuple(size), tuple(spacing)):
            return cases
    return cache_manifest(folder, frame, workspace, size=size, spacing_mm=spacing)


def encode_manifest(
    frame: pd.DataFrame,
    workspace: Workspace,
    pack: Pack,
    work: Path,
    *,
    device: str = "auto",
    engine: Engine = LOCAL,
) -> Encoded:
    """Latents and text contexts of the manifest's training rows, cached in ``work/encoded``.

    Raises:
        UserError: The pack lacks what encodes, its networks cannot take its grid, or ``work`` belongs to another
            manifest or pack; and as :func:`manifest_cases`.
    """
    claim_manifest(work, frame, workspace)
    folder = work / "encoded"
    marker = folder / "pack.sha256.json"
    if marker.is_file() and read_json(marker) != pack.sha256:
        raise UserError(f"{folder} belongs to another pack; choose another work folder or remove it")
    if marker.is_file() and (folder / "encoded.json").is_file():
        return Encoded.open(folder)
    # Before volumes are read, which may take hours.
    _check_grid(pack, pack.vae, pack.unet if pack.has("unet") else None)
    tokenizer, text_tower = pack.tokenizer, pack.text_tower
    cases = manifest_cases(frame, workspace, pack, work)
    write_json(marker, pack.sha256)
    info = pack.info
    return encode(
        cases,
        pack.vae,
        text_tower,
        tokenizer,
        folder,
        conditioning=info.conditioning,
        text_length=info.text_length,
        device=device,
        engine=engine,
    )


def training_data(frame: pd.DataFrame) -> tuple[TrainingData, ...]:
    """The training patients of a manifest, by data set."""
    train = frame[(frame["split"] == "train") & (frame["path"] != "")]
    return tuple(
        TrainingData(dataset=str(dataset), patients=tuple(sorted(set(rows["patient"]))))
        for dataset, rows in train.groupby("dataset", sort=True)
    )


def _network(pack: Pack, component: str, scratch: bool, seed: int) -> Any:
    """A pack's component ready for training, or one of its architecture with random weights.

    What a training adds to it (heads, a discriminator) is random too: all of it is drawn from the seed.
    """
    module = getattr(pack, component)
    torch.manual_seed(seed)
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


def _check_grid(pack: Pack, vae: Any, unet: Any = None) -> None:
    """Refuse a pack's grid that the networks, which need not all be the pack's, cannot take."""
    coarsest = grid_multiple(vae.config, None if unet is None else unet.config)
    if any(size % coarsest for size in pack.info.grid):
        raise UserError(
            f"the networks cannot take the grid {pack.info.grid} of the pack '{pack.info.name}': each axis must be a "
            f"multiple of {coarsest}"
        )


def _check_shapes(encoded: Encoded, unet: Any, name: str) -> None:
    """Refuse a UNet of another pack that does not take these latents or contexts."""
    latent, context = encoded.latents.shape[1:], encoded.contexts.shape[2:]
    if isinstance(unet, GaussianUnet):
        taken = tuple(unet.config.latent_shape), tuple(unet.config.context_shape)
        fits = taken == (latent, context)
    else:
        taken = (unet.config.in_channels,), (unet.config.cross_attention_dim,)
        fits = taken == (latent[:1], context[1:])
    if not fits:
        raise UserError(
            f"the UNet of '{name}' takes latents of {taken[0]} and contexts of {taken[1]}, and encoded are latents of "
            f"{latent} and contexts of {context}; choose packs that fit together"
        )


def claim_manifest(work: Path, frame: pd.DataFrame, workspace: Workspace) -> None:
    """Tie ``work`` to one set of training volumes, in their order, with their texts and labels.

    Raises:
        UserError: No row can be used, or ``work`` belongs to another manifest.
    """
    import pandas as pd

    rows = usable_rows(frame)
    columns = ["dataset", "patient", "volume", "sha256", "findings_text", "impression_text", *FINDINGS]
    # Whole paths: how they divide into root and path is the workspace's, and followers have one of their own.
    places = zip(rows["root"], rows["path"], strict=True)
    files = [str(workspace.resolve(str(root), str(path)).resolve()) for root, path in places]
    hashes = pd.util.hash_pandas_object(rows[columns].assign(file=files), index=False).to_numpy()
    source = {"rows": len(rows), "digest": hashlib.sha256(hashes.tobytes()).hexdigest()}
    path = work / "source.json"
    if not path.is_file():
        write_json(path, source)
    elif read_json(path) != source:
        raise UserError(f"{work} belongs to another manifest; choose another work folder or remove it")
