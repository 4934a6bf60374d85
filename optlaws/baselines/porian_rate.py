"""Porian et al.: peak rate and batch by model size.

Source: Porian et al., arXiv 2406.19146; as in arXiv 2503.04715, table 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from optlaws.baselines.base import Advice, Parametric
from optlaws.baselines.optimal_rate import near_best, power, regress
from optlaws.runs import CurveTable, RunTable


@dataclass(frozen=True)
class PorianRate(Parametric):
    """Peak rate r N^-p and batch b N^q tokens."""

    r: float
    p: float
    b: float
    q: float

    name: ClassVar[str] = "porian_rate"
    source: ClassVar[str] = "Porian et al., arXiv 2406.19146; as in arXiv 2503.04715, table 1"
    formula: ClassVar[str] = "rate = r N^-p, batch = b N^q"
    needs: ClassVar[tuple[str, ...]] = ("params", "tokens", "batch_tokens", "peak_lr")
    above_zero: ClassVar[tuple[str, ...]] = ("r", "b")

    @classmethod
    def published(cls) -> Self:
        """Return the law with the printed constants."""
        return cls(3.7, 0.36, 0.7576, 0.703)

    @classmethod
    def fit(cls, runs: RunTable, curves: CurveTable | None = None, *, seed: int = 0, starts: int = 0) -> Self:
        """Fit to the near-best runs of each (N, D) by least squares in logarithms; nothing is random.

        Raises
        ------
        FitError, LawError
            Too few (N, D), or a run without N, D, peak rate or batch.
        """
        best = near_best(cls, runs)
        r, p = regress(cls, best.rate, [best.n])
        b, q = regress(cls, best.batch, [best.n])
        return cls(float(np.exp(r)), float(-p), float(np.exp(b)), float(q))

    def recommend(self, params: float, tokens: float, loss: float = float("nan")) -> Advice:
        """Return the advice for N parameters; `tokens` and `loss` are not looked at.

        Raises
        ------
        InputError
            N is not a finite number above 0.
        """
        return Advice(power(self.r, (params, -self.p)), power(self.b, (params, self.q)))
