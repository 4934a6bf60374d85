"""Plain regressions of the log loss on logarithms of N, D, peak rate and batch: what a law has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import ClassVar, Self

import numpy as np

from optlaws.baselines.base import FloatArray, columns, training
from optlaws.errors import LawError
from optlaws.runs import CurveTable, RunTable

NAMES = ("params", "tokens", "peak_lr", "batch_tokens")


@dataclass(frozen=True)
class Polynomial:
    """ln L = sum of c_k z^k over all monomials of z up to a degree, z = (ln x - middle) / spread of training.

    x is N (parameters), D (tokens), peak rate and batch (tokens); L is in nats per token.
    """

    values: tuple[float, ...]  # middles (4), spreads (4), coefficients

    name: ClassVar[str]
    degree: ClassVar[int]
    ridge: ClassVar[float]
    needs: ClassVar[tuple[str, ...]] = NAMES

    @classmethod
    def fit(cls, runs: RunTable, curves: CurveTable | None = None, *, seed: int = 0, starts: int = 0) -> Self:
        """Fit to the final losses of completed runs by (ridge) least squares; nothing is random.

        Raises
        ------
        FitError, LawError
            Fewer runs than twice the coefficients, or a run without N, D, peak rate or batch.
        """
        width = len(_monomials(np.zeros((1, 4)), cls.degree)[0])
        kept = training(cls, runs, 2 * width if cls.ridge == 0 else 8)
        x = np.log(np.stack(columns(cls, kept), axis=1))
        middle, spread = x.mean(axis=0), x.std(axis=0)
        spread = np.where(spread > 1e-9, spread, 1.0)
        design = _monomials((x - middle) / spread, cls.degree)
        y = np.log(kept.final_loss)
        if cls.ridge > 0:
            top = design[:, 1:]
            gram = top - top.mean(axis=0)
            slopes = np.linalg.solve(gram.T @ gram + cls.ridge * np.eye(width - 1), gram.T @ (y - y.mean()))
            found = np.concatenate([[y.mean() - top.mean(axis=0) @ slopes], slopes])
        else:
            found = np.linalg.lstsq(design, y, rcond=None)[0]  # of least norm: what does not vary has no part
        return cls(tuple(map(float, (*middle, *spread, *found))))

    @classmethod
    def from_parameters(cls, parameters: dict[str, float]) -> Self:
        """Return the law of these parameters, in the order of `parameters`.

        Raises
        ------
        LawError
            There are more or fewer than the law has.
        """
        count = 8 + len(_monomials(np.zeros((1, 4)), cls.degree)[0])
        if len(parameters) != count:
            raise LawError(f"law {cls.name!r} must have {count} parameters, got {len(parameters)}; fit it again")
        return cls(tuple(float(value) for value in parameters.values()))

    def parameters(self) -> dict[str, float]:
        """Return middles, spreads and coefficients by name."""
        names = [f"middle_{name}" for name in NAMES] + [f"spread_{name}" for name in NAMES]
        names += [f"c_{k}" for k in range(len(self.values) - 8)]
        return dict(zip(names, self.values, strict=True))

    def predict(self, runs: RunTable) -> FloatArray:
        """Return final losses, shape (n,), nats per token.

        Raises
        ------
        LawError
            A run lacks N, D, peak rate or batch.
        """
        x = np.log(np.stack(columns(self, runs), axis=1))
        v = np.array(self.values)
        return np.asarray(np.exp(_monomials((x - v[:4]) / v[4:8], self.degree) @ v[8:]))


@dataclass(frozen=True)
class Quadratic(Polynomial):
    """Fifteen coefficients, ordinary least squares."""

    name: ClassVar[str] = "quadratic"
    source: ClassVar[str] = "least squares of ln loss on monomials up to degree 2 (no paper)"
    formula: ClassVar[str] = "ln L = quadratic in ln N, ln D, ln rate, ln batch"
    degree: ClassVar[int] = 2
    ridge: ClassVar[float] = 0.0


@dataclass(frozen=True)
class CubicRidge(Polynomial):
    """Thirty-five coefficients, ridge regression."""

    name: ClassVar[str] = "cubic_ridge"
    source: ClassVar[str] = "ridge regression of ln loss on monomials up to degree 3 (no paper)"
    formula: ClassVar[str] = "ln L = cubic in ln N, ln D, ln rate, ln batch, ridge 0.1"
    degree: ClassVar[int] = 3
    ridge: ClassVar[float] = 0.1


def _monomials(z: FloatArray, degree: int) -> FloatArray:
    """Return all monomials of the columns of z (n, 4) up to a degree, the constant first."""
    out = [np.ones(len(z))]
    for power in range(1, degree + 1):
        out += [np.prod(z[:, list(which)], axis=1) for which in combinations_with_replacement(range(z.shape[1]), power)]
    return np.stack(out, axis=1)
