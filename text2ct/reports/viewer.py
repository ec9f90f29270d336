"""The interactive viewer of a page: NiiVue's bundle and a small copy of each volume, inside the page."""

from __future__ import annotations

import base64
import gzip
import importlib.metadata
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from text2ct.console import warn
from text2ct.findings import FINDINGS
from text2ct.reports.figures import slice_montage
from text2ct.reports.page import png_uri
from text2ct.volumes import HU_MAX, HU_MIN, WINDOWS

MAX_VOLUMES = 12
"""Volumes that a page lets one browse; more would make it heavy."""
MAX_ENCODED_BYTES = 10_000_000
"""Of all stills and voxels together as base64. With NiiVue (2 MB) and the charts a page stays under 15 MB."""

_PACKAGE = "ipyniivue"
# The bundle exports a Jupyter widget, not the class it drives: that is what the widget makes one of after saying so.
_MADE = re.compile(r'new Niivue instance"\).{0,300}?=\s*new ([\w$]+)\(', re.DOTALL)
_EXPORT = re.compile(r"export\s*\{[^}]*\};?\s*$")


@dataclass(frozen=True)
class Bundle:
    """NiiVue as a script that puts the class ``Niivue`` on ``globalThis``.

    Attributes:
        script: Gzipped and in base64.
        version: Of the package that it comes from.
        licence: Terms that have to stand beside it.
    """

    script: str
    version: str
    licence: str


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


@lru_cache(maxsize=1)
def bundle() -> Bundle | None:
    """NiiVue from the installed package ``ipyniivue``; None, with a warning, where it is not to be had.

    Its files are read and the package is not imported, which would start half of Jupyter.
    """
    try:
        package = importlib.metadata.distribution(_PACKAGE)
        source = Path(str(package.locate_file(f"{_PACKAGE}/static/widget.js"))).read_text(encoding="utf-8")
    except (importlib.metadata.PackageNotFoundError, OSError):
        warn(f"the report shows still pictures only: its viewer needs `pip install {_PACKAGE}`")
        return None
    script = niivue_script(source)
    if script is None:
        warn(f"the report shows still pictures only: {_PACKAGE} {package.version} holds NiiVue in an unknown form")
        return None
    licences = [file for file in package.files or [] if file.name.upper().startswith("LICENSE")]
    terms = "\n".join(Path(str(file.locate())).read_text(encoding="utf-8") for file in licences)
    return Bundle(_base64(gzip.compress(script.encode(), mtime=0)), package.version, terms)


def niivue_script(source: str) -> str | None:
    """A classic script from the widget's ES module, which a page that was opened from disk may not import.

    Args:
        source: The module's text.

    Returns:
        A script that sets ``globalThis.Niivue``, or None where the module does not look as expected.
    """
    made, export = _MADE.search(source), _EXPORT.search(source)
    if made is None or export is None:
        return None
    return f'(() => {{\n"use strict";\n{source[: export.start()]}\nglobalThis.Niivue = {made[1]};\n}})();\n'


@dataclass(frozen=True)
class Encoded:
    """A volume for the page.

    Attributes:
        nifti: ``.nii.gz`` in base64, int16 HU.
        size: ``(x, y, z)`` voxels.
        shrunk: Whether voxels were averaged to keep the page small.
    """

    nifti: str
    size: tuple[int, ...]
    shrunk: bool


def encode_volume(hu: NDArray[np.floating], spacing_mm: Sequence[float], max_bytes: int) -> Encoded:
    """Make a NIfTI file of a volume, averaging blocks of voxels until it is small enough.

    Args:
        hu: ``(X, Y, Z)`` in HU, RAS order.
        spacing_mm: ``(x, y, z)``.
        max_bytes: Of the file in base64.
    """
    factors = np.ones(3, dtype=int)
    limit = max_bytes * 3 // 4
    per_voxel = 0.5  # bytes, fewer than gzip leaves of a CT; then as found, so that little is compressed in vain
    while True:
        size = np.array(hu.shape) // factors
        if size.prod() * per_voxel <= limit or size.max() == 1:
            small = _averaged(hu, factors)
            data = _nifti(small, np.multiply(spacing_mm, factors))
            if len(data) <= limit or size.max() == 1:
                return Encoded(_base64(data), small.shape, bool((factors > 1).any()))
            per_voxel = len(data) / size.prod()
        divisible = np.where(size > 1, np.multiply(spacing_mm, factors), np.inf)
        factors[int(np.argmin(divisible))] += 1  # the finest direction first


def _averaged(hu: NDArray[np.floating], factors: NDArray[np.int_]) -> NDArray[np.floating]:
    """Means of whole blocks; what is left over at the far end is cut off."""
    size = np.array(hu.shape) // factors
    kept = hu[tuple(slice(0, n * f) for n, f in zip(size, factors, strict=True))]
    blocks = [length for n, f in zip(size, factors, strict=True) for length in (n, f)]
    return kept.reshape(blocks).mean(axis=(1, 3, 5), dtype=np.float64)


def _nifti(hu: NDArray[np.floating], spacing_mm: NDArray[np.floating]) -> bytes:
    whole = np.clip(np.rint(hu), HU_MIN, HU_MAX).astype(np.int16)
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = -(np.array(hu.shape) - 1) / 2 * spacing_mm
    return gzip.compress(nib.Nifti1Image(whole, affine).to_bytes(), compresslevel=6, mtime=0)


def windows() -> dict[str, list[float]]:
    """Display windows by name: lowest and highest HU."""
    return {name: [window.low_hu, window.low_hu + window.width] for name, window in WINDOWS.items()}


def shown_volume(index: int, volume: Mapping[str, Any], window: str) -> tuple[dict[str, Any], bytes]:
    """A volume as a page shows it, yet without its voxels, and its still picture as PNG.

    Args:
        index: From 0; names the picture's file.
        volume: ``hu`` (X, Y, Z) with ``spacing_mm``, or ``png``; ``prompt``, ``labels``, ``seed``, ``name``.
        window: Of the picture.
    """
    spacing = volume.get("spacing_mm", (1.0, 1.0, 1.0))
    png = volume.get("png") or slice_montage(volume["hu"], spacing, window)
    labels = volume["labels"]
    if isinstance(labels, Mapping):
        labels = [name for name in FINDINGS if labels.get(name) == 1]
    shown = {
        "image": png_uri(png),
        "file": f"volume-{index + 1:02d}.png",
        "prompt": volume["prompt"],
        "labels": list(labels),
        "seed": volume.get("seed"),
        "name": volume.get("name", ""),
        "encoded": None,
    }
    return shown, png


def add_voxels(shown: Sequence[dict[str, Any]], volumes: Sequence[Mapping[str, Any]]) -> Bundle | None:
    """Give the first dozen volumes their voxels; returns the viewer, None where it has nothing to show."""
    browsed = [k for k, volume in enumerate(volumes) if "hu" in volume][:MAX_VOLUMES]
    found = bundle() if browsed else None
    if found is None:
        return None
    left = MAX_ENCODED_BYTES - sum(len(one["image"]) for one in shown)
    for k in browsed:
        spacing = volumes[k].get("spacing_mm", (1.0, 1.0, 1.0))
        shown[k]["encoded"] = encode_volume(volumes[k]["hu"], spacing, left // len(browsed))
    return found
