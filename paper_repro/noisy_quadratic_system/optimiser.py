"""The authors' optimiser of the noisy quadratic system, to tell its part in an error from that of the split.

Adam at a rate of 1e-3 for 5,000 steps from 2,000 points of a Latin hypercube in the demo's box, on p, q, r and the
logarithms of P, Q, e, R over ln 1e5, slopes clipped at 1, half the sum of squared log errors; r starts at q. Starts
with Q above 1 make the first mode grow without bound and are dropped at once: about one in twenty is left. Takes some
minutes: python -m paper_repro.noisy_quadratic_system.optimiser prints where it ends on the runs of at most 1/15.6 of
the largest compute, filtered ones left out.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from optlaws.baselines.noisy_quadratic import NAMES, RATE, NoisyQuadraticSystem, _Modes
from optlaws.runs import RunTable, read_runs

Floats = NDArray[np.float64]
LOWER = np.array([1.05, 0.6, 10.0, 0.05, 1.0, 0.01, 0.6])  # p, q, P, Q, e, R (per sequence), r
UPPER = np.array([2.5, 2.5, 100.0, 20.0, 1.5, 100.0, 2.5])
SEQUENCE = 128.0
UNIT = np.log(1e5)
LOGS = slice(2, 6)


def ends(runs: RunTable, *, starts: int = 2000, steps: int = 5000, seed: int = 6) -> list[tuple[float, Floats]]:
    """Return (objective, parameters with R in tokens) where each start that stays finite ends, best first."""
    modes = _Modes(runs.size, runs.steps, runs.batch_tokens / SEQUENCE)
    log_loss = np.log(runs.final_loss)
    points = LOWER + (UPPER - LOWER) * qmc.LatinHypercube(7, rng=seed).random(starts)
    points[:, 6] = points[:, 1]
    found = []
    for x in points[points[:, 3] * RATE < 1.998]:
        x[LOGS] = np.log(x[LOGS]) / UNIT
        end = adam(x, modes, log_loss, steps)
        if end is not None:
            end[1][5] *= SEQUENCE
            found.append(end)
    return sorted(found, key=lambda pair: pair[0])


def adam(x: Floats, modes: Any, log_loss: Floats, steps: int) -> tuple[float, Floats] | None:
    """Return the objective and the parameters where one start ends; None if its losses do not stay finite."""
    first, second = np.zeros(7), np.zeros(7)
    for i in range(1, steps + 1):
        theta = parameters(x)
        with np.errstate(all="ignore"):
            value, slopes = modes.loss(theta, True)
            slopes[:, LOGS] *= UNIT * theta[LOGS]
            slope = ((np.log(value) - log_loss) / value) @ slopes
        if not np.isfinite(slope).all():
            return None
        slope = np.clip(slope, -1.0, 1.0)
        first = 0.9 * first + 0.1 * slope
        second = 0.999 * second + 0.001 * slope**2
        x = x - 1e-3 * (first / (1 - 0.9**i)) / (np.sqrt(second / (1 - 0.999**i)) + 1e-8)
    theta = parameters(x)
    return float(0.5 * np.sum((np.log(modes.loss(theta, False)[0]) - log_loss) ** 2)), theta


def parameters(x: Floats) -> Floats:
    """Return p, q, P, Q, e, R, r of the optimiser's coordinates."""
    theta = x.copy()
    theta[LOGS] = np.exp(UNIT * x[LOGS])
    return theta


def main() -> None:
    """Print where the optimiser and ours end on the runs of `reproduce`'s split."""
    from paper_repro.noisy_quadratic_system.reproduce import FITTED, compute_ratio
    from paper_repro.run import data_folder

    runs = read_runs(data_folder(None) / "nqs_runs.csv")
    runs = runs.select((runs.column("split") == "train") & (runs.column("filtered") != "True"))
    train = runs.select(compute_ratio(runs) >= FITTED)
    found = ends(train, starts=int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
    ours = NoisyQuadraticSystem.fit_constant(train)
    cost = 0.5 * np.sum((np.log(ours.predict_constant(train)) - np.log(train.final_loss)) ** 2)
    print(f"{len(train)} runs, {len(found)} starts stay finite; ours ends at {cost:.5f}")
    for value, theta in found[:3]:
        print(f"{value:.5f}", ", ".join(f"{name}={number:.8g}" for name, number in zip(NAMES, theta, strict=True)))


if __name__ == "__main__":
    main()
