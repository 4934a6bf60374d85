"""States of the stochastic dynamics of a learning-rate schedule: weight norm, intrinsic time, variance, escape.

All states obey linear equations driven by the schedule; they stand in `optlaws.dynamics.symbols`, with every symbol's
meaning, and theory/ derives them, but for what is read off runs: the factor (u / u_max)^(s - 1) in the pace of the
variances and the power q below 1 of the temperature; the power cN of the size rests on a scaling argument.

One pass over the cells of `optlaws.schedules.cells`. In a cell of constant rate the norm is exact, and every state for
constant felt rate and critical batch; otherwise the temperature counts as linear in intrinsic time: second order in the
cell width, whatever the stiffness, if cells are graded to a rate of 0. Cost does not depend on the number of steps.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from numbers import Integral

import numpy as np
import numpy.typing as npt

from optlaws.dynamics.model import PLAIN, Dynamics, FloatArray, default_weight_decay, regime
from optlaws.errors import InputError
from optlaws.runs import RunTable
from optlaws.runs._optimizers import usually_decays
from optlaws.schedules import Cells, Schedule, ScheduleBatch, cells, cells_at

BLOCK = 16384  # schedules per task of a thread
CHUNK = 2048  # schedules per pass: fewer cost more calls, which threads wait for, more leave the processor's cache
CELLS_AT_ONCE = 8  # of them, where all modes are held
TINY = 2.0**-30  # added above and below, makes (1 - exp(-z)) / z equal 1 at z = 0; a power of 2: 1 + TINY is exact
SMALLEST = 1e-300
LARGEST_ESCAPE = 1e12
LARGEST_GROWTH = 30.0
LARGEST_DECAY = 60.0
FIRST_TOKENS = 1e-4  # d below which the critical batch does not shrink further, batch_ref * steps_ref


@dataclass(frozen=True, eq=False)
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

    def take(self, rows: slice | npt.NDArray[np.int64]) -> States:
        """Return the points of a slice, or at places (k,)."""
        return States(**{name: getattr(self, name)[rows] for name in States.__dataclass_fields__})


@dataclass(frozen=True, eq=False)
class Drive:
    """What the equations need to know of each of n runs beside its schedule, arrays of shape (n,)."""

    n: FloatArray  # active parameters in params_ref
    b: FloatArray  # tokens per step in batch_ref
    weight_decay: FloatArray  # 1/rate
    plain: FloatArray  # 1 for plain SGD, 0 for adaptive optimizers
    noise_limited: bool  # True: the batch is unknown, so no batch is above the critical one

    def take(self, rows: npt.NDArray[np.int64] | slice) -> Drive:
        """Return the drive of the runs of a slice, or at places (k,)."""
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
    size = runs.size
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
    return Drive(n, b, effective_decay(runs), plain_sgd(runs), not use_batch)


def effective_decay(runs: RunTable) -> FloatArray:
    """Return the weight decay (1/rate) of each run, the optimizer's default where it does not say, shape (n,)."""
    empty = ~np.isfinite(runs.weight_decay)
    if not empty.any():
        return runs.weight_decay
    return np.where(empty, _per_optimizer(runs.optimizer, default_weight_decay), runs.weight_decay)


def fill_decay(runs: RunTable, usual: float) -> tuple[FloatArray, float]:
    """Return weight decays (n,), `usual` where a run does not say (plain SGD, Adam: 0), and the first one taken."""
    unsaid = ~np.isfinite(runs.weight_decay)
    decays = _per_optimizer(runs.optimizer, usually_decays).astype(bool)
    filled = np.where(unsaid, np.where(decays, usual, 0.0), runs.weight_decay)
    return filled, float(filled[unsaid][0]) if unsaid.any() else float(usual)


def plain_sgd(runs: RunTable) -> FloatArray:
    """Return 1 for runs with plain SGD and 0 for adaptive optimizers, shape (n,)."""
    return _per_optimizer(runs.optimizer, lambda name: float(regime(name) == PLAIN))


def _per_optimizer(names: Sequence[str | None], function: Callable[[str | None], float]) -> FloatArray:
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
    scale = c.rate_scale(run.n)
    left, mean, right = (np.ascontiguousarray(rate.T) for rate in (grid.left, grid.mean, grid.right))
    square = _squared_norm(mean, width, scale, run, c)
    count = len(width)
    middle, crowd = np.ones((count, 1)), np.ones((count + 1, 1))  # in the middle of the cells, and at their edges
    if not run.noise_limited:
        relief = run.b / c.critical_batch
        d = edges * (run.b / c.steps_ref)
        crowd = 1.0 / np.sqrt(1.0 + relief * _power(np.maximum(d, FIRST_TOKENS), -c.critical_growth))
        middle = np.sqrt(crowd[1:] * crowd[:-1])
        first = np.maximum(0.5 * d[1], FIRST_TOKENS)  # it grows fast there: no mean of the edges will do
        middle[0] = 1.0 / np.sqrt(1.0 + relief * first**-c.critical_growth)
    root = np.sqrt(run.b)
    drift, noise, exponent = root * middle, crowd / root, np.full(1, c.temperature_exponent)
    if run.plain.any():
        plain = run.plain > 0
        drift = np.where(plain, 1.0, drift)
        noise = np.where(plain, 1.0 / run.b, noise)
        exponent = np.where(plain, 1.0, exponent)
    radius = np.sqrt(square)
    felt = mean * scale * np.sqrt(2.0 / (square[1:] + square[:-1]))
    step = felt * drift * width
    norms, noises = (radius[:-1], radius[1:]), (noise[:-1], noise[1:])
    ends = [r * scale / norm for r, norm in zip((left, right), norms, strict=True)]
    hot = [np.empty_like(ends[0]), _power(ends[1], exponent) * noises[1]]
    hot[0][1:] = hot[1][:-1]  # but for the start and the jumps between phases
    jumps = np.concatenate([[0], 1 + np.flatnonzero((left[1:] != right[:-1]).any(axis=1))])
    hot[0][jumps] = _power(ends[0][jumps], exponent) * noises[0][jumps]
    relaxed = step if c.relaxation == 1.0 else step * _power(_below_peak(felt, *ends), c.relaxation - 1.0)
    variance = _variance(relaxed, hot[0], hot[1], c.curvatures, along)
    escape = _escape(step, 0.5 * (hot[0] + hot[1]), c.escape_rate, along)
    if along:
        t = edges[1:] / c.steps_ref
        top, tau = np.maximum(left, right) * scale, np.cumsum(step, axis=0)
        rows = (run.n + 0.0 * t, run.b + 0.0 * t, t, t * run.b, np.maximum.accumulate(top, axis=0), tau, radius[1:])
        n, b, t, d, peak, tau, radius = (row.ravel() for row in rows)
        return States(n, b, t, d, peak, tau, radius, variance, escape)
    t = edges[-1] / c.steps_ref
    peak = np.maximum(left.max(axis=0), right.max(axis=0)) * scale
    return States(run.n, run.b, t, t * run.b, peak, step.sum(axis=0), radius[-1], variance, escape)


def _below_peak(felt: FloatArray, left: FloatArray, right: FloatArray) -> FloatArray:
    """Return the felt rate of each cell over the highest so far, 0 .. 1; arrays (K, n), two at the ends of the cells.

    Within the cell only its left end and its mean count as so far: where the rate rises the share is 1.
    """
    top = np.maximum(left, felt)
    np.maximum(top[1:], right[:-1], out=top[1:])
    for k in range(1, len(top)):  # five times faster than np.maximum.accumulate along this axis
        np.maximum(top[k], top[k - 1], out=top[k])
    return np.asarray(felt / np.maximum(top, SMALLEST))


def weight_norm(grid: Cells, run: Drive, dynamics: Dynamics) -> FloatArray:
    """Return the weight norm R at the edges of the cells, shape (n, K + 1), without the other states."""
    scale = dynamics.rate_scale(run.n)
    mean = np.ascontiguousarray(grid.mean.T)
    square = _squared_norm(mean, np.diff(grid.edges, axis=1).T, scale, run, dynamics)
    return np.asarray(np.sqrt(square).T)


def _squared_norm(mean: FloatArray, width: FloatArray, scale: FloatArray, run: Drive, c: Dynamics) -> FloatArray:
    """Return R^2 at the edges of cells of shape (K, n), from 1 at the start; shape (K + 1, n)."""
    shrink = 2.0 * run.weight_decay * mean * width
    average = -np.expm1(-shrink)  # 1 - exp(-a)
    keep = 1.0 - average
    average = (average + SMALLEST) / (shrink + SMALLEST)  # 1 at a = 0
    grow = c.kappa * (mean * scale) ** 2 * width * average
    count = len(width)
    square = np.empty((count + 1, len(run.n)))
    square[0] = 1.0
    for k in range(count):
        np.multiply(square[k], keep[k], out=square[k + 1])
        square[k + 1] += grow[k]
    return square


def _power(base: FloatArray, exponent: FloatArray | float) -> FloatArray:
    """Return base^exponent for base >= 0, through exp and log, which NumPy runs several at a time."""
    out: FloatArray = np.exp(exponent * np.log(np.maximum(base, 1e-300)))
    return out


def _variance(step: FloatArray, left: FloatArray, right: FloatArray, curvatures: FloatArray, along: bool) -> FloatArray:
    """Solve the variances' equation, Theta linear in time within a cell; shape (n, modes), or (K n, modes) along.

    `step` is intrinsic time across each cell times the variances' factor of u / u_max there. With y = v - Theta at a
    cell's right end, D = Theta_left - Theta_right, J the jump of Theta before the cell and z = 2 l step,
    y1 = (y0 + J) exp(-z) + D (1 - exp(-z)) / z.
    """
    jump, drop = -left, left - right
    jump[1:] += right[:-1]
    jumps = set(np.flatnonzero(jump.any(axis=1)).tolist())  # at the start and between phases
    shape = (len(step), len(curvatures), step.shape[1])
    trail = np.empty(shape) if along else None
    buffers = _buffers((CELLS_AT_ONCE, *shape[1:]))
    y = np.zeros(shape[1:])
    for start in range(0, len(step), CELLS_AT_ONCE):
        some = slice(start, start + CELLS_AT_ONCE)
        fade, source = _fading(step[some], drop[some], curvatures, buffers[:, : len(step[some])])
        for k in range(len(fade)):
            if start + k in jumps:
                y += jump[start + k]
            y *= fade[k]
            y += source[k]
            if trail is not None:
                trail[start + k] = y
    if trail is None:
        return np.ascontiguousarray((y + right[-1]).T)
    trail += right[:, None]
    return np.array(trail.transpose(0, 2, 1).reshape(-1, len(curvatures)))


def _fading(
    step: FloatArray, drop: FloatArray, curvatures: FloatArray, buffers: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return exp(-z) and D (1 - exp(-z)) / z, z = 2 l step, of some cells, in two of three buffers (K, modes, n)."""
    z, fade, source = buffers
    np.multiply(step[:, None], (-2.0 * curvatures)[:, None], out=z)
    np.maximum(z, -LARGEST_DECAY, out=fade)  # beyond it nothing is left of the past; exp is slow where it underflows
    np.exp(fade, out=fade)
    np.subtract(fade, 1.0 + TINY, out=source)
    z -= TINY
    source /= z
    source *= drop[:, None]
    return fade, source


def _to_go(step: FloatArray) -> FloatArray:
    """Return intrinsic time from the left end of each cell to the end of the run, (K, n)."""
    out = np.empty_like(step)
    out[-1] = step[-1]
    for k in range(len(step) - 2, -1, -1):
        np.add(out[k + 1], step[k], out=out[k])
    return out


_LOCAL = threading.local()


def _buffers(shape: tuple[int, int, int]) -> FloatArray:
    """Return three scratch arrays of this thread, shape (3, *shape); fresh ones would cost more than the arithmetic."""
    size = 3 * math.prod(shape)
    held = getattr(_LOCAL, "held", None)
    if held is None or held.size < size:
        held = _LOCAL.held = np.empty(size)
    return np.asarray(held[:size].reshape(3, *shape))


def _escape(step: FloatArray, hot: FloatArray, rate: float, along: bool) -> FloatArray:
    """Solve the escape covariance's equation, capped at LARGEST_ESCAPE; shape (n,), or (K n,) along.

    It only grows: at the end, C = sum_k source_k exp(2 rho (tau_end - tau_k)).
    """
    z = np.minimum(2.0 * rate * step, LARGEST_GROWTH)
    source = np.expm1(z)
    source *= hot
    source /= 2.0 * rate
    if not along:
        source[:-1] *= np.exp(np.minimum(_to_go(z)[1:], LARGEST_DECAY))
        return np.asarray(np.minimum(source.sum(axis=0), LARGEST_ESCAPE))
    gain = np.exp(z)
    c = np.zeros(step.shape[1])
    trail = np.empty(step.shape)
    for k in range(len(step)):
        c *= gain[k]
        c += source[k]
        np.minimum(c, LARGEST_ESCAPE, out=c)
        trail[k] = c
    return trail.ravel()


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
        Multiplies the number of cells, 0.1 to 100; 1 is what laws are fitted with.

    Raises
    ------
    InputError
        A size or batch that the law needs is missing, `resolution` is out of range, or `threads` is no whole number
        above 0.
    """
    batch = runs.batch()
    everything = drive(runs, dynamics, use_params=use_params, use_batch=use_batch)
    total = len(runs)
    out = {
        "n": everything.n, "b": everything.b, "variance": np.empty((total, len(dynamics.curvatures))),
        **{name: np.empty(total) for name in ("t", "d", "peak", "tau", "radius", "escape")},
    }  # fmt: skip

    def work(start: int) -> None:
        rows = np.arange(start, min(start + BLOCK, total))
        for index, grid in cells(batch[start : start + BLOCK], resolution, CHUNK):
            where = rows[index]
            part = integrate(grid, everything.take(where), dynamics)
            for name in ("t", "d", "peak", "tau", "radius", "escape", "variance"):
                out[name][where] = getattr(part, name)

    spread_over_threads(work, range(0, total, BLOCK), threads)
    out["peak"] = np.maximum(out["peak"], _highest(batch, everything, dynamics))
    return States(**out)


def _highest(batch: ScheduleBatch, run: Drive, dynamics: Dynamics) -> FloatArray:
    """Return the highest scaled rate of each run, (n,); the cells' ends may miss that of a noisy array."""
    return np.asarray(np.asarray(batch.peak) * dynamics.rate_scale(run.n))


def final_grid(batch: ScheduleBatch) -> Cells:
    """Return the cells of n >= 1 runs in one grid, in their order, for `integrate` under many constants in turn.

    They are those of `final_states`; cells of zero width fill up the shorter ones.
    """
    pieces = list(cells(batch))
    grid = _stack([piece for _, piece in pieces])
    order = np.argsort(np.concatenate([index for index, _ in pieces]))
    return Cells(*(getattr(grid, name)[order] for name in ("edges", "left", "mean", "right")))


def end_states(grid: Cells, batch: ScheduleBatch, run: Drive, dynamics: Dynamics) -> States:
    """Return the states (n,) at the end of n runs from their `final_grid`: `final_states` but for rounding."""
    ends = integrate(grid, run, dynamics)
    return replace(ends, peak=np.maximum(ends.peak, _highest(batch, run, dynamics)))


def spread_over_threads(work: Callable[[int], None], starts: Sequence[int], threads: int | None) -> None:
    """Call work(start) for every start, on as many threads as asked for, or as there are processors.

    Raises
    ------
    InputError
        `threads` is neither a whole number above 0 nor None.
    """
    if threads is not None and (not isinstance(threads, Integral) or isinstance(threads, bool) or threads < 1):
        raise InputError(
            f"threads must be a whole number above 0, or None for one per processor, got {threads!r}; leave it out"
        )
    workers = threads or min(len(starts), os.cpu_count() or 1)
    if workers <= 1:
        for start in starts:
            work(start)
        return
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, starts))


def curve_grid(
    schedules: Sequence[Schedule], steps: Sequence[FloatArray], resolution: float = 1.0
) -> tuple[Cells, npt.NDArray[np.intp]]:
    """Return the cells of n runs whose edges contain the given steps, and where `integrate` along them has the answers.

    Parameters
    ----------
    schedules : sequence of n Schedule
    steps : sequence of n ndarrays
        Numbers of updates done, 1 .. total_steps, ascending, each (m_i,).

    Raises
    ------
    InputError
        A step lies outside its run, `resolution` is not 0.1 to 100, or there are not n >= 1 of both.
    """
    if not len(schedules) or len(schedules) != len(steps):
        raise InputError(
            f"steps must be one array a schedule, at least 1, got {len(steps)} for {len(schedules)} schedules; add them"
        )
    for schedule, at in zip(schedules, steps, strict=True):
        wrong = np.asarray(at)[~((np.asarray(at) >= 1) & (np.asarray(at) <= schedule.total_steps))]
        if len(wrong):
            raise InputError(
                f"step must be from 1 to {schedule.total_steps}, the updates done, got {wrong[0]:g};"
                " drop steps outside the run"
            )
    grids = [cells_at(schedule, at, resolution) for schedule, at in zip(schedules, steps, strict=True)]
    n = len(grids)
    picks = []
    for i, (grid, at) in enumerate(zip(grids, steps, strict=True)):
        cell = np.searchsorted(grid.edges[0, 1:], np.asarray(at, dtype=float) - 1e-6)
        picks.append(np.minimum(cell, grid.mean.shape[1] - 1) * n + i)
    return _stack(grids), np.concatenate(picks)


def curve_states(
    schedules: Sequence[Schedule],
    steps: Sequence[FloatArray],
    runs: Drive,
    dynamics: Dynamics,
    *,
    resolution: float = 1.0,
) -> States:
    """Return the states of n runs after the given numbers of steps, run by run, shape (total number of steps,).

    Parameters and errors as in `curve_grid`; `runs` holds arrays of shape (n,).
    """
    grid, where = curve_grid(schedules, steps, resolution)
    return integrate(grid, runs, dynamics, along=True).take(where)


def _stack(grids: Sequence[Cells]) -> Cells:
    """Return one grid of the schedules of several, padded with cells of zero width."""
    most = max(grid.mean.shape[1] for grid in grids)

    def padded(name: str) -> FloatArray:
        rows = [getattr(grid, name) for grid in grids]
        pads = [((0, 0), (0, most - grid.mean.shape[1])) for grid in grids]
        return np.vstack([np.pad(row, pad, mode="edge") for row, pad in zip(rows, pads, strict=True)])

    return Cells(*(padded(name) for name in ("edges", "left", "mean", "right")))


def join_states(parts: Sequence[States]) -> States:
    """Return the points of several states, at least one, one after the other."""
    return States(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in States.__dataclass_fields__})
