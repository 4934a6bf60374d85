"""Where Gaussian gradient noise fails: Student-t gradients of the same variance, and by how much.

The first two moments of linear dynamics depend on the variance of the noise alone, so with nu > 2 degrees of freedom
mean and variance are those of the SDE (for nu <= 4 the sample variance has no standard error and is not compared). What
fails, the more the nearer nu is to 2 and the larger eta h, since 1 / (eta h) gradients are averaged:

- the spread of typical runs: the core's variance, (interquartile range / 1.349)^2, falls short of the variance
- tails: departures beyond 4 sd are many times as frequent
- escape: more runs stay near a saddle, more leave a cold well, by single large gradients instead of many small ones
- Adam: its normaliser is seldom at the variance, mostly below it, so that intrinsic time runs faster

With nu > 4 the excess kurtosis of x is about k = eta h 6 / (nu - 4); by Cornish and Fisher the core's variance loses
about k / 4 of itself, and P(beyond z sd) gains z^4 k / 24: allowed besides the
eta h / 2 of the finite step.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.stats import norm

from optlaws.schedules import constant, wsd
from theory.montecarlo import escape
from theory.montecarlo.link import bare_dynamics, escape_state, states_at
from theory.montecarlo.rows import FloatArray, Row, mean_row

FREEDOMS = (2.5, 3.0, 5.0, np.inf)
PEAK, STEPS, CURVATURE, START, FAR = 0.05, 200, 1.0, 1.0, 4.0
WELL_PEAK, WELL_STEPS, WELL_NOISE = 0.02, 400, 2.0
ADAM_PEAK, ADAM_STEPS = 2e-3, 500
QUARTILES = float(norm.ppf(0.75) - norm.ppf(0.25))


def gradients(freedom: float, count: int, rng: np.random.Generator) -> FloatArray:
    """Return Student-t noise of variance 1, Gaussian for an infinite `freedom`; shape (count,)."""
    if np.isinf(freedom):
        return rng.standard_normal(count)
    return np.asarray(rng.standard_t(freedom, count) * np.sqrt(1.0 - 2.0 / freedom))


def core_variance(x: FloatArray) -> tuple[float, float]:
    """Return (interquartile range / 1.349)^2 and its standard error from ten parts of the sample."""
    parts = np.array([float(np.subtract(*np.quantile(p, [0.75, 0.25]))) for p in np.array_split(x, 10)]) / QUARTILES
    whole = float(np.subtract(*np.quantile(x, [0.75, 0.25]))) / QUARTILES
    return whole**2, float(2.0 * whole * parts.std(ddof=1) / np.sqrt(10))


def _label(freedom: float) -> str:
    return "Gaussian" if np.isinf(freedom) else f"t, nu = {freedom:g}"


def quadratic_rows(freedom: float, trajectories: int, rng: np.random.Generator) -> list[Row]:
    """Return mean, variance, core and tail of one mode under WSD."""
    schedule, x = wsd(PEAK, STEPS, decay=0.2), np.full(trajectories, START)
    half = int(np.searchsorted(np.cumsum(schedule.array()), 1.0 / CURVATURE)) + 1
    dynamics = bare_dynamics(PEAK, [CURVATURE * PEAK])
    states = states_at(schedule, dynamics, [half, STEPS])
    mean = START * np.exp(-CURVATURE * PEAK * states.tau)
    variance = PEAK * float(states.variance[1, 0]) / (2.0 * CURVATURE)
    rows, name, step = [], _label(freedom), PEAK * CURVATURE
    for k, rate in enumerate(schedule.array(), start=1):
        x -= rate * (CURVATURE * x + gradients(freedom, trajectories, rng))
        if k == half:
            order = float(mean[0]) * 0.5 * step**2 * half / (1.0 - step)
            rows.append(mean_row(f"{name}: mean after {half} steps", float(mean[0]), x, "order", order))
    deviation = x - mean[1]
    tame = freedom > 4.0
    kurtosis = step * 6.0 / (freedom - 4.0) if tame else 0.0
    if tame:
        rows.append(mean_row(f"{name}: variance / predicted", 1.0, deviation**2 / variance, "order", step))
    core, se = core_variance(x)
    rule = "order" if tame else "differs"
    allowed = 0.5 * step + kurtosis / 4.0
    row = Row(f"{name}: core variance / predicted", 1.0, core / variance, se / variance, rule, allowed)
    rows.append(row)
    far, se = escape.share(np.abs(deviation) > FAR * np.sqrt(variance))
    expected = float(2.0 * norm.sf(FAR))
    allowed = expected * (FAR**2 * step + FAR**4 * kurtosis / 24.0)
    rows.append(Row(f"{name}: P(beyond 4 sd) x 1000", 1e3 * expected, 1e3 * far, 1e3 * se, rule, 1e3 * allowed))
    return rows


def saddle_row(freedom: float, trajectories: int, rng: np.random.Generator) -> Row:
    """Return the probability of staying near a saddle."""
    schedule, x = constant(escape.PEAK, escape.STEPS), np.zeros(trajectories)
    c = escape.PEAK**2 * escape_state(schedule, bare_dynamics(escape.PEAK, [1.0]), escape.PEAK)
    for rate in schedule.array():
        x += rate * (x - gradients(freedom, trajectories, rng))
    found, se = escape.share(np.abs(x) < escape.NEAR * np.sqrt(c))
    exact = float(norm.cdf(escape.NEAR) - norm.cdf(-escape.NEAR))
    order = exact * escape.PEAK * (1.0 + float(schedule.array().sum()))
    rule = "differs" if freedom < 3.0 else "order"
    return Row(f"{_label(freedom)}: P(|x| < .3 sd) at a saddle", exact, found, se, rule, order)


def crossed(freedom: float, trajectories: int, rng: np.random.Generator) -> tuple[float, float]:
    """Return the share of runs that end across the barrier of the double well, and its standard error."""
    x = np.full(trajectories, -1.0)
    for rate in constant(WELL_PEAK, WELL_STEPS).array():
        pull = np.clip(escape.double_well(x), -10.0, 10.0)  # a very large gradient must not blow the cubic up
        x -= rate * (pull + WELL_NOISE * gradients(freedom, trajectories, rng))
    return escape.share(x > 0)


def adam_row(freedom: float, trajectories: int, rng: np.random.Generator) -> Row:
    """Return intrinsic time of Adam, read off the decay of a slow mode's mean, over that of `optlaws`."""
    schedule, start, h = constant(ADAM_PEAK, ADAM_STEPS), 0.1, 1.0
    x = np.full(trajectories, start)
    m = np.zeros(trajectories)
    v = np.full(trajectories, 1.0)
    for rate in schedule.array():
        g = h * x + gradients(freedom, trajectories, rng)
        m += 0.1 * (g - m)
        v += 0.01 * (g * g - v)
        x -= rate * m / np.sqrt(v)
    states = states_at(schedule, bare_dynamics(ADAM_PEAK, [h * ADAM_PEAK]), optimizer="adam")
    expected = h * ADAM_PEAK * float(states.tau[0])
    row = mean_row("", start * float(np.exp(-expected)), x)
    found, se = -np.log(row.simulated / start) / expected, row.error / row.simulated / expected
    kurtosis = 6.0 / (freedom - 4.0) if freedom > 4.0 else 0.0
    order = ADAM_PEAK * h / 0.1 + 0.01 * (1.0 + kurtosis) + start**2
    what = f"{_label(freedom)}: intrinsic time of Adam / predicted"
    return Row(what, 1.0, float(found), float(se), "differs" if freedom < 3.0 else "order", order)


def heavy_tail_rows(trajectories: int = 20000, seed: int = 6) -> list[Row]:
    """Return moments, core, tail, saddle, well and Adam by degrees of freedom against the Gaussian prediction."""
    rng, rows = np.random.default_rng(seed), []
    for freedom in FREEDOMS:
        rows += quadratic_rows(freedom, trajectories, rng)
        rows.append(saddle_row(freedom, trajectories, rng))
        rows.append(adam_row(freedom, trajectories, rng))
    base, base_se = crossed(np.inf, trajectories, rng)
    for freedom in (f for f in FREEDOMS if f < 4.0):
        found, se = crossed(freedom, trajectories, rng)
        what = f"{_label(freedom)}: share that left a cold well x 1000 (predicted: Gaussian simulated)"
        row = Row(what, 1e3 * base, 1e3 * found, 1e3 * float(np.hypot(se, base_se)), "differs")
        rows.append(replace(row, allowance=row.predicted * WELL_PEAK))
    return rows
