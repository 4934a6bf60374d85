"""IsoFLOP profiles: the run of lowest loss of each budget, and power laws through them.

Source: Stanford CS336, assignment 3; profiles as in Hoffmann et al., arXiv 2203.15556, section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from optlaws.baselines.allocation import PowerAllocation, budgets
from optlaws.baselines.base import FloatArray, check_points
from optlaws.errors import InputError
from optlaws.runs._compute import FLOPS


@dataclass(frozen=True)
class IsoFlop(PowerAllocation):
    """N_opt(C) = k_n C^a, D_opt(C) = k_d C^b through the lowest-loss run of each budget, D = C / (6 N)."""

    name: ClassVar[str] = "isoflop"
    source: ClassVar[str] = (
        "Stanford CS336, assignment 3; profiles as in Hoffmann et al., arXiv 2203.15556, section 3.2"
    )
    formula: ClassVar[str] = "N_opt = k_n C^a, D_opt = k_d C^b, through the lowest loss of each budget"

    @classmethod
    def fit_points(cls, n: FloatArray, compute: FloatArray, loss: FloatArray, *, scale: str = "log") -> Self:
        """Fit to N, C (FLOPs) and losses, each (m,).

        Parameters
        ----------
        n, compute, loss : (m,)
            Parameters, FLOPs, nats per token; above 0.
        scale : str
            "log": straight lines in logarithms. "linear": least squares of N and D themselves, which the largest
            budgets decide.

        Raises
        ------
        FitError
            There are fewer than 2 budgets.
        InputError
            Another scale, a number that is not finite and above 0, or lists that differ in length.
        """
        if scale not in ("log", "linear"):
            raise InputError(f"scale must be 'log' or 'linear', got {scale!r}; choose one")
        check_points(n=n, compute=compute, loss=loss)
        best = np.array([group[np.argmin(loss[group])] for group in budgets(compute)])
        c, size = compute[best], n[best]
        data = c / (FLOPS * size)
        line = cls.from_optima(c, size, data)
        if scale == "log":
            return line
        from scipy.optimize import least_squares

        found = []
        for k, power, y in ((line.k_n, line.a, size), (line.k_d, line.b, data)):
            middle = float(np.exp(np.log(c).mean()))
            start = [k * middle**power / y.mean(), power]

            def residual(x: FloatArray, y: FloatArray = y, middle: float = middle) -> FloatArray:
                return np.asarray(x[0] * (c / middle) ** x[1] - y / y.mean())

            x = least_squares(residual, start, xtol=1e-14, ftol=1e-14, gtol=1e-14).x
            found += [float(x[0] * y.mean() / middle ** x[1]), float(x[1])]
        return cls(*found)
