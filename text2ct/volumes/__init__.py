"""One CT volume: read it as HU in RAS+ order, put it on a grid, window it, check it, write it."""

from text2ct.volumes.grid import FITS, Fit, to_grid
from text2ct.volumes.lazy import LazyVolume
from text2ct.volumes.preprocessing import Preprocessed, find_volumes, preprocess
from text2ct.volumes.quality import check
from text2ct.volumes.reading import open_volume, read
from text2ct.volumes.volume import HU_MAX, HU_MIN, Volume, hu_to_unit, unit_to_hu
from text2ct.volumes.windows import WINDOWS, Window, apply_window
from text2ct.volumes.writing import FORMATS, write

__all__ = [
    "FITS",
    "FORMATS",
    "HU_MAX",
    "HU_MIN",
    "WINDOWS",
    "Fit",
    "LazyVolume",
    "Preprocessed",
    "Volume",
    "Window",
    "apply_window",
    "check",
    "find_volumes",
    "hu_to_unit",
    "open_volume",
    "preprocess",
    "read",
    "to_grid",
    "unit_to_hu",
    "write",
]
