"""MiniCPM's rule: a batch by the loss that will be reached.

Source: Hu et al., arXiv 2404.06395, section 3.2; as in arXiv 2503.04715, table 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from optlaws.baselines.base import Advice, Parametric
from optlaws.baselines.optimal_rate import near_best, power, regress
from optlaws.runs import CurveTable, RunTable


@dataclass(frozen=True)
class MiniCPMBatch(Parametric):
    """Batch b L^-q tokens at loss L; no rate (MiniCPM keeps one rate, 0.01, under its own parametrisation).

    The paper prints 1.21e9 L^-6.24; table 1 of arXiv 2503.04715 prints 2e18 L^-6.24, ten orders of magnitude more than
    any batch.
    """

    b: float
    q: float

    name: ClassVar[str] = "minicpm_batch"
    source: ClassVar[str] = "Hu et al., arXiv 2404.06395, section 3.2; as in arXiv 2503.04715, table 1"
    formula: ClassVar[str] = "batch = b L^-q"
    needs: ClassVar[tuple[str, ...]] = ("params", "tokens", "batch_tokens", "peak_lr")
    above_zero: ClassVar[tuple[str, ...]] = ("b",)

    @classmethod
    def published(cls) -> Self:
        """Return the law with the constants of arXiv 2404.06395."""
        return cls(1.21e9, 6.24)

    @classmethod
    def fit(cls, runs: RunTable, curves: CurveTable | None = None, *, seed: int = 0, starts: int = 0) -> Self:
        """Fit to the near-best runs of each (N, D) by least squares in logarithms; nothing is random.

        Raises
        ------
        FitError, LawError
            Too few (N, D), or a run without N, D, peak rate or batch.
        """
        best = near_best(cls, runs)
        b, q = regress(cls, best.batch, [best.loss])
        return cls(float(np.exp(b)), float(-q))

    def recommend(self, params: float, tokens: float, loss: float = float("nan")) -> Advice:
        """Return the batch, which needs the loss that will be reached (nats per token), else NaN; no rate (NaN).

        Raises
        ------
        InputError
            The loss is not a finite number above 0.
        """
        return Advice(float("nan"), power(self.b, (loss, -self.q)) if np.isfinite(loss) else float("nan"))
