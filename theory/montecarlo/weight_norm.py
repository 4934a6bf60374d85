"""The weight-norm equation on a small scale-invariant network that is actually trained with AdamW.

    (R^2)' = -2 wd eta R^2 + kappa eta^2,   equilibrium R^2 = kappa eta / (2 wd)      `optlaws.dynamics`, R(0) = 1 there

The gradient of a scale-invariant loss is orthogonal to the weights, so decay shrinks R^2 and the random walk of the
updates grows it. Where noise dominates, Adam's steps have long-run variance eta^2 a weight, whatever beta1
(theory/derivations/weight_norm.py): kappa = number of weights. That holds (within EVEN: the normaliser lags by 1 / (1 -
beta2) steps and gradients have heavy tails) with one normaliser a layer. Adam's normaliser differs from weight to
weight, which leaves the mean update not quite orthogonal to the weights: kappa is larger, here by 10 to 25 %, and moves
with the rate. UNEVEN is allowed for that where kappa is the number of weights, and MOVING of the part grown where kappa
was measured once, at one rate. The three are sizes seen in this network, not derived: of the 23 rows of rule "order" 16
need them to hold.

Plain SGD does not obey this equation: its step is the gradient, which falls as 1 / R, so that without decay
R^4 = R0^4 + 2 G int eta^2 with G = R^2 |g|^2. Both are shown, with kappa and G from the first quarter of the run.
"""

from __future__ import annotations

import numpy as np

from optlaws.dynamics import Dynamics
from optlaws.schedules import Schedule, constant
from theory.montecarlo.link import NOTHING, four_schedules, states_at
from theory.montecarlo.network import WEIGHTS, make_task, of_norm, train
from theory.montecarlo.rows import FloatArray, Row

PEAK, STEPS, RADIUS, DECAY = 4e-3, 2400, 3.0, 0.125
EVEN, UNEVEN, MOVING = 0.05, 0.3, 0.1
SGD_PEAK, SGD_STEPS = 2e-3, 1200


def equation(schedule: Schedule, kappa: float, radius: float, weight_decay: float, steps: list[int]) -> FloatArray:
    """Return R^2 after the given steps as `optlaws` has it, shape (len(steps),); kappa in weights."""
    dynamics = Dynamics(kappa=kappa * WEIGHTS * (PEAK / radius) ** 2, lr_ref=PEAK, size_exponent=NOTHING)
    states = states_at(schedule, dynamics, steps, optimizer="adamw", weight_decay=weight_decay)
    return np.asarray(radius**2 * states.radius**2)


class Bench:
    """A task, replicas at rest, and kappa of Adam measured on them once."""

    def __init__(self, replicas: int, seed: int) -> None:
        """Train the replicas to rest and measure kappa."""
        self.rng = np.random.default_rng(seed)
        self.task = make_task(self.rng)
        w = self.rng.standard_normal((replicas, WEIGHTS))
        for rate in (0.01, PEAK):  # let the signal be learned first: at rest noise dominates
            w = train(self.task, constant(rate, 1000), of_norm(w, 5.0), self.rng).weights
        self.rest = w
        grown = train(self.task, constant(PEAK, 1500), of_norm(w, 5.0), self.rng, at=[1500]).square[0] - 25.0
        self.kappa, self.kappa_se = estimate(grown / (WEIGHTS * PEAK**2 * 1500))

    def rows(self, name: str, schedule: Schedule, decay: float, steps: list[int], *, even: bool = False) -> list[Row]:
        """Return R^2 of one schedule against the equation: kappa = weights for the even normaliser, else measured."""
        kappa, kappa_se, allowed = (1.0, 0.0, EVEN) if even else (self.kappa, self.kappa_se, MOVING)
        start = of_norm(self.rest, RADIUS)
        r2 = train(self.task, schedule, start, self.rng, weight_decay=decay, at=steps, shared=even).square
        expected = equation(schedule, kappa, RADIUS, decay, steps)
        grown = expected - equation(schedule, NOTHING, RADIUS, decay, steps)
        rows = []
        for k, predicted, part, found in zip(steps, expected.tolist(), grown.tolist(), r2, strict=True):
            mean, se = estimate(found)
            se = float(np.hypot(se, part * kappa_se / kappa))
            rows.append(Row(f"{name}: R^2 after {k} steps", predicted, mean, se, "order", allowed * part))
        return rows


def estimate(values: FloatArray) -> tuple[float, float]:
    """Return mean and standard error of independent values."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def weight_norm_rows(
    replicas: int = 24, seed: int = 4, names: tuple[str, ...] | None = None, rates: tuple[float, ...] = (PEAK, PEAK / 2)
) -> list[Row]:
    """Return kappa, R^2 under several schedules, its equilibrium, and plain SGD against both equations.

    Parameters
    ----------
    replicas : int
        Independent trainings a setting.
    names : tuple of str, optional
        Of `four_schedules`: those to train under; default: all.
    rates : tuple of float
        Constant rates at which the equilibrium is looked at.
    """
    bench = Bench(replicas, seed)
    rows = [Row("Adam: kappa / number of weights", 1.0, bench.kappa, bench.kappa_se, "order", UNEVEN)]
    for name, schedule in four_schedules(PEAK, STEPS).items():
        if names is None or name in names:
            for even, optimizer in ((True, "one normaliser a layer"), (False, "AdamW")):
                rows += bench.rows(f"{optimizer}, {name}", schedule, DECAY, [STEPS // 2, STEPS], even=even)
    rows += bench.rows("Adam without decay, cosine", four_schedules(PEAK, STEPS)["cosine"], 0.0, [STEPS])
    return rows + equilibrium_rows(bench, rates) + plain_rows(bench)


def equilibrium_rows(bench: Bench, rates: tuple[float, ...]) -> list[Row]:
    """Return R^2 after five time-scales at a constant rate against kappa eta / (2 wd)."""
    rows = []
    for rate in rates:
        decay = 5e-4 / rate
        for even, optimizer in ((True, "one normaliser a layer"), (False, "AdamW")):
            start = of_norm(bench.rest, RADIUS)
            settings = {"weight_decay": decay, "at": [5000]}
            found = train(bench.task, constant(rate, 5000), start, bench.rng, shared=even, **settings)  # type: ignore[arg-type]
            mean, se = estimate(found.square[0])
            kappa, kappa_se, allowed = (1.0, 0.0, EVEN) if even else (bench.kappa, bench.kappa_se, MOVING)
            level = kappa * WEIGHTS * rate / (2.0 * decay)
            what = f"{optimizer}: equilibrium kappa eta / (2 wd), eta = {rate:g}, wd = {decay:g}"
            error = float(np.hypot(se, level * kappa_se / kappa))
            rows.append(Row(what, level, mean, error, "order", allowed * level))
    return rows


def plain_rows(bench: Bench) -> list[Row]:
    """Return plain SGD against the equation with constant kappa (differs) and against R^4."""
    first, start = SGD_STEPS // 4, of_norm(bench.rest, 1.0)
    early, late = train(
        bench.task, constant(SGD_PEAK, SGD_STEPS), start, bench.rng, plain=True, at=[first, SGD_STEPS]
    ).square
    what = f"plain SGD: R^2 after {SGD_STEPS} steps"
    rows = []
    for law, power, rule in (("constant kappa", 1, "differs"), ("R^4 equation", 2, "order")):
        predicted = (1.0 + (early**power - 1.0) * (SGD_STEPS / first)) ** (1.0 / power)
        se = estimate(late - predicted)[1]
        rows.append(
            Row(f"{what}, {law}", float(predicted.mean()), float(late.mean()), se, rule, EVEN * float(late.mean()))
        )
    return rows
