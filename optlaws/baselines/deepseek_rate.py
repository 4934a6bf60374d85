"""DeepSeek's rule: peak rate and batch by compute.

Source: DeepSeek-AI, arXiv 2401.02954, section 3.1; as in arXiv 2503.04715, table 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from optlaws.baselines.base import Advice, Parametric
from optlaws.baselines.optimal_rate import near_best, power, regress
from optlaws.runs import CurveTable, RunTable
from optlaws.runs._compute import FLOPS


@dataclass(frozen=True)
class DeepSeekRate(Parametric):
    """Peak rate r C^-p and batch b C^q tokens, C = 6 N D FLOPs; r and b above 0.

    The paper counts C = M D with M the non-embedding FLOPs a token, attention included; 6 N stands in for M.
    """

    r: float
    p: float
    b: float
    q: float

    name: ClassVar[str] = "deepseek_rate"
    source: ClassVar[str] = "DeepSeek-AI, arXiv 2401.02954, section 3.1; as in arXiv 2503.04715, table 1"
    formula: ClassVar[str] = "rate = r C^-p, batch = b C^q"
    needs: ClassVar[tuple[str, ...]] = ("params", "tokens", "batch_tokens", "peak_lr")
    above_zero: ClassVar[tuple[str, ...]] = ("r", "b")

    @classmethod
    def published(cls) -> Self:
        """Return the law with the constants of arXiv 2503.04715, table 1."""
        return cls(0.3188, 0.1250, 0.2920, 0.3271)

    @classmethod
    def fit(cls, runs: RunTable, curves: CurveTable | None = None, *, seed: int = 0, starts: int = 0) -> Self:
        """Fit to the near-best runs of each (N, D) by least squares in logarithms; nothing is random.

        Raises
        ------
        FitError, LawError
            Too few (N, D), or a run without N, D, peak rate or batch.
        """
        best = near_best(cls, runs)
        compute = np.log(FLOPS) + best.n + best.d
        r, p = regress(cls, best.rate, [compute])
        b, q = regress(cls, best.batch, [compute])
        return cls(float(np.exp(r)), float(-p), float(np.exp(b)), float(q))

    def recommend(self, params: float, tokens: float, loss: float = float("nan")) -> Advice:
        """Return the advice for N parameters and D tokens; `loss` is not looked at.

        Raises
        ------
        InputError
            N or D is not a finite number above 0.
        """
        compute = power(FLOPS, (params, 1.0), (tokens, 1.0))
        return Advice(power(self.r, (compute, -self.p)), power(self.b, (compute, self.q)))
