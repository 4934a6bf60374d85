"""Chinchilla, approach 2: a parabola in ln N through each IsoFLOP profile, and power laws through their minima.

Source: Hoffmann et al., arXiv 2203.15556, section 3.2 (approach 2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from optlaws.baselines.allocation import PowerAllocation, budgets
from optlaws.baselines.base import FloatArray, check_points
from optlaws.errors import FitError
from optlaws.runs._compute import FLOPS

FEWEST = 3  # points of one parabola


@dataclass(frozen=True)
class ChinchillaIsoFlop(PowerAllocation):
    """N_opt(C) at the minimum of loss = p0 + p1 ln N + p2 ln^2 N of each budget; D_opt = C / (6 N_opt)."""

    name: ClassVar[str] = "chinchilla_isoflop"
    source: ClassVar[str] = "Hoffmann et al., arXiv 2203.15556, section 3.2 (approach 2)"
    formula: ClassVar[str] = "N_opt = k_n C^a, D_opt = k_d C^b, through the minima of parabolas in ln N"

    @classmethod
    def fit_points(cls, n: FloatArray, compute: FloatArray, loss: FloatArray) -> Self:
        """Fit to N, C (FLOPs) and losses, each (m,) and above 0; budgets whose parabola has no minimum are left out.

        Raises
        ------
        FitError
            Fewer than 2 budgets have one.
        InputError
            A number is not finite and above 0, or the three differ in length.
        """
        check_points(n=n, compute=compute, loss=loss)
        found = []
        for group in budgets(compute):
            x, y = np.log(n[group]), loss[group]
            if len(np.unique(x)) < FEWEST:
                continue
            p2, p1, _ = np.polyfit(x - x.mean(), y, 2)
            if p2 > 0:
                found.append((float(np.exp(np.log(compute[group]).mean())), float(np.exp(x.mean() - 0.5 * p1 / p2))))
        if len(found) < 2:
            raise FitError(
                f"law {cls.name!r} needs 2 or more budgets with {FEWEST} sizes around a lowest loss, got {len(found)};"
                " add runs of equal 6 N D"
            )
        c, size = np.array(found).T
        return cls.from_optima(c, size, c / (FLOPS * size))
