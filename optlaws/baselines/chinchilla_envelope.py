"""Chinchilla, approach 1: which size has the lowest loss at each amount of compute, over all training curves.

Source: Hoffmann et al., arXiv 2203.15556, section 3.1 (approach 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from optlaws.baselines.allocation import PowerAllocation
from optlaws.baselines.base import FloatArray, check_points, columns
from optlaws.errors import FitError
from optlaws.runs import CurveTable, RunTable
from optlaws.runs._compute import FLOPS

POINTS = 1500  # amounts of compute looked at, evenly spread in the logarithm


@dataclass(frozen=True)
class ChinchillaEnvelope(PowerAllocation):
    """N_opt(C) and D_opt(C) along the lower envelope of all training curves.

    Where the smallest or the largest size is best, the optimum lies beyond it: those amounts of compute are left out.

    Without curves the envelope runs through the final losses that no run of less compute has reached.
    """

    name: ClassVar[str] = "chinchilla_envelope"
    source: ClassVar[str] = "Hoffmann et al., arXiv 2203.15556, section 3.1 (approach 1)"
    formula: ClassVar[str] = "N_opt = k_n C^a, D_opt = k_d C^b, along the lowest loss at each compute of all curves"

    @classmethod
    def fit(cls, runs: RunTable, curves: CurveTable | None = None, *, seed: int = 0, starts: int = 0) -> Self:
        """Fit to curves, or to final losses without them; nothing is random, `seed` and `starts` change nothing.

        Raises
        ------
        FitError
            There are curves of fewer than 2 sizes, or the lower envelope has fewer than 2 budgets.
        LawError
            A run lacks N or D.
        """
        if curves is None:
            return super().fit(runs)
        n, d = columns(cls, runs)
        row_of = {name: row for row, name in enumerate(runs.run_id)}
        batch = d / runs.steps
        paths, sizes = [], []
        for name, index in curves.runs().items():
            if name not in row_of:
                continue
            row = row_of[name]
            good = (curves.step[index] > 0) & np.isfinite(curves.loss[index])
            step, loss = curves.step[index][good], curves.loss[index][good]
            if len(step) < 2:
                continue
            paths.append((np.log(FLOPS * n[row] * batch[row] * step), np.minimum.accumulate(loss)))
            sizes.append(n[row])
        if len(set(sizes)) < 2:
            raise FitError(f"law {cls.name!r} needs curves of 2 or more sizes, got {len(set(sizes))}; add curves")
        at = np.linspace(min(c[0] for c, _ in paths), max(c[-1] for c, _ in paths), POINTS)
        loss = np.stack([np.interp(at, c, y, left=np.inf, right=np.inf) for c, y in paths])
        seen = np.isfinite(loss).any(axis=0)
        compute, size = np.exp(at[seen]), np.array(sizes)[loss[:, seen].argmin(axis=0)]
        inner = (size > min(sizes)) & (size < max(sizes))
        if len(np.unique(size[inner])) > 1:
            compute, size = compute[inner], size[inner]
        return cls.from_optima(compute, size, compute / (FLOPS * size))

    @classmethod
    def fit_points(cls, n: FloatArray, compute: FloatArray, loss: FloatArray) -> Self:
        """Fit to N, C (FLOPs) and final losses (nats per token), each (m,) and above 0.

        Raises
        ------
        FitError
            Fewer than 2 runs have losses that no run of less compute has reached.
        InputError
            A number is not finite and above 0, or the three differ in length.
        """
        check_points(n=n, compute=compute, loss=loss)
        order = np.lexsort((loss, compute))
        best = np.minimum.accumulate(loss[order])
        front = order[loss[order] == best]
        return cls.from_optima(compute[front], n[front], compute[front] / (FLOPS * n[front]))
