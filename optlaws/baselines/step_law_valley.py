"""Chinchilla's floor with a cubic valley around Step Law's optimum: what Step Law says of losses.

Source: the optimum of Li et al., arXiv 2503.04715, eq. 1; the valley's form is ours.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar, Self

import numpy as np

from optlaws.baselines.base import Advice, FloatArray, Parametric, columns, training
from optlaws.baselines.chinchilla import Chinchilla
from optlaws.baselines.determined import least_squares, monomials, standard, undetermined, unscaled
from optlaws.baselines.optimal_rate import cells
from optlaws.baselines.step_law import StepLaw
from optlaws.runs import CurveTable, RunTable

NEEDS = ("params", "tokens", "peak_lr", "batch_tokens")
DEGREE = 3


@dataclass(frozen=True)
class StepLawValley(Parametric):
    """ln L = ln Chinchilla(N, D) + cubic(x, y), x = ln(rate / Step Law's rate), y = ln(batch / Step Law's batch).

    Chinchilla is fitted to the lowest loss of each (N, D), Step Law to the near-best runs, and the cubic (c_ij of
    x^i y^j, constant included) to all runs by least squares in what they determine (`optlaws.baselines.determined`).
    """

    E: float
    A: float
    B: float
    alpha: float
    beta: float
    r: float
    p: float
    q: float
    b: float
    s: float
    c_00: float
    c_10: float
    c_01: float
    c_20: float
    c_11: float
    c_02: float
    c_30: float
    c_21: float
    c_12: float
    c_03: float

    name: ClassVar[str] = "step_law_valley"
    source: ClassVar[str] = "the optimum of Li et al., arXiv 2503.04715, eq. 1; the valley's form is ours"
    formula: ClassVar[str] = "(E + A N^-alpha + B D^-beta) exp(cubic in ln(rate / r N^-p D^q), ln(batch / b D^s))"
    needs: ClassVar[tuple[str, ...]] = NEEDS
    above_zero: ClassVar[tuple[str, ...]] = ("alpha", "beta", "r", "b")
    idle: ClassVar[tuple[str, ...]] = tuple(f"c_{i}{k - i}" for k in range(4) for i in range(k + 1))

    @classmethod
    def fit(cls, runs: RunTable, curves: CurveTable | None = None, *, seed: int = 0, starts: int = 0) -> Self:
        """Fit to the final losses of completed runs.

        Raises
        ------
        FitError, LawError
            Fewer than 20 completed runs, too few (N, D), or a run without N, D, peak rate or batch.
        """
        kept = training(cls, runs, 20)
        n, d, rate, batch = columns(cls, kept)
        optimum = StepLaw.fit(kept)
        best = np.array([group[np.argmin(kept.final_loss[group])] for group in cells(n, d)])
        floor = Chinchilla.fit_points(n[best], d[best], kept.final_loss[best], seed=seed)
        middle, spread, z = standard(_apart(optimum, n, d, rate, batch))
        found = least_squares(z, np.log(kept.final_loss / floor.loss(n, d)), DEGREE)
        valley = dict(zip(_names(), map(float, unscaled(found, middle, spread, DEGREE)), strict=True))
        return cls(**floor.parameters(), **optimum.parameters(), **valley)

    @property
    def floor(self) -> Chinchilla:
        """The loss at the optimum, but for the factor exp(c_00)."""
        return Chinchilla(self.E, self.A, self.B, self.alpha, self.beta)

    @property
    def optimum(self) -> StepLaw:
        """The optimum."""
        return StepLaw(self.r, self.p, self.q, self.b, self.s)

    def predict(self, runs: RunTable) -> FloatArray:
        """Return final losses, shape (n,), nats per token.

        Raises
        ------
        LawError
            A run lacks N, D, peak rate or batch.
        """
        n, d, rate, batch = columns(self, runs)
        values = np.array([getattr(self, name) for name in _names()])
        apart = _apart(self.optimum, n, d, rate, batch)
        return np.asarray(self.floor.loss(n, d) * np.exp(monomials(apart, DEGREE) @ values))

    def doubts(self, runs: RunTable) -> list[str]:
        """Return what these runs, those of the fit, do not determine of the cubic."""
        return undetermined(_apart(self.optimum, *columns(self, runs)), ("rate / best", "batch / best"), DEGREE)

    def recommend(self, params: float, tokens: float, loss: float = float("nan")) -> Advice:
        """Return Step Law's advice, as fitted.

        Raises
        ------
        InputError
            N or D is not a finite number above 0.
        """
        return self.optimum.recommend(params, tokens)


def _names() -> list[str]:
    """Return the parameters of the cubic, in the order of `optlaws.baselines.determined.terms`."""
    return [field.name for field in fields(StepLawValley) if field.name.startswith("c_")]


def _apart(law: StepLaw, n: FloatArray, d: FloatArray, rate: FloatArray, batch: FloatArray) -> FloatArray:
    """Return how far rates and batches are from the optimum, in logarithms, shape (m, 2)."""
    pairs = [law.recommend(float(a), float(b)) for a, b in zip(n, d, strict=True)]
    return np.asarray(np.log(np.stack([rate, batch], axis=1) / np.array(pairs)))
