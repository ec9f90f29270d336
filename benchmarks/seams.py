"""A picture of seams: one latent decoded whole, by our slabs, and by the released code's overlapping windows.

    python benchmarks/seams.py --work build/seams --plot docs/seams.png

A small MAISI autoencoder is trained for a few minutes on simulated chests, since random weights would show
noise. The windows are to the latent what the released ones (80 of 128) are to a full-size one.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from monai.apps.generation.maisi.networks.autoencoderkl_maisi import AutoencoderKlMaisi

from text2ct.diffusion import slabs
from text2ct.diffusion.decode import OVERLAP, in_windows
from text2ct.diffusion.training.cases import render_patients, simulated_case
from text2ct.diffusion.training.config import VaeTraining
from text2ct.diffusion.training.vae import train_vae, unit_tensor
from text2ct.diffusion.vae import MaisiConfig, MaisiVae
from text2ct.simulation.patients import PACK_PATIENTS

FIRST = PACK_PATIENTS.start + 7 * 10**6
CONFIG = MaisiConfig(num_channels=(16, 32, 32), num_res_blocks=(1, 1, 1), norm_num_groups=8)
TRAINING = VaeTraining(steps=400, batch_size=4, learning_rate=2e-3, warmup_steps=20, kl_weight=1e-4, gradient_clip=1.0)
SIZE, SPACING_MM = (128, 128, 64), (2.75, 2.75, 5.5)
WINDOW = (20, 20, 16)


def main() -> None:
    """Train what is missing, decode three ways, and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--work", type=Path, required=True, help="folder of cases and weights")
    parser.add_argument("--plot", type=Path, required=True, help="write the picture here")
    arguments = parser.parse_args()
    cases = render_patients(arguments.work / "cases", FIRST, 100, size=(64, 64, 64), spacing_mm=(5.0, 5.0, 5.0))
    torch.manual_seed(0)
    vae = train_vae(cases, MaisiVae(CONFIG), TRAINING, arguments.work / "vae", device="cpu")
    assert isinstance(vae, MaisiVae)
    hu, _ = simulated_case(FIRST + 1000, SIZE, SPACING_MM)
    slabs.SLAB_BYTES = 2**20  # so that so small a volume is cut at all
    with torch.inference_mode():
        z = vae.encode(unit_tensor(hu[None])[:, None])[0]
        decoded = {
            "whole": AutoencoderKlMaisi.decode(vae, z),
            "slabs": vae.decode(z),
            "windows": in_windows(vae, z, WINDOW, OVERLAP),
        }
    volumes = {name: (unit[0, 0].numpy() * 2000 - 1000) for name, unit in decoded.items()}
    differences = {name: volumes[name] - volumes["whole"] for name in ("slabs", "windows")}
    print(json.dumps({name: float(np.abs(value).max()) for name, value in differences.items()}))
    draw(volumes, differences, arguments.plot)


def draw(volumes: dict[str, np.ndarray], differences: dict[str, np.ndarray], path: Path) -> None:
    """An axial slice of each, and what differs from the whole decode."""
    figure, axes = plt.subplots(1, 5, figsize=(15, 3.4), layout="constrained")
    middle = SIZE[2] // 2
    for axis, (name, hu) in zip(axes, volumes.items(), strict=False):
        axis.imshow(hu[:, :, middle].T, cmap="gray", vmin=-1000, vmax=400, origin="lower")
        axis.set_title({"whole": "whole", "slabs": "ours: slabs", "windows": "released: windows"}[name])
    for axis, (name, value) in zip(axes[3:], differences.items(), strict=True):
        image = axis.imshow(value[:, :, middle].T, cmap="RdBu", vmin=-100, vmax=100, origin="lower")
        axis.set_title(f"{name} - whole: at most {np.abs(value).max():.2g} HU", fontsize=9)
    for axis in axes:
        axis.set_axis_off()
    figure.colorbar(image, ax=axes[-1], label="HU")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
