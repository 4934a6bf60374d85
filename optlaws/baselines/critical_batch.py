"""Critical batch size: beyond it, larger batches cost data without saving steps.

Source: McCandlish et al., arXiv 1812.06162, eq. 2.6 and 2.11; Kaplan et al., arXiv 2001.08361, eq. 1.6.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import ClassVar, Self

import numpy as np

from optlaws.baselines.base import HUBER, Advice, FloatArray, Parametric, Progress, columns, training
from optlaws.baselines.optimise import log_sum_objective, minimise_many
from optlaws.errors import InputError
from optlaws.runs import CurveTable, RunTable

STARTS = 300
FAR = 100.0  # times beyond the batches tried, where B_c is not told by them


@dataclass(frozen=True)
class CriticalBatch(Parametric):
    """Loss by size and by the steps that an infinite batch would need.

    With S steps of B tokens, (S / S_min - 1)(D / D_min - 1) = 1 and D = S B give S_min = S / (1 + B_c / B)
    = D / (B + B_c) (eq. 2.11); the best rate is eta_max / (1 + B_c / B) (eq. 2.6). The loss is then
    E + A N^-alpha + C S_min^-gamma (the form of arXiv 2001.08361, eq. 1.6, with a constant). Huber_1e-3 on log losses.

    `B_c` is in tokens, the same for all runs of a fit; E is in nats per token. alpha, gamma and B_c are above 0.
    """

    E: float
    A: float
    C: float
    alpha: float
    gamma: float
    B_c: float

    name: ClassVar[str] = "critical_batch"
    source: ClassVar[str] = (
        "McCandlish et al., arXiv 1812.06162, eq. 2.6 and 2.11; Kaplan et al., arXiv 2001.08361, eq. 1.6"
    )
    formula: ClassVar[str] = "E + A N^-alpha + C (D / (B + B_c))^-gamma"
    needs: ClassVar[tuple[str, ...]] = ("params", "tokens", "batch_tokens")
    above_zero: ClassVar[tuple[str, ...]] = ("alpha", "gamma", "B_c")

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
        """Fit to the final losses of completed runs from a grid of starts.

        Raises
        ------
        FitError, LawError
            Fewer than 6 completed runs, or a run without N, D or B.
        """
        kept = training(cls, runs, 6)
        n, d, b = (np.log(values) for values in columns(cls, kept))
        y, middle = np.log(kept.final_loss), np.array([n.mean(), (d - b).mean()])
        n = n - middle[0]

        def terms(x: FloatArray) -> tuple[FloatArray, Callable[[FloatArray], FloatArray]]:
            whole = np.logaddexp(b, x[:, 5, None])
            steps = d - whole - middle[1]
            share = np.exp(x[:, 5, None] - whole)  # slope of ln(B + B_c) in ln B_c
            logs = np.empty((3, len(x), len(y)))
            logs[0] = x[:, 0, None]
            logs[1] = x[:, 1, None] - x[:, 3, None] * n
            logs[2] = x[:, 2, None] - x[:, 4, None] * steps

            def back(slope: FloatArray) -> FloatArray:
                e, a, c = slope.sum(axis=2)
                in_gamma, in_batch = -(slope[2] * steps).sum(axis=1), x[:, 4] * (slope[2] * share).sum(axis=1)
                return np.stack([e, a, c, -(slope[1] @ n), in_gamma, in_batch], axis=1)

            return logs, back

        middle_batch = float(b.mean())
        grid = np.array(
            list(
                product(
                    (-0.5, 0.5),
                    (-2.0, 0.0),
                    (-2.0, 0.0),
                    (0.1, 0.4),
                    (0.1, 0.4, 0.8),
                    middle_batch + np.arange(-4.0, 5.0, 2.0),
                )
            )
        )
        if 0 < starts < len(grid):
            grid = grid[np.random.default_rng(seed).choice(len(grid), size=starts, replace=False)]
        x, _ = minimise_many(log_sum_objective(terms, y, HUBER), grid, progress=progress)
        e, a, c, alpha, gamma, batch = x
        return cls(
            float(np.exp(e)), float(np.exp(a + alpha * middle[0])), float(np.exp(c + gamma * middle[1])),
            float(alpha), float(gamma), float(np.exp(batch)),
        )  # fmt: skip

    def predict(self, runs: RunTable) -> FloatArray:
        """Return final losses, shape (n,), nats per token.

        Raises
        ------
        LawError
            A run lacks N, D or B.
        """
        n, d, b = columns(self, runs)
        return np.asarray(self.E + self.A * n**-self.alpha + self.C * (d / (b + self.B_c)) ** -self.gamma)

    def doubts(self, runs: RunTable) -> list[str]:
        """Return what makes the constants doubtful after a fit to these runs: batches too alike to tell B_c."""
        tried = runs.batch_tokens
        low, high = float(tried.min()), float(tried.max())
        if low == high:
            return [f"B_c is not told by runs of one batch, {low:.3g}"]
        if low / FAR <= self.B_c <= high * FAR:
            return []
        return [f"B_c {self.B_c:.3g} lies far from the batches tried, {low:.3g} to {high:.3g}"]

    def recommend(self, params: float, tokens: float) -> Advice:
        """Return the critical batch, which costs twice the least data and twice the least steps; no rate (NaN).

        `params` and `tokens` change nothing: this B_c is one number. In arXiv 2001.08361 it grows as the loss falls; no
        loss is asked for here.
        """
        return Advice(float("nan"), self.B_c)

    def rate(self, highest: float, batch_tokens: float) -> float:
        """Return the best rate for a batch, given that of an infinite one (eq. 2.6).

        Raises
        ------
        InputError
            `batch_tokens` is not above 0.
        """
        if not batch_tokens > 0:
            raise InputError(f"batch_tokens must be above 0, got {batch_tokens:g}; give the tokens of one step")
        return highest / (1.0 + self.B_c / batch_tokens)
