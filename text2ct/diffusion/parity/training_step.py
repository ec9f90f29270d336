"""Steps of diffusion training: noising, target, loss, gradients, optimiser, schedule."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from text2ct.diffusion.parity.folder import Arrays, Folder
from text2ct.diffusion.parity.result import TOLERANCE, ArrayResult, compare
from text2ct.diffusion.parity.sampler import UNET_FIXED, flow_of
from text2ct.diffusion.training.config import DiffusionTraining
from text2ct.diffusion.training.diffusion import DiffusionModule, first_batch_scale
from text2ct.diffusion.training.encode import Encoded
from text2ct.diffusion.training.step import Batch
from text2ct.diffusion.unet import Unet, UnetConfig

BEFORE, GRADIENTS, AFTER = "unet_before.pt", "grads_step0.pt", "unet_after.pt"
# Adam moves a parameter whose gradient is rounding by a whole learning rate, either way.
SMALLEST_GRADIENT = 1e-5
# A learning rate is a few operations in float64.
RATE_TOLERANCE = 1e-10


def check_training_step(folder: Folder) -> Iterator[ArrayResult]:
    """Run the fixture's steps through the training's own module and optimiser, in float32."""
    config, arrays = folder.json(), folder.arrays("training.npz")
    steps, rate = int(config["steps"]), float(config["lr"])
    settings = DiffusionTraining(
        batch_size=config["batch_size"],
        learning_rate=rate,
        poly_power=config["poly_power"],
        drop_condition=config["condition_drop_probability"],
    )
    # The released schedule's length is not rounded.
    settings = settings.model_copy(update={"steps": config["poly_total_iters"]})
    unet: Unet = folder.build(  # type: ignore[assignment]
        Unet, folder.config(UnetConfig, config["unet"], UNET_FIXED), BEFORE, folder.checkpoint(BEFORE)
    )
    scale = _scale_factor(arrays, settings)
    yield compare(folder.variant, "scale_factor", scale, arrays["scale_factor"])
    module = DiffusionModule(unet.train(), settings, flow_of(folder, config["scheduler"]), scale)
    optimizer = module.configure_optimizers()
    clock = types.SimpleNamespace(global_step=0, optimizers=[optimizer])
    module.trainer = clock  # type: ignore[assignment]
    theirs = {name: value for name, value in folder.checkpoint(GRADIENTS).items() if value is not None}
    losses: list[float] = []
    for step in range(steps):
        clock.global_step = step
        loss, ours = _step(module, arrays, step)
        losses.append(loss)
        for array, value in ours.items():
            name, tolerance = f"step{step}_{array}", RATE_TOLERANCE if array == "lr" else TOLERANCE
            yield compare(folder.variant, name, value, arrays[name], tolerance)
        if step == 0:
            yield _gradients(folder, unet, theirs)
        optimizer.step()
    yield compare(folder.variant, "losses", losses, arrays["losses"])
    clock.global_step = steps
    module.on_train_batch_start({}, steps)
    yield compare(folder.variant, "lr_after", module.last_rate, arrays["lr_after"], RATE_TOLERANCE)
    yield _weights(folder, unet, theirs, steps * rate)


def _scale_factor(arrays: Arrays, settings: DiffusionTraining) -> float:
    latents = arrays["step0_latent"]
    settings = settings.model_copy(update={"batch_size": len(latents)})
    return first_batch_scale(Encoded(latents, arrays["step0_cond"], {}), settings)


def _step(module: DiffusionModule, arrays: Arrays, step: int) -> tuple[float, dict[str, Any]]:
    """Loss, and what the network was given and said; gradients are left in the module."""
    read = {name: arrays.tensor(f"step{step}_{name}") for name in ("latent", "cond", "spacing", "noise")}
    draws = {name: arrays.tensor(f"step{step}_{name}") for name in ("u_timestep", "u_mask")}
    batch: Batch = {
        "latent": read["latent"],
        "context": read["cond"],
        "spacing": read["spacing"],
        "noise": read["noise"],
        "time_draw": draws["u_timestep"],
        "drop_draw": draws["u_mask"],
    }
    seen: dict[str, Any] = {}

    def record(network: torch.nn.Module, args: tuple[Any, ...], given: dict[str, Tensor], out: Tensor) -> None:
        seen.update(given, model_out=out)

    hook = module.network.register_forward_hook(record, with_kwargs=True)
    module.on_train_batch_start(batch, step)
    module.zero_grad()
    loss = module.backward_batch(batch)["loss"]
    hook.remove()
    target = module.scheduler.path(read["latent"] * module.scale_factor, read["noise"], seen["timesteps"]).target
    return float(loss), {
        "timesteps": seen["timesteps"],
        "noisy": seen["x"],
        "context_masked": seen["context"],
        "class_labels": seen["class_labels"],
        "target": target,
        "model_out": seen["model_out"],
        "lr": module.last_rate,
    }


def _gradients(folder: Folder, unet: Unet, theirs: dict[str, Tensor]) -> ArrayResult:
    """Largest difference over all parameters; one without a gradient counts as zero."""
    ours = {name: p.grad if p.grad is not None else torch.zeros_like(p) for name, p in unet.named_parameters()}
    return _over_all(folder, "grads_step0", ours, theirs)


def _weights(folder: Folder, unet: Unet, gradients: dict[str, Tensor], reach: float) -> ArrayResult:
    """Where the first gradient is more than rounding; the tolerance is a tenth of how far Adam could go, or 1e-4."""
    after = folder.checkpoint(AFTER)
    kept = {name: gradient.abs() > SMALLEST_GRADIENT for name, gradient in gradients.items()}
    ours = {name: p.detach()[kept[name]] for name, p in unet.named_parameters() if name in kept}
    theirs = {name: after[name][mask] for name, mask in kept.items()}
    return _over_all(
        folder, "unet_after", ours, theirs, tolerance=min(TOLERANCE, reach / 10), note="where |gradient| > 1e-5"
    )


def _over_all(
    folder: Folder, array: str, ours: dict[str, Tensor], theirs: dict[str, Tensor], **settings: Any
) -> ArrayResult:
    """One row for many tensors: the worst, named."""
    rows = [compare(folder.variant, name, ours[name], value, **settings) for name, value in theirs.items()]
    worst = max(rows, key=lambda row: row.difference)
    note = "; ".join(part for part in (settings.get("note", ""), f"largest in {worst.array}") if part)
    return ArrayResult(folder.variant, array, worst.difference, worst.tolerance, note)
