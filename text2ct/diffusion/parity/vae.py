"""The autoencoder: decode, whole and in windows, HU, encode."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from text2ct.diffusion.decode import in_windows
from text2ct.diffusion.parity.folder import Folder
from text2ct.diffusion.parity.result import HU_TOLERANCE, ArrayResult, compare
from text2ct.diffusion.vae import MaisiConfig, MaisiVae

WEIGHTS = "autoencoder_state_dict.pt"
VAE_FIXED = {
    "_target_": None,
    "spatial_dims": 3,
    "with_encoder_nonlocal_attn": False,
    "with_decoder_nonlocal_attn": False,
    "use_checkpointing": None,
    "norm_float16": False,
    "dim_split": None,  # along which axis: rounding only
}


def check_vae(folder: Folder) -> Iterator[ArrayResult]:
    """Compare both directions."""
    config, arrays = folder.json(), folder.arrays("vae.npz")
    settings: MaisiConfig = folder.config(MaisiConfig, config["autoencoder"], VAE_FIXED)
    vae: MaisiVae = folder.build(MaisiVae, settings, WEIGHTS, folder.checkpoint(WEIGHTS))  # type: ignore[assignment]
    with torch.inference_mode():
        latent = arrays.tensor("latent_scaled") / config["scale_factor"]
        window = config["sliding_window"]
        mean, deviation = vae.encode(arrays.tensor("image01"))
        ours = {"decoded": vae.decode(latent), "mu": mean, "sigma": deviation}
        ours["decoded_sliding_window"] = in_windows(vae, latent, window["roi_size"], window["overlap"])
    for array, value in ours.items():
        yield compare(folder.variant, array, value, arrays[array])
    for array, decoded in (("hu_int16", "decoded"), ("hu_int16_sliding_window", "decoded_sliding_window")):
        yield compare(folder.variant, array, _hu(ours[decoded]), arrays[array], HU_TOLERANCE)


def _hu(decoded: Tensor) -> np.ndarray:
    """(1, 1, X, Y, Z) in [0, 1] to (X, Y, Z) whole HU, cut towards zero as the released code does; NaN stays NaN."""
    return np.trunc((decoded[0, 0] * 2000 - 1000).clamp(-1000, 1000).numpy())
