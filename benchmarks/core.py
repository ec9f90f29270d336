"""The diffusion core, the plain way and ours, side by side on this machine.

    python benchmarks/core.py            # full size, 512x512x128 voxels: about half an hour on 2 cores
    python benchmarks/core.py --quick    # 256x256x128 voxels: about six minutes
    python benchmarks/core.py --json     # one JSON object; what is compared ends in `speedup`

The plain way is how the released code runs its networks: MONAI's classes in float32, two calls of the velocity
network a step, attention that holds its whole matrix, decoding by overlapping windows, memory returned to the
system when freed. Weights are random: they change no time. Every part runs in a process of its own, so its peak
memory and its allocator are its own.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.apps.generation.maisi.networks.autoencoderkl_maisi import AutoencoderKlMaisi
from monai.apps.generation.maisi.networks.diffusion_model_unet_maisi import DiffusionModelUNetMaisi
from monai.data.utils import dense_patch_slices
from monai.inferers.inferer import SlidingWindowInferer
from torch.utils.flop_counter import FlopCounterMode

from text2ct.compute import autocast, has_fast_bf16, keep_freed_memory
from text2ct.diffusion import load_pack
from text2ct.diffusion.decode import OVERLAP, WINDOW
from text2ct.diffusion.flow import TIMESTEPS, FlowConfig, RectifiedFlow
from text2ct.diffusion.generate import generate, text_context
from text2ct.diffusion.info import Sampling
from text2ct.diffusion.unet import CT_CLASS, SPACING_UNITS_PER_MM, Unet, UnetConfig
from text2ct.diffusion.vae import MaisiConfig, MaisiVae

LATENTS = {"full": (128, 128, 32), "quick": (64, 64, 32), "small": (32, 32, 16)}
# A smaller grid's windows are to its latent what the released ones are to the full one.
WINDOWS = {"full": WINDOW, "quick": WINDOW // 2, "small": WINDOW // 4}
SPACING_MM = (0.75, 0.75, 3.0)
PUBLISHED = Sampling()
FAST = Sampling(steps=8, solver="adams-bashforth")
PROMPTS = [
    "Large right pleural effusion with atelectasis.",
    "Cardiomegaly and coronary artery calcification.",
    "Emphysema in both upper lobes.",
    "No finding in the lungs.",
]


def seconds(action: Callable[[], Any], repeats: int, warm: bool = True) -> tuple[float, Any]:
    """The least time of ``repeats`` calls, and what the last one returned."""
    if warm:
        action()
    times, out = [], None
    for _ in range(repeats):
        started = time.perf_counter()
        out = action()
        times.append(time.perf_counter() - started)
    return min(times), out


def drawn(module: torch.nn.Module) -> torch.nn.Module:
    """The module with weights from a fixed seed, MAISI's zeros included."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        if parameter.ndim == 1:
            parameter.data = 1 + 0.1 * torch.randn(parameter.shape, generator=generator)
        elif not parameter.any():
            parameter.data = 0.02 * torch.randn(parameter.shape, generator=generator)
    return module.eval().requires_grad_(False)


def plain_unet() -> DiffusionModelUNetMaisi:
    torch.manual_seed(0)
    regions = {"include_top_region_index_input": False, "include_bottom_region_index_input": False}
    unet = DiffusionModelUNetMaisi(spatial_dims=3, with_conditioning=True, **regions, **UnetConfig().model_dump())
    return drawn(unet)  # type: ignore[return-value]


def unet_inputs(size: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    context = torch.nn.functional.normalize(torch.randn(1, 1, 768, generator=generator), dim=-1)
    return {
        "x": torch.randn(1, 4, *LATENTS[size], generator=generator),
        "timesteps": torch.tensor([500.0]),
        "context": torch.cat([context, torch.zeros_like(context)]),
        "class_labels": torch.tensor([CT_CLASS]),
        "spacing_tensor": torch.tensor([SPACING_MM]) * SPACING_UNITS_PER_MM,
    }


def part_unet_plain(size: str) -> dict[str, Any]:
    """One guided evaluation by two calls."""
    unet, inputs = plain_unet(), unet_inputs(size)
    contexts = inputs.pop("context").split(1)
    took, out = seconds(lambda: torch.cat([unet(context=c, **inputs) for c in contexts]), 1 if size == "full" else 2)
    return {"seconds": took / 2, "out": out}


def part_unet_ours(size: str) -> dict[str, Any]:
    """One guided evaluation by one call, and one that is not guided."""
    keep_freed_memory()
    torch.manual_seed(0)
    unet = drawn(Unet(UnetConfig())).to(memory_format=torch.channels_last_3d)
    inputs = unet_inputs(size)
    inputs["x"] = inputs["x"].contiguous(memory_format=torch.channels_last_3d)
    with autocast(torch.device("cpu")):
        took, out = seconds(lambda: unet(**inputs), 3)
        inputs["context"] = inputs["context"][:1]
        alone, _ = seconds(lambda: unet(**inputs), 3)
    return {"seconds": took / 2, "seconds_unguided": alone, "out": out.float()}


def latent(size: str) -> torch.Tensor:
    return torch.randn(1, 4, *LATENTS[size], generator=torch.Generator().manual_seed(2))


def autoencoder() -> MaisiVae:
    torch.manual_seed(0)
    return drawn(MaisiVae(MaisiConfig()))  # type: ignore[return-value]


def part_decode_plain(size: str) -> dict[str, Any]:
    """Overlapping windows through MONAI's classes."""
    vae, z = autoencoder(), latent(size)
    window = [min(WINDOWS[size], n) for n in z.shape[2:]]
    if size == "full":
        # In float32 a whole window takes more than 24 GB, so half of one is timed, as often as there are halves.
        x, y, z_extent = window
        half = z[:, :, :x, :y, : z_extent // 2]
        took, _ = seconds(lambda: AutoencoderKlMaisi.decode(vae, half), 1, warm=False)
        count = len(dense_patch_slices(z.shape[2:], window, [int(n * (1 - OVERLAP)) or 1 for n in window]))
        return {"seconds": 2 * count * took, "windows": count}
    inferer = SlidingWindowInferer(window, sw_batch_size=1, overlap=OVERLAP, mode="gaussian")
    took, out = seconds(lambda: inferer(z, lambda w: AutoencoderKlMaisi.decode(vae, w)), 1, warm=size == "small")
    return {"seconds": took, "out": out}


def part_decode_whole(size: str) -> dict[str, Any]:
    """MONAI's classes on the whole latent: the true decode."""
    vae, z = autoencoder(), latent(size)
    took, out = seconds(lambda: AutoencoderKlMaisi.decode(vae, z), 1)
    return {"seconds": took, "out": out}


def part_decode_ours(size: str) -> dict[str, Any]:
    """Slab by slab with the whole volume's statistics."""
    keep_freed_memory()
    vae, z = autoencoder().to(memory_format=torch.channels_last_3d), latent(size)
    with autocast(torch.device("cpu")):
        took, out = seconds(lambda: vae.decode(z), 1, warm=size == "small")
    return {"seconds": took, "out": out}


def part_decode_ours_float32(size: str) -> dict[str, Any]:
    """The same without half precision."""
    vae, z = autoencoder().to(memory_format=torch.channels_last_3d), latent(size)
    took, out = seconds(lambda: vae.decode(z), 1)
    return {"seconds": took, "out": out}


def part_pack_plain(size: str) -> dict[str, Any]:
    """The bundled pack's volumes in float32 by 30 Euler steps, two calls each."""
    del size
    pack, cpu = load_pack(), torch.device("cpu")
    scale = pack.info.defaults.guidance_scale
    noise = torch.stack([torch.randn(pack.latent_shape, generator=torch.Generator().manual_seed(i)) for i in range(4)])
    spacing = (torch.tensor(pack.info.spacing_mm) * SPACING_UNITS_PER_MM).expand(4, 3)
    for module in (pack.unet, pack.vae):
        module.to(memory_format=torch.contiguous_format)

    def make() -> torch.Tensor:
        context = text_context(pack, PROMPTS, cpu)
        x = noise
        times = [*pack.scheduler.sampling_timesteps(PUBLISHED.steps, tuple(noise.shape[2:])), 0.0]
        for now, after in itertools.pairwise(times):
            shared = {
                "timesteps": torch.full((4,), now),
                "class_labels": torch.full((4,), CT_CLASS),
                "spacing_tensor": spacing,
            }
            told, untold = (pack.unet(x=x, context=c, **shared) for c in (context, torch.zeros_like(context)))
            x = x + (untold + scale * (told - untold)) * ((now - after) / TIMESTEPS)
        return pack.vae.decode(x / pack.info.latent_scale_factor)

    took, out = seconds(make, 2)
    return {"seconds": took / 4, "out": out}


def part_pack_ours(size: str) -> dict[str, Any]:
    """The bundled pack's volumes as `synthesize` makes them."""
    del size
    pack = load_pack()
    took, out = seconds(lambda: generate(pack, PROMPTS, [0, 1, 2, 3], batch_size=4), 3)
    return {"seconds": took / 4, "out": torch.from_numpy(out)}


def part_machine(size: str) -> dict[str, Any]:
    """Peaks of matrix products, and the networks' FLOPs by torch's counter."""
    n = 4096
    peaks = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        a, b = torch.randn(2, n, n).to(dtype).unbind()
        took, _ = seconds(partial(torch.mm, a, b), 3)
        peaks[name] = 2 * n**3 / took / 1e12
    return {"peak_tflops": peaks, "flops": flops(size)}


def flops(size: str) -> dict[str, float]:
    """FLOPs of one evaluation and of one whole decode."""
    regions = {"include_top_region_index_input": False, "include_bottom_region_index_input": False}
    with torch.device("meta"):
        unet = DiffusionModelUNetMaisi(spatial_dims=3, with_conditioning=True, **regions, **UnetConfig().model_dump())
        vae = AutoencoderKlMaisi(
            spatial_dims=3, norm_float16=False, dim_split=1, **MaisiConfig(num_splits=1).model_dump()
        )
    counts = {}
    inputs = {name: tensor.to("meta") for name, tensor in unet_inputs(size).items()}
    inputs["context"] = inputs["context"][:1]
    for name, action in (
        ("unet", lambda: unet(**inputs)),
        ("decode", lambda: vae.decode(latent("small").to("meta"))),
    ):
        with FlopCounterMode(display=False) as counter:
            action()
        counts[name] = float(counter.get_total_flops())
    # Convolutions alone: in proportion to the voxels. MONAI copies full-size activations, which meta tensors forbid.
    counts["decode"] *= math.prod(LATENTS[size]) / math.prod(LATENTS["small"])
    return counts


PARTS: dict[str, Callable[[str], dict[str, Any]]] = {
    "machine": part_machine,
    "unet_plain": part_unet_plain,
    "unet_ours": part_unet_ours,
    "decode_plain": part_decode_plain,
    "decode_whole": part_decode_whole,
    "decode_ours_float32": part_decode_ours_float32,
    "decode_ours": part_decode_ours,
    "pack_plain": part_pack_plain,
    "pack_ours": part_pack_ours,
}
# The whole decode needs more memory than most machines have, so decodes are compared with it on a small grid.
COMPARED = ("decode_whole", "decode_plain", "decode_ours", "decode_ours_float32")
TIMED = tuple(part for part in PARTS if part not in ("decode_whole", "decode_ours_float32"))


def run_part(name: str, size: str, folder: Path) -> dict[str, Any]:
    """Run one part in a process of its own, so that memory and allocator are its own; keeps what is there."""
    kept = folder / f"{name}-{size}.json"
    if kept.is_file():
        done: dict[str, Any] = json.loads(kept.read_text())
        return done
    print(f"{name} ({size}) ...", file=sys.stderr, flush=True)
    command = [sys.executable, __file__, "--part", name, "--size", size, "--out", str(folder)]
    subprocess.run(command, check=True)
    result: dict[str, Any] = json.loads(kept.read_text())
    return result


def child(name: str, size: str, folder: Path) -> None:
    """What that process does."""
    with torch.inference_mode():
        result = PARTS[name](size)
    if "out" in result:
        np.save(folder / f"{name}-{size}.npy", result.pop("out").numpy())
    result["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    (folder / f"{name}-{size}.json").write_text(json.dumps(result))


def difference(folder: Path, one: str, other: str) -> dict[str, float]:
    """Root mean square and largest difference of two outputs, in deviations of the second."""
    a, b = (np.load(folder / name).astype(np.float64) for name in (one, other))
    return {"rms": float(np.sqrt(np.mean((a - b) ** 2)) / b.std()), "largest": float(np.abs(a - b).max() / b.std())}


def calls(settings: Sampling) -> tuple[int, int]:
    """Guided and unguided evaluations of one volume at full size."""
    seen: list[bool] = []
    RectifiedFlow(FlowConfig()).sample(
        lambda x, timestep: seen.append(settings.guides_at(timestep / TIMESTEPS)) or x,
        torch.zeros(1, 1, *LATENTS["full"]),
        settings.steps,
        settings.solver,
    )
    return sum(seen), len(seen) - sum(seen)


def summary(parts: dict[str, dict[str, Any]], size: str, folder: Path) -> dict[str, Any]:
    """The comparison, and what stands behind it."""
    flop, unet, decode = parts["machine"]["flops"], parts["unet_ours"], parts["decode_ours"]
    plain_evaluation, plain_decode = parts["unet_plain"]["seconds"], parts["decode_plain"]["seconds"]
    plain_volume = 2 * PUBLISHED.steps * plain_evaluation + plain_decode

    def volume(settings: Sampling) -> float:
        guided, alone = calls(settings)
        return 2 * guided * unet["seconds"] + alone * unet["seconds_unguided"] + decode["seconds"]

    return {
        "size": [4 * n for n in LATENTS[size]],
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "half_precision": has_fast_bf16(torch.device("cpu")),
        "peak_tflops": parts["machine"]["peak_tflops"],
        "flops": flop,
        "seconds": {
            "unet_evaluation_plain": plain_evaluation,
            "unet_evaluation": unet["seconds"],
            "unet_evaluation_unguided": unet["seconds_unguided"],
            "decode_plain": plain_decode,
            "decode": decode["seconds"],
            "volume_plain": plain_volume,
            "volume_published_steps": volume(PUBLISHED),
            "volume_fast_steps": volume(FAST),
            "bundled_pack_plain": parts["pack_plain"]["seconds"],
            "bundled_pack": parts["pack_ours"]["seconds"],
        },
        "achieved_tflops": {
            "unet_plain": flop["unet"] / plain_evaluation / 1e12,
            "unet": flop["unet"] / unet["seconds"] / 1e12,
            "decode": flop["decode"] / decode["seconds"] / 1e12,
        },
        "peak_gb": {name: part["peak_gb"] for name, part in parts.items()},
        "fast_steps": FAST.model_dump(mode="json"),
        "unet_evaluation_speedup": plain_evaluation / unet["seconds"],
        "decode_speedup": plain_decode / decode["seconds"],
        "volume_published_steps_speedup": plain_volume / volume(PUBLISHED),
        "volume_speedup": plain_volume / volume(FAST),
        "bundled_pack_speedup": parts["pack_plain"]["seconds"] / parts["pack_ours"]["seconds"],
        "difference": {"unet_against_plain": difference(folder, f"unet_ours-{size}.npy", f"unet_plain-{size}.npy")},
    }


def cpu_name() -> str:
    """The processor, and which of its instructions for half precision torch uses."""
    name = platform.processor() or platform.machine()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), name)
    flags = {"AMX": torch.cpu._is_amx_tile_supported(), "AVX512-BF16": torch.cpu._is_avx512_bf16_supported()}
    return f"{name} ({', '.join(flag for flag, present in flags.items() if present) or 'float32 only'})"


def main() -> None:
    """Run every part and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="256x256x128 voxels instead of 512x512x128")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--work", type=Path, help="keep each part's figures here, and go on from there")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--size", choices=LATENTS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        child(arguments.part, arguments.size, arguments.out)
        return
    size = "quick" if arguments.quick else "full"
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.work or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        result = summary({part: run_part(part, size, folder) for part in TIMED}, size, folder)
        for part in COMPARED:
            run_part(part, "small", folder)
        for part in COMPARED[1:]:
            result["difference"][f"{part}_against_whole"] = difference(
                folder, f"{part}-small.npy", "decode_whole-small.npy"
            )
    if arguments.json:
        print(json.dumps(result))
        return
    for key, value in result.items():
        if isinstance(value, dict):
            print(f"{key}:")
            for inner, number in value.items():
                print(f"  {inner}: {number:.4g}" if isinstance(number, float) else f"  {inner}: {number}")
        else:
            print(f"{key}: {value:.2f}" if isinstance(value, float) else f"{key}: {value}")


if __name__ == "__main__":
    main()
