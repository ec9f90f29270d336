"""MetaImage and NRRD through SimpleITK."""

from __future__ import annotations

import locale
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from text2ct.volumes.readers.itk_header import check_header
from text2ct.volumes.readers.stored import HU_MARK, Stored, lps_to_ras

# The header field that holds `HU_MARK` in a MetaImage.
MARK_FIELD = "IntensityUnit"
_SPACING = re.compile(rb"^(?:ElementSpacing *=|spacings *:)(.*)$", re.MULTILINE)
_HEADER_BYTES = 16_384
# Deflate packs at most 1032 bytes into one.
_MAX_PACKING = 1032


class _ItkFile:
    """A format that SimpleITK reads as one file."""

    name: str
    looks_like: str
    suffixes: tuple[str, ...]

    def accepts(self, path: Path) -> bool:
        """Whether the name ends in one of the format's suffixes."""
        return path.name.lower().endswith(self.suffixes) and not path.is_dir()

    def load(self, path: Path) -> Stored:
        """Read voxels and geometry."""
        import SimpleITK as sitk

        check_header(path)
        with quiet_itk():
            _refuse_impossible_claim(path)
            image = sitk.ReadImage(str(path))
        fields = image.GetMetaDataKeys()
        notes: tuple[str, ...] = ()
        if path.suffix.lower() in (".nrrd", ".nhdr") and "NRRD_space" not in fields:
            notes = ("the header gives no orientation (no 'space' field); LPS is assumed",)
        marked = MARK_FIELD in fields and image.GetMetaData(MARK_FIELD).startswith(HU_MARK)
        return Stored(
            voxels=itk_voxels(image),
            affine=itk_affine(image),
            marked_hu=marked,
            notes=notes,
            problems=_spacing_problems(path),
        )


class MetaImage(_ItkFile):
    """``.mha``, and ``.mhd`` with its raw file."""

    name = "MetaImage"
    looks_like = ".mha, .mhd"
    suffixes = (".mha", ".mhd")


class Nrrd(_ItkFile):
    """``.nrrd``, and ``.nhdr`` with its raw file; its space (LPS, RAS) is honoured."""

    name = "NRRD"
    looks_like = ".nrrd, .nhdr"
    suffixes = (".nrrd", ".nhdr")


def _refuse_impossible_claim(path: Path) -> None:
    """Refuse voxels that the file cannot hold however well it is packed, before ITK takes memory for them."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    voxel = sitk.Image([1, 1], reader.GetPixelID()).GetSizeOfPixelComponent()
    claimed = math.prod(reader.GetSize()) * reader.GetNumberOfComponents() * voxel
    detached = path.suffix.lower() in (".mhd", ".nhdr")  # its voxels are in another file of the folder
    held = sum(file.stat().st_size for file in (path.parent.iterdir() if detached else [path]) if file.is_file())
    if claimed > _MAX_PACKING * held:
        size = " x ".join(map(str, reader.GetSize()))
        raise ValueError(f"its header claims {size} voxels, {claimed / 1e9:.3g} GB, and the file holds {held} bytes")


def _spacing_problems(path: Path) -> tuple[str, ...]:
    """Voxel sizes in a text header that ITK mends in silence: it takes -2 as 2 and a flipped axis."""
    with path.open("rb") as stream:
        found = _SPACING.search(stream.read(_HEADER_BYTES))
    if found is None:
        return ()
    text = found[1].decode("latin-1").strip()
    try:
        spacing = [float(number) for number in text.split()]
    except ValueError:
        spacing = []
    # NRRD writes NaN for an axis that is no place, such as time.
    if spacing and all(size > 0 for size in spacing[:3]):
        return ()
    return (f"its header's voxel sizes are '{text}'; expected three numbers above 0",)


def itk_voxels(image: Any) -> np.ndarray:
    """The voxels of a SimpleITK image with the axes in index order (i, j, k, ..., component)."""
    import SimpleITK as sitk

    dimension = image.GetDimension()
    return np.moveaxis(sitk.GetArrayFromImage(image), range(dimension), range(dimension)[::-1])


def itk_affine(image: Any) -> np.ndarray:
    """(4, 4) float64 from index to RAS+ world coordinates in mm, of the first three axes."""
    dimension = image.GetDimension()
    axes = min(dimension, 3)
    direction = np.array(image.GetDirection()).reshape(dimension, dimension)[:axes, :axes]
    affine = np.eye(4)
    affine[:axes, :axes] = direction * np.array(image.GetSpacing())[:axes]
    affine[:axes, 3] = image.GetOrigin()[:axes]
    return lps_to_ras(affine)


@contextmanager
def quiet_itk() -> Iterator[None]:
    """Keep ITK from printing warnings, worded by the readers instead, and GDCM from leaving another locale behind."""
    import SimpleITK as sitk

    before, encoding = sitk.ProcessObject.GetGlobalWarningDisplay(), locale.setlocale(locale.LC_CTYPE)
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)
        locale.setlocale(locale.LC_CTYPE, encoding)
