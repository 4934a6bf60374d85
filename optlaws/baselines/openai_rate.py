"""OpenAI's rules: a peak rate linear in ln N, the critical batch of the loss.

Source: Kaplan et al., arXiv 2001.08361, eq. D.1 and 1.4; as in arXiv 2503.04715, table 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from optlaws.baselines.base import Advice, Parametric
from optlaws.baselines.optimal_rate import near_best, power, regress
from optlaws.runs import CurveTable, RunTable


@dataclass(frozen=True)
class OpenAIRate(Parametric):
    """Peak rate r_0 + r_1 ln N; batch b_0 L^-b_1 tokens at loss L.

    The paper prints B* = 2e8 tokens and alpha_B = 0.21; table 1 of arXiv 2503.04715 prints the batch as 2e18 L^-4.7619,
    ten orders of magnitude more: read as 2e8 here.
    """

    r_0: float
    r_1: float
    b_0: float
    b_1: float

    name: ClassVar[str] = "openai_rate"
    source: ClassVar[str] = "Kaplan et al., arXiv 2001.08361, eq. D.1 and 1.4; as in arXiv 2503.04715, table 1"
    formula: ClassVar[str] = "rate = r_0 + r_1 ln N, batch = b_0 L^-b_1"
    needs: ClassVar[tuple[str, ...]] = ("params", "tokens", "batch_tokens", "peak_lr")
    above_zero: ClassVar[tuple[str, ...]] = ("b_0",)

    @classmethod
    def published(cls) -> Self:
        """Return the law with the printed constants."""
        return cls(3.239e-3, -1.395e-4, 2e8, 4.7619)

    @classmethod
    def fit(cls, runs: RunTable, curves: CurveTable | None = None, *, seed: int = 0, starts: int = 0) -> Self:
        """Fit to the near-best runs of each (N, D) by least squares in logarithms; nothing is random.

        Raises
        ------
        FitError, LawError
            Too few (N, D), or a run without N, D, peak rate or batch.
        """
        best = near_best(cls, runs)
        r_0, r_1 = regress(cls, np.exp(best.rate), [best.n])
        b_0, b_1 = regress(cls, best.batch, [best.loss])
        return cls(float(r_0), float(r_1), float(np.exp(b_0)), float(-b_1))

    def recommend(self, params: float, tokens: float, loss: float = float("nan")) -> Advice:
        """Return the advice; no rate where it would not be above 0, no batch without the loss that will be reached.

        Raises
        ------
        InputError
            N or the loss is not a finite number above 0.
        """
        rate = self.r_0 + self.r_1 * float(np.log(power(1.0, (params, 1.0))))
        return Advice(
            rate if rate > 0 else float("nan"),
            power(self.b_0, (loss, -self.b_1)) if np.isfinite(loss) else float("nan"),
        )
