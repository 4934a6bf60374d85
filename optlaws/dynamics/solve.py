"""States of the stochastic dynamics of a learning-rate schedule: weight norm, intrinsic time, variance, escape.

All states obey linear equations driven by the schedule (theory/ derives them):

- weight norm    (R^2)' = -2 wd eta R^2 + kappa x^2,  R(0) = 1,  x = (eta / lr_ref) n^cN
- felt rate      u = x / R
- intrinsic time tau' = u g          a step; g = sqrt(b / (1 + b / bc)) for adaptive optimizers, 1 for plain SGD
- temperature    Theta = u^q h       h = 1 / sqrt(b (1 + b / bc)) for adaptive optimizers, 1 / b and q = 1 for plain SGD
- variance       v_l' = 2 l tau' (Theta - v_l)
- escape         C' = 2 rho tau' C + Theta tau'

One pass over the cells of `optlaws.schedules.cells`. In a cell of constant rate the norm, and for constant felt rate
every state, is exact; otherwise the temperature counts as linear in intrinsic time, which makes the pass second order in
the cell width, whatever the stiffness. Cost does not depend on the number of steps.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from optlaws.errors import InputError
from optlaws.runs import RunTable
from optlaws.schedules import Cells, Schedule, cells, cells_at
from optlaws.dynamics.model import PLAIN, Dynamics, FloatArray, default_weight_decay, regime

CHUNK = 2048  # schedules per pass: the working set stays in the processor's cache
LARGEST_ESCAPE = 1e12
LARGEST_GROWTH = 30.0


@dataclass(frozen=True)
class States:
    """States of m points (runs at their end, or one run along its curve), arrays of shape (m,).

    Attributes
    ----------
    n, b : active parameters in params_ref, tokens per step in batch_ref; 1 where the law does not use them.
    t, d : steps so far in steps_ref, tokens so far in batch_ref * steps_ref.
    peak : highest scaled rate x so far.
    tau : intrinsic time so far.
    radius : weight norm R.
    variance : shape (m, modes), v_l.
    escape : escape covariance C.
    """

    n: FloatArray
    b: FloatArray
    t: FloatArray
    d: FloatArray
    peak: FloatArray
    tau: FloatArray
    radius: FloatArray
    variance: FloatArray
    escape: FloatArray

    def __len__(self) -> int:
        """Return the number of points."""
        return len(self.tau)


@dataclass(frozen=True)
class Drive:
    """What the equations need to know of each of n runs beside its schedule, arrays of shape (n,)."""

    n: FloatArray
    b: FloatArray
    weight_decay: FloatArray
    plain: FloatArray  # 1 for plain SGD, 0 for adaptive optimizers
    noise_limited: bool  # True: the batch is unknown, so no batch is above the critical one

    def take(self, rows: FloatArray | slice) -> Drive:
        """Return the drive of some rows."""
        return Drive(self.n[rows], self.b[rows], self.weight_decay[rows], self.plain[rows], self.noise_limited)


def drive(runs: RunTable, dynamics: Dynamics, *, use_params: bool = True, use_batch: bool = True) -> Drive:
    """Return the drive of a run table.

    Parameters
    ----------
    runs : RunTable
        `active_params` counts where given, else `params`; weight decay and optimizer default to AdamW's.
    use_params, use_batch : bool
        False: the law knows no size (batch), and 1 takes its place.

    Raises
    ------
    InputError
        A size or batch that the law needs is missing.
    """
    size = np.where(np.isfinite(runs.active_params), runs.active_params, runs.params)
    n, b = np.ones(len(runs)), np.ones(len(runs))
    for wanted, values, name, unit, out in (
        (use_params, size, "params", dynamics.params_ref, n),
        (use_batch, runs.batch_tokens, "batch_tokens", dynamics.batch_ref, b),
    ):
        if wanted:
            missing = np.flatnonzero(~np.isfinite(values))
            if len(missing):
                raise InputError(
                    f"{name} must be a number above 0 for this law, but run {runs.run_id[missing[0]]!r} has none"
                    f" ({len(missing)} of {len(runs)} runs); fill the column or leave it empty in every run of a fit"
                )
            out[:] = values / unit
    decay = runs.weight_decay
    empty = ~np.isfinite(decay)
    if empty.any():
        decay = np.where(empty, _per_optimizer(runs.optimizer, default_weight_decay), decay)
    plain = _per_optimizer(runs.optimizer, lambda name: float(regime(name) == PLAIN))
    return Drive(n, b, decay, plain, not use_batch)


def _per_optimizer(names: Sequence[str | None], function) -> FloatArray:  # type: ignore[no-untyped-def]
    """Return function(name) for each name, computed once for each distinct one."""
    table = {name: function(name) for name in set(names)}
    if len(table) == 1:
        return np.full(len(names), next(iter(table.values())), dtype=float)
    return np.array([table[name] for name in names], dtype=float)


def integrate(grid: Cells, run: Drive, dynamics: Dynamics, *, along: bool = False) -> States:
    """Return the states of n schedules at their ends, or along the one schedule's cell edges.

    Parameters
    ----------
    grid : Cells
        K cells of each of n schedules.
    run : Drive
        The n runs.
    dynamics : Dynamics
        Constants.
    along : bool
        True: one point per cell edge after the first and schedule, m = K n, edge by edge; False: m = n.
    """
    c = dynamics
    edges, width = grid.edges.T, np.diff(grid.edges, axis=1).T  # (K, n): a cell of all schedules is contiguous
    scale = run.n**c.size_exponent / c.lr_ref
    left, mean, right = (np.ascontiguousarray(rate.T) for rate in (grid.left, grid.mean, grid.right))
    shrink = 2.0 * run.weight_decay * mean * width
    keep = np.exp(-shrink)
    # (1 - exp(-a)) / a, exact for constant rates and 1 at a = 0
    average = np.where(shrink > 1e-8, (1.0 - keep) / np.maximum(shrink, 1e-300), 1.0 - 0.5 * shrink)
    grow = c.kappa * (mean * scale) ** 2 * width * average
    count = len(width)
    square = np.empty((count + 1, len(run.n)))
    square[0] = 1.0
    for k in range(count):
        np.multiply(square[k], keep[k], out=square[k + 1])
        square[k + 1] += grow[k]
    tokens = np.maximum(0.5 * (edges[1:] + edges[:-1]) / c.steps_ref * run.b, 1e-4)
    if run.noise_limited:
        crowd = np.ones_like(tokens)
    else:
        crowd = 1.0 / np.sqrt(1.0 + run.b / (c.critical_batch * tokens**c.critical_growth))
    root = np.sqrt(run.b)
    plain = run.plain > 0
    drift = np.where(plain, 1.0, root * crowd)
    noise = np.where(plain, 1.0 / run.b, crowd / root)
    exponent = np.where(plain, 1.0, c.temperature_exponent)
    radius = np.sqrt(square)
    step = mean * scale * np.sqrt(2.0 / (square[1:] + square[:-1])) * drift * width
    hot = [_power(rate * scale / norm, exponent) * noise for rate, norm in ((left, radius[:-1]), (right, radius[1:]))]
    tau = np.cumsum(step, axis=0)
    variance = _variance(step, hot[0], hot[1], c.curvatures, along)
    escape = _escape(step, 0.5 * (hot[0] + hot[1]), c.escape_rate, along)
    top = np.maximum(left, right) * scale
    if along:
        t = edges[1:] / c.steps_ref
        rows = (run.n + 0.0 * t, run.b + 0.0 * t, t, t * run.b, np.maximum.accumulate(top, axis=0), tau, radius[1:])
        return States(*(row.ravel() for row in rows), variance, escape)
    t = edges[-1] / c.steps_ref
    return States(run.n, run.b, t, t * run.b, top.max(axis=0), tau[-1], radius[-1], variance, escape)


def _power(base: FloatArray, exponent: FloatArray) -> FloatArray:
    """Return base^exponent for base >= 0, through exp and log, which NumPy runs several at a time."""
    return np.exp(exponent * np.log(np.maximum(base, 1e-300)))


def _variance(step: FloatArray, left: FloatArray, right: FloatArray, curvatures: FloatArray, along: bool) -> FloatArray:
    """Solve v' = 2 l tau' (Theta - v) with Theta linear in tau within a cell; shape (n, modes), or (K n, modes) along."""
    count, n = step.shape
    out = np.empty((count * n if along else n, len(curvatures)))
    trail = np.empty((count, n) if along else (0, 0))
    for j, curvature in enumerate(curvatures):
        z = 2.0 * curvature * step
        fade = np.exp(-z)
        # v1 = v0 e + Theta_right - Theta_left e - (Theta_right - Theta_left)(1 - e) / z
        lag = np.where(z > 1e-8, (1.0 - fade) / np.maximum(z, 1e-300), 1.0 - 0.5 * z)
        drive_ = right - left * fade - (right - left) * lag
        v = np.zeros(n)
        for k in range(count):
            v *= fade[k]
            v += drive_[k]
            if along:
                trail[k] = v
        out[:, j] = trail.ravel() if along else v
    return out


def _escape(step: FloatArray, hot: FloatArray, rate: float, along: bool) -> FloatArray:
    """Solve C' = 2 rho tau' C + Theta tau', capped at LARGEST_ESCAPE; shape (n,), or (K n,) along."""
    z = np.minimum(2.0 * rate * step, LARGEST_GROWTH)
    gain = np.exp(z)
    source = hot * np.expm1(z) / (2.0 * rate)
    c = np.zeros(step.shape[1])
    trail = np.empty(step.shape if along else (0, 0))
    for k in range(len(step)):
        c = np.minimum(c * gain[k] + source[k], LARGEST_ESCAPE)
        if along:
            trail[k] = c
    return trail.ravel() if along else c


def final_states(
    runs: RunTable,
    dynamics: Dynamics,
    *,
    use_params: bool = True,
    use_batch: bool = True,
    resolution: float = 1.0,
    threads: int | None = None,
) -> States:
    """Return the states at the end of every run, shape (len(runs),).

    Parameters
    ----------
    runs : RunTable
        Any number of runs; a million are solved in chunks of `CHUNK` on `threads` threads (default: the processors).
    dynamics : Dynamics
        Constants.
    use_params, use_batch : bool
        See `drive`.
    resolution : float
        Multiplies the number of cells; 1 is what laws are fitted with.
    """
    batch = runs.batch()
    everything = drive(runs, dynamics, use_params=use_params, use_batch=use_batch)
    total = len(runs)
    out = {
        "n": everything.n, "b": everything.b, "variance": np.empty((total, dynamics.modes)),
        **{name: np.empty(total) for name in ("t", "d", "peak", "tau", "radius", "escape")},
    }  # fmt: skip

    def work(start: int) -> None:
        rows = np.arange(start, min(start + CHUNK, total))
        for index, grid in cells(batch[start : start + CHUNK], resolution):
            where = rows[index]
            part = integrate(grid, everything.take(where), dynamics)
            for name in ("t", "d", "peak", "tau", "radius", "escape", "variance"):
                out[name][where] = getattr(part, name)

    starts = range(0, total, CHUNK)
    workers = threads or min(len(starts), os.cpu_count() or 1)
    if workers <= 1:
        for start in starts:
            work(start)
    else:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(work, starts))
    return States(**out)


def curve_states(
    schedules: Sequence[Schedule], steps: Sequence[FloatArray], runs: Drive, dynamics: Dynamics, *, resolution: float = 1.0
) -> States:
    """Return the states of n runs after the given numbers of steps, run by run, shape (total number of steps,).

    Parameters
    ----------
    schedules : sequence of n Schedule
    steps : sequence of n ndarrays
        Numbers of updates done, 1 .. total_steps, ascending.
    runs : Drive
        The runs' drive, arrays of shape (n,).
    """
    grids = [cells_at(schedule, at, resolution) for schedule, at in zip(schedules, steps, strict=True)]
    along = integrate(_stack(grids), runs, dynamics, along=True)
    n = len(grids)
    picks = []
    for i, (grid, at) in enumerate(zip(grids, steps, strict=True)):
        cell = np.searchsorted(grid.edges[0, 1:], np.asarray(at, dtype=float) - 1e-6)
        picks.append(np.minimum(cell, grid.mean.shape[1] - 1) * n + i)
    where = np.concatenate(picks)
    return States(**{name: getattr(along, name)[where] for name in States.__dataclass_fields__})


def _stack(grids: Sequence[Cells]) -> Cells:
    """Return one grid of n schedules from n grids of one, padded with cells of zero width."""
    most = max(grid.mean.shape[1] for grid in grids)
    pad = [most - grid.mean.shape[1] for grid in grids]
    rates = [
        np.vstack([np.pad(getattr(grid, name)[0], (0, extra), mode="edge") for grid, extra in zip(grids, pad, strict=True)])
        for name in ("left", "mean", "right")
    ]
    edges = np.vstack([np.pad(grid.edges[0], (0, extra), mode="edge") for grid, extra in zip(grids, pad, strict=True)])
    return Cells(edges, *rates)


def join_states(parts: Sequence[States]) -> States:
    """Return the points of several states, one after the other."""
    return States(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in States.__dataclass_fields__})
