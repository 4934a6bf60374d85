"""Chinchilla, approach 3: the loss as a constant plus a power of N and a power of D.

Source: Hoffmann et al., arXiv 2203.15556, eq. 2 and 3 (approach 3).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import ClassVar, Self

import numpy as np

from optlaws.baselines.base import HUBER, FloatArray, Parametric, Progress, check_points, columns, training
from optlaws.baselines.optimise import Objective, bfgs, huber, log_sum_objective, minimise_many
from optlaws.errors import InputError
from optlaws.runs import CurveTable, RunTable
from optlaws.runs._compute import FLOPS

GRID = {
    "a": (0.0, 5.0, 10.0, 15.0, 20.0, 25.0),
    "b": (0.0, 5.0, 10.0, 15.0, 20.0, 25.0),
    "e": (-1.0, -0.5, 0.0, 0.5, 1.0),
    "alpha": (0.0, 0.5, 1.0, 1.5, 2.0),
    "beta": (0.0, 0.5, 1.0, 1.5, 2.0),
}
"""Starts of ln A, ln B, ln E, alpha, beta (arXiv 2203.15556, appendix D.3)."""
STARTS = 500  # drawn from the grid of 4,500; the whole grid finds the same minimum on the published points


@dataclass(frozen=True)
class Chinchilla(Parametric):
    """L(N, D) = E + A N^-alpha + B D^-beta.

    The parameters minimise the sum over runs of Huber_1e-3(ln L(N, D) - ln loss), with
    ln L = log-sum-exp(a - alpha ln N, b - beta ln D, e), A = e^a, B = e^b, E = e^e, by quasi-Newton steps with the
    analytic gradient from the published grid of starts. E is in nats per token, N in parameters, D in tokens.
    """

    E: float
    A: float
    B: float
    alpha: float
    beta: float

    name: ClassVar[str] = "chinchilla"
    source: ClassVar[str] = "Hoffmann et al., arXiv 2203.15556, eq. 2 and 3 (approach 3)"
    formula: ClassVar[str] = "E + A N^-alpha + B D^-beta"
    needs: ClassVar[tuple[str, ...]] = ("params", "tokens")
    above_zero: ClassVar[tuple[str, ...]] = ("alpha", "beta")

    @classmethod
    def published(cls) -> Self:
        """Return the law as printed by Hoffmann et al."""
        return cls(1.69, 406.4, 410.7, 0.34, 0.28)

    @classmethod
    def refit(cls) -> Self:
        """Return the law as fitted again to the points of the paper's figure 4 (arXiv 2404.10102)."""
        return cls(1.8172, 482.01, 2085.43, 0.3478, 0.3658)

    @classmethod
    def fit(
        cls,
        runs: RunTable,
        curves: CurveTable | None = None,
        *,
        seed: int = 0,
        starts: int = STARTS,
        progress: Progress | None = None,
    ) -> Self:
        """Fit to the final losses of completed runs; `starts` of the grid's 4,500 are drawn with `seed`.

        Raises
        ------
        FitError, LawError
            Fewer than 5 completed runs, or a run without N or D.
        """
        kept = training(cls, runs, 5)
        n, d = columns(cls, kept)
        return cls.fit_points(n, d, kept.final_loss, seed=seed, starts=starts, progress=progress)

    @classmethod
    def fit_points(
        cls,
        n: FloatArray,
        d: FloatArray,
        loss: FloatArray,
        *,
        seed: int = 0,
        starts: int = STARTS,
        progress: Progress | None = None,
    ) -> Self:
        """Fit to N (m,) parameters, D (m,) tokens and losses (m,), nats per token, all above 0; see `fit`.

        Raises
        ------
        InputError
            A number is not finite and above 0, or the three differ in length.
        """
        check_points(n=n, d=d, loss=loss)
        work = _Fit(n, d, loss)
        x, _ = minimise_many(work.objective(), work.inward(_starts(starts, seed)), progress=progress)
        return cls._from(work.outward(x[None])[0])

    @classmethod
    def bootstrap(
        cls, n: FloatArray, d: FloatArray, loss: FloatArray, best: Self, *, draws: int, seed: int = 0
    ) -> list[Self]:
        """Return the laws fitted to `draws` (at least 0) samples of the points (m,), each started from `best`.

        Raises
        ------
        InputError
            A number is not finite and above 0, or the three lists differ in length.
        """
        check_points(n=n, d=d, loss=loss)
        work = _Fit(n, d, loss)
        rng = np.random.default_rng(seed)
        weights = rng.multinomial(len(n), np.full(len(n), 1.0 / len(n)), size=draws).astype(np.float64)
        start = np.array([[np.log(best.A), np.log(best.B), np.log(best.E), best.alpha, best.beta]])
        found = bfgs(work.objective(weights), np.repeat(work.inward(start), draws, axis=0), iterations=300)
        return [cls._from(row) for row in work.outward(found.x)]

    @classmethod
    def _from(cls, x: FloatArray) -> Self:
        a, b, e, alpha, beta = map(float, x)
        return cls(float(np.exp(e)), float(np.exp(a)), float(np.exp(b)), alpha, beta)

    def loss(self, n: FloatArray | float, d: FloatArray | float) -> FloatArray:
        """Return the loss for N parameters and D tokens, above 0, of their common shape, nats per token (eq. 2).

        >>> round(float(Chinchilla.published().loss(70e9, 1.4e12)), 4)
        1.9366
        """
        size, data = np.asarray(n, dtype=np.float64), np.asarray(d, dtype=np.float64)
        return np.asarray(self.E + self.A * size**-self.alpha + self.B * data**-self.beta)

    def predict(self, runs: RunTable) -> FloatArray:
        """Return final losses, shape (n,), nats per token.

        Raises
        ------
        LawError
            A run lacks N or D.
        """
        n, d = columns(self, runs)
        return self.loss(n, d)

    def objective(self, n: FloatArray, d: FloatArray, loss: FloatArray) -> float:
        """Return what the fit minimises (eq. 3), at this law: the sum of Huber losses over the points (m,).

        Raises
        ------
        InputError
            A number is not finite and above 0, or the three lists differ in length.
        """
        points = zip(("n", "d", "loss"), (n, d, loss), strict=True)
        many = max(np.size(values) for values in (n, d, loss))  # one number stands for all points
        check_points(**{name: np.full(many, v) if np.ndim(v) == 0 else v for name, v in points})
        value, _ = huber(np.log(self.loss(n, d)) - np.log(loss), HUBER)
        return float(value.sum())

    @property
    def exponents(self) -> tuple[float, float]:
        """Exponents a, b of N_opt ~ C^a and D_opt ~ C^b (eq. 4)."""
        total = self.alpha + self.beta
        return self.beta / total, self.alpha / total

    def allocate(self, compute: float) -> tuple[float, float]:
        """Return the N and D of lowest loss for so many FLOPs, C = 6 N D (eq. 4).

        Raises
        ------
        InputError
            `compute` is not above 0.
        """
        if not compute > 0:
            raise InputError(f"compute must be above 0 FLOPs, got {compute:g}; give the training budget")
        g = (self.alpha * self.A / (self.beta * self.B)) ** (1.0 / (self.alpha + self.beta))
        a, b = self.exponents
        return g * (compute / FLOPS) ** a, (compute / FLOPS) ** b / g


class _Fit:
    """Points of one fit, with ln N and ln D centred: the centred ln A and alpha are then nearly independent."""

    def __init__(self, n: FloatArray, d: FloatArray, loss: FloatArray) -> None:
        ln, ld = np.log(np.asarray(n, dtype=np.float64)), np.log(np.asarray(d, dtype=np.float64))
        self.middle = np.array([ln.mean(), ld.mean()])
        self.n, self.d, self.y = ln - self.middle[0], ld - self.middle[1], np.log(np.asarray(loss, dtype=np.float64))

    def inward(self, x: FloatArray) -> FloatArray:
        """Return (a, b, e, alpha, beta) with a and b taken at the centre, shape (s, 5)."""
        out = np.array(x, dtype=np.float64)
        out[:, :2] -= x[:, 3:] * self.middle
        return out

    def outward(self, x: FloatArray) -> FloatArray:
        """Undo `inward`."""
        out = np.array(x, dtype=np.float64)
        out[:, :2] += x[:, 3:] * self.middle
        return out

    def objective(self, weights: FloatArray | None = None) -> Objective:
        """Return the objective, with weights (starts, m) of the points or without."""

        def terms(x: FloatArray) -> tuple[FloatArray, Callable[[FloatArray], FloatArray]]:
            logs = np.empty((3, len(x), len(self.y)))
            logs[0] = x[:, 0, None] - x[:, 3, None] * self.n
            logs[1] = x[:, 1, None] - x[:, 4, None] * self.d
            logs[2] = x[:, 2, None]
            return logs, self._back

        return log_sum_objective(terms, self.y, HUBER, weights)

    def _back(self, slope: FloatArray) -> FloatArray:
        return np.stack([*slope.sum(axis=2), -(slope[0] @ self.n), -(slope[1] @ self.d)], axis=1)


def _starts(count: int, seed: int) -> FloatArray:
    """Return `count` points of the published grid (all of them if it has no more), shape (s, 5)."""
    grid = np.array(list(product(*GRID.values())))
    if count <= 0 or count >= len(grid):
        return grid
    return grid[np.random.default_rng(seed).choice(len(grid), size=count, replace=False)]
