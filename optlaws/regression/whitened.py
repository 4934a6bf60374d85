"""A covariance of low rank plus a diagonal, and small symmetric matrices."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.linalg import solve_triangular
from scipy.linalg.lapack import dpotrf, dpotrs

from optlaws.dynamics.model import FloatArray


def cholesky(matrix: FloatArray) -> FloatArray:
    """Return the lower factor of a small symmetric matrix, both (m, m); straight to LAPACK: a fit asks for hundreds.

    Raises
    ------
    numpy.linalg.LinAlgError
        It is not positive definite.
    """
    factor, failed = dpotrf(matrix, lower=1, clean=1)
    if failed:
        raise np.linalg.LinAlgError("matrix is not positive definite")
    return np.asarray(factor)


class Whitened:
    """K = F F' + diag(d): products with its inverse and its log determinant, through the features F."""

    def __init__(self, features: FloatArray, diagonal: FloatArray) -> None:
        """Factor what the features leave: F of shape (n, m), the diagonal d of shape (n,), above 0."""
        self.f, self.d = features, diagonal
        self.over = features / diagonal[:, None]
        inner = self.over.T @ features
        inner.flat[:: len(inner) + 1] += 1.0
        self.inner = inner
        self.root = cholesky(inner)

    def solve(self, b: FloatArray) -> FloatArray:
        """Return K^-1 b, b of shape (n,) or (n, k)."""
        scaled = (b.T / self.d).T
        return np.asarray(scaled - self.over @ self.inner_solve(self.f.T @ scaled))

    def inner_solve(self, b: FloatArray) -> FloatArray:
        """Return (I + F' D^-1 F)^-1 b, b of shape (m,) or (m, k)."""
        return np.asarray(dpotrs(self.root, b, lower=1)[0])

    def without(self, rows: npt.NDArray[np.intp], b: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return (K^-1)_gg^-1 b and the diagonal of (K^-1)_gg^-1 for the rows g, each of shape (g,), b of shape (g,).

        The covariance of these rows given all others, d_g + F_g (I + F_h' D_h^-1 F_h)^-1 F_g' with h the others.
        """
        f, over = self.f[rows], self.over[rows]
        others = cholesky(self.inner - over.T @ f)
        half = solve_triangular(others, f.T, lower=True, check_finite=False)
        return self.d[rows] * b + half.T @ (half @ b), self.d[rows] + (half**2).sum(axis=0)

    def logdet(self) -> float:
        """Return ln det K."""
        return float(np.log(self.d).sum() + 2.0 * np.log(np.diag(self.root)).sum())
