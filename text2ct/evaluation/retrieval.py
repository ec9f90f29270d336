"""Retrieval in a joint space of reports and volumes: recall, overlap of findings, CLIP score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from text2ct.errors import UserError
from text2ct.evaluation._inputs import label_table, ranks_asked, unit_vectors
from text2ct.findings import FINDINGS


@dataclass(frozen=True)
class Retrieval:
    """A retrieval measure at several ranks, beside what a random order would reach.

    Attributes:
        at: Rank k to value in [0, 1].
        chance: The same, expected under a random order: exact, not simulated.
        queries: Number of queries averaged over.
        gallery: Number of volumes that are ranked for a query.
        rows: (queries,) which rows of the tables the queries are.
        of_query: Rank k to what ``at`` is the mean of, (queries,).
    """

    at: dict[int, float]
    chance: dict[int, float]
    queries: int
    gallery: int
    rows: NDArray[np.intp] = field(compare=False, repr=False)
    of_query: dict[int, NDArray[np.float64]] = field(compare=False, repr=False)


def report_to_volume_recall(text: ArrayLike, image: ArrayLike, ks: Sequence[int] = (5, 10, 50, 100)) -> Retrieval:
    """How often a report's own volume is among the k volumes nearest to the report (Hamamci et al. 2024).

    Volumes are ranked by cosine similarity; those that tie with the right one stand before it as often as behind
    it, so embeddings that are all equal score chance. Volumes of one report (the reconstructions of a scan) belong
    into the table once: a second copy is a wrong answer that no embedding can avoid. The measure follows
    CT-CLIP, arXiv 2403.17834, "report-to-volume retrieval".

    Args:
        text: (n, d) unit vectors of the reports.
        image: (n, d) unit vectors of their volumes, in the same order.
        ks: Ranks; from n on, recall is 1.

    Returns:
        Recall at each k, chance ``min(1, k / n)``.

    Raises:
        UserError: Shapes differ, fewer than 2 rows, rows not of length 1, or ks below 1.
    """
    texts, images = _pairs(text, image)
    n = len(texts)
    if n < 2:
        raise UserError("retrieval among 1 volume says nothing; give 2 or more")
    ranks = ranks_asked(ks)
    similarity = texts @ images.T
    own = similarity.diagonal()[:, None]
    # Equal embeddings differ by rounding of the matrix product.
    before = (similarity > own + 1e-12).sum(axis=1)
    tied = (np.abs(similarity - own) <= 1e-12).sum(axis=1)
    of_query = {k: np.clip((k - before) / tied, 0, 1) for k in ranks}
    return Retrieval(_means(of_query), {k: min(1.0, k / n) for k in ranks}, n, n, np.arange(n), of_query)


def _means(of_query: dict[int, NDArray[np.float64]]) -> dict[int, float]:
    return {k: float(values.mean()) for k, values in of_query.items()}


def findings_overlap(labels: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Findings that two volumes share, as a part of those that either has: intersection over union.

    Args:
        labels: (n, F) 1, 0 or NaN.
        others: (m, F) likewise.

    Returns:
        (n, m) in [0, 1]. A finding that is unknown in either is left out of that pair; a pair without any finding
        is 0.
    """
    has, known = (labels == 1).astype(float), (~np.isnan(labels)).astype(float)
    other_has, other_known = (others == 1).astype(float), (~np.isnan(others)).astype(float)
    both = has @ other_has.T
    either = has @ other_known.T + known @ other_has.T - both
    return np.divide(both, either, out=np.zeros_like(both), where=either > 0)


def volume_to_volume_map(
    image: ArrayLike,
    labels: ArrayLike,
    ks: Sequence[int] = (1, 5, 10, 50),
    *,
    protocol: Literal["others", "released"] = "others",
    names: Sequence[str] = FINDINGS,
) -> Retrieval:
    """Mean overlap of findings between a volume and the k volumes nearest to it: CT-CLIP's "MAP@K".

    What CT-CLIP's released script (``scripts/volume_to_volume_new.py``) and paper (arXiv 2403.17834) call mean
    average precision is the mean, over queries, of the mean over the k best of a graded relevance: the
    intersection over union of the positive findings (:func:`findings_overlap`). It is precision at k with graded
    relevance, without the averaging over ranks of the usual MAP. Ranked are the volumes with at least one finding.

    ``others``, the definition here: queries have at least one finding too, and a query is not ranked for itself.
    ``released`` does as the script does, for comparison with published figures: every volume is a query, so one
    without findings scores 0, and a query is among its own answers, so value 1 at k = 1 is nearly certain. (The
    script also averages each k with the ks before it; that is not repeated here.)

    Args:
        image: (n, d) unit vectors of the volumes. Reconstructions of one scan answer each other; give one a scan.
        labels: (n, F) 1, 0 or NaN.
        ks: Ranks; beyond the gallery's size the whole gallery is taken.
        protocol: ``others`` or ``released``.
        names: Of the F columns.

    Returns:
        The measure at each k; chance is the mean overlap of all pairs that can be ranked, the same for every k.

    Raises:
        UserError: Shapes differ, rows are not of length 1, fewer than 2 volumes have a finding, or ks below 1.
    """
    images = unit_vectors(image, "image")
    table = label_table(labels, len(images), names)
    ranks = ranks_asked(ks)
    positive = (table == 1).any(axis=1)
    if positive.sum() < 2:
        raise UserError(f"{positive.sum()} of {len(images)} volumes have a finding; retrieval needs 2 or more")
    gallery = np.flatnonzero(positive)
    queries = gallery if protocol == "others" else np.arange(len(images))
    overlap = findings_overlap(table[queries], table[gallery])
    similarity = images[queries] @ images[gallery].T
    if protocol == "others":
        np.fill_diagonal(similarity, -np.inf)  # sorted last, and cut off below
        np.fill_diagonal(overlap, 0.0)
    ranked = len(gallery) - (protocol == "others")
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :ranked]
    sorted_overlap = np.take_along_axis(overlap, order, axis=1)
    of_query = {k: sorted_overlap[:, :k].mean(axis=1) for k in ranks}
    chance = float(overlap.sum() / (len(queries) * ranked))
    return Retrieval(_means(of_query), dict.fromkeys(ranks, chance), len(queries), ranked, queries, of_query)


def clip_score(first: ArrayLike, second: ArrayLike) -> float:
    """Mean of ``100 max(cos, 0)`` over pairs (Hessel et al. 2021, arXiv 2104.08718, without its factor 2.5).

    Text-image: ``first`` the prompts, ``second`` the volumes made from them. Image-image: ``first`` the real
    volumes of the prompts' reports, ``second`` the volumes made from these. Figures of different CLIP models
    cannot be compared.

    Args:
        first: (n, d) unit vectors.
        second: (n, d) unit vectors; row i belongs to row i of ``first``.

    Returns:
        A value in [0, 100].

    Raises:
        UserError: Shapes differ, there is no row, or rows are not of length 1.
    """
    return float(clip_scores(first, second).mean())


def clip_scores(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """What :func:`clip_score` is the mean of: (n,) values in [0, 100].

    Args:
        first: As for :func:`clip_score`.
        second: As for :func:`clip_score`.

    Raises:
        UserError: As :func:`clip_score`.
    """
    a, b = _pairs(first, second)
    return np.asarray(100 * np.clip((a * b).sum(axis=1), 0, 1))


def _pairs(first: ArrayLike, second: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b = unit_vectors(first, "the first table of embeddings"), unit_vectors(second, "the second table of embeddings")
    if a.shape != b.shape:
        raise UserError(f"the embeddings have shapes {a.shape} and {b.shape}; row i of both must be one pair")
    return a, b
