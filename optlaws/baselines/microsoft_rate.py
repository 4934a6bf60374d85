"""Microsoft's rule: a peak rate by size and horizon.

Source: Bjorck et al., arXiv 2409.19913; as in arXiv 2503.04715, table 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from optlaws.baselines.base import Advice, Parametric
from optlaws.baselines.optimal_rate import near_best, power, regress
from optlaws.runs import CurveTable, RunTable


@dataclass(frozen=True)
class MicrosoftRate(Parametric):
    """Peak rate r N^-p D^-q; no batch.

    With the printed constant the units of N and D are not clear: in parameters and tokens the rate comes out near
    1e-11, in billions near 1e-6. Only the exponents are used as published, `r` must be fitted.
    """

    r: float
    p: float
    q: float

    name: ClassVar[str] = "microsoft_rate"
    source: ClassVar[str] = "Bjorck et al., arXiv 2409.19913; as in arXiv 2503.04715, table 1"
    formula: ClassVar[str] = "rate = r N^-p D^-q"
    needs: ClassVar[tuple[str, ...]] = ("params", "tokens", "batch_tokens", "peak_lr")
    above_zero: ClassVar[tuple[str, ...]] = ("r",)

    @classmethod
    def published(cls) -> Self:
        """Return the law as printed, N in parameters and D in tokens (see the class about the units)."""
        return cls(1.3192e-5, 0.23, 0.32)

    @classmethod
    def scaled(cls, runs: RunTable) -> Self:
        """Return the published exponents with the coefficient that fits the near-best runs.

        Raises
        ------
        FitError, LawError
            Too few (N, D), or a run without N, D, peak rate or batch.
        """
        best, law = near_best(cls, runs), cls.published()
        return cls(float(np.exp((best.rate + law.p * best.n + law.q * best.d).mean())), law.p, law.q)

    @classmethod
    def fit(cls, runs: RunTable, curves: CurveTable | None = None, *, seed: int = 0, starts: int = 0) -> Self:
        """Fit to the near-best runs of each (N, D) by least squares in logarithms; nothing is random.

        Raises
        ------
        FitError, LawError
            Too few (N, D), or a run without N, D, peak rate or batch.
        """
        best = near_best(cls, runs)
        r, p, q = regress(cls, best.rate, [best.n, best.d])
        return cls(float(np.exp(r)), float(-p), float(-q))

    def recommend(self, params: float, tokens: float, loss: float = float("nan")) -> Advice:
        """Return the peak rate for N parameters and D tokens; the law has no batch (NaN).

        Raises
        ------
        InputError
            N or D is not a finite number above 0.
        """
        return Advice(power(self.r, (params, -self.p), (tokens, -self.q)), float("nan"))
