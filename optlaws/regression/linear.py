"""Linear algebra and priors that the estimators share."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from optlaws.dynamics.model import FloatArray
from optlaws.errors import InputError

SHARED = 1e-6  # a column with more than this in a direction that the rows do not determine is not determined


def prior_scales(prior: float | npt.ArrayLike | None, count: int) -> FloatArray:
    """Return the prior scales, one a column."""
    if prior is None:
        return np.full(count, np.inf)
    scales = np.asarray(prior, dtype=np.float64)
    if scales.shape not in ((), (count,)):
        raise InputError(
            f"prior must be one number or {count}, one a column of X, got shape {scales.shape}; inf = free"
        )
    if not (scales > 0).all():
        raise InputError(f"prior must be above 0, got {float(np.min(scales)):g}; inf leaves a coefficient free")
    return np.broadcast_to(scales, (count,)).copy()


def prior_centres(centre: float | npt.ArrayLike, count: int) -> FloatArray:
    """Return the centres of the priors, one a column."""
    centres = np.asarray(centre, dtype=np.float64)
    if centres.shape not in ((), (count,)) or not np.isfinite(centres).all():
        raise InputError(
            f"centre must be one finite number or {count}, one a column of X, got {centre!r}; 0 is the default"
        )
    return np.broadcast_to(centres, (count,)).copy()


def least_norm(x: FloatArray, y: FloatArray) -> tuple[FloatArray, int, npt.NDArray[np.bool_]]:
    """Return the least-squares solution of least norm (p,), the rank, and what is not determined (p,)."""
    if x.shape[1] == 0:
        return np.zeros(0), 0, np.zeros(0, dtype=bool)
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    rank = int((s > s[0] * max(x.shape) * np.finfo(float).eps).sum())
    solution = vt[:rank].T @ ((u[:, :rank].T @ y) / s[:rank])
    determined = np.square(vt[:rank]).sum(axis=0)  # 1 where the coefficient lies in the row space
    return solution, rank, 1.0 - determined > SHARED


def solve_squares(rows: FloatArray, target: FloatArray, positive: bool) -> FloatArray:
    """Return the least-squares solution, non-negative if `positive`."""
    if not positive:
        return np.asarray(np.linalg.lstsq(rows, target, rcond=None)[0])
    triangle = np.asarray(np.linalg.qr(np.column_stack([rows, target]), mode="r"))
    solution, _ = nnls(triangle[:, :-1], triangle[:, -1], maxiter=30 * rows.shape[1] + 100)
    return np.asarray(solution)
