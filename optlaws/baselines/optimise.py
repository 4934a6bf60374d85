"""Minimise one smooth function from many starts at once, and the robust loss that the field fits its laws with.

`minimise_many` is BFGS run on all starts side by side as one array computation, with a line search of its own for each
start; the starts that fall behind are dropped in rounds, and scipy's L-BFGS-B finishes the best few. The same routine
does a bootstrap: each start then has its own weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from optlaws.baselines.base import Progress

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]
Objective = Callable[[FloatArray, IntArray], tuple[FloatArray, FloatArray]]
"""(points (s, p), which starts they belong to (s,)) -> values (s,) and gradients (s, p)."""

ARMIJO = 1e-4
LONGEST = 3.0  # longest step of one iteration, in the objective's own (logarithmic) units
HALVINGS = 25


@dataclass(frozen=True, eq=False)
class Minima:
    """Where the starts ended: `x` (s, p), `value` (s,)."""

    x: FloatArray
    value: FloatArray


def huber(residual: FloatArray, delta: float) -> tuple[FloatArray, FloatArray]:
    """Return the Huber loss and its slope, both of r's shape: r^2 / 2 up to delta > 0, then delta (|r| - delta / 2)."""
    slope = np.clip(residual, -delta, delta)
    return slope * (residual - 0.5 * slope), slope


def log_sum_objective(
    terms: Callable[[FloatArray], tuple[FloatArray, Callable[[FloatArray], FloatArray]]],
    target: FloatArray,
    delta: float,
    weights: FloatArray | None = None,
) -> Objective:
    """Return the sum over m points of Huber_delta(log-sum-exp of k terms - target), as a function of the parameters.

    Parameters
    ----------
    terms : callable
        points (s, p) -> the terms' logarithms (k, s, m), and a function that turns slopes in them (k, s, m) into slopes
        in the parameters (s, p).
    target : (m,)
        Log losses.
    delta : float
    weights : (starts, m), optional
        Of the points, one row a start.
    """

    def value(x: FloatArray, rows: IntArray) -> tuple[FloatArray, FloatArray]:
        logs, back = terms(x)
        top = logs.max(axis=0)
        parts = np.exp(logs - top)
        total = parts.sum(axis=0)
        cost, slope = huber(np.log(total) + top - target, delta)
        if weights is not None:
            cost, slope = cost * weights[rows], slope * weights[rows]
        parts *= slope / total
        return cost.sum(axis=1), back(parts)

    return value


def by_differences(value: Callable[[FloatArray], FloatArray], width: float = 1e-5) -> Objective:
    """Return an objective whose gradient is taken by central differences; `value` maps (s, p) to (s,)."""

    def both(x: FloatArray, rows: IntArray) -> tuple[FloatArray, FloatArray]:
        s, p = x.shape
        moved = np.repeat(x, 2 * p + 1, axis=0).reshape(s, 2 * p + 1, p)
        for j in range(p):
            moved[:, 2 * j + 1, j] += width
            moved[:, 2 * j + 2, j] -= width
        out = value(moved.reshape(-1, p)).reshape(s, 2 * p + 1)
        return out[:, 0], (out[:, 1::2] - out[:, 2::2]) / (2 * width)

    return both


def bfgs(
    objective: Objective,
    starts: FloatArray,
    *,
    iterations: int,
    tolerance: float = 1e-10,
    progress: Progress | None = None,
) -> Minima:
    """Run BFGS from every start for at most so many iterations.

    Parameters
    ----------
    objective : callable
        See `Objective`; a value that is not finite counts as worse than any other.
    starts : (s, p)
    iterations : int
    tolerance : float
        A start is done when three iterations in a row lower its value by less than this fraction of it.
    progress : callable, optional
        Called with a word before every iteration.
    """
    x = np.array(starts, dtype=np.float64)
    s, p = x.shape
    everything = np.arange(s)
    value, slope = _finite(*objective(x, everything))
    inverse = np.broadcast_to(np.eye(p), (s, p, p)) / np.maximum(np.linalg.norm(slope, axis=1), 1e-300)[:, None, None]
    inverse = np.array(inverse)
    idle = np.zeros(s, dtype=int)
    live = everything[np.isfinite(value)]
    for _ in range(iterations):
        if not len(live):
            break
        if progress is not None:
            progress(f"{len(live)} starts")
        g = slope[live]
        step = -np.einsum("spq,sq->sp", inverse[live], g)
        down = np.einsum("sp,sp->s", step, g)
        wrong = ~(down < 0)
        if wrong.any():  # start over with steepest descent
            inverse[live[wrong]] = np.eye(p) / np.maximum(np.linalg.norm(g[wrong], axis=1), 1e-300)[:, None, None]
            step[wrong] = -g[wrong] / np.maximum(np.linalg.norm(g[wrong], axis=1), 1e-300)[:, None]
            down[wrong] = np.einsum("sp,sp->s", step[wrong], g[wrong])
        length = np.abs(step).max(axis=1)
        shrink = np.minimum(1.0, LONGEST / np.maximum(length, 1e-300))
        new_x, new_value, new_slope = _search(objective, live, x[live], value[live], step, down, shrink)
        move, bend = new_x - x[live], new_slope - g
        _update(inverse, live, move, bend)
        gained = value[live] - new_value
        idle[live] = np.where(gained <= tolerance * np.abs(new_value), idle[live] + 1, 0)
        x[live], value[live], slope[live] = new_x, new_value, new_slope
        live = live[idle[live] < 3]
    return Minima(x, value)


def minimise_many(
    objective: Objective,
    starts: FloatArray,
    *,
    rounds: tuple[tuple[int, int], ...] = ((10, 96), (20, 24), (80, 6)),
    finish: int = 2,
    progress: Progress | None = None,
) -> tuple[FloatArray, float]:
    """Return the best point found from many starts, and its value.

    Parameters
    ----------
    objective : callable
        See `Objective`.
    starts : (s, p)
    rounds : pairs of (iterations, starts kept after them)
    finish : int
        How many of the last ones L-BFGS-B brings to convergence.
    progress : callable, optional
        Called with a word on every step.
    """
    from scipy.optimize import minimize

    found = Minima(np.array(starts, dtype=np.float64), np.zeros(len(starts)))
    for iterations, kept in rounds:
        found = bfgs(objective, found.x, iterations=iterations, progress=progress)
        best = np.argsort(found.value, kind="stable")[:kept]
        found = Minima(found.x[best], found.value[best])
    none = np.zeros(1, dtype=np.intp)

    def one(x: FloatArray) -> tuple[float, FloatArray]:
        value, slope = _finite(*objective(x[None], none))
        return float(value[0]) if np.isfinite(value[0]) else 1e300, slope[0]

    best_x, best_value = found.x[0], float(found.value[0])
    for start in found.x[:finish]:
        if progress is not None:
            progress("last steps")
        ended = minimize(
            one, start, jac=True, method="L-BFGS-B", options={"maxiter": 2000, "ftol": 1e-15, "gtol": 1e-12}
        )
        if ended.fun < best_value:
            best_x, best_value = ended.x, float(ended.fun)
    return np.asarray(best_x, dtype=np.float64), best_value


def _finite(value: FloatArray, slope: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return values with NaN as infinity, and slopes with 0 there."""
    good = np.isfinite(value) & np.isfinite(slope).all(axis=1)
    return np.where(good, value, np.inf), np.where(good[:, None], slope, 0.0)


def _search(
    objective: Objective,
    live: IntArray,
    x: FloatArray,
    value: FloatArray,
    step: FloatArray,
    down: FloatArray,
    size: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Halve each start's step until its value falls enough; a start that finds nothing stays where it is."""
    new_x, new_value = np.array(x), np.array(value)
    new_slope = np.zeros_like(x)
    open_rows = np.arange(len(live))
    for _ in range(HALVINGS):
        trial = x[open_rows] + size[open_rows, None] * step[open_rows]
        f, g = _finite(*objective(trial, live[open_rows]))
        good = f <= value[open_rows] + ARMIJO * size[open_rows] * down[open_rows]
        done = open_rows[good]
        new_x[done], new_value[done], new_slope[done] = trial[good], f[good], g[good]
        open_rows = open_rows[~good]
        if not len(open_rows):
            return new_x, new_value, new_slope
        size[open_rows] *= 0.5
    _, new_slope[open_rows] = _finite(*objective(x[open_rows], live[open_rows]))
    return new_x, new_value, new_slope


def _update(inverse: FloatArray, live: IntArray, move: FloatArray, bend: FloatArray) -> None:
    """BFGS update of the inverse Hessians of the live starts, where the curvature along the step is positive."""
    curve = np.einsum("sp,sp->s", move, bend)
    good = curve > 1e-12 * np.linalg.norm(move, axis=1) * np.linalg.norm(bend, axis=1)
    good &= curve > 0
    rows = live[good]
    if not len(rows):
        return
    s, y, rho = move[good], bend[good], 1.0 / curve[good]
    h = inverse[rows]
    hy = np.einsum("spq,sq->sp", h, y)
    scale = rho * (1.0 + rho * np.einsum("sp,sp->s", y, hy))
    cross = rho[:, None, None] * (hy[:, :, None] * s[:, None, :] + s[:, :, None] * hy[:, None, :])
    inverse[rows] = h - cross + scale[:, None, None] * s[:, :, None] * s[:, None, :]
