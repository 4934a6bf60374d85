"""Step Law: peak rate by size and data, batch by data.

Source: Li et al., arXiv 2503.04715, eq. 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from optlaws.baselines.base import Advice, Parametric
from optlaws.baselines.optimal_rate import NEAR_BEST, NearBest, near_best, power, regress
from optlaws.errors import FitError, InputError
from optlaws.runs import CurveTable, RunTable

FEWEST = 6  # near-best runs of a band, twice the constants of the rate
AGAIN = 10  # rounds of bootstrap samples before there is no band


@dataclass(frozen=True)
class StepLaw(Parametric):
    """Peak rate r N^-p D^q and batch b D^s tokens, for runs that end at a fixed low rate.

    Fitted as by its authors, by ordinary least squares in logarithms on the runs within 0.25 % of the lowest loss of
    their N and D; they take the mean over bootstrap samples of those runs, here it is the fit to all of them, and
    `band` returns the samples.
    """

    r: float
    p: float
    q: float
    b: float
    s: float

    name: ClassVar[str] = "step_law"
    source: ClassVar[str] = "Li et al., arXiv 2503.04715, eq. 1"
    formula: ClassVar[str] = "rate = r N^-p D^q, batch = b D^s"
    needs: ClassVar[tuple[str, ...]] = ("params", "tokens", "batch_tokens", "peak_lr")
    above_zero: ClassVar[tuple[str, ...]] = ("r", "b")

    @classmethod
    def published(cls) -> Self:
        """Return the law with the printed constants."""
        return cls(1.79, 0.713, 0.307, 0.58, 0.571)

    @classmethod
    def fit(
        cls,
        runs: RunTable,
        curves: CurveTable | None = None,
        *,
        seed: int = 0,
        starts: int = 0,
        within: float = NEAR_BEST,
    ) -> Self:
        """Fit to the runs within a fraction (above 0) of the lowest loss of their N and D; nothing is random.

        Raises
        ------
        FitError, LawError
            Too few (N, D), or a run without N, D, peak rate or batch.
        InputError
            `within` is not above 0.
        """
        return cls._through(near_best(cls, runs, within))

    @classmethod
    def band(cls, runs: RunTable, *, draws: int = 1000, seed: int = 0) -> list[Self]:
        """Return the laws through `draws` bootstrap samples of the near-best runs: a band for every advice.

        Samples that do not tell the constants are drawn again.

        Raises
        ------
        FitError, LawError
            As `fit`, fewer than 6 near-best runs, through which every sample's law goes nearly alike, or hardly any
            sample tells the constants.
        InputError
            `draws` is below 1.
        """
        if draws < 1:
            raise InputError(f"draws must be at least 1, got {draws}; 1000 is the default")
        best = near_best(cls, runs)
        cls._through(best)
        if len(best.n) < FEWEST:
            raise FitError(
                f"law {cls.name!r} has a band from {FEWEST} near-best runs on, got {len(best.n)}; add runs at rates"
                " and batches about the best"
            )
        rng = np.random.default_rng(seed)
        found: list[Self] = []
        for _ in range(AGAIN):
            for rows in rng.integers(0, len(best.n), size=(draws, len(best.n))):
                try:
                    found.append(cls._through(NearBest(*(values[rows] for values in best))))
                except FitError:  # too few different (N, D) among them
                    continue
                if len(found) == draws:
                    return found
        raise FitError(
            f"law {cls.name!r} has no band from these runs: of {AGAIN * draws} samples of them only {len(found)} tell"
            " it; add sizes or lengths"
        )

    @classmethod
    def _through(cls, best: NearBest) -> Self:
        r, p, q = regress(cls, best.rate, [best.n, best.d])
        b, s = regress(cls, best.batch, [best.d])
        return cls(float(np.exp(r)), float(-p), float(q), float(np.exp(b)), float(s))

    def recommend(self, params: float, tokens: float, loss: float = float("nan")) -> Advice:
        """Return the advice for N parameters and D tokens; `loss` is not looked at.

        >>> advice = StepLaw.published().recommend(1e9, 1e11)
        >>> round(advice.peak_lr, 6), round(advice.batch_tokens)
        (0.001632, 1107715)

        Raises
        ------
        InputError
            N or D is not a finite number above 0.
        """
        return Advice(power(self.r, (params, -self.p), (tokens, self.q)), power(self.b, (tokens, self.s)))
