"""The released code's decoding by overlapping windows; ours is :mod:`text2ct.diffusion.slabs`."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from text2ct.diffusion.vae import Vae

# The released code decodes at once what has at most WINDOW³ latent voxels, and otherwise windows of this edge.
WINDOW = 80
OVERLAP = 0.4


def decode_windowed(vae: Vae, z: Tensor, roi: int = WINDOW, overlap: float = OVERLAP) -> Tensor:
    """Decode as the released code does: at once up to ``roi``³ latent voxels, otherwise in blended windows.

    Each window has group-norm statistics of its own, so brightness differs from window to window.

    Args:
        vae: The autoencoder, in evaluation mode.
        z: (B, C, x, y, z) unscaled latents.
        roi: Longest edge of a window, in latent voxels.
        overlap: Share of a window that the next one covers again.

    Returns:
        (B, 1, X, Y, Z) float32, nominally in [0, 1] and not clamped.
    """
    if z[0, 0].numel() <= roi**3:
        return vae.decode(z).float()
    return in_windows(vae, z, [min(roi, n) for n in z.shape[2:]], overlap)


def in_windows(vae: Vae, z: Tensor, size: Sequence[int], overlap: float) -> Tensor:
    """Decode windows of ``size`` latent voxels one by one and blend them by a Gaussian; as :func:`decode_windowed`."""
    from monai.inferers.inferer import SlidingWindowInferer

    inferer = SlidingWindowInferer(size, sw_batch_size=1, overlap=overlap, mode="gaussian", progress=False)
    joined: Tensor = inferer(z, lambda window: vae.decode(window).float())  # type: ignore[assignment]
    return joined
