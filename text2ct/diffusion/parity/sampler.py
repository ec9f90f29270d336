"""The velocity network, the times and the guided Euler sampler."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from text2ct.diffusion.flow import BASE_NUMEL, TIMESTEPS, FlowConfig, RectifiedFlow, Velocity
from text2ct.diffusion.generate import velocity_field
from text2ct.diffusion.importing import UNET_STATE
from text2ct.diffusion.info import Sampling
from text2ct.diffusion.parity.folder import Arrays, Folder
from text2ct.diffusion.parity.result import ArrayResult, compare
from text2ct.diffusion.released import SCALE_FACTOR
from text2ct.diffusion.unet import SPACING_UNITS_PER_MM, Unet, UnetConfig
from text2ct.errors import UserError

WEIGHTS = "unet_ckpt.pt"
# What our network has no choice about: the inputs that the released one has.
UNET_FIXED = {
    "_target_": None,
    "spatial_dims": 3,
    "with_conditioning": True,
    "use_flash_attention": None,
    "include_top_region_index_input": False,
    "include_bottom_region_index_input": False,
}


def flow_of(folder: Folder, scheduler: dict[str, Any]) -> RectifiedFlow:
    """Our flow of a released scheduler; ``scale`` and ``loc`` belong to logit-normal times and do nothing here."""
    fixed = {
        "_target_": None,
        "num_train_timesteps": TIMESTEPS,
        "use_discrete_timesteps": False,
        "sample_method": "uniform",
        "scale": None,
        "loc": None,
        "base_img_size_numel": BASE_NUMEL,
        "spatial_dim": 3,
    }
    renamed = {"timestep_transform" if k == "use_timestep_transform" else k: v for k, v in scheduler.items()}
    config: FlowConfig = folder.config(FlowConfig, renamed, fixed)
    return RectifiedFlow(config.model_copy(update={"step_sizes": "released"}))


def check_sampler(folder: Folder) -> Iterator[ArrayResult]:
    """Compare single forward passes, then every run."""
    config, arrays, found = folder.json(), folder.arrays("sampler.npz"), folder.checkpoint(WEIGHTS)
    scale = float(found.get("scale_factor", SCALE_FACTOR))
    network = folder.build(
        Unet, folder.config(UnetConfig, config["unet"], UNET_FIXED), WEIGHTS, found.get(UNET_STATE, found)
    )
    unet: Unet = network  # type: ignore[assignment]
    flow = flow_of(folder, config["scheduler"])
    with torch.inference_mode():
        for array in ("fwd_out", "fwd_out_zero_context"):
            context = arrays.tensor("fwd_context")
            out = unet(
                x=arrays.tensor("fwd_x"),
                timesteps=arrays.tensor("fwd_timesteps"),
                context=torch.zeros_like(context) if array.endswith("zero_context") else context,
                class_labels=arrays.tensor("fwd_class_labels"),
                spacing_tensor=arrays.tensor("fwd_spacing"),
            )
            yield compare(folder.variant, array, out, arrays[array])
        for name, run in config["runs"].items():
            velocity = velocity_field(
                unet,
                arrays.tensor("context"),
                [value / SPACING_UNITS_PER_MM for value in config["spacing_tensor"]],
                Sampling(guidance_scale=run["guidance"] if run["cfg"] else 1.0),
                class_label=config["class_label"],
                precision=lambda device: nullcontext(),
            )
            yield from _run(folder, arrays, flow, velocity, name, run["steps"], scale)


def _run(
    folder: Folder,
    arrays: Arrays,
    flow: RectifiedFlow,
    velocity: Velocity,
    name: str,
    steps: int,
    scale: float,
) -> Iterator[ArrayResult]:
    noise = arrays.tensor("noise")
    seen: list[tuple[Tensor, float, Tensor]] = []

    def recorded(x: Tensor, timestep: float) -> Tensor:
        v = velocity(x, timestep)
        seen.append((x, timestep, v))
        return v

    latent = flow.sample(recorded, noise, steps)
    ours = {
        "timesteps": [timestep for _, timestep, _ in seen],
        "dt": step_sizes(flow, steps, tuple(noise.shape[2:]))[1],
        "v0": seen[0][2],
        "latent_after_step1": seen[1][0] if len(seen) > 1 else latent,
        "latent": latent,
        "latent_div_scale": latent / scale,
    }
    array: str
    value: Any
    for array, value in ours.items():
        yield compare(folder.variant, f"{name}_{array}", value, arrays[f"{name}_{array}"])


def step_sizes(flow: RectifiedFlow, steps: int, latent_size: tuple[int, ...]) -> tuple[list[float], list[float]]:
    """Times and step sizes as the sampler takes them: with a velocity of one, the latent is their sum."""
    times: list[float] = []
    reached: list[float] = []
    # One number that claims to be a whole latent: only its shape is asked for.
    start = torch.zeros(1, dtype=torch.float64).expand(1, 1, *latent_size)

    def one(x: Tensor, timestep: float) -> Tensor:
        times.append(timestep)
        reached.append(float(x.flatten()[0]))
        return torch.ones_like(x)

    reached.append(float(flow.sample(one, start, steps).flatten()[0]))
    return times, [after - before for before, after in pairwise(reached)]


def check_full_size_times(folder: Folder) -> Iterator[ArrayResult]:
    """Compare times and step sizes at full size."""
    for path in sorted(folder.path.glob("timesteps_full_size_*.json")):
        match = re.fullmatch(r"timesteps_full_size_(\d+)x(\d+)x(\d+)", path.stem)
        if match is None:
            raise UserError(f"{path}: its name does not say a latent's size, as 128x128x32")
        x, y, z = map(int, match.groups())
        flow = RectifiedFlow(FlowConfig(step_sizes="released"))
        for steps, theirs in folder.json(path.name).items():
            times, sizes = step_sizes(flow, int(steps), (x, y, z))
            for array, value in (("timesteps", times), ("dt", sizes)):
                yield compare(folder.variant, f"full_size_{x}x{y}x{z}/{steps}/{array}", value, theirs[array])
