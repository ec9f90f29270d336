"""The display windows under which a chest CT is read and judged."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from text2ct.errors import UserError


@dataclass(frozen=True)
class Window:
    """A linear grey scale: black at ``centre - width / 2`` HU, white at ``centre + width / 2`` HU."""

    centre: float
    width: float

    def __post_init__(self) -> None:
        if not self.width > 0:
            raise ValueError(f"a window's width is {self.width}; expected a positive number of HU")

    @property
    def low_hu(self) -> float:
        """The HU at and below which all is black."""
        return self.centre - self.width / 2

    @property
    def high_hu(self) -> float:
        """The HU at and above which all is white."""
        return self.centre + self.width / 2


# The usual reading settings of chest CT. `vessel` is the setting for contrast-filled pulmonary arteries.
WINDOWS = MappingProxyType(
    {
        "lung": Window(centre=-600.0, width=1500.0),
        "soft_tissue": Window(centre=40.0, width=400.0),
        "bone": Window(centre=400.0, width=1800.0),
        "vessel": Window(centre=100.0, width=700.0),
    }
)


def apply_window(hu: npt.NDArray[np.floating], window: Window | str) -> npt.NDArray[np.float32]:
    """Map HU to grey values.

    Args:
        hu: Any shape, in HU.
        window: A window, or the name of one in `WINDOWS`.

    Returns:
        float32 of the same shape, in [0, 1].

    Raises:
        UserError: There is no window of that name.
    """
    if isinstance(window, str):
        if window not in WINDOWS:
            raise UserError(f"there is no window '{window}'; use one of {', '.join(WINDOWS)}")
        window = WINDOWS[window]
    grey = (np.asarray(hu, dtype=np.float32) - np.float32(window.low_hu)) / np.float32(window.width)
    return np.clip(grey, 0.0, 1.0)
