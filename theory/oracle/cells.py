"""The problem that `optlaws.dynamics` solves on its cells, solved exactly in mpmath with the derived cell solutions."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

import mpmath as mp
import sympy as sp

from optlaws.dynamics import Dynamics, solve
from optlaws.schedules import Cells
from theory.derivations import adam_sde, cell_solutions

DIGITS = 40


@cache
def _solutions() -> tuple[Callable[..., Any], ...]:
    """Return the lambdified cell solutions: norm, variance, escape, batch factors g and h."""
    m = cell_solutions
    square = sp.lambdify((m.Q0, m.RATE, m.WD, m.GROW, m.WIDTH), m.norm(), "mpmath")
    v = sp.lambdify((m.V0, m.LEFT, m.RIGHT, m.STEP, sp.Symbol("lambda", positive=True)), m.variance(), "mpmath")
    c = sp.lambdify((m.C0, m.LEFT, m.STEP, sp.Symbol("rho", positive=True)), m.escape(), "mpmath")
    factors = sp.lambdify(sp.symbols("b b_c", positive=True), adam_sde.gain(), "mpmath")
    return square, v, c, factors


def _as_coded(v: mp.mpf, left: mp.mpf, right: mp.mpf, z: mp.mpf) -> mp.mpf:
    """Return the variance after a cell with the code's departure from the exact cell solution.

    It adds `TINY` above and below in (1 - exp(-z)) / z.
    """
    tiny = mp.mpf(solve.TINY)
    return right + (v - left) * mp.exp(-z) + (left - right) * (tiny - mp.expm1(-z)) / (z + tiny)


def solution(
    grid: Cells,
    n: float,
    b: float,
    weight_decay: float,
    plain: bool,
    dynamics: Dynamics,
    *,
    as_coded: bool = False,
) -> dict[str, mp.mpf]:
    """Return the states at the end of one schedule's cells.

    On a cell: the norm at the mean rate; intrinsic time delta = mean x sqrt(2 / (R_0^2 + R_1^2)) g w, the geometric
    mean of g at the edges (in the first cell: g at half its tokens); the temperature linear in intrinsic time between
    its values at the edges for the variances, and their mean for the escape state.

    Parameters
    ----------
    grid : Cells
        Of one schedule.
    n, b : size and batch in reference units.
    weight_decay : 1 / rate.
    plain : True for SGD.
    dynamics : constants.
    as_coded : True for the variance's `TINY` of the code.
    """
    norm, variance, escape, factors = _solutions()
    with mp.workdps(DIGITS):
        c = dynamics
        edges, left, mean, right = (
            [mp.mpf(x) for x in getattr(grid, k)[0]] for k in ("edges", "left", "mean", "right")
        )
        size, batch = mp.mpf(n), mp.mpf(b)
        scale = size ** mp.mpf(c.size_exponent) / mp.mpf(c.lr_ref)
        q = mp.mpf(1) if plain else mp.mpf(c.temperature_exponent)

        def critical(steps: mp.mpf) -> mp.mpf:
            tokens = max(steps * batch / mp.mpf(c.steps_ref), mp.mpf(solve.FIRST_TOKENS))
            return mp.mpf(c.critical_batch) * tokens ** mp.mpf(c.critical_growth)

        def crowded(steps: mp.mpf) -> tuple[mp.mpf, mp.mpf]:
            """Return g and h after that many steps."""
            return (mp.mpf(1), 1 / batch) if plain else factors(batch, critical(steps))

        square, tau, covariance = mp.mpf(1), mp.mpf(0), mp.mpf(0)
        v, top = [mp.mpf(0)] * len(c.curvatures), mp.mpf(0)
        for k, width in enumerate(y - x for x, y in pairwise(edges)):
            if width == 0:
                continue
            rate, before = mean[k] * scale, square
            growth = mp.mpf(c.kappa) * rate**2
            decay = mp.mpf(weight_decay)
            square = norm(before, mean[k], decay, growth, width) if decay * mean[k] else before + growth * width
            ends = (edges[k], edges[k + 1])
            pace = crowded(ends[1] / 2)[0] if k == 0 else mp.sqrt(crowded(ends[0])[0] * crowded(ends[1])[0])
            felt = rate * mp.sqrt(2 / (before + square))
            step = felt * pace * width
            top = max(top, left[k] * scale / mp.sqrt(before), felt)
            slow = (felt / top) ** (mp.mpf(c.relaxation) - 1) if top else mp.mpf(1)
            top = max(top, right[k] * scale / mp.sqrt(square))
            hot = [
                (r * scale / mp.sqrt(s)) ** q * crowded(at)[1]
                for r, s, at in zip((left[k], right[k]), (before, square), ends, strict=True)
            ]
            if step:
                rates = [mp.mpf(y) for y in c.curvatures]
                if as_coded:
                    v = [_as_coded(x, hot[0], hot[1], 2 * y * step * slow) for x, y in zip(v, rates, strict=True)]
                else:
                    v = [variance(x, *hot, step * slow, y) for x, y in zip(v, rates, strict=True)]
                covariance = escape(covariance, sum(hot) / 2, step, mp.mpf(c.escape_rate))
            tau += step
        steps = edges[-1] / mp.mpf(c.steps_ref)
        states = {f"v_{i}": x for i, x in enumerate(v)}
        peak = max(*left, *right) * scale
        states |= {"n": size, "b": batch, "t": steps, "d": steps * batch, "tau": tau, "peak": peak}
        return states | {"radius": mp.sqrt(square), "escape": covariance}
