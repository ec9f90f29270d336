"""Memorised: is a volume a copy of a real training volume?

The nearest training volume is searched by block means and, where it can be, by the embedding of the pack's 3D CLIP; the
verdict is that of the voxels, aligned by whole voxels. The embedding only proposes: patients with the same findings
lie as close to one another in it as scans of one patient do.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from text2ct.augment.gate.base import ENOUGH, Score, Share, Strict, evenly
from text2ct.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from text2ct.evaluation.memorisation import TrainingVolumes

Embed = Callable[[NDArray[Any]], NDArray[Any]]
NOTABLE_FALSE_POSITIVES = 0.02
_RULE = 6  # rows of white pixels between the two volumes of a picture


class MemorisedSettings(Strict):
    """When two volumes are of one patient."""

    pair_quantile: Share = 0.95
    """Of the distances between volumes of one patient, of reconstructions of a scan and of repeat scans apart."""
    stranger_quantile: Annotated[float, Field(ge=0, lt=1)] = 0.001
    """Of the distances of real validation patients to their nearest training volume; of fewer than 1,000 it is the
    smallest."""
    between: Share = 0.5
    """Where the threshold lies from the first to the second: the middle leaves the same room on either side."""
    max_shift: Annotated[int, Field(ge=0)] = 1
    """Voxels that a copy may be moved along each axis: 5 mm on the default grid."""
    candidates: Annotated[int, Field(ge=2)] = 8
    """Training volumes that are compared voxel by voxel, of each embedding."""


class MemorisedThreshold(Strict):
    """What was measured on real pairs.

    Attributes:
        distance_hu: Nearer than this is a copy (root mean square difference, aligned).
        same_patient_hu: The largest of ``pairs_hu`` that is below ``strangers_hu``; 0 where there is none.
        strangers_hu: The quantile over different patients.
        pairs_hu: The quantile over pairs of one patient, by kind of pair. A kind that lies as far apart as strangers
            (repeat scans in another breath) cannot tell a copy and sets no threshold.
        caught: Share of real pairs of one patient that the threshold calls copies, by kind of pair.
        false_positive_rate: Bound on the chance that a new real patient is called a copy.
        strangers: How many volumes of different patients set it.
    """

    distance_hu: float
    same_patient_hu: float
    strangers_hu: float
    pairs_hu: dict[str, float] = Field(default_factory=dict)
    caught: dict[str, float]
    false_positive_rate: float
    strangers: int


def calibrate(
    training: TrainingVolumes,
    strangers: Iterable[NDArray[Any]],
    pairs: Mapping[str, Sequence[tuple[NDArray[Any], NDArray[Any]]]],
    settings: MemorisedSettings,
) -> MemorisedThreshold:
    """A threshold between two volumes of one patient and two patients.

    Args:
        training: The real training volumes.
        strangers: Real volumes of other patients, on the same grid.
        pairs: Volumes of one patient: ``reconstructions`` of a scan, ``repeat scans``.
        settings: Quantiles and what lies between them.

    Raises:
        UserError: There are no strangers, or one is a training volume under another name.
    """
    from text2ct.evaluation.memorisation import shifted_rms

    far = np.sort([training.nearest(hu, f"validation volume {i}").distance_hu for i, hu in enumerate(strangers)])
    if not len(far):
        raise UserError("copies are told by how near validation patients come; add some to the real manifest")
    if far[0] == 0:
        raise UserError("a validation volume is a training volume under another name; mend the real manifest")
    near = {
        kind: np.array([shifted_rms(first, second, settings.max_shift)[0] for first, second in given])
        for kind, given in pairs.items()
        if len(given)
    }
    rank = int(settings.stranger_quantile * (len(far) - 1)) + 1
    unlike = float(far[rank - 1])
    alike = {kind: float(np.quantile(distances, settings.pair_quantile)) for kind, distances in near.items()}
    same = max((distance for distance in alike.values() if distance < unlike), default=0.0)
    threshold = same + settings.between * (unlike - same)
    return MemorisedThreshold(
        distance_hu=threshold,
        same_patient_hu=same,
        strangers_hu=unlike,
        pairs_hu=alike,
        caught={kind: float((distances < threshold).mean()) for kind, distances in near.items()},
        false_positive_rate=rank / (len(far) + 1),
        strangers=len(far),
    )


def pairs(rows: pd.DataFrame, volumes_hu: Sequence[NDArray[Any]]) -> dict[str, list[tuple[NDArray[Any], NDArray[Any]]]]:
    """Pairs of volumes of one patient, by kind: of one scan, and of two; at most 500 of each.

    Args:
        rows: Real rows, indexed from 0.
        volumes_hu: Their volumes, in the same order.
    """
    found: dict[str, list[tuple[int, int]]] = {"reconstructions": [], "repeat scans": []}
    scans = rows["scan"].tolist()
    for _, of_patient in rows.groupby(["dataset", "patient"], sort=True):
        for a, b in combinations(of_patient.index.tolist(), 2):
            found["reconstructions" if scans[a] == scans[b] else "repeat scans"].append((a, b))
    return {
        kind: [(volumes_hu[a], volumes_hu[b]) for a, b in (given[i] for i in evenly(len(given), ENOUGH))]
        for kind, given in found.items()
    }


def notes(found: MemorisedThreshold) -> list[str]:
    """What a threshold cannot tell, in words: pairs that are no nearer than strangers, and too few strangers."""
    lines = [
        f"{kind} of one patient lie as far apart ({distance:.4g} HU) as strangers ({found.strangers_hu:.4g} HU): they "
        f"do not set the threshold for copies, and {found.caught[kind]:.0%} of them are nearer than it"
        for kind, distance in found.pairs_hu.items()
        if distance >= found.strangers_hu
    ]
    if found.false_positive_rate > NOTABLE_FALSE_POSITIVES:
        lines.append(
            f"{found.strangers} strangers set the threshold for copies: as many as {found.false_positive_rate:.0%} of "
            "new patients could be called copies"
        )
    return lines


@dataclass(frozen=True)
class Copy:
    """A volume and the training volume that it repeats.

    Attributes:
        index: Of the training volume.
        distance_hu: Between them, aligned.
    """

    index: int
    distance_hu: float


def judge(
    volume_hu: NDArray[Any],
    training: TrainingVolumes,
    grids: Sequence[NDArray[Any]],
    names: Sequence[str],
    threshold: MemorisedThreshold,
    embed: Embed | None,
) -> tuple[list[Score], Copy | None]:
    """The scores of a volume, and what it is a copy of, if it is one.

    Args:
        volume_hu: (X, Y, Z) HU on the gate's grid.
        training: The training volumes, ready to be searched.
        grids: The same volumes.
        names: What they are called.
        threshold: The calibrated one.
        embed: The embedding of the pack's 3D CLIP, to report the similarity in it.
    """
    found = training.nearest(volume_hu)
    name = names[found.index]
    distance, least = found.distance_hu, threshold.distance_hu
    reason = f"copy of {name} ({distance:.4g} HU away, expected {least:.4g} or more)" if not distance >= least else ""
    scores = [
        Score(
            "memorised", "distance to the nearest training volume (HU)", distance, low=least, reason=reason, note=name
        ),
        Score("memorised", "aligned correlation with it", correlation(volume_hu, grids[found.index], found.shift)),
    ]
    if embed is not None:
        similarity = float(np.dot(embed(volume_hu), embed(grids[found.index])))
        scores.append(Score("memorised", "similarity to it in the 3D CLIP", similarity))
    return scores, Copy(found.index, distance) if reason else None


def correlation(first_hu: NDArray[Any], second_hu: NDArray[Any], shift: tuple[int, int, int]) -> float:
    """Pearson correlation of the voxels that both have, where ``first[i]`` is like ``second[i + shift]``."""
    ours, theirs = [], []
    for size, by in zip(first_hu.shape, shift, strict=True):
        ours.append(slice(max(0, -by), size - max(0, by)))
        theirs.append(slice(max(0, by), size - max(0, -by)))
    a, b = np.asarray(first_hu)[tuple(ours)].ravel(), np.asarray(second_hu)[tuple(theirs)].ravel()
    return float(np.corrcoef(a, b)[0, 1]) if a.std() and b.std() else float("nan")


def pair_picture(volume_hu: NDArray[Any], training_hu: NDArray[Any], spacing_mm: Sequence[float]) -> bytes:
    """The volume above the training volume that it repeats, the same slices of both, as PNG."""
    from matplotlib import image

    from text2ct.reports.figures import slice_montage

    both = [image.imread(io.BytesIO(slice_montage(np.asarray(hu), spacing_mm))) for hu in (volume_hu, training_hu)]
    rule = np.ones((_RULE, *both[0].shape[1:]), dtype=both[0].dtype)
    target = io.BytesIO()
    image.imsave(target, np.vstack([both[0], rule, both[1]]), format="png", metadata={})
    return target.getvalue()
