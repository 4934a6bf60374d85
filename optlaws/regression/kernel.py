"""Matern 3/2 kernel and the choice of inducing points for the residual field."""

from __future__ import annotations

import numpy as np
from scipy.linalg import solve_triangular

from optlaws.dynamics.model import FloatArray

JITTER = 1e-9
SIZE_WIDTH = 0.05  # in ln of the size: how near two sizes must be to share an offset


def matern32(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return (1 + r)exp(-r), r = sqrt(3)|a_i - b_j|, for points a (n, k) and b (m, k) in length scales; shape (n, m).

    Source: Rasmussen and Williams, Gaussian Processes for Machine Learning, eq. 4.17.
    """
    square = a @ b.T
    square *= -2.0
    square += (a * a).sum(axis=1)[:, None]
    square += (b * b).sum(axis=1)
    np.maximum(square, 0.0, out=square)
    square *= 3.0
    r = np.sqrt(square, out=square)
    out = np.exp(-r)
    r += 1.0
    out *= r
    return out


def choose_inducing(points: FloatArray, most: int, tolerance: float = 1e-4) -> np.ndarray:
    """Return indices of the points that leave the least of the kernel unexplained, greedily (pivoted Cholesky).

    Parameters
    ----------
    points : ndarray of shape (n, k)
        Candidates, in length scales.
    most : int
        At most this many.
    tolerance : float
        Stop when the largest unexplained variance, as a fraction of the prior's, falls below.
    """
    n = len(points)
    left = np.ones(n)
    rows = np.empty((min(most, n), n))
    chosen: list[int] = []
    for k in range(min(most, n)):
        pivot = int(np.argmax(left))
        if left[pivot] < tolerance:
            break
        column = matern32(points[pivot : pivot + 1], points)[0]
        if k:
            column = column - rows[:k, pivot] @ rows[:k]
        rows[k] = column / np.sqrt(left[pivot])
        left = np.maximum(left - rows[k] ** 2, 0.0)
        left[pivot] = 0.0
        chosen.append(pivot)
    return np.array(chosen, dtype=int)


def whitening(inducing: FloatArray) -> FloatArray:
    """Return W (m, m) with phi(a) = k(a, inducing) W and phi(a) . phi(b) ~ k(a, b), exact at inducing points (m, k)."""
    gram = matern32(inducing, inducing)
    gram[np.diag_indices_from(gram)] = 1.0 + JITTER
    factor = np.linalg.cholesky(gram)
    return np.asarray(solve_triangular(factor, np.eye(len(factor)), lower=True, check_finite=False).T)


def field_features(points: FloatArray, inducing: FloatArray, white: FloatArray) -> FloatArray:
    """Return the features phi of points (n, k), shape (n, m), for W = `whitening(inducing)`."""
    return np.asarray(matern32(points, inducing) @ white)


def levels_of(values: FloatArray) -> FloatArray:
    """Return the distinct ones of values (n,), n >= 1, ascending, shape (s,): equal within 1e-6."""
    ordered = np.sort(values)
    return np.asarray(ordered[np.concatenate([[True], np.diff(ordered) > 1e-6])])


def group_matrix(values: FloatArray, levels: FloatArray) -> FloatArray:
    """Return how far values of ln size share the offsets of the levels, shape (n, len(levels)).

    1 where they are equal, exp(-(difference / SIZE_WIDTH)^2 / 2) else: 85M parameters are the size of 84.9M.
    """
    return np.asarray(np.exp(-0.5 * ((values[:, None] - levels[None]) / SIZE_WIDTH) ** 2))
