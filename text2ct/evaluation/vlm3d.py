"""The scores of the VLM3D challenge's generation task, as its published scorer computes them, oddities included.

The scorer is public (repository forithmus/VLM3D-Dockers, folder ct_challenges/ctgen_evaluation). What is odd about it
is repeated here, so that like is compared with like; the usual evaluation does it right:

- FVD is the mean over chunks of 4 pairs, in the order of names. A covariance of 4 rows in 18 dimensions is singular,
  and the bias of 4 volumes is far larger than the distance of good generators.
- FID 2.5D takes the first 100 volumes of each side. Slices are scaled by the least and greatest value of their volume.
  The planes are called XY (axial), XZ (coronal) and YZ (sagittal).
- Before the 3D CLIP, what lies outside a volume is filled with -1 where HU are meant: with water, not with air.

The scorer's weights (CT-Net, CT-CLIP, SqueezeNet) are not part of this package: with others the keys are the same, and
the figures are not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from text2ct.console import progress
from text2ct.errors import UserError
from text2ct.evaluation._inputs import check_same_grid
from text2ct.evaluation.frechet import RunningMoments, frechet_distance
from text2ct.evaluation.generator.scorers import Scorer
from text2ct.evaluation.retrieval import clip_score
from text2ct.evaluation.slices import PLANES, SliceEncoder, slice_features
from text2ct.volumes.windows import Window

CHUNK = 4
FID_VOLUMES = 100
WATER = -1.0
"""What the scorer fills with before its CLIP, in HU."""
_RIDGE = 1e-6
_KEYS = ("FVD_CTNet", "CLIPScore", "CLIPScore_I2I", "CLIPScore_mean", "FID_2p5D_Avg", "FID_2p5D_XY", "FID_2p5D_XZ",
         "FID_2p5D_YZ")  # fmt: skip
_PLANE_KEYS = {"axial": "FID_2p5D_XY", "coronal": "FID_2p5D_XZ", "sagittal": "FID_2p5D_YZ"}


def fvd_of_chunks(real: NDArray[np.floating], synthetic: NDArray[np.floating]) -> float | None:
    """Mean Fréchet distance over chunks of 4 pairs; None without a pair of pairs.

    As the scorer, with ``1e-6 tr(S_a + S_b) / d`` added to the diagonals. A last chunk of one pair has no covariance
    and makes the scorer's mean NaN; it is left out here.

    Args:
        real: (n, d) outputs of the network, in the order of names.
        synthetic: (n, d), row i the partner of row i.
    """
    distances = []
    for start in range(0, len(real), CHUNK):
        a, b = (np.asarray(one[start : start + CHUNK], dtype=np.float64) for one in (synthetic, real))
        if len(a) < 2:
            continue
        covariances = [np.cov(rows, rowvar=False).reshape(a.shape[1], a.shape[1]) for rows in (a, b)]
        ridge = _RIDGE * np.trace(covariances[0] + covariances[1]) / a.shape[1] * np.eye(a.shape[1])
        distances.append(
            frechet_distance(a.mean(axis=0), covariances[0] + ridge, b.mean(axis=0), covariances[1] + ridge)
        )
    return float(np.mean(distances)) if distances else None


def fid_planes(
    real: Sequence[NDArray[np.int16]],
    synthetic: Sequence[NDArray[np.int16]],
    encoder: SliceEncoder,
    device: torch.device,
) -> dict[str, float]:
    """Fréchet distances of the first 100 volumes of either side, under the challenge's keys.

    Args:
        real: (X, Y, Z) in [-1000, 1000] HU, in the order of names.
        synthetic: Likewise.
        encoder: Describes slices; subtracts its own means.
        device: Where it computes.

    Raises:
        UserError: A side has fewer than 2 volumes, or grids differ.
    """
    sets: list[list[RunningMoments]] = []
    for name, volumes in (("real", real[:FID_VOLUMES]), ("synthetic", synthetic[:FID_VOLUMES])):
        if len(volumes) < 2:
            raise UserError(f"there is {len(volumes)} {name} volume; a distance between distributions needs 2 or more")
        running: list[RunningMoments] = []
        with progress(f"{name} slices", len(volumes)) as advance:
            for number, volume_hu in enumerate(volumes):
                check_same_grid(volume_hu.shape, real[0].shape, f"{name} volume {number}")
                low, high = int(volume_hu.min()), int(volume_hu.max())
                scale = Window((low + high) / 2, max(1, high - low))
                features = slice_features(volume_hu, encoder, scale, 1, device)
                running = running or [RunningMoments(rows.mean(axis=0)) for rows in features]
                for plane, rows in zip(running, features, strict=True):
                    plane.add(rows)
                advance(1)
        sets.append(running)
    found = {
        _PLANE_KEYS[name]: frechet_distance(*first.gaussian(), *second.gaussian())
        for name, first, second in zip(PLANES, *sets, strict=True)
    }
    return {"FID_2p5D_Avg": float(np.mean(list(found.values())))} | found


def clip_scores_of(
    real: Sequence[NDArray[np.int16]],
    synthetic: Sequence[NDArray[np.int16]],
    prompts: Sequence[str],
    scorer: Scorer,
) -> dict[str, float | None]:
    """CLIP scores of text with image and of image with image, and their mean.

    Args:
        real: (X, Y, Z) HU on the scorer's grid, filled with :data:`WATER`.
        synthetic: Likewise, row i the partner of row i.
        prompts: Of the synthetic volumes; all empty where there are none.
        scorer: The 3D CLIP.
    """
    images = []
    for name, volumes in (("real", real), ("synthetic", synthetic)):
        rows = []
        with progress(f"{name} volumes by 3D CLIP", len(volumes)) as advance:
            for volume_hu in volumes:
                rows.append(scorer.volumes([volume_hu])[0])
                advance(1)
        images.append(np.stack(rows))
    text = clip_score(scorer.texts(list(prompts)), images[1]) if any(prompts) else None
    image = clip_score(images[0], images[1])
    mean = None if text is None else (text + image) / 2
    return {"CLIPScore": text, "CLIPScore_I2I": image, "CLIPScore_mean": mean}


def rounded(scores: dict[str, float | None]) -> dict[str, float]:
    """The challenge's keys in its order, 4 decimals, without those that have no value."""
    return {key: round(value, 4) for key in _KEYS if (value := scores.get(key)) is not None}
