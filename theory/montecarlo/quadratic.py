"""SGD on a convex quadratic against the mean and variance of the SDE, for several schedules.

    x <- x - eta_k (h x + s xi),  xi ~ N(0, 1)        SGD
    E X = x0 exp(-h int eta),  Var' = -2 h eta Var + eta^2 s^2        SDE, both as `optlaws.dynamics` has them

Left out are terms of relative order eta h: (1 - eta h)^k against exp(-eta h k) makes at most h^2 sum eta^2 / 2
(1 + O(eta h)) of the mean, and the variance at a constant rate is larger by eta h / 2; the peak of eta h is allowed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from optlaws.schedules import Schedule
from theory.montecarlo.link import bare_dynamics, four_schedules, states_at
from theory.montecarlo.rows import FloatArray, Row, mean_row

PEAK, STEPS, START, NOISE = 0.02, 1200, 1.0, 1.0
CURVATURES = np.geomspace(0.1, 2.5, 4)  # times PEAK: 0.002 .. 0.05 a step


def sgd(
    schedule: Schedule,
    curvatures: FloatArray,
    start: float,
    noise: float,
    trajectories: int,
    rng: np.random.Generator,
    at: Sequence[int] | None = None,
) -> FloatArray:
    """Return trajectories of SGD with Gaussian gradient noise, shape (len(at), trajectories, modes).

    Parameters
    ----------
    schedule : Schedule
        T learning rates.
    curvatures : (d,) array
        Of the modes; negative ones are saddles.
    start : float
        x of every mode before the first update.
    noise : float
        Standard deviation of a gradient.
    at : sequence of int, optional
        Numbers of updates after which to look, ascending; default: T.
    """
    wanted = [schedule.total_steps] if at is None else list(at)
    x = np.full((trajectories, len(curvatures)), start)
    out = np.empty((len(wanted), *x.shape))
    for k, rate in enumerate(schedule.array(), start=1):
        x *= 1.0 - rate * curvatures
        x += rng.standard_normal(x.shape) * (rate * noise)
        if k in wanted:
            out[wanted.index(k)] = x
    return out


def moments(schedule: Schedule, at: Sequence[int] | None = None) -> tuple[FloatArray, FloatArray]:
    """Return mean and variance of the modes as `optlaws` has them, each of shape (len(at), modes)."""
    states = states_at(schedule, bare_dynamics(PEAK, CURVATURES * PEAK), at)
    mean = START * np.exp(-CURVATURES * PEAK * states.tau[:, None])
    return mean, NOISE**2 * PEAK * states.variance / (2.0 * CURVATURES)


def halfway(schedule: Schedule) -> list[int]:
    """Return for each mode the updates after which about 1/e of its start is left (or T), where its mean tells most."""
    path = np.cumsum(schedule.array())
    return [min(int(np.searchsorted(path, 1.0 / h)) + 1, schedule.total_steps) for h in CURVATURES]


def quadratic_rows(trajectories: int = 8000, seed: int = 1) -> list[Row]:
    """Return the mean of four modes on the way and their variance at the end, under four schedules."""
    rng, rows = np.random.default_rng(seed), []
    for name, schedule in four_schedules(PEAK, STEPS).items():
        modes = list(zip(CURVATURES.tolist(), halfway(schedule), strict=True))
        times = sorted({schedule.total_steps, *(k for _, k in modes)})
        mean, variance = moments(schedule, times)
        x = sgd(schedule, CURVATURES, START, NOISE, trajectories, rng, times)
        squares = np.cumsum(schedule.array() ** 2)
        for j, (h, k) in enumerate(modes):
            i = times.index(k)
            left_out = mean[i, j] * 0.5 * h**2 * squares[k - 1] / (1.0 - h * PEAK)
            what = f"{name}, eta h = {h * PEAK:.3f}: mean after {k} steps"
            rows.append(mean_row(what, mean[i, j], x[i, :, j], "order", left_out))
        for j, h in enumerate(CURVATURES.tolist()):
            spread = (x[-1, :, j] - x[-1, :, j].mean()) ** 2 * trajectories / (trajectories - 1)
            what = f"{name}, eta h = {h * PEAK:.3f}: variance x 1000 at the end"
            rows.append(mean_row(what, variance[-1, j], spread, "order", h * PEAK * variance[-1, j], 1000.0))
    return rows
