"""Whose way of measuring: what options are where they are not given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from text2ct.errors import UserError

PROFILES = ("default", "paper", "vlm3d")


class Profile(NamedTuple):
    """Grid and backbones.

    Attributes:
        grid: Voxels.
        spacing_mm: Voxel size.
        backbone: Of slices; None for the bundled network.
        backbone_3d: Of volumes; None for the 3D CLIP.
    """

    grid: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    backbone: str | None = None
    backbone_3d: str | None = None


_OF = {
    "default": Profile((64, 64, 64), (5.0, 5.0, 5.0)),
    # Text2CT, arXiv 2506.00633, section 4.1: the grid; 2.5D FID by RadImageNet, 3D FID by MedicalNet.
    "paper": Profile((512, 512, 128), (0.75, 0.75, 1.5), None, "medicalnet:50"),
    "vlm3d": Profile((512, 512, 512), (1.0, 1.0, 1.0)),
}


def profile(name: str, backbone: str | None = None, metrics: Sequence[str] = ("fidelity",)) -> Profile:
    """The options of a profile.

    Args:
        name: One of ``PROFILES``.
        backbone: What the user names, if anything.
        metrics: What is measured.

    Raises:
        UserError: There is no such profile, or it needs weights that are not named.
    """
    if name not in _OF:
        raise UserError(f"there is no profile '{name}'; use one of {', '.join(PROFILES)}")
    if name == "paper" and backbone is None and "fidelity" in metrics:
        raise UserError(
            "the profile 'paper' measures slices with RadImageNet's ResNet-50, whose weights are not part of this "
            "package: give --backbone radimagenet:FILE (or another backbone, which gives other figures)"
        )
    return _OF[name]
