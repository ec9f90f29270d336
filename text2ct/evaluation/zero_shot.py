"""Zero-shot classification: does the joint space tell a volume with a finding from one without, by words alone?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from text2ct.errors import UserError
from text2ct.evaluation._inputs import label_table, unit_vectors
from text2ct.evaluation.bootstrap import accuracy_samples, auc_samples, precision_samples, row_mean
from text2ct.findings import FINDINGS

PHRASINGS: tuple[tuple[str, str], ...] = (
    ("{x}.", "No {x}."),
    ("There is {x}.", "There is no {x}."),
    ("{x} is present.", "{x} is not present."),
)
"""What is said of a volume with the finding, and of one without. CT-CLIP's script uses one such pair."""
UNTAUGHT_PHRASINGS: tuple[tuple[str, str], ...] = (("Imaging suggests {x}.", "{x} was ruled out."),)
"""In words that share nothing with those the bundled pack's CLIP learnt labels from."""
# CLIP's temperature before training (Radford et al. 2021); a trained model's own gives its confidence.
LOGIT_SCALE = 1 / 0.07
THRESHOLD = 0.5

EncodeText = Callable[[list[str]], Any]


@dataclass(frozen=True, eq=False)
class ZeroShot:
    """Zero-shot scores and how good they are.

    Attributes:
        scores: (n, F) float64 in [0, 1].
        auc: Of each finding; None where it has one class only.
        accuracy: Of each finding at threshold 0.5; None where no label is known. For a rare finding, saying "no"
            to all is accurate: read it beside the AUC.
        precision: Of each finding at threshold 0.5; None where it is never predicted.
        macro_auc: Mean over the findings that have one; None if none has.
        macro_accuracy: Likewise.
        macro_precision: Mean over the findings with an AUC; one that is never predicted counts 0, as in
            :func:`text2ct.evaluation.score`.
        n: Number of volumes.
    """

    scores: NDArray[np.float64]
    auc: dict[str, float | None]
    accuracy: dict[str, float | None]
    precision: dict[str, float | None]
    macro_auc: float | None
    macro_accuracy: float | None
    macro_precision: float | None
    n: int


def zero_shot_scores(
    encode_text: EncodeText,
    image: ArrayLike,
    *,
    phrasings: Sequence[tuple[str, str]] = PHRASINGS,
    logit_scale: float = LOGIT_SCALE,
    findings: Sequence[str] = FINDINGS,
) -> NDArray[np.float64]:
    """Softmax over "with" and "without" the finding (CT-CLIP, Hamamci et al. 2024, arXiv 2403.17834).

    The embeddings of several phrasings are averaged and brought to length 1 again (Radford et al. 2021,
    arXiv 2103.00020, section 3.1.4).

    Args:
        encode_text: m texts to (m, d), of any length; called once.
        image: (n, d) unit vectors of volumes.
        phrasings: Pairs of templates; ``{x}`` becomes the finding, in small letters but at the beginning.
        logit_scale: What cosines are multiplied by before the softmax; positive. AUC does not depend on it.
        findings: Names.

    Returns:
        (n, F) float64 in [0, 1].

    Raises:
        UserError: Rows are not of length 1, a template lacks ``{x}``, the encoder's answer has another shape,
            or logit_scale is not positive.
    """
    images = unit_vectors(image, "image")
    if not phrasings:
        raise UserError("there are no phrasings; give one pair of templates or more")
    bad = [template for pair in phrasings for template in pair if "{x}" not in template]
    if bad:
        raise UserError("write {x} where the finding goes in a phrasing", bad)
    if not logit_scale > 0:
        raise UserError(f"logit_scale is {logit_scale}; expected a positive number")
    texts = [_said(template, finding) for finding in findings for pair in phrasings for template in pair]
    encoded = np.asarray(encode_text(texts), dtype=np.float64)
    if encoded.shape != (len(texts), images.shape[1]):
        raise UserError(
            f"the text encoder made {encoded.shape} of {len(texts)} texts; expected ({len(texts)}, {images.shape[1]}), "
            "as wide as the volumes' embeddings"
        )
    grouped = _normalised(encoded).reshape(len(findings), len(phrasings), 2, -1)
    with_it, without = np.moveaxis(_normalised(grouped.mean(axis=1)), 1, 0)
    # Softmax over two is the logistic function of their difference.
    return expit(logit_scale * (images @ with_it.T - images @ without.T))


def zero_shot(
    encode_text: EncodeText,
    image: ArrayLike,
    labels: ArrayLike,
    *,
    phrasings: Sequence[tuple[str, str]] = PHRASINGS,
    logit_scale: float = LOGIT_SCALE,
    findings: Sequence[str] = FINDINGS,
) -> ZeroShot:
    """Score the zero-shot classifier of a CLIP model on labelled volumes; unknown labels are left out.

    Args:
        encode_text: As for :func:`zero_shot_scores`.
        image: (n, d) unit vectors of volumes.
        labels: (n, F) 1, 0 or NaN.
        phrasings: As for :func:`zero_shot_scores`.
        logit_scale: As for :func:`zero_shot_scores`.
        findings: Names of the F columns.

    Raises:
        UserError: As :func:`zero_shot_scores`; labels of another shape or with other values.
    """
    images = unit_vectors(image, "image")
    table = label_table(labels, len(images), findings)
    scores = zero_shot_scores(encode_text, images, phrasings=phrasings, logit_scale=logit_scale, findings=findings)
    once = np.ones((len(images), 1))
    auc, accuracy, precision = (
        dict(zip(findings, map(_number, samples[0]), strict=True)) for samples in _samples(scores, table, once)
    )
    macro = {name: _number(values[0]) for name, values in macro_samples(scores, table, once).items()}
    return ZeroShot(scores, auc, accuracy, precision, macro["auc"], macro["accuracy"], macro["precision"], len(images))


def macro_samples(
    scores: NDArray[np.float64], labels: NDArray[np.float64], weights: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """The macro averages of :class:`ZeroShot` for many weightings of the volumes.

    Args:
        scores: (n, F) of :func:`zero_shot_scores`.
        labels: (n, F) 1, 0 or NaN.
        weights: (n, B) how often each volume counts.

    Returns:
        ``auc``, ``accuracy`` and ``precision``: (B,) each.
    """
    areas, accurate, precise = _samples(scores, labels, weights)
    # A finding that is never said to be there counts with precision 0, if it has an AUC.
    precise = np.where(np.isnan(areas), np.nan, np.nan_to_num(precise))
    return {"auc": row_mean(areas), "accuracy": row_mean(accurate), "precision": row_mean(precise)}


def _samples(
    scores: NDArray[np.float64], labels: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """AUC, accuracy and precision, (B, F) each."""
    said = scores >= THRESHOLD
    return (
        auc_samples(scores, labels, weights),
        accuracy_samples(said, labels, weights),
        precision_samples(said, labels, weights),
    )


def _said(template: str, finding: str) -> str:
    text = template.replace("{x}", finding.lower())
    return text[:1].upper() + text[1:]


def _normalised(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
