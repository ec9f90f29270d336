"""The one registry of pack components: a type's name to its configuration and its class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from text2ct.diffusion.clip import Clip3D, ClipConfig, TextTower
from text2ct.diffusion.ddpm import Ddpm, DdpmConfig
from text2ct.diffusion.flow import FlowConfig, RectifiedFlow
from text2ct.diffusion.gaussian import GaussianUnet, GaussianUnetConfig
from text2ct.diffusion.unet import Unet, UnetConfig
from text2ct.diffusion.vae import (
    LinearBlocksConfig,
    LinearBlocksVae,
    MaisiConfig,
    MaisiVae,
    SpaceToDepthConfig,
    SpaceToDepthVae,
)
from text2ct.errors import UserError

Scheduler = RectifiedFlow | Ddpm


@dataclass(frozen=True)
class ComponentType:
    """One way to be a component.

    Attributes:
        component: ``clip``, ``vae``, ``unet`` or ``scheduler``.
        config: The pydantic class of its ``config.json``.
        build: Makes it, randomly initialised, from that configuration.
        has_weights: Whether a ``model.safetensors`` belongs to it.
        build_text: Makes the part of it that reads texts, whose weights are a subset of the whole's.
        objective: What a network beside it must predict, where it matters.
    """

    component: str
    config: type[BaseModel]
    build: Callable[[Any], Any]
    has_weights: bool = True
    build_text: Callable[[Any], Any] | None = None
    objective: Literal["velocity", "epsilon"] | None = None


COMPONENT_TYPES: dict[str, ComponentType] = {
    "clip3d": ComponentType("clip", ClipConfig, Clip3D, build_text=TextTower),
    "autoencoder_kl_maisi": ComponentType("vae", MaisiConfig, MaisiVae),
    "space_to_depth": ComponentType("vae", SpaceToDepthConfig, SpaceToDepthVae),
    "linear_blocks": ComponentType("vae", LinearBlocksConfig, LinearBlocksVae),
    "diffusion_unet_maisi": ComponentType("unet", UnetConfig, Unet),
    "gaussian_unet": ComponentType("unet", GaussianUnetConfig, GaussianUnet, objective="velocity"),
    "rectified_flow": ComponentType("scheduler", FlowConfig, RectifiedFlow, has_weights=False, objective="velocity"),
    "ddpm": ComponentType("scheduler", DdpmConfig, Ddpm, has_weights=False, objective="epsilon"),
}


def component_type(component: str, name: str) -> ComponentType:
    """Look a type up.

    Raises:
        UserError: No such type, or it is another component's.
    """
    entry = COMPONENT_TYPES.get(name)
    if entry is None or entry.component != component:
        known = ", ".join(key for key, value in COMPONENT_TYPES.items() if value.component == component)
        raise UserError(f"'{name}' is not a type of the component '{component}'; this version knows {known}")
    return entry


def type_of(config: BaseModel) -> str:
    """The registered name whose configuration class is exactly that of ``config``."""
    return next(name for name, entry in COMPONENT_TYPES.items() if entry.config is type(config))
