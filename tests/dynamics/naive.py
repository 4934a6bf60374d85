"""Naive twin of `optlaws.dynamics.solve`: one plain loop over the steps that reads like the equations.

Within a step the learning rate is constant, so the norm is exact; the felt rate is taken in the middle of the step and
held, so that the other states are exact for it. No cells, no batches, no shared code with the package.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from optlaws.dynamics import Dynamics
from optlaws.schedules import Schedule

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Curve:
    """States after each of the T steps: arrays of shape (T,), `variance` of shape (T, modes)."""

    peak: Array
    tau: Array
    radius: Array
    variance: Array
    escape: Array


def grown(square: float, weight_decay: float, eta: float, kappa: float, x: float, time: float) -> float:
    """Solve (R^2)' = -2 wd eta R^2 + kappa x^2 for a constant rate."""
    a = 2.0 * weight_decay * eta
    if a * time < 1e-12:
        return square + kappa * x**2 * time
    balance = kappa * x**2 / a
    return balance + (square - balance) * math.exp(-a * time)


def naive_curve(
    schedule: Schedule,
    c: Dynamics,
    *,
    n: float = 1.0,
    b: float = 1.0,
    weight_decay: float = 0.1,
    plain: bool = False,
    batch_known: bool = True,
) -> Curve:
    """Return the states after every step of one run (n in params_ref, b in batch_ref)."""
    steps = schedule.total_steps
    peak, tau, radius, escape = (np.empty(steps) for _ in range(4))
    variance = np.empty((steps, c.modes))
    square, clock, highest, covariance, v, hottest = 1.0, 0.0, 0.0, 0.0, np.zeros(c.modes), 0.0
    for k, eta in enumerate(schedule.array().tolist()):
        x = eta / c.lr_ref * n**c.size_exponent
        u = x / math.sqrt(grown(square, weight_decay, eta, c.kappa, x, 0.5))
        square = grown(square, weight_decay, eta, c.kappa, x, 1.0)
        tokens = max((k + 0.5) / c.steps_ref * b, 1e-4)
        crowding = b / (c.critical_batch * tokens**c.critical_growth) if batch_known else 0.0
        if plain:
            g, h, q = 1.0, 1.0 / b, 1.0
        else:
            g, h, q = math.sqrt(b / (1.0 + crowding)), 1.0 / math.sqrt(b * (1.0 + crowding)), c.temperature_exponent
        dtau, temperature = u * g, u**q * h
        clock += dtau
        hottest = max(hottest, u)
        pace = dtau * (u / hottest) ** (c.relaxation - 1.0) if hottest > 0 else dtau
        v = temperature + (v - temperature) * np.exp(-2.0 * c.curvatures * pace)
        gain = math.exp(2.0 * c.escape_rate * dtau)
        covariance = covariance * gain + temperature * (gain - 1.0) / (2.0 * c.escape_rate)
        highest = max(highest, x)
        peak[k], tau[k], radius[k], variance[k], escape[k] = highest, clock, math.sqrt(square), v, covariance
    return Curve(peak, tau, radius, variance, escape)
