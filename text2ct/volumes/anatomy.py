"""Does a volume show a chest? Judged from its voxels: how much lung the body holds, and how far it reaches."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from text2ct.volumes.lazy import Planes

# Voxels are averaged to about this size first: noise goes, and partial volume at the skin stays one voxel thick.
_COARSE_MM = 4.5
# Soft tissue and fat are above; darker than lung is gas: bowel, sinuses, the room. Lung with emphysema reaches -960.
_TISSUE_HU, _GAS_HU = -450.0, -965.0
# Where a crop cuts the lung open to the image's edge, its median tells it from the room.
_ROOM_HU = -930.0
# A slice with less is of bronchi, bowel walls or sinuses.
_LUNG_AREA_CM2 = 10.0
# Two lungs hold 2 to 6 litres; one beside an effusion half a litre. What looks like lung in bowel and sinuses is less.
_MIN_LUNG_LITRES = 0.15
# Lung of a small crop, as a share of its body.
_MIN_LUNG_SHARE = 0.1
# A chest scan begins above the lungs; one of the abdomen begins in their bases, with more body below.
_BASES_MM = 100.0
# A head fits through a circle of this diameter, and its skull is more bone than any chest's.
_HEAD_DIAMETER_MM, _HEAD_BONE, _BONE_HU = 230.0, 0.08, 300.0


def not_a_chest(volume: Planes) -> str:
    """Why a volume shows no chest, with the numbers; "" where it may be one.

    A chest has lung over some length of its body. A head, a neck, a pelvis and a leg have none; an abdomen has
    at most the bases, in its topmost slices. Crops, effusions and a collapsed lung leave enough to pass; two
    lungs without air do not, so the answer is a reason to look, not to refuse.

    Args:
        volume: HU in RAS order, of any size and spacing.

    Returns:
        One clause, such as ``"no chest: 0.00 litres of lung in 21 cm of body, by its size and bone a head"``.
    """
    hu, spacing_mm = _coarse(volume)
    body = _body(hu)
    slices = np.flatnonzero(body.any(axis=(0, 1)))
    if not slices.size:
        return "no chest: it holds no body"
    # Opened within slices: partial volume makes shells as dark as lung around gas and the body.
    lung = ndimage.binary_opening(body & (hu > _GAS_HU) & (hu < _TISSUE_HU), np.ones((3, 3, 1)))
    pixel_cm2 = spacing_mm[0] * spacing_mm[1] / 100
    areas_cm2 = lung.sum(axis=(0, 1)) * pixel_cm2
    litres = float(areas_cm2.sum()) * spacing_mm[2] / 10_000
    length_mm = (slices[-1] - slices[0] + 1) * spacing_mm[2]
    with_lung = np.flatnonzero(areas_cm2 >= _LUNG_AREA_CM2)
    words = f"no chest: {litres:.2f} litres of lung in {length_mm / 10:.0f} cm of body"
    if lung.sum() < _MIN_LUNG_SHARE * body.sum() and (litres < _MIN_LUNG_LITRES or not with_lung.size):
        diameter_mm = 20 * np.sqrt(body.sum() * pixel_cm2 / slices.size / np.pi)
        bone = float((hu[body] > _BONE_HU).mean())
        is_head = diameter_mm < _HEAD_DIAMETER_MM and bone > _HEAD_BONE
        return f"{words}, by its size and bone a head" if is_head else words
    if with_lung.size:
        lung_mm = (with_lung[-1] - with_lung[0] + 1) * spacing_mm[2]
        below_mm = (with_lung[0] - slices[0]) * spacing_mm[2]
        if with_lung[-1] >= slices[-1] - 1 and lung_mm <= _BASES_MM and below_mm > lung_mm:
            return f"{words}, only in the topmost {lung_mm / 10:.0f} cm, as in an abdomen with the bases of the lungs"
    return ""


def _coarse(volume: Planes) -> tuple[npt.NDArray[np.float32], tuple[float, float, float]]:
    """Blocks of about 4.5 mm, averaged within a plane, and their spacing; incomplete ones at the ends are left out."""
    sizes = list(zip(volume.size, volume.spacing_mm, strict=True))
    steps = [min(max(1, round(_COARSE_MM / spacing)), extent) for extent, spacing in sizes]
    nx, ny, nz = (extent // step for (extent, _), step in zip(sizes, steps, strict=True))
    sx, sy, sz = steps
    blocks = np.empty((nx, ny, nz), dtype=np.float32)
    for at in range(nz):
        # The middle plane speaks for its block: noise goes by averaging within it.
        plane = volume.planes(at * sz + sz // 2, at * sz + sz // 2 + 1)[: nx * sx, : ny * sy, 0]
        blocks[..., at] = plane.reshape(nx, sx, ny, sy).mean(axis=(1, 3))
    x, y, z = (spacing * step for (_, spacing), step in zip(sizes, steps, strict=True))
    return blocks, (x, y, z)


def _body(hu: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """The largest piece of what is not the room: tissue, and the gas that it encloses in each axial slice."""
    inside = np.stack([_inside(hu[..., z]) for z in range(hu.shape[2])], axis=2)
    pieces, _ = ndimage.label(ndimage.binary_opening(inside))
    sizes = np.bincount(pieces.ravel())[1:]
    return np.asarray(pieces == (sizes.argmax() + 1 if sizes.size else -1), dtype=bool)


def _inside(hu: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """What of a slice is not the room: the room is dark, reaches the edge, and is darker than lung."""
    dark, _ = ndimage.label(hu < _TISSUE_HU)
    edge = np.unique(np.concatenate([dark[0], dark[-1], dark[:, 0], dark[:, -1]]))
    edge = edge[edge > 0]
    if not edge.size:
        return np.ones(hu.shape, dtype=bool)
    medians = np.atleast_1d(ndimage.median(hu, dark, edge))
    return ~np.isin(dark, edge[medians < _ROOM_HU])
