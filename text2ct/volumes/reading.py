"""From a file of any known format to a volume in HU and RAS+ order."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from text2ct.errors import UserError
from text2ct.volumes.intensity import AIR_HU, PADDING_BELOW_HU, Decision, decide
from text2ct.volumes.lazy import LazyVolume, slabs
from text2ct.volumes.readers import Stored, find_reader
from text2ct.volumes.volume import Volume, affine_problem, obliquity_deg

# Axes tilted by less than this look parallel to the world's at any size a chest has.
OBLIQUE_DEG = 1.0
# Voxel sizes of a header and of the metadata that differ by more than this are two statements.
_SPACING_TOLERANCE = 0.02
# How the evidence begins of a file that this package wrote.
MARKED_WORDS = "HU: the header's mark says so"


def read(
    path: Path | str,
    *,
    slope: float | None = None,
    intercept: float | None = None,
    spacing_mm: tuple[float, float, float] | None = None,
    size: tuple[int, int, int] | None = None,
) -> Volume:
    """Read a CT volume: NIfTI, MetaImage (MHA, MHD), NRRD, Zarr, a folder of DICOM slices or RAD-ChestCT's NPZ.

    Axes are flipped and permuted to the nearest of R, A, S; voxels are not interpolated. Padding
    outside the scanner's field of view becomes air (-1000 HU); nothing else is clipped.

    Args:
        path: A file, or a folder of one DICOM series.
        slope: ``RescaleSlope`` of a metadata table. It is applied only if the voxels need it.
        intercept: ``RescaleIntercept`` of a metadata table, in HU. It is applied only if the voxels need it.
        spacing_mm: (x, y, z) voxel sizes of a metadata table. They are used only for files of CT-RATE's
            first generation, whose headers lack them, and in place of a header's placeholder.
        size: (x, y, z) voxels of a metadata table. A header of 1 x 1 x 1 mm over as many voxels is a placeholder;
            over another number it is that of a resampled scan.

    Returns:
        The volume; its ``intensity`` says how the voxels were found to be HU and on what evidence.

    Raises:
        UserError: The file is absent or damaged, is no single 3D volume, has an unusable affine, or its
            voxels cannot be HU.
    """
    return open_volume(path, slope=slope, intercept=intercept, spacing_mm=spacing_mm, size=size).load()


def open_volume(
    path: Path | str,
    *,
    slope: float | None = None,
    intercept: float | None = None,
    spacing_mm: tuple[float, float, float] | None = None,
    size: tuple[int, int, int] | None = None,
) -> LazyVolume:
    """The same, with the voxels as stored: they become HU when they are asked for. See `read`."""
    path = Path(path)
    stored = _load(path)
    problems = _structural_problems(stored)
    if problems:
        raise UserError(f"{path} is not a usable CT volume", problems)
    metadata = None if slope is None and intercept is None else (_or(slope, 1.0), _or(intercept, 0.0))
    decision = _decide(path, stored, metadata)
    voxels, affine = _to_ras(stored.voxels.reshape(stored.voxels.shape[:3]), stored.affine)
    affine, notes = _apply_metadata_spacing(affine, spacing_mm, decision, stored, placeholder=size == voxels.shape)
    tilt = obliquity_deg(affine)
    if tilt > OBLIQUE_DEG:
        notes = (*notes, f"oblique: its axes are tilted by {tilt:.1f} degrees, which the affine keeps")
    words = decision.words
    volume = LazyVolume(voxels, affine, decision.slope, decision.intercept, notes=(*stored.notes, *notes))
    padding = 0.0 if stored.marked_hu else _padding(volume)
    if padding:
        words += f"; {padding:.1%} of voxels below {PADDING_BELOW_HU:.0f} are padding, set to {AIR_HU:.0f}"
    return replace(volume, fill=padding > 0, intensity=words)


def _padding(volume: LazyVolume) -> float:
    """The fraction of voxels that are padding."""
    ends = volume.stored.min(), volume.stored.max()
    if min(volume.slope * float(end) + volume.intercept for end in ends) >= PADDING_BELOW_HU:
        return 0.0
    pieces = slabs(volume.size, volume.slab_voxels)
    below = sum(np.count_nonzero(volume.planes(start, stop) < PADDING_BELOW_HU) for start, stop in pieces)
    return below / volume.stored.size


def _load(path: Path) -> Stored:
    reader = find_reader(path)
    try:
        return reader.load(path)
    except UserError:
        raise
    except MemoryError as error:
        raise UserError(f"{path} does not fit into memory") from error
    except Exception as error:  # nibabel, ITK, zlib and the file system each raise their own
        raise UserError(f"cannot read {path} as {reader.name}: {_reason(error, path)}") from error


def _reason(error: Exception, path: Path) -> str:
    """A library's complaint in one line."""
    if path.is_file() and path.stat().st_size == 0:
        return "it is empty"
    if isinstance(error, EOFError | zlib.error | gzip.BadGzipFile):
        return "it ends early or is damaged"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    # ITK ends with its reason; nibabel begins with it.
    return lines[-1].removeprefix("sitk::ERROR: ") if isinstance(error, RuntimeError) else " ".join(lines)


def _structural_problems(stored: Stored) -> list[str]:
    """What keeps stored contents from being one 3D volume with a place in the world."""
    problems = list(stored.problems)
    shape = stored.voxels.shape
    text = " x ".join(map(str, shape))
    if stored.voxels.dtype.kind not in "iufb":
        problems.append(f"its voxels are of type {stored.voxels.dtype}; expected one number each")
    if len(shape) < 3 or min(shape[:3], default=0) < 2:
        problems.append(f"it is a single picture ({text}); expected a 3D volume")
    if any(extent != 1 for extent in shape[3:]):
        problems.append(f"it has {len(shape)} dimensions ({text}); expected a 3D volume: take one time point out")
    if not np.isfinite([stored.slope, stored.intercept]).all() or stored.slope == 0:
        problems.append(f"its header has slope {stored.slope:g} and intercept {stored.intercept:g}")
    affine = affine_problem(stored.affine)
    if affine and not stored.problems:
        problems.append(f"its affine {affine}")
    return problems


def _decide(path: Path, stored: Stored, metadata: tuple[float, float] | None) -> Decision:
    if stored.marked_hu:
        words = MARKED_WORDS + ("; the metadata's scale was not applied" if metadata else "")
        return Decision(stored.slope, stored.intercept, words)
    fixed = any(part.endswith("_fixed") for part in path.parts)
    try:
        return decide(
            stored.voxels, header_scale=(stored.slope, stored.intercept), metadata_scale=metadata, fixed=fixed
        )
    except UserError as error:
        first, *rest = str(error).splitlines()
        raise UserError(f"{path}: {first}", [line.removeprefix("  - ") for line in rest]) from error


def _to_ras(voxels: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A view with the axes flipped and permuted until they are nearest to R, A, S; the affine follows."""
    from nibabel import orientations

    turn = orientations.io_orientation(affine)
    turned = orientations.apply_orientation(voxels, turn)
    return turned, affine @ orientations.inv_ornt_aff(turn, voxels.shape)


def _apply_metadata_spacing(
    affine: np.ndarray,
    spacing_mm: tuple[float, float, float] | None,
    decision: Decision,
    stored: Stored,
    *,
    placeholder: bool,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Take voxel sizes from the metadata where the header does not hold them.

    Args:
        affine: In RAS order.
        spacing_mm: The metadata's voxel sizes.
        decision: Which generation it is.
        stored: The file.
        placeholder: Whether 1 x 1 x 1 mm in the header would mean that they are not known.
    """
    own = np.linalg.norm(affine[:3, :3], axis=0)
    if spacing_mm is None or np.allclose(own, spacing_mm, rtol=_SPACING_TOLERANCE):
        return affine, ()
    stated = " x ".join(f"{value:g}" for value in spacing_mm)
    header = " x ".join(f"{value:g}" for value in own)
    first_generation = (decision.slope, decision.intercept) != (stored.slope, stored.intercept)
    usable = np.isfinite(spacing_mm).all() and min(spacing_mm) > 0
    placeholder = placeholder and not stored.marked_hu and bool(np.allclose(own, 1.0, atol=1e-4))
    if not ((first_generation or placeholder) and usable):
        return affine, (f"the metadata says {stated} mm, the header {header} mm, which is used",)
    scaled = affine.copy()
    scaled[:3, :3] *= np.array(spacing_mm) / own
    # The header's origin is the place of the first voxel stored, which may now be the last of a flipped axis.
    first = np.linalg.solve(affine, stored.affine[:, 3])[:3]
    scaled[:3, 3] = stored.affine[:3, 3] - scaled[:3, :3] @ first
    said = f"{header} mm, a placeholder" if placeholder else f"{header} mm"
    return scaled, (f"the header says {said}, the metadata {stated} mm, which is used",)


def _or(value: float | None, default: float) -> float:
    return default if value is None else float(value)
