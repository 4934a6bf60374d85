"""Data-constrained scaling: tokens seen again, and parameters beyond what the data can use, count for less.

Source: Muennighoff et al., arXiv 2305.16264, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import ClassVar, Self

import numpy as np

from optlaws.baselines.base import HUBER, FloatArray, Parametric, Progress, columns, training
from optlaws.baselines.optimise import by_differences, huber, minimise_many
from optlaws.errors import TableError
from optlaws.runs import CurveTable, RunTable

STARTS = 36
UNIQUE = "unique_tokens"
REPEATED = 1.01  # more than this many passes over the data count as repetition
PUBLISHED_R = (5.309743, 15.387756)  # R_N*, R_D*


@dataclass(frozen=True)
class DataConstrained(Parametric):
    """L = E + A N'^-alpha + B D'^-alpha with effective N' and D'.

    D' = U + U r_tokens (1 - exp(-R_D / r_tokens)), U unique tokens, R_D = D / U - 1 repetitions;
    N' = U_N + U_N r_params (1 - exp(-R_N / r_params)), U_N = min(N, N_opt(U)), R_N = N / U_N - 1, where N_opt(U) is the
    size that eq. 4 of arXiv 2203.15556 pairs with U tokens. One exponent for both terms, as in the paper.

    Unique tokens are read from a column `unique_tokens` of the run table; without it every token is new. A fit without
    repeated data cannot tell r_params and r_tokens: they keep the published values.
    """

    E: float
    A: float
    B: float
    alpha: float
    r_params: float
    r_tokens: float

    name: ClassVar[str] = "data_constrained"
    source: ClassVar[str] = "Muennighoff et al., arXiv 2305.16264, section 3"
    formula: ClassVar[str] = "E + A N'^-alpha + B D'^-alpha, X' = U (1 + r (1 - exp(-(X / U - 1) / r)))"
    needs: ClassVar[tuple[str, ...]] = ("params", "tokens")
    above_zero: ClassVar[tuple[str, ...]] = ("alpha", "r_params", "r_tokens")

    @classmethod
    def published(cls) -> Self:
        """Return the law with the paper's constants."""
        return cls(1.87, 521.0, 1488.0, 0.353, *PUBLISHED_R)

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
        """Fit to the final losses of completed runs: Huber_1e-3 on log losses, from a grid of starts.

        Raises
        ------
        FitError, LawError
            Fewer than 4 completed runs (6 with repeated data), or a run without N or D.
        TableError
            `unique_tokens` is not a number above 0 in every run.
        """
        kept = training(cls, runs, 4)
        n, d = columns(cls, kept)
        unique = unique_tokens(kept, d)
        repeated = bool((d > REPEATED * unique).any())
        if repeated:
            kept = training(cls, runs, 6)
        logs, y = (np.log(n), np.log(d), np.log(unique)), np.log(kept.final_loss)
        middle = np.array([logs[0].mean(), logs[1].mean()])

        def value(x: FloatArray) -> FloatArray:
            e, a, b, power = (x[:, j, None] for j in range(4))
            r = (
                np.exp(x[:, 4:6, None])
                if repeated
                else np.broadcast_to(np.reshape(PUBLISHED_R, (1, 2, 1)), (len(x), 2, 1))
            )
            a, b = a + power * middle[0], b + power * middle[1]
            size, data = _effective(logs, a, b, power, r[:, 0], r[:, 1])
            whole = np.logaddexp(np.logaddexp(e, a - power * size), b - power * data)
            return np.asarray(huber(whole - y, HUBER)[0].sum(axis=1))

        ends: list[tuple[float, ...]] = [(-0.5, 0.5), (-3.0, -1.0), (-3.0, -1.0), (0.2, 0.35, 0.6)]
        if repeated:
            ends += [(1.0, 3.0), (1.0, 3.0)]
        grid = np.array(list(product(*ends)))
        if 0 < starts < len(grid):
            grid = grid[np.random.default_rng(seed).choice(len(grid), size=starts, replace=False)]
        x, _ = minimise_many(by_differences(value), grid, progress=progress)
        r = np.exp(x[4:6]) if repeated else np.array(PUBLISHED_R)
        a, b = x[1:3] + x[3] * middle
        return cls(*map(float, (np.exp(x[0]), np.exp(a), np.exp(b), x[3], *r)))

    def predict(self, runs: RunTable) -> FloatArray:
        """Return final losses, shape (n,), nats per token.

        Raises
        ------
        LawError
            A run lacks N or D.
        TableError
            `unique_tokens` is not a number above 0 in every run.
        """
        n, d = columns(self, runs)
        logs = np.log(n), np.log(d), np.log(unique_tokens(runs, d))
        given = np.log(self.A), np.log(self.B), self.alpha, self.r_params, self.r_tokens
        size, data = _effective(logs, *map(np.asarray, given))
        return np.asarray(self.E + self.A * np.exp(-self.alpha * size) + self.B * np.exp(-self.alpha * data))


def unique_tokens(runs: RunTable, tokens: FloatArray) -> FloatArray:
    """Return unique tokens (n,): the column `unique_tokens`, at most D (n,); D itself without the column.

    Raises
    ------
    TableError
        A cell of the column is not a finite number above 0.
    """
    if UNIQUE not in runs.extra:
        return tokens
    try:
        values = np.array([float(cell) for cell in runs.extra[UNIQUE]])
    except ValueError:
        values = np.full(len(tokens), np.nan)
    if not (np.isfinite(values) & (values > 0)).all():
        raise TableError(f"{UNIQUE} must be a number above 0 in every run, got an empty or another cell; fill it")
    return np.asarray(np.minimum(values, tokens))


def _effective(
    logs: tuple[FloatArray, FloatArray, FloatArray],
    a: FloatArray,
    b: FloatArray,
    power: FloatArray,
    r_n: FloatArray,
    r_d: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Return ln N' and ln D'; the arguments after `logs` broadcast against runs (m,)."""
    n, d, unique = logs
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        paired = unique + (a - b) / power  # N_opt = D_opt (A / B)^(1 / alpha) where both exponents are alpha
        own = np.minimum(n, paired)
        size = own + np.log1p(-r_n * np.expm1(-np.expm1(np.maximum(n - own, 0.0)) / r_n))
        data = unique + np.log1p(-r_d * np.expm1(-np.expm1(np.maximum(d - unique, 0.0)) / r_d))
    return np.asarray(size), np.asarray(data)
