"""The order of the link between SGD and its SDE, measured as the step shrinks.

The SDE dX = -eta F'(X) dt + eta s B^-1/2 dW does not change when a step of rate eta and batch B is cut into m steps of
rate eta / m and batch B / m (linear scaling), so all refinements share one limit and E g(SGD) - E g(SDE) = c / m +
O(m^-2): Euler-Maruyama has weak order 1. With additive noise of a quadratic, the SDE driven by the same normal numbers
is exact in law, which makes paired differences precise; for another loss the differences of successive refinements
along one Brownian path are used. A slope measured at relative steps eta h differs from the order by O(eta h); twice
their mean is allowed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from optlaws.schedules import Schedule, wsd
from theory.montecarlo.link import bare_dynamics, states_at
from theory.montecarlo.rows import FloatArray, Row, mean_row

BASE, PEAK, CURVATURE, NOISE, START = 12, 0.4, 1.0, 0.6, 1.0
REFINEMENTS = (4, 8, 16, 32, 64)
TESTS: dict[str, Callable[[FloatArray], FloatArray]] = {"E x": lambda x: x, "E x^2": np.square}


@dataclass(frozen=True)
class Errors:
    """Weak errors by refinement: relative step eta h, error, its standard error, each of shape (levels,)."""

    step: FloatArray
    error: FloatArray
    se: FloatArray

    def slope(self) -> tuple[float, float]:
        """Return the slope of ln |error| against ln step, all levels alike, and its standard error."""
        x, y = np.log(self.step), np.log(np.abs(self.error))
        weight = (x - x.mean()) / float(((x - x.mean()) ** 2).sum())
        return float(weight @ y), float(np.sqrt((weight**2) @ (self.se / self.error) ** 2))


def refined(m: int) -> Schedule:
    """Return the schedule with each step cut into m, of the same integral."""
    return wsd(PEAK / m, BASE * m, decay=0.5)


def quadratic_errors(trajectories: int, rng: np.random.Generator) -> tuple[dict[str, Errors], list[Row]]:
    """Return the weak errors of SGD on h x^2 / 2 and the check that the paired exact solution is that of `optlaws`."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in TESTS}
    rows = []
    for m in REFINEMENTS:
        x = np.full(trajectories, START)
        y = x.copy()
        for rate in refined(m).array():
            a, kick = rate * CURVATURE, rate * NOISE * np.sqrt(m) * rng.standard_normal(trajectories)
            x += kick - a * x
            y = np.exp(-a) * y + (np.sqrt(-np.expm1(-2.0 * a) / (2.0 * a)) if a > 0 else 1.0) * kick
        for name, g in TESTS.items():
            difference = g(x) - g(y)
            found[name].append((float(difference.mean()), float(difference.std() / np.sqrt(trajectories))))
        if m == REFINEMENTS[-1]:  # its cells are fine enough to tell
            states = states_at(refined(m), bare_dynamics(PEAK, [CURVATURE * PEAK]), batch=1.0 / m)
            mean = START * float(np.exp(-CURVATURE * PEAK * states.tau[0]))
            variance = NOISE**2 * PEAK * float(states.variance[0, 0]) / (2.0 * CURVATURE)
            rows.append(mean_row(f"paired exact solution, m = {m}: E x", mean, y))
            rows.append(mean_row(f"paired exact solution, m = {m}: E x^2", mean**2 + variance, y**2))
    step = np.array([PEAK * CURVATURE / m for m in REFINEMENTS])
    return {name: Errors(step, *np.array(pairs).T) for name, pairs in found.items()}, rows


def quartic_gradient(x: FloatArray) -> FloatArray:
    """Return the gradient of x^2 / 2 + x^4 / 8."""
    return x + 0.5 * x**3


def quartic_errors(trajectories: int, rng: np.random.Generator) -> dict[str, Errors]:
    """Return E g(refinement m) - E g(refinement 2 m) along shared paths for x^2 / 2 + x^4 / 8."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in TESTS}
    for m in REFINEMENTS[:-1]:
        coarse = np.full(trajectories, START)
        fine = coarse.copy()
        half = np.repeat(refined(m).array() / 2.0, 2).reshape(-1, 2)  # one schedule for both, held over a coarse step
        for rate, _ in half:
            first, second = rate * NOISE * np.sqrt(2 * m) * rng.standard_normal((2, trajectories))
            fine += first - rate * quartic_gradient(fine)
            fine += second - rate * quartic_gradient(fine)
            coarse += first + second - 2.0 * rate * quartic_gradient(coarse)
        for name, g in TESTS.items():
            difference = g(coarse) - g(fine)
            found[name].append((float(difference.mean()), float(difference.std() / np.sqrt(trajectories))))
    step = np.array([PEAK * CURVATURE / m for m in REFINEMENTS[:-1]])
    return {name: Errors(step, *np.array(pairs).T) for name, pairs in found.items()}


def weak_order_rows(trajectories: int = 50_000, seed: int = 2) -> list[Row]:
    """Return the slopes of the weak error against the step, expected 1."""
    rng = np.random.default_rng(seed)
    quadratic, rows = quadratic_errors(trajectories, rng)
    for loss, errors in (("quadratic", quadratic), ("quartic", quartic_errors(trajectories, rng))):
        for name, error in errors.items():
            slope, se = error.slope()
            rows.append(
                Row(f"{loss}: slope of the error of {name}", 1.0, slope, se, "order", 2.0 * float(error.step.mean()))
            )
    return rows
