"""Fréchet distance of two Gaussians, from their moments or from the rows that they were fitted to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def frechet_distance(
    mean_a: NDArray[np.float64],
    covariance_a: NDArray[np.float64],
    mean_b: NDArray[np.float64],
    covariance_b: NDArray[np.float64],
) -> float:
    """``|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))`` of two Gaussians (Heusel et al. 2017, eq. 6).

    ``tr (S_a S_b)^(1/2)`` is the sum of the singular values of ``S_a^(1/2) S_b^(1/2)``. So no root of a matrix that
    is not symmetric is taken, no ridge is added and nothing becomes complex, also where covariances are singular,
    as they are when there are fewer rows than features.

    Args:
        mean_a: (d,).
        covariance_a: (d, d), symmetric; eigenvalues below 0 are rounding and taken as 0.
        mean_b: (d,).
        covariance_b: (d, d).

    Returns:
        A value of 0 or more.
    """
    shared = np.linalg.svd(_root(covariance_a) @ _root(covariance_b), compute_uv=False).sum()
    traces = np.trace(covariance_a) + np.trace(covariance_b)
    return max(0.0, float(((mean_a - mean_b) ** 2).sum() + traces - 2 * shared))


def frechet_of_rows(
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    weights_a: NDArray[np.float64] | None = None,
    weights_b: NDArray[np.float64] | None = None,
) -> float:
    """:func:`frechet_distance` of the Gaussians of two tables of rows, unbiased covariances.

    With centred rows ``A`` and ``B``, ``tr (S_a S_b)^(1/2)`` is the sum of the singular values of ``A B^T`` over
    ``((n - 1)(m - 1))^(1/2)``, since ``S_a`` and ``A A^T`` have the same eigenvalues but for zeros. So no (d, d) matrix
    is made: exact where there are fewer rows than features, and cheap.

    Args:
        a: (n, d), 2 rows or more.
        b: (m, d).
        weights_a: (n,) how often each row counts; once if None.
        weights_b: (m,).
    """
    means, centred, traces = [], [], 0.0
    for rows, weights in ((a, weights_a), (b, weights_b)):
        counts = np.ones(len(rows)) if weights is None else weights
        used = counts > 0
        mean = counts @ rows / counts.sum()
        scaled = (rows[used] - mean) * np.sqrt(counts[used] / (counts.sum() - 1))[:, None]
        means.append(mean)
        centred.append(scaled)
        traces += float((scaled**2).sum())
    if min(len(part) for part in centred) > centred[0].shape[1]:
        return frechet_distance(means[0], centred[0].T @ centred[0], means[1], centred[1].T @ centred[1])
    shared = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()
    return max(0.0, float(((means[0] - means[1]) ** 2).sum() + traces - 2 * shared))


class RunningMoments:
    """Mean and unbiased covariance of rows that come part by part: memory does not grow with them.

    Args:
        origin: (d,) near the rows; what they are counted from, so that sums keep their precision.
    """

    def __init__(self, origin: NDArray[np.floating]) -> None:
        self._origin = origin.astype(np.float64)
        self._count, self._sum = 0, np.zeros(len(origin))
        self._product = np.zeros((len(origin), len(origin)))

    def add(self, rows: NDArray[np.floating]) -> None:
        """Add (n, d) rows."""
        away = rows.astype(np.float64) - self._origin
        self._count += len(away)
        self._sum += away.sum(axis=0)
        self._product += away.T @ away

    def gaussian(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean (d,) and covariance (d, d); two rows or more must have been added."""
        offset = self._sum / self._count
        covariance = (self._product - self._count * np.outer(offset, offset)) / (self._count - 1)
        return self._origin + offset, covariance


def _root(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
