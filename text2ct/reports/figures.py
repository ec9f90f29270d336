"""Pictures of CT volumes: upright slices in radiological convention."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from text2ct.volumes import apply_window

AXIAL_LEVELS = (0.3, 0.45, 0.6)
"""Where axial slices are taken, as a share of the height from below: bases, hila, upper lobes."""
_DOTS_PER_INCH = 100


@dataclass(frozen=True)
class Slice:
    """One slice as it is shown: ``image[row, column]``, row 0 on top.

    Attributes:
        name: axial, coronal or sagittal.
        image: Values of the volume, not resampled.
        extent_mm: Width and height in mm.
        left: Letter of the side on the picture's left: R (patient's right) or A (anterior).
        right: Letter of the side on the picture's right.
    """

    name: str
    image: NDArray[np.floating]
    extent_mm: tuple[float, float]
    left: str
    right: str


def upright(hu: NDArray[np.floating], spacing_mm: Sequence[float], plane: str, position: float) -> Slice:
    """Cut a slice and turn it as a radiologist hangs it.

    Axial and coronal: the patient's right is on the picture's left; anterior, or superior, is up.
    Sagittal: superior is up, anterior on the left.

    Args:
        hu: ``(X, Y, Z)`` in RAS order: indices grow to the patient's right, front and head.
        spacing_mm: ``(x, y, z)``.
        plane: ``axial``, ``coronal`` or ``sagittal``.
        position: Where, as a share in [0, 1] along the axis across the plane.
    """
    axis = {"sagittal": 0, "coronal": 1, "axial": 2}[plane]
    index = round(position * (hu.shape[axis] - 1))
    image = np.take(hu, index, axis=axis)[::-1, ::-1].T
    across, along = (extent for a, extent in enumerate(np.multiply(hu.shape, spacing_mm)) if a != axis)
    left, right = ("A", "P") if plane == "sagittal" else ("R", "L")
    return Slice(plane, image, (float(across), float(along)), left, right)


def slice_montage(
    hu: NDArray[np.floating],
    spacing_mm: Sequence[float],
    window: str = "lung",
    *,
    axial: Sequence[float] = AXIAL_LEVELS,
    height_px: int = 260,
) -> bytes:
    """Axial slices, one coronal and one sagittal side by side, true to scale, as PNG.

    Args:
        hu: ``(X, Y, Z)`` in HU, RAS order.
        spacing_mm: ``(x, y, z)``.
        window: lung, soft_tissue, bone or vessel.
        axial: Levels of the axial slices as a share of the height from below.
        height_px: Height of the picture; the width follows from the anatomy.

    Returns:
        PNG bytes; one millimetre has the same length in every panel and direction.
    """
    slices = [upright(hu, spacing_mm, "axial", level) for level in axial]
    slices += [upright(hu, spacing_mm, "coronal", 0.5), upright(hu, spacing_mm, "sagittal", 0.42)]
    gap = 0.02 * max(extent for piece in slices for extent in piece.extent_mm)
    total_width = sum(piece.extent_mm[0] for piece in slices) + gap * (len(slices) - 1)
    total_height = max(piece.extent_mm[1] for piece in slices)
    inches = height_px / _DOTS_PER_INCH
    figure = Figure(figsize=(inches * total_width / total_height, inches), dpi=_DOTS_PER_INCH, facecolor="black")
    canvas = FigureCanvasAgg(figure)
    x = 0.0
    for piece in slices:
        width, height = piece.extent_mm
        bottom = (total_height - height) / 2 / total_height
        axes = figure.add_axes((x / total_width, bottom, width / total_width, height / total_height))
        axes.imshow(
            apply_window(piece.image, window),
            cmap="gray",
            vmin=0,
            vmax=1,
            aspect="auto",
            interpolation="bilinear",
        )
        axes.set_axis_off()
        outline = [withStroke(linewidth=2, foreground="black")]
        mark: dict[str, Any] = {"color": "#8fd3ff", "fontsize": 8, "va": "center", "path_effects": outline}
        mark["transform"] = axes.transAxes
        axes.text(0.015, 0.5, piece.left, ha="left", **mark)
        axes.text(0.985, 0.5, piece.right, ha="right", **mark)
        x += width + gap
    target = io.BytesIO()
    canvas.print_png(target, metadata={"Software": None})
    return target.getvalue()
