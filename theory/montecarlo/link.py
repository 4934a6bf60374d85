"""How a simulated optimizer's quantities are read off the states of `optlaws.dynamics`.

One mode of a loss h x^2 / 2 with gradient noise of variance s^2 a token, batches of B tokens, learning rate eta:

- plain SGD     dX = -eta h X dt + eta s B^-1/2 dW
- adaptive      dX = -eta h B^1/2 s^-1 X dt + eta dW, Adam where noise dominates the gradient

With u, tau, g and Theta as in `optlaws.dynamics.symbols` (kappa = 0, n = 1, no critical batch, q = s = 1),
curvature l per unit of intrinsic time, v of the states:

- plain         g = 1,         l = h lr_ref,      mean = x0 exp(-l tau),  variance = s^2 lr_ref v / (2 h batch_ref)
- adaptive      g = sqrt(b),   l = h lr_ref sqrt(batch_ref) / s,  the same mean,  variance = lr_ref^2 v / (2 l)
- at a saddle of curvature -rho the covariance is that of C times a factor:
  lr_ref^2 s^2 C / batch_ref for plain SGD and lr_ref^2 C for adaptive optimizers
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from optlaws.dynamics import Dynamics, States, curve_states, drive
from optlaws.runs import RunTable
from optlaws.schedules import Schedule, constant, cosine, wsd
from theory.montecarlo.rows import FloatArray

NOTHING = 1e-30  # constants of `Dynamics` must be above 0
UNBOUNDED = 1e30
RESOLUTION = 8.0  # times the cells that laws are fitted with: the error of the pass is then below every standard error


def bare_dynamics(lr_ref: float, curvatures: Sequence[float] | FloatArray, escape_rate: float = 1.0) -> Dynamics:
    """Return dynamics without weight norm, size and critical batch, at log-spaced curvatures, batches in tokens.

    Parameters
    ----------
    lr_ref : float
        Unit of the learning rate.
    curvatures : (m,) floats
        Per unit of intrinsic time, ascending with equal ratios.
    escape_rate : float
        Negative curvature of the escape state, per unit of intrinsic time.
    """
    return Dynamics(
        kappa=NOTHING,
        temperature_exponent=1.0,
        size_exponent=NOTHING,
        critical_batch=UNBOUNDED,
        critical_growth=NOTHING,
        slowest=float(curvatures[0]),
        fastest=float(curvatures[-1]),
        modes=len(curvatures),
        escape_rate=escape_rate,
        lr_ref=lr_ref,
        batch_ref=1.0,
        steps_ref=1.0,
    )


def states_at(
    schedule: Schedule,
    dynamics: Dynamics,
    steps: Sequence[int] | None = None,
    *,
    batch: float = 1.0,
    optimizer: str = "sgd",
    weight_decay: float = 0.0,
    resolution: float = RESOLUTION,
) -> States:
    """Return the states of `optlaws` after the given numbers of steps (default: the last), shape (len(steps),)."""
    at = np.array([schedule.total_steps] if steps is None else steps, dtype=np.float64)
    runs = RunTable.build(schedule, batch_tokens=batch, optimizer=optimizer, weight_decay=weight_decay)
    driven = drive(runs, dynamics, use_params=False)
    return curve_states([schedule], [at], driven, dynamics, resolution=resolution)


def escape_state(schedule: Schedule, dynamics: Dynamics, rate: float, **options: float | str) -> float:
    """Return C of `optlaws` at the end of a schedule, for negative curvature `rate` per unit of intrinsic time."""
    return float(states_at(schedule, replace(dynamics, escape_rate=rate), **options).escape[0])  # type: ignore[arg-type]


def four_schedules(peak: float, steps: int) -> dict[str, Schedule]:
    """Return a constant rate, cosine, WSD, and WSD after a long warm-up, of one peak and length."""
    return {
        "constant": constant(peak, steps),
        "cosine": cosine(peak, steps),
        "WSD": wsd(peak, steps, decay=0.2),
        "warm-up + WSD": wsd(peak, steps, decay=0.2, warmup=0.3),
    }
