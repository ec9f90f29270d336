"""Slices of volumes as a 2D network sees them, and what a set of them looks like: means and covariances by volume."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from text2ct.errors import UserError
from text2ct.evaluation._inputs import check_same_grid, checked_volume
from text2ct.volumes.volume import hu_to_unit
from text2ct.volumes.windows import WINDOWS, Window, apply_window

PLANES = ("axial", "coronal", "sagittal")
COLOUR = ("lung", "soft_tissue", "bone")
"""The windows that are the three channels of the view ``colour``."""
VIEWS = ("colour", "full_range", *WINDOWS)
"""How HU become grey: three windows as three channels, [-1000, 1000] HU, or one window."""
View = str | Window
"""One of ``VIEWS``, or a window of one's own."""
_BATCH = 256


class SliceEncoder(Protocol):
    """Any 2D network that describes slices; a ``torch.nn.Module`` with these two attributes is one.

    Attributes:
        name: Says which network and which weights; stands in every result.
        channels: 1 or 3; views of one grey scale are repeated for 3.
    """

    @property
    def name(self) -> str:
        """Network and weights."""
        ...

    @property
    def channels(self) -> int:
        """1 or 3."""
        ...

    def __call__(self, slices: Tensor) -> Tensor:
        """(n, channels, H, W) float32 in [0, 1] to (n, d) features. H and W are the volume's; resize inside."""
        ...


def slices_of(grey: NDArray[np.float32], plane: str, every: int = 1) -> NDArray[np.float32]:
    """Every k-th slice, seen as radiologists see it.

    Args:
        grey: (..., X, Y, Z) in RAS order; leading axes are channels.
        plane: ``axial`` (patient's right on the left, anterior above), ``coronal`` (right on the left, head
            above) or ``sagittal`` (anterior on the left, head above).
        every: k; slices ``k // 2, k // 2 + k, ..``.

    Returns:
        (n, ..., H, W): rows downwards, columns to the right. A view of ``grey``.
    """
    picked = slice(every // 2, None, every)
    if plane == "axial":
        return np.moveaxis(grey[..., ::-1, ::-1, picked], (-1, -2, -3), (0, -2, -1))
    if plane == "coronal":
        return np.moveaxis(grey[..., ::-1, picked, ::-1], (-2, -1, -3), (0, -2, -1))
    if plane == "sagittal":
        return np.moveaxis(grey[..., picked, ::-1, ::-1], (-3, -1, -2), (0, -2, -1))
    raise ValueError(f"there is no plane '{plane}'; expected one of {', '.join(PLANES)}")


def grey_channels(volume_hu: NDArray[Any], view: View, channels: int) -> NDArray[np.float32]:
    """(X, Y, Z) HU to (channels, X, Y, Z) float32 in [0, 1].

    Args:
        volume_hu: HU.
        view: One of ``VIEWS``, or a window.
        channels: 1 or 3.

    Raises:
        UserError: There is no such view, or it has more channels than the encoder reads.
    """
    if isinstance(view, str) and view not in VIEWS:
        raise UserError(f"there is no view '{view}'; use one of {', '.join(VIEWS)}")
    if view == "colour":
        if channels != len(COLOUR):
            raise UserError(f"the view 'colour' has 3 channels, the encoder reads {channels}; use 'full_range'")
        return np.stack([apply_window(volume_hu, window) for window in COLOUR])
    grey = hu_to_unit(volume_hu) if view == "full_range" else apply_window(volume_hu, view)
    return np.broadcast_to(grey, (channels, *grey.shape))


@dataclass(frozen=True, eq=False)
class SliceStatistics:
    """All that a set of volumes contributes to Fréchet distances, volume by volume.

    Of each volume and plane: the number of slices, the sum of their features and the sum of their outer products
    (or the features themselves where these take less memory). A bootstrap over volumes weighs these sums, without
    the network.

    Attributes:
        origin: Of each plane, (d,) float64; what features are counted from, so that sums keep their precision.
        sums: Of each plane, (n, d) float64.
        products: Of each plane, (n, d, d) float64, or (n, slices, d) features.
        slices: Slices of each volume, by plane.
        grid: (X, Y, Z) of the volumes.
        backbone: Name of the encoder.
        view: Grey scale.
        every: Every how manyth slice.
    """

    origin: tuple[NDArray[np.float64], ...]
    sums: tuple[NDArray[np.float64], ...]
    products: tuple[NDArray[np.float64], ...]
    slices: tuple[int, int, int]
    grid: tuple[int, ...]
    backbone: str
    view: str
    every: int

    @property
    def n(self) -> int:
        """Number of volumes."""
        return len(self.sums[0])

    @property
    def dimension(self) -> int:
        """Number of features."""
        return self.sums[0].shape[1]

    def subset(self, indices: Sequence[int] | NDArray[np.integer]) -> SliceStatistics:
        """The same of some of the volumes."""
        rows = np.asarray(indices, dtype=np.intp)
        return SliceStatistics(
            self.origin,
            tuple(sums[rows] for sums in self.sums),
            tuple(products[rows] for products in self.products),
            self.slices,
            self.grid,
            self.backbone,
            self.view,
            self.every,
        )

    def gaussian(self, plane: int, weights: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean (d,) and unbiased covariance (d, d) of a plane's features when volumes count ``weights`` (n,) times."""
        count = weights.sum() * self.slices[plane]
        products = self.products[plane]
        offset = weights @ self.sums[plane] / count
        if products.shape[1] == products.shape[2]:
            total = (weights @ products.reshape(len(products), -1)).reshape(products.shape[1:])
        else:
            used = weights > 0
            rows = (products[used] * np.sqrt(weights[used])[:, None, None]).reshape(-1, products.shape[2])
            total = rows.T @ rows
        covariance = (total - count * np.outer(offset, offset)) / (count - 1)
        return self.origin[plane] + offset, covariance


Features = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]
"""Of one volume's slices, by plane: (slices, d)."""


class StatisticsOfSet:
    """Collects :class:`SliceStatistics`, one volume after the other.

    Args:
        backbone: Name of the encoder.
        view: Grey scale.
        every: Every how manyth slice.
        origin: Statistics that these will be compared with; None for the first set.
    """

    def __init__(self, backbone: str, view: str, every: int, origin: SliceStatistics | None = None) -> None:
        self._backbone, self._view, self._every = backbone, view, every
        self._origin = None if origin is None else origin.origin
        self._slices: tuple[int, int, int] = (0, 0, 0)
        self._sums: tuple[list[NDArray[np.float64]], ...] = ([], [], [])
        self._products: tuple[list[NDArray[np.float64]], ...] = ([], [], [])

    def add(self, features: Features) -> None:
        """The next volume."""
        rows = [plane.astype(np.float64) for plane in features]
        if self._origin is None:
            self._origin = tuple(plane.mean(axis=0) for plane in rows)
        self._slices = (len(rows[0]), len(rows[1]), len(rows[2]))
        for plane, (values, origin) in enumerate(zip(rows, self._origin, strict=True)):
            away = values - origin
            self._sums[plane].append(away.sum(axis=0))
            self._products[plane].append(away.T @ away if len(away) >= away.shape[1] else away)

    def statistics(self, grid: tuple[int, ...]) -> SliceStatistics:
        """Of what was added, one volume or more, on one grid."""
        assert self._origin is not None
        sums, products = (tuple(np.stack(plane) for plane in part) for part in (self._sums, self._products))
        return SliceStatistics(
            self._origin, sums, products, self._slices, grid, self._backbone, self._view, self._every
        )


@torch.inference_mode()
def slice_features(
    volume_hu: NDArray[Any], encoder: SliceEncoder, view: View, every: int = 1, device: str | torch.device = "cpu"
) -> Features:
    """What the encoder says of a volume's slices.

    Args:
        volume_hu: (X, Y, Z) in [-1000, 1000] HU.
        encoder: Describes slices; a module must be in evaluation mode.
        view: One of ``VIEWS``, or a window.
        every: Every how manyth slice of each plane.
        device: Where the encoder is.

    Raises:
        UserError: There is no such view, no such slice, or features are not finite or of another shape.
    """
    if every // 2 >= min(volume_hu.shape):
        raise UserError(
            f"every {every}th slice of a grid {volume_hu.shape} is none in some plane; choose a smaller number"
        )
    grey = grey_channels(volume_hu, view, encoder.channels)
    axial, coronal, sagittal = (_encode(encoder, slices_of(grey, one, every), torch.device(device)) for one in PLANES)
    return axial, coronal, sagittal


def slice_statistics(
    volumes_hu: Iterable[NDArray[Any]],
    encoder: SliceEncoder,
    *,
    views: Sequence[str] = ("colour",),
    every: int = 1,
    device: str | torch.device = "cpu",
    origin: dict[str, SliceStatistics] | None = None,
    name: str = "volume",
) -> dict[str, SliceStatistics]:
    """Read volumes once, one at a time, and keep what distances need.

    Args:
        volumes_hu: (X, Y, Z) in [-1000, 1000] HU, int16 or float32, RAS order, all of one grid.
        encoder: Describes slices; a module must be in evaluation mode.
        views: Grey scales, each of ``VIEWS``.
        every: Every how manyth slice of each plane.
        device: Where the encoder is.
        origin: Statistics that these will be compared with; None for the first set.
        name: What errors call a volume.

    Returns:
        Statistics of each view.

    Raises:
        UserError: No volumes, volumes of different grids or outside the range, an encoder whose features are not
            finite or of another shape, no such view, or a setting below 1.
    """
    if every < 1:
        raise UserError(f"every is {every}; expected 1 or more")
    if not views:
        raise UserError(f"no view is asked for; use one or more of {', '.join(VIEWS)}")
    sets = {view: StatisticsOfSet(encoder.name, view, every, origin[view] if origin else None) for view in views}
    grid: tuple[int, ...] = ()
    for number, given in enumerate(volumes_hu):
        volume_hu = checked_volume(given, f"{name} {number}")
        grid = grid or volume_hu.shape
        check_same_grid(volume_hu.shape, grid, f"{name} {number}")
        for view, collected in sets.items():
            collected.add(slice_features(volume_hu, encoder, view, every, device))
    if not grid:
        raise UserError(f"there is no {name} to measure; give one or more")
    return {view: collected.statistics(grid) for view, collected in sets.items()}


def _encode(encoder: SliceEncoder, slices: NDArray[np.float32], device: torch.device) -> NDArray[np.float32]:
    parts = []
    for start in range(0, len(slices), _BATCH):
        batch = torch.from_numpy(np.ascontiguousarray(slices[start : start + _BATCH])).to(device)
        parts.append(encoder(batch).float().cpu().numpy())
    features = np.concatenate(parts)
    if features.ndim != 2 or len(features) != len(slices):
        raise UserError(f"the encoder made {features.shape} of {len(slices)} slices; expected (n, d), so pool first")
    if not np.isfinite(features).all():
        raise UserError(f"the encoder {encoder.name} made features that are not finite; check its weights")
    return features
