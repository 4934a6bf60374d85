"""Linear algebra and priors that the estimators share."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from optlaws.dynamics.model import FloatArray
from optlaws.errors import InputError

SHARED = 1e-6  # a column with more than this in a direction that the rows do not determine is not determined


def _numbers(name: str, values: npt.ArrayLike, way_out: str) -> FloatArray:
    """Return a parameter as a float64 array."""
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name} must be a number or one a column of X, got {values!r:.60}; {way_out}") from None


def prior_scales(prior: float | npt.ArrayLike | None, count: int) -> FloatArray:
    """Return the prior scales, one a column, shape (count,): a number holds for all columns, None leaves all free.

    Raises
    ------
    InputError
        They are not one number or one a column, or not above 0.
    """
    if prior is None:
        return np.full(count, np.inf)
    scales = _numbers("prior", prior, "inf leaves a coefficient free")
    if scales.shape not in ((), (count,)):
        raise InputError(
            f"prior must be one number or {count}, one a column of X, got shape {scales.shape}; inf = free"
        )
    if not (scales > 0).all():
        raise InputError(f"prior must be above 0, got {float(np.min(scales)):g}; inf leaves a coefficient free")
    return np.broadcast_to(scales, (count,)).copy()


def prior_centres(centre: float | npt.ArrayLike, count: int) -> FloatArray:
    """Return the centres of the priors, one a column, shape (count,): a number holds for all columns.

    Raises
    ------
    InputError
        They are not one finite number or one a column.
    """
    centres = _numbers("centre", centre, "0 is the default")
    if centres.shape not in ((), (count,)) or not np.isfinite(centres).all():
        raise InputError(
            f"centre must be one finite number or {count}, one a column of X, got {centre!r}; 0 is the default"
        )
    return np.broadcast_to(centres, (count,)).copy()


def root_mean_square(columns: FloatArray) -> FloatArray:
    """Return the root mean square of each column (n, p), shape (p,), whatever its unit: no square out of range."""
    unit = np.ldexp(1.0, np.frexp(np.abs(columns).max(axis=0))[1] - 1)  # a power of 2, so that no digit changes
    return np.asarray(unit * np.sqrt(((columns / unit) ** 2).mean(axis=0)))


def least_norm(x: FloatArray, y: FloatArray) -> tuple[FloatArray, int, npt.NDArray[np.bool_]]:
    """Return the least-squares solution (p,) of least norm of x (n, p), y (n,), the rank, and what is loose (p,)."""
    if x.shape[1] == 0:
        return np.zeros(0), 0, np.zeros(0, dtype=bool)
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    rank = int((s > s[0] * max(x.shape) * np.finfo(float).eps).sum())
    solution = vt[:rank].T @ ((u[:, :rank].T @ y) / s[:rank])
    determined = np.square(vt[:rank]).sum(axis=0)  # 1 where the coefficient lies in the row space
    return solution, rank, 1.0 - determined > SHARED


def solve_squares(rows: FloatArray, target: FloatArray, positive: bool) -> FloatArray:
    """Return the least-squares solution (p,) of rows (n, p) and target (n,), non-negative if `positive`."""
    if rows.shape[1] == 0:  # SciPy's nnls ends the whole process on a matrix without columns
        return np.zeros(0)
    if not positive:
        return np.asarray(np.linalg.lstsq(rows, target, rcond=None)[0])
    triangle = np.asarray(np.linalg.qr(np.column_stack([rows, target]), mode="r"))
    solution, _ = nnls(triangle[:, :-1], triangle[:, -1], maxiter=30 * rows.shape[1] + 100)
    return np.asarray(solution)
