"""Plain regressions of the log loss on logarithms of N, D, peak rate and batch: what a law has to beat.

What the runs do not determine, such as the curvature in a quantity of two values, is left flat, by the rule of
`optlaws.baselines.determined`, and said in the law's doubts.

Source: ridge regression of ln loss on monomials up to degree 3 (no paper); least squares of ln loss on monomials up
to degree 2 (no paper).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from optlaws.baselines.base import FloatArray, columns, training
from optlaws.baselines.determined import least_squares, monomials, standard, terms, undetermined
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

        Quantities, combinations of them and terms that the runs do not determine have no part: see
        `optlaws.baselines.determined`.

        Raises
        ------
        FitError, LawError
            Fewer runs than twice the coefficients, or a run without N, D, peak rate or batch.
        """
        kept = training(cls, runs, 2 * cls._width() if cls.ridge == 0 else 8)
        middle, spread, z = standard(_logs(cls, kept))
        found = least_squares(z, np.log(kept.final_loss), cls.degree, cls.ridge)
        return cls(tuple(map(float, (*middle, *spread, *found))))

    @classmethod
    def from_parameters(cls, parameters: dict[str, float]) -> Self:
        """Return the law of these parameters, in the order of `parameters`.

        Raises
        ------
        LawError
            There are more or fewer than the law has.
        """
        count = 8 + cls._width()
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
        v = np.array(self.values)
        return np.asarray(np.exp(monomials((_logs(self, runs) - v[:4]) / v[4:8], self.degree) @ v[8:]))

    def doubts(self, runs: RunTable) -> list[str]:
        """Return what these runs, those of the fit, do not determine."""
        return undetermined(_logs(self, runs), NAMES, self.degree)

    @classmethod
    def _width(cls) -> int:
        """Return the number of coefficients."""
        return len(terms(len(NAMES), cls.degree))


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


def _logs(law: Any, runs: RunTable) -> FloatArray:
    """Return the logarithms of N, D, peak rate and batch, shape (n, 4)."""
    return np.log(np.stack(columns(law, runs), axis=1))
