"""Kaplan et al.: the loss as one power law of a sum of N and D terms.

Source: Kaplan et al., arXiv 2001.08361, eq. 1.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import ClassVar, Self

import numpy as np

from optlaws.baselines.base import HUBER, FloatArray, Parametric, Progress, columns, training
from optlaws.baselines.optimise import huber, minimise_many
from optlaws.errors import InputError
from optlaws.runs import CurveTable, RunTable

STARTS = 144


@dataclass(frozen=True)
class Kaplan(Parametric):
    """L(N, D) = [(N_c / N)^(alpha_n / alpha_d) + D_c / D]^alpha_d.

    Fitted by Huber_1e-3 on log losses (nats per token). There is no constant: the loss goes to 0 as N (parameters) and
    D (tokens) grow. All four constants are above 0.
    """

    N_c: float
    D_c: float
    alpha_n: float
    alpha_d: float

    name: ClassVar[str] = "kaplan"
    source: ClassVar[str] = "Kaplan et al., arXiv 2001.08361, eq. 1.5"
    formula: ClassVar[str] = "[(N_c / N)^(alpha_n / alpha_d) + D_c / D]^alpha_d"
    needs: ClassVar[tuple[str, ...]] = ("params", "tokens")
    above_zero: ClassVar[tuple[str, ...]] = ("N_c", "D_c", "alpha_n", "alpha_d")

    @classmethod
    def published(cls) -> Self:
        """Return the law with the constants of the paper's table 2."""
        return cls(6.4e13, 1.8e13, 0.076, 0.103)

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
        """Fit to the final losses of completed runs, from a grid of starts about the published constants.

        Raises
        ------
        FitError, LawError
            Fewer than 4 completed runs, or a run without N or D.
        """
        kept = training(cls, runs, 4)
        n, d = (np.log(values) for values in columns(cls, kept))
        y = np.log(kept.final_loss)

        def objective(x: FloatArray, rows: np.ndarray) -> tuple[FloatArray, FloatArray]:
            alpha_n, alpha_d = np.exp(x[:, 2, None]), np.exp(x[:, 3, None])
            gap = x[:, 0, None] - n
            size = alpha_n / alpha_d * gap
            whole = np.logaddexp(size, x[:, 1, None] - d)
            cost, slope = huber(alpha_d * whole - y, HUBER)
            share = np.exp(size - whole)
            parts = (alpha_n * share, alpha_d * (1.0 - share), alpha_n * share * gap, alpha_d * (whole - share * size))
            return cost.sum(axis=1), np.stack([(slope * part).sum(axis=1) for part in parts], axis=1)

        grid = np.array(
            list(product((20, 25, 30, 35), (20, 25, 30, 35), np.log([0.05, 0.1, 0.2]), np.log([0.05, 0.1, 0.2])))
        )
        if 0 < starts < len(grid):
            grid = grid[np.random.default_rng(seed).choice(len(grid), size=starts, replace=False)]
        x, _ = minimise_many(objective, grid, progress=progress)
        with np.errstate(over="ignore"):  # runs that do not tell a constant leave it anywhere, infinity too
            return cls(*map(float, np.exp(x)))

    def predict(self, runs: RunTable) -> FloatArray:
        """Return final losses, shape (n,), nats per token.

        Raises
        ------
        LawError
            A run lacks N or D.
        """
        n, d = columns(self, runs)
        return np.asarray(((self.N_c / n) ** (self.alpha_n / self.alpha_d) + self.D_c / d) ** self.alpha_d)


def critical_batch(loss: float, scale: float = 2e8, power: float = 0.21) -> float:
    """Return the critical batch size in tokens at a loss in nats per token, B_crit = B* L^(-1 / alpha_B) (eq. 1.4).

    Parameters
    ----------
    loss : nats per token, above 0.
    scale, power : B* in tokens and alpha_B, above 0; the printed ones by default.

    Raises
    ------
    InputError
        A number is not finite and above 0.

    Examples
    --------
    >>> round(critical_batch(3.0))
    1069114
    """
    for name, value in (("loss", loss), ("scale", scale), ("power", power)):
        if not 0 < value < np.inf:
            raise InputError(f"{name} must be a finite number above 0, got {value:g}; correct it")
    return float(scale * loss ** (-1.0 / power))
