"""What the laws that read a schedule share: readings of losses, changes of the rate, and a separable robust fit.

Step convention as everywhere: update k = 0 .. T-1 uses the rate eta_k; "after n updates" has seen eta_0 .. eta_{n-1}.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from optlaws.baselines.base import HUBER, FloatArray, Progress, in_order, training, usable
from optlaws.baselines.optimise import huber
from optlaws.errors import FitError, InputError
from optlaws.runs import CurveTable, RunTable
from optlaws.schedules import Schedule

ELEMENTS = 2_000_000  # numbers in one pass over readings x changes
PREDICTED_FLOOR = 1e-9  # a predicted loss is not taken below this in logarithms
REACHED = 0.99  # share of its run at which a curve's last reading is one of the end
THINNED = 16  # readings of a curve beside runs that have none
POLISHED = 4  # starts that are followed to the end
BEYOND = 2.0  # of ln theta: so far outside of the starts' box they may be followed

Features = Callable[[FloatArray, bool], tuple[FloatArray, FloatArray]]
"""theta (q,), and whether slopes are wanted -> F (m, p), and dF / d log theta (m, p, q), empty if not wanted."""


@dataclass(frozen=True, eq=False)
class Readings:
    """Losses of one run.

    Attributes
    ----------
    rates : (T,) the rate of every update.
    steps : (r,) updates done at each reading, whole numbers 1 .. T, ascending.
    loss : (r,) nats per token.
    size : parameters per token, NaN where not known.
    warmup : updates at the start during which the rate rises.
    """

    rates: FloatArray
    steps: npt.NDArray[np.int64]
    loss: FloatArray
    size: float
    warmup: int


def gather(law: Any, runs: RunTable, curves: CurveTable | None, fewest: int) -> list[Readings]:
    """Return what a law is fitted on: the final losses, and curves where there are some.

    Curves are brought to the level of the final losses (`level_of`), which may be of another evaluation. Where some
    runs have no curve, a curve gives `THINNED` readings at most, evenly spaced, and a final loss counts as often as
    their median, so that neither speaks for all. Where each has one, all readings are taken, and no final loss.

    Parameters
    ----------
    law : the law's class, for messages.
    runs : n runs; diverged ones and those without a loss are left out.
    curves : readings; those before the end of the warm-up are left out.
    fewest : least number of readings.

    Raises
    ------
    FitError
        There are too few readings, or a curve goes beyond the end of its run.
    """
    if curves is None:
        kept = training(law, runs, fewest)
        return [_last(*one) for one in zip(kept.schedule_tuple(), kept.final_loss, kept.size, strict=True)]
    runs = in_order(runs)
    where, ended, schedules = curves.runs(), usable(runs), runs.schedule_tuple()
    level, found, alone = level_of(runs, curves), [], []
    for i in np.flatnonzero(_finished(runs)):
        name, schedule = runs.run_id[i], schedules[i]
        step, loss = (curves.step[where[name]], curves.loss[where[name]]) if name in where else (np.empty(0),) * 2
        if len(step) and step[-1] > schedule.total_steps:
            raise FitError(
                f"curve of run {name!r} must end at step {schedule.total_steps}, the run's last, got step"
                f" {step[-1]:g}; correct the schedule or drop those readings"
            )
        seen = (step >= max(schedule.warmup_steps, 1)) & np.isfinite(loss) & (loss > 0)
        if seen.any():
            rates, warm = schedule.array(), int(schedule.warmup_steps)
            found.append(Readings(rates, step[seen].astype(np.int64), level * loss[seen], float(runs.size[i]), warm))
        elif ended[i]:
            alone.append(i)
    if alone and found:
        found = [_thinned(readings) for readings in found]
    times = max(int(np.median([len(r.loss) for r in found])), 1) if found else 1
    found += [_last(schedules[i], runs.final_loss[i], runs.size[i], times) for i in alone]
    count = sum(len(r.loss) for r in found)
    if count < fewest:
        raise FitError(
            f"law {law.name!r} needs at least {fewest} losses of completed runs, got {count}; add runs or curves"
        )
    return found


def level_of(runs: RunTable, curves: CurveTable) -> float:
    """Return final losses over the last readings of curves, the median of the completed runs that have both.

    1 where no run has a final loss and a curve that reaches `REACHED` of it: curves then speak for themselves.
    """
    where, ended, shares = curves.runs(), usable(runs), []
    for i in np.flatnonzero(ended):
        rows = where.get(runs.run_id[i], np.empty(0, dtype=np.intp))
        rows = rows[np.isfinite(curves.loss[rows]) & (curves.loss[rows] > 0)]
        if len(rows) and curves.step[rows[-1]] >= REACHED * runs.steps[i]:
            shares.append(float(runs.final_loss[i] / curves.loss[rows[-1]]))
    return float(np.median(shares)) if shares else 1.0


def _last(schedule: Schedule, loss: float, size: float, times: int = 1) -> Readings:
    """Return a final loss as readings at the last step, `times` alike."""
    steps = np.full(times, schedule.total_steps)
    return Readings(schedule.array(), steps, np.full(times, float(loss)), float(size), int(schedule.warmup_steps))


def _thinned(readings: Readings) -> Readings:
    """Return a run with `THINNED` of its readings, the first and the last among them."""
    keep = np.unique(np.linspace(0, len(readings.loss) - 1, min(THINNED, len(readings.loss))).round().astype(int))
    return replace(readings, steps=readings.steps[keep], loss=readings.loss[keep])


def _finished(runs: RunTable) -> npt.NDArray[np.bool_]:
    return np.array([status in (None, "completed") for status in runs.status], dtype=bool)


def asked(runs: RunTable, steps: Any) -> Readings:
    """Return the one run of a table with the steps at which its loss is asked for, in the order asked.

    Raises
    ------
    InputError
        The table has not one row, or a step lies outside 1 .. T or is not whole.
    """
    if len(runs) != 1:
        raise InputError(f"runs must be one run for a curve, got {len(runs)}; select one row")
    schedule = runs.schedule_tuple()[0]
    array = np.atleast_1d(np.asarray(steps, dtype=np.float64))
    bad = array[~((array >= 1) & (array <= schedule.total_steps) & (array == np.floor(array)))]
    if len(bad):
        raise InputError(
            f"steps must be whole numbers from 1 to {schedule.total_steps}, got {bad[0]:g}; drop steps outside the run"
        )
    nothing = np.full(len(array), np.nan)
    size = float(runs.size[0])
    return Readings(schedule.array(), array.astype(np.int64), nothing, size, int(schedule.warmup_steps))


def ends(runs: RunTable) -> list[Readings]:
    """Return every run with one reading, at its end; a `TableError` if the table holds a `ScheduleBatch`."""
    nothing = np.array([np.nan])
    return [
        Readings(s.array(), np.array([s.total_steps]), nothing, float(size), int(s.warmup_steps))
        for s, size in zip(runs.schedule_tuple(), runs.size, strict=True)
    ]


def logged(runs: RunTable, curves: CurveTable | None) -> npt.NDArray[np.bool_]:
    """Return which runs a fit would use, shape (n,)."""
    if curves is None:
        return usable(runs)
    names = set(curves.run_id)
    return np.asarray(usable(runs) | (_finished(runs) & np.array([name in names for name in runs.run_id], dtype=bool)))


@dataclass(frozen=True, eq=False)
class Changes:
    """Changes of the rate in one run.

    Attributes
    ----------
    gap : (k,) eta_{j-1} - eta_j, above 0 for a fall; never 0.
    rate : (k,) the new rate eta_j.
    before : (k,) sum of the rates of the updates before j.
    seen : (r,) sum of the rates up to each reading.
    """

    gap: FloatArray
    rate: FloatArray
    before: FloatArray
    seen: FloatArray


def changes(readings: Readings, most: int | None = None) -> Changes:
    """Return the changes of the rate in a run.

    Parameters
    ----------
    readings : the run.
    most : None for every change by itself. Else neighbours of one sign between two readings are merged until about this
        many are left: a merged one has their summed gap at their gap-weighted mean rate and place, which is exact to
        second order in the length merged.
    """
    rates = readings.rates
    total = np.concatenate([[0.0], np.cumsum(rates)])
    gap = rates[:-1] - rates[1:]
    at = np.flatnonzero(gap) + 1
    gap, rate, before = gap[at - 1], rates[at], total[at]
    if most is not None and len(at) > most:
        block = int(np.ceil(len(rates) / most))
        label = np.stack([np.searchsorted(readings.steps, at, side="right"), at // block, gap > 0])
        first = np.concatenate([[True], (np.diff(label, axis=1) != 0).any(axis=0)])
        start = np.flatnonzero(first)
        summed = np.add.reduceat(gap, start)
        rate, before = (np.add.reduceat(gap * v, start) / summed for v in (rate, before))
        gap = summed
    return Changes(gap, rate, before, total[readings.steps])


def pieces(rows: int, columns: int) -> list[slice]:
    """Return slices of the rows so that none holds more than `ELEMENTS` numbers."""
    step = max(1, ELEMENTS // max(columns, 1))
    return [slice(i, i + step) for i in range(0, rows, step)]


def huber_cost(log_residual: FloatArray) -> float:
    """Return the sum of Huber losses (threshold `HUBER`) of residuals (m,) of log losses."""
    return float(huber(log_residual, HUBER)[0].sum())


def reach(lower: float, upper: float) -> tuple[float, float]:
    """Return the lowest and the highest value that `fit_separable` can find where starts lie between these two."""
    return lower * float(np.exp(-BEYOND)), upper * float(np.exp(BEYOND))


def without_slopes(F: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return features F (m, p) whose slopes are not wanted, as `Features` must: with slopes (m, p, 0)."""
    return F, np.empty((*F.shape, 0))


def fit_separable(
    features: Features,
    lower: FloatArray,
    upper: FloatArray,
    loss: FloatArray,
    *,
    seed: int,
    starts: int,
    coarse: Features | None = None,
    progress: Progress | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Fit loss = sum_j c_j F_j(theta) with c >= 0, by Huber losses of the residuals of log losses.

    Each of `starts` points theta of a Latin hypercube (in logarithms) gets the best c by non-negative least squares
    (variable projection); the best few are followed by a trust-region method in c and log theta with an exact Jacobian.

    Parameters
    ----------
    features : see `Features`.
    lower, upper : (q,) box of theta, above 0; q may be 0.
    loss : (m,) nats per token.
    seed : of the hypercube.
    starts : number of points, at least 1.
    coarse : a cheaper stand-in of `features` for the starts.
    progress : called with a word at every start, and at every one that is followed.

    Returns
    -------
    c : (p,), at least 0; theta : (q,)
    """
    from scipy.optimize import least_squares, nnls
    from scipy.stats import qmc

    q = len(lower)
    low, high = np.log(lower), np.log(upper)
    points = low + (high - low) * qmc.LatinHypercube(q, rng=seed).random(starts) if q else np.zeros((1, 0))
    found: list[tuple[float, int, FloatArray]] = []
    for point in points:
        if progress is not None:
            progress(f"start {len(found) + 1} of {len(points)}")
        F = (coarse or features)(np.exp(point), False)[0] / loss[:, None]
        scale = np.maximum(np.linalg.norm(F, axis=0), 1e-300)
        c = nnls(F / scale, np.ones(len(loss)))[0] / scale
        found.append((huber_cost(np.log(np.maximum(F @ c, PREDICTED_FLOOR))), len(found), np.concatenate([c, point])))
    found.sort()
    p = len(found[0][2]) - q
    scales = np.maximum(np.abs(found[0][2][:p]), 1e-12)
    log_loss = np.log(loss)
    memory: dict[bytes, tuple[FloatArray, FloatArray]] = {}

    def evaluate(x: FloatArray) -> tuple[FloatArray, FloatArray]:
        key = x.tobytes()
        if key not in memory:
            memory.clear()
            F, slopes = features(np.exp(x[p:]), True)
            c = x[:p] * scales
            value = np.maximum(F @ c, PREDICTED_FLOOR)
            columns = np.concatenate([F * scales, np.einsum("mpq,p->mq", slopes, c)], axis=1)
            memory[key] = np.log(value) - log_loss, columns / value[:, None]
        return memory[key]

    box = (np.concatenate([np.zeros(p), low - BEYOND]), np.concatenate([np.full(p, np.inf), high + BEYOND]))

    def follow(start: FloatArray) -> tuple[float, FloatArray]:
        if progress is not None:
            progress("last steps")
        x = np.concatenate([np.maximum(start[:p] / scales, 1e-6), start[p:]])
        done = least_squares(
            lambda x: evaluate(x)[0], x, jac=lambda x: evaluate(x)[1], bounds=box, loss="huber", f_scale=HUBER,
            x_scale="jac", max_nfev=200, xtol=1e-9, ftol=1e-10, gtol=1e-12,
        )  # fmt: skip
        return huber_cost(done.fun), done.x

    best = min((follow(start) for _, _, start in found[:POLISHED]), key=lambda end: end[0])[1]
    return best[:p] * scales, np.exp(best[p:])
