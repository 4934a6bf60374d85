"""The probability of staying near a saddle, and in a well, against the anti-concentration bound.

About the current mean the linearised Fokker-Planck equation has Gaussian solutions with covariance C, and whatever the
mean (Anderson's inequality puts it at the centre)

    P(|X| < r) <= e^1/2 (1 + tr C / r^2)^-1/2 <= e^1/2 (r^2 / tr C)^1/2         in any number of dimensions

since P(|X|^2 < r^2) <= exp(s r^2) E exp(-s |X|^2) = exp(s r^2) prod (1 + 2 s C_i)^-1/2
                     <= exp(s r^2) (1 + 2 s tr C)^-1/2 at s = 1 / (2 r^2).

It is the shape of the column `escape_probability`, 1 - (1 + C)^-1/2. In one dimension the density gives the sharper
(2 / pi)^1/2 (r^2 / C)^1/2. C is that of `optlaws`: escape state at a saddle, variance state in a well.

On the quadratic saddle the probability is the Gaussian's, up to the orders that the link leaves out (eta rho (1 + S)
for SGD, S the integral of rho eta: (1 + eta rho)^k is not exp(eta rho k)), allowed on the bound too. In the double well
x^4 / 4 - x^2 / 2, started on its barrier and cold, what is near the barrier leaves as on the saddle and does not come
back. Started at the bottom of a well the bound holds and says little of how many leave. Hot and long the walk crosses
back and forth, and C of the linearisation exceeds what the wells allow: the bound fails, a stated failure.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import erf

from optlaws.schedules import Schedule
from theory.montecarlo.link import bare_dynamics, escape_state, four_schedules, states_at
from theory.montecarlo.rows import FloatArray, Row

DIMENSIONLESS = float(np.exp(0.5))  # c of the bound in any number of dimensions
ONE = float(np.sqrt(2.0 / np.pi))  # c in one dimension
PEAK, STEPS = 0.02, 240
ADAM_PEAK, BETAS = 0.002, (0.9, 0.999)  # Adam's step is the rate itself
NEAR = 0.3  # radius in predicted standard deviations
COLD, WARM, HOT = 0.4, 4.0, 6.0  # gradient noise in the double well: temperature eta s^2 / 2, barrier 1/4
RATES = np.array([0.25, 0.5, 1.0])  # negative curvatures of the saddle in three dimensions


def bound(trace: float, radius: float, constant: float = DIMENSIONLESS) -> float:
    """Return c (r^2 / tr C)^1/2, at most 1."""
    return float(min(1.0, constant * radius / np.sqrt(trace)))


def laplace_bound(trace: float, radius: float) -> float:
    """Return e^1/2 (1 + tr C / r^2)^-1/2, at most 1: the column's shape."""
    return float(min(1.0, DIMENSIONLESS / np.sqrt(1.0 + trace / radius**2)))


def walk(
    schedule: Schedule,
    gradient: Callable[[FloatArray], FloatArray],
    start: FloatArray,
    noise: float,
    rng: np.random.Generator,
) -> FloatArray:
    """Return where SGD with Gaussian gradient noise ends, of the shape of `start`."""
    x = start.copy()
    for rate in schedule.array():
        x -= rate * (gradient(x) + noise * rng.standard_normal(x.shape))
    return x


def adam_walk(schedule: Schedule, trajectories: int, rng: np.random.Generator) -> FloatArray:
    """Return where Adam ends on -x^2 / 2 with unit gradient noise, started at 0, shape (trajectories,)."""
    x, m, v = np.zeros(trajectories), np.zeros(trajectories), np.zeros(trajectories)
    for k, rate in enumerate(schedule.array(), start=1):
        g = rng.standard_normal(trajectories) - x
        m += (1.0 - BETAS[0]) * (g - m)
        v += (1.0 - BETAS[1]) * (g * g - v)
        x -= rate * (m / (1.0 - BETAS[0] ** k)) / (np.sqrt(v / (1.0 - BETAS[1] ** k)) + 1e-12)
    return x


def share(inside: np.ndarray) -> tuple[float, float]:
    """Return a share and its standard error, never 0 (one success more and one failure more)."""
    n = len(inside)
    p = (inside.sum() + 1.0) / (n + 2.0)
    return float(inside.mean()), float(np.sqrt(p * (1.0 - p) / n))


def saddle_rows(trajectories: int, rng: np.random.Generator) -> list[Row]:
    """Return SGD at a saddle in one and three dimensions, and Adam."""
    rows = []
    for name, schedule in four_schedules(PEAK, STEPS).items():
        c = np.array([PEAK**2 * escape_state(schedule, bare_dynamics(PEAK, [1.0]), rho * PEAK) for rho in RATES])
        x = walk(schedule, lambda x: -RATES * x, np.zeros((trajectories, 3)), 1.0, rng)
        grown = 1.0 + float(schedule.array().sum())  # (1 + eta rho)^k against exp(eta rho k), and the last step
        rows += _line_rows(f"SGD, {name}", x[:, -1], float(c[-1]), PEAK * grown)
        radius = NEAR * float(np.sqrt(c.sum()))
        found, se = share((x**2).sum(axis=1) < radius**2)
        what = f"SGD, {name}: P(|x| < .3 sd), three dimensions, bound"
        rows.append(Row(what, laplace_bound(float(c.sum()), radius), found, se, "bound"))
    for name, schedule in four_schedules(ADAM_PEAK, 4 * STEPS).items():
        dynamics = bare_dynamics(ADAM_PEAK, [1.0])
        c_adam = ADAM_PEAK**2 * escape_state(schedule, dynamics, ADAM_PEAK, optimizer="adam")
        grown = 1.0 + float(schedule.array().sum())
        order = ADAM_PEAK / (1.0 - BETAS[0]) * grown + 1.0 - BETAS[1] + c_adam
        rows += _line_rows(f"Adam, {name}", adam_walk(schedule, trajectories, rng), c_adam, order)
    return rows


def _line_rows(name: str, x: FloatArray, c: float, order: float) -> list[Row]:
    """Return P(|x| < .3 sd) in one dimension against the Gaussian of covariance c and against the bound."""
    radius = NEAR * float(np.sqrt(c))
    found, se = share(np.abs(x) < radius)
    exact, most = float(erf(NEAR / np.sqrt(2.0))), bound(c, radius, ONE)
    return [
        Row(f"{name}: P(|x| < .3 sd), Gaussian", exact, found, se, "order", order * exact),
        Row(f"{name}: P(|x| < .3 sd), bound", most, found, se, "bound", order * most),
    ]


def double_well(x: FloatArray) -> FloatArray:
    """Return the gradient of x^4 / 4 - x^2 / 2: wells at -1 and 1 of curvature 2, a barrier of curvature -1 at 0."""
    return x**3 - x


def well_rows(trajectories: int, rng: np.random.Generator) -> list[Row]:
    """Return the double well from its barrier and from one well, cold and hot."""
    rows, radius = [], 0.1
    for name, schedule in four_schedules(PEAK, STEPS).items():
        c = (PEAK * COLD) ** 2 * escape_state(schedule, bare_dynamics(PEAK, [1.0]), PEAK)
        found, se = share(np.abs(walk(schedule, double_well, np.zeros(trajectories), COLD, rng)) < radius)
        order = PEAK * (1.0 + float(schedule.array().sum()))
        what = f"double well from its barrier, {name}: P(|x| < .1)"
        rows.append(Row(what, bound(c, radius, ONE), found, se, "bound", order * bound(c, radius, ONE)))
    for name, schedule in four_schedules(PEAK, 3 * STEPS).items():
        states = states_at(schedule, bare_dynamics(PEAK, [2.0 * PEAK]))
        c = WARM**2 * PEAK * float(states.variance[0, 0]) / 4.0
        x = walk(schedule, double_well, np.full(trajectories, -1.0), WARM, rng)
        crossed = 100.0 * float((x > 0).mean())
        for near in (NEAR, 1.0):  # the bound is below 1 up to 1.25 standard deviations
            radius = near * float(np.sqrt(c))
            found, se = share(np.abs(x + 1.0) < radius)
            what = f"double well from a well, {name}: P(|x + 1| < {radius:.2g}), {crossed:.0f} % crossed"
            rows.append(Row(what, bound(c, radius, ONE), found, se, "bound"))
    hot = four_schedules(PEAK, 2 * STEPS)["constant"]
    c = (PEAK * HOT) ** 2 * escape_state(hot, bare_dynamics(PEAK, [1.0]), PEAK)
    found, se = share(np.abs(walk(hot, double_well, np.zeros(trajectories), HOT, rng)) < 0.3)
    what = "double well from its barrier, hot and long: P(|x| < .3)"
    return [*rows, Row(what, bound(c, 0.3, ONE), found, se, "differs")]


def escape_rows(trajectories: int = 10000, seed: int = 5) -> list[Row]:
    """Return probabilities of staying near a saddle and in a double well, under four schedules."""
    rng = np.random.default_rng(seed)
    return saddle_rows(trajectories, rng) + well_rows(trajectories, rng)
