"""What the laws share that say how to divide a compute budget: power laws of N_opt and D_opt in the budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from optlaws.baselines.base import FloatArray, Parametric, check_points, columns, training
from optlaws.errors import FitError, InputError
from optlaws.runs import CurveTable, RunTable
from optlaws.runs._compute import FLOPS

SAME_BUDGET = 0.02  # budgets whose logarithms are closer than this are one


@dataclass(frozen=True)
class PowerAllocation(Parametric):
    """N_opt = k_n C^a (parameters) and D_opt = k_d C^b (tokens) for a budget of C FLOPs; k_n and k_d above 0."""

    k_n: float
    a: float
    k_d: float
    b: float

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ("params", "tokens")
    above_zero: ClassVar[tuple[str, ...]] = ("k_n", "k_d")

    def allocate(self, compute: float) -> tuple[float, float]:
        """Return N_opt (parameters) and D_opt (tokens) for a budget in FLOPs.

        Raises
        ------
        InputError
            `compute` is not above 0.
        """
        if not compute > 0:
            raise InputError(f"compute must be above 0 FLOPs, got {compute:g}; give the training budget")
        return self.k_n * compute**self.a, self.k_d * compute**self.b

    @classmethod
    def from_optima(cls, compute: FloatArray, n: FloatArray, d: FloatArray) -> Self:
        """Return the log-log lines through optima (m,) of different budgets: FLOPs, parameters, tokens.

        Raises
        ------
        FitError
            There are fewer than 2 budgets.
        InputError
            A number is not finite and above 0, or the three differ in length.
        """
        check_points(compute=compute, n=n, d=d)
        if len(np.unique(compute)) < 2:
            raise FitError(
                f"law {cls.name!r} needs optima at 2 or more compute budgets, got {len(np.unique(compute))};"
                " add runs at another budget"
            )
        (a, k_n), (b, k_d) = (np.polyfit(np.log(compute), np.log(values), 1) for values in (n, d))
        return cls(float(np.exp(k_n)), float(a), float(np.exp(k_d)), float(b))

    @classmethod
    def fit(cls, runs: RunTable, curves: CurveTable | None = None, *, seed: int = 0, starts: int = 0) -> Self:
        """Fit to the final losses of completed runs; nothing is random, `seed` and `starts` change nothing.

        Raises
        ------
        FitError, LawError
            Too few runs or budgets, or a run without N or D.
        """
        kept = training(cls, runs, 2)
        n, d = columns(cls, kept)
        return cls.fit_points(n, FLOPS * n * d, kept.final_loss)

    @classmethod
    def fit_points(cls, n: FloatArray, compute: FloatArray, loss: FloatArray) -> Self:
        """Fit to N (parameters), C (FLOPs) and losses (nats per token), each (m,) and above 0.

        Raises
        ------
        FitError
            The budgets do not tell the lines.
        InputError
            A number is not finite and above 0, or the three differ in length.
        """
        raise NotImplementedError  # every law has its own way to find the optima


def budgets(compute: FloatArray) -> list[npt.NDArray[np.intp]]:
    """Return the indices of the runs of each budget (m,), FLOPs, lowest budget first; nearly equal budgets are one."""
    order = np.argsort(compute, kind="stable")
    cuts = np.flatnonzero(np.diff(np.log(compute[order])) > SAME_BUDGET) + 1
    return list(np.split(order, cuts))
