"""MeiTuan's rule: peak rate and batch by the loss that will be reached.

Source: MeiTuan's law as in arXiv 2503.04715, table 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from optlaws.baselines.base import Advice, Parametric
from optlaws.baselines.optimal_rate import near_best, power, regress
from optlaws.runs import CurveTable, RunTable


@dataclass(frozen=True)
class MeiTuanRate(Parametric):
    """Peak rate r L^-p and batch b L^-q tokens at loss L. The source prints no constants: they are always fitted."""

    r: float
    p: float
    b: float
    q: float

    name: ClassVar[str] = "meituan_rate"
    source: ClassVar[str] = "MeiTuan's law as in arXiv 2503.04715, table 1"
    formula: ClassVar[str] = "rate = r L^-p, batch = b L^-q"
    needs: ClassVar[tuple[str, ...]] = ("params", "tokens", "batch_tokens", "peak_lr")
    above_zero: ClassVar[tuple[str, ...]] = ("r", "b")

    @classmethod
    def fit(cls, runs: RunTable, curves: CurveTable | None = None, *, seed: int = 0, starts: int = 0) -> Self:
        """Fit to the near-best runs of each (N, D) by least squares in logarithms; nothing is random.

        Raises
        ------
        FitError, LawError
            Too few (N, D), or a run without N, D, peak rate or batch.
        """
        best = near_best(cls, runs)
        r, p = regress(cls, best.rate, [best.loss])
        b, q = regress(cls, best.batch, [best.loss])
        return cls(float(np.exp(r)), float(-p), float(np.exp(b)), float(-q))

    def recommend(self, params: float, tokens: float, loss: float = float("nan")) -> Advice:
        """Return the advice, which needs the loss that will be reached, nats per token, and nothing else; NaN without.

        Raises
        ------
        InputError
            The loss is not a finite number above 0.
        """
        if not np.isfinite(loss):
            return Advice(float("nan"), float("nan"))
        return Advice(power(self.r, (loss, -self.p)), power(self.b, (loss, -self.q)))
