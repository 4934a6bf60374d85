"""The last-iterate bound of convex, non-smooth optimisation as a law of the loss.

Source: Schaipp et al. 2025, arXiv 2501.18965, Theorem 1 (bound of Defazio et al., arXiv 2310.07831, Theorem 10).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from optlaws.baselines._readings import Readings, asked, ends, fit_separable, gather, without_slopes
from optlaws.baselines.base import FloatArray, Parametric
from optlaws.errors import FitError, InputError
from optlaws.runs import CurveTable, RunTable
from optlaws.schedules import Schedule

LEAST = 1e-5  # largest part of the loss, in nats, that counts as nothing


def bound_terms(rates: FloatArray) -> tuple[float, float]:
    """Return the two parts of the bound after all updates, for D = G = 1.

    Parameters
    ----------
    rates : (T,) rates g_1 .. g_T, finite, at least 0 and one above 0. Updates of rate 0 change nothing and are left
        out.

    Returns
    -------
    distance : 1 / (2 sum g), the factor of D^2.
    gradient : the factor of G^2, sum g^2 / (2 sum g) + 1/2 sum_{k<T} [g_k / sum_{t>k} g_t] V_k with
        V_k = sum_{t>=k} g_t^2 / sum_{t>=k} g_t; by suffix sums, O(T).

    Raises
    ------
    InputError
        The rates are not as said.

    Notes
    -----
    Source: Schaipp et al., arXiv 2501.18965, Theorem 1.

    Examples
    --------
    >>> bound_terms(np.array([1.0, 1.0]))
    (0.25, 1.0)
    """
    g = rates[rates > 0]
    if not len(g) or not np.isfinite(rates).all() or (rates < 0).any():
        odd = rates[~(np.isfinite(rates) & (rates >= 0))]
        raise InputError(
            "rates must be finite and at least 0, one of them above 0,"
            f" got {f'{odd[0]:g}' if len(odd) else 'none above 0'}; correct them"
        )
    after = np.cumsum(g[::-1])[::-1]
    squares = np.cumsum((g * g)[::-1])[::-1]
    last = 0.5 * np.sum(g[:-1] / after[1:] * (squares[:-1] / after[:-1]))
    return float(0.5 / after[0]), float(0.5 * squares[0] / after[0] + last)


def best_factor(rates: FloatArray, D: float = 1.0, G: float = 1.0) -> tuple[float, float]:
    """Return the factor on all rates (T,) that makes the bound least, and that bound; D and G above 0.

    The bound of the rates times f is D^2 a / f + G^2 b f with the terms a, b of `bound_terms`.

    Raises
    ------
    InputError
        D or G is not above 0, or the rates are not as `bound_terms` wants them.
    """
    for name, value in (("D", D), ("G", G)):
        if not 0 < value < np.inf:
            raise InputError(
                f"{name} must be a finite number above 0 for a best rate, got {value:g}; fit the law again"
            )
    a, b = bound_terms(rates)
    return float(D / G * np.sqrt(a / b)), float(2.0 * D * G * np.sqrt(a * b))


@dataclass(frozen=True)
class ConvexBound(Parametric):
    """L = L0 + D^2 / (2 sum g) + G^2 [sum g^2 / (2 sum g) + 1/2 sum_{k<T} (g_k / sum_{t>k} g_t) V_k].

    V_k = sum_{t>=k} g_t^2 / sum_{t>=k} g_t: the bound on the last iterate of subgradient descent at constant gradient
    norm G from distance D, as a loss above L0. Fitting L0, D and G is an affine map of the bound to the loss. Knows
    nothing of size, data and batch: fit one for each.

    Attributes
    ----------
    L0 : nats per token.
    D : distance to the solution, in (nats x rate)^(1/2), above 0.
    G : gradient norm, in (nats / rate)^(1/2), above 0.
    """

    name: ClassVar[str] = "convex_bound"
    source: ClassVar[str] = (
        "Schaipp et al. 2025, arXiv 2501.18965, Theorem 1 (bound of Defazio et al., arXiv 2310.07831, Theorem 10)"
    )
    formula: ClassVar[str] = (
        "L0 + D^2/(2 sum g) + G^2 (sum g^2/(2 sum g)"
        " + 1/2 sum_{k<T} [g_k/sum_{t>k} g_t] [sum_{t>=k} g_t^2/sum_{t>=k} g_t])"
    )
    needs: ClassVar[tuple[str, ...]] = ("schedule",)

    L0: float
    D: float
    G: float

    @classmethod
    def fit(cls, runs: RunTable, curves: CurveTable | None = None, *, seed: int = 0, starts: int = 0) -> Self:
        """Fit to curves, or to final losses where there are none, by Huber losses (1e-3) of the log loss.

        The law is linear in L0, D^2 and G^2, so `seed` and `starts` change nothing.

        Raises
        ------
        FitError
            There are fewer than 3 losses, or they do not determine both D and G.
        """
        readings = gather(cls, runs, curves, 3)
        terms = np.concatenate([_terms(r) for r in readings])
        loss = np.concatenate([r.loss for r in readings])
        scale = np.abs(terms).max(axis=0)
        F = np.column_stack([np.ones(len(loss)), terms / scale])
        nothing = np.zeros(0)
        c, _ = fit_separable(lambda *_: without_slopes(F), nothing, nothing, loss, seed=seed, starts=1)
        if not (c[1:] > LEAST).all():
            lost = "D" if c[1] <= LEAST else "G"
            raise FitError(
                f"{lost} of law {cls.name!r} must come out above 0, got 0: these losses do not follow the bound;"
                " add runs of other lengths and peak rates, or choose another law"
            )
        return cls(float(c[0]), *map(float, np.sqrt(c[1:] / scale)))

    def _loss(self, run: Readings) -> FloatArray:
        return np.asarray(self.L0 + _terms(run) @ np.array([self.D**2, self.G**2]))

    def predict(self, runs: RunTable) -> FloatArray:
        """Return final losses, shape (n,), nats per token.

        Raises
        ------
        TableError
            The table holds a `ScheduleBatch`, whose schedules have no objects.
        """
        return np.array([self._loss(run)[0] for run in ends(runs)])

    def predict_curve(self, runs: RunTable, steps: FloatArray) -> FloatArray:
        """Return the losses of one run (nats per token, shape of `steps`), as `CurveLaw.predict_curve` says.

        Raises
        ------
        InputError
            A step comes before the first rate above 0; other errors as there.
        """
        return self._loss(asked(runs, steps))

    def best_peak(self, schedules: Schedule | Sequence[Schedule]) -> FloatArray:
        """Return the peak rates that make the bound least for the shapes of these schedules, shape (n,).

        The optimal rate falls like T^(-1/2) with the length, but for logarithms, and rises with the share of the decay.

        Raises
        ------
        InputError
            There is no schedule, or D or G is not above 0.
        """
        if isinstance(schedules, Schedule):
            schedules = (schedules,)
        if not schedules:
            raise InputError("schedules must be at least one, got none; add one")
        return np.array([s.peak * best_factor(s.array(), self.D, self.G)[0] for s in schedules])


def _terms(run: Readings) -> FloatArray:
    """Return `bound_terms` at every reading, shape (r, 2)."""
    first = int(np.argmax(run.rates > 0)) + 1
    if run.steps.min() < first:
        raise InputError(f"steps must be at least {first}, the first with a rate above 0, got {run.steps.min()}")
    return np.array([bound_terms(run.rates[:n]) for n in run.steps])
