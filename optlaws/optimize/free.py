"""The second stage: a free schedule of straight pieces, refined from the best of the families.

After the warm-up the rate is r_0 = p and

    r_j = min(max(p exp(-(d_1 + .. + d_j)), floor, LOWEST p), highest)

at K knots whose steps are fixed, straight in between, `highest` the task's highest peak rate; the unknowns are ln p and
d_1 .. d_K, d_j >= 0 where the rate must not rise. What is minimised is

    ln(L / L_ref) + c (sqrt(v + e^2) - e) + penalties,

L the expected loss, L_ref that of the best standard schedule, v the variance of ln L - ln L_ref under the law's joint
posterior, c the caution. At the standard schedule itself this is 0, and it falls below 0 only where the gain is more
than c times its own standard deviation: a law's errors are not mistaken for gains. Derivatives are central differences,
all in one batched prediction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np
from scipy.optimize import Bounds, minimize

from optlaws._ranges import SLACK
from optlaws.errors import InputError
from optlaws.optimize.families import tidy
from optlaws.optimize.task import FloatArray, Judged, Task
from optlaws.ranking import covariances
from optlaws.schedules import Schedule, ScheduleBatch
from optlaws.schedules.batch import Group

KNOTS = 12
MOST_KNOTS = 64
DENSER = 1.6  # power by which knots crowd towards the end, where rates fall
STEEPEST = 4.0  # largest fall of ln rate from knot to knot
LOWEST = 1e-3  # of the peak: the lowest rate of a knot
DIFFERENCE = 1e-3  # of the central differences, in ln rate
ROUND = 1e-5  # e of the objective: relative losses closer than that are one
STIFF = 10.0  # weight of squared violations
ROUGH = 1e-4  # weight of the squared changes of d from knot to knot: costs under 0.01 %, and smooths what the law adds
ITERATIONS = 60
DIGITS = 5


@dataclass(frozen=True, eq=False)
class Knots:
    """Where the straight pieces meet: steps of the warm-up and of the K knots after it, (K,), ascending, the last T."""

    task: Task
    warm: int
    steps: FloatArray

    @classmethod
    def spread(cls, task: Task, warm: int, count: int) -> Knots:
        """Return about `count` knots after the warm-up, the last at T.

        Raises
        ------
        InputError
            `count` is out of range.
        """
        if not isinstance(count, Real) or not 1 <= count <= MOST_KNOTS or count != int(count):
            raise InputError(
                f"knots must be a whole number from 0 to {MOST_KNOTS}, got {count!r}; 0 leaves out the free schedule"
            )
        u = 1.0 - (1.0 - np.linspace(0.0, 1.0, int(count) + 1)) ** DENSER
        steps = np.unique(np.rint(warm + u * (task.steps - warm)))
        return cls(task, warm, steps[steps > warm])

    def rates(self, x: FloatArray) -> FloatArray:
        """Return the rates at the warm-up's end and at the knots for unknowns x (m, K + 1), shape (m, K + 1)."""
        ln = np.concatenate([x[:, :1], x[:, :1] - np.cumsum(x[:, 1:], axis=1)], axis=1)
        peak = np.exp(x[:, :1])
        low = np.maximum(self.task.floor, LOWEST * peak)
        return np.asarray(np.clip(np.exp(np.clip(ln, -50.0, 10.0)), low, self.task.high))

    def batch(self, rates: FloatArray) -> ScheduleBatch:
        """Return the schedules through rates (m, K + 1)."""
        m, k = len(rates), len(self.steps)
        edges = np.concatenate([[self.warm], self.steps])
        first = 1 if self.warm else 0
        numbers = np.zeros((7, k + first, m))
        numbers[5] = 1.0
        if self.warm:
            numbers[1, 0], numbers[3, 0], numbers[4, 0] = self.warm, rates[:, 0], self.warm
        numbers[0, first:], numbers[1, first:] = edges[:-1, None], edges[1:, None]
        numbers[2, first:], numbers[3, first:] = rates[:, :-1].T, rates[:, 1:].T
        numbers[4, first:] = np.diff(edges)[:, None]
        return ScheduleBatch((Group(np.arange(m), ("linear",) * (k + first), bool(self.warm), numbers),), m)

    def schedule(self, x: FloatArray) -> Schedule:
        """Return the schedule of one point x (K + 1,), its rates rounded to a few figures."""
        rates = tidy(self.rates(x[None])[0], DIGITS)
        if self.task.monotone:
            rates = np.minimum.accumulate(rates)
        points = [(int(s), float(r)) for s, r in zip([self.warm, *self.steps], rates, strict=True)]
        if self.warm:
            points.insert(0, (0, 0.0))
        return Schedule("piecewise", points=points, steps=self.task.steps)

    def start(self, schedule: Schedule) -> FloatArray:
        """Return the unknowns of the free schedule nearest to another one, (K + 1,)."""
        at = np.minimum(np.concatenate([[self.warm], self.steps]), self.task.steps - 1).astype(np.int64)
        rates = np.asarray(schedule.lr(at), dtype=np.float64)
        ln = np.log(np.maximum(rates, max(LOWEST * rates.max(), 1e-300)))
        ln[0] = np.clip(ln[0], np.log(self.task.low), np.log(self.task.high))
        falls = -np.diff(ln)
        low = 0.0 if self.task.monotone else -STEEPEST
        return np.concatenate([ln[:1], np.clip(falls, low, STEEPEST)])


class Objective:
    """Cautious gain over the reference (ln loss), its derivatives, and the best point met that keeps all bounds."""

    def __init__(self, task: Task, knots: Knots, reference: Schedule, caution: float) -> None:
        """Compare with the reference, under that caution."""
        self.task, self.knots, self.caution = task, knots, caution
        self.reference = reference
        self.best = np.inf
        self.kept: FloatArray | None = None
        self.evaluations = 0
        domain = {} if task.outside else task.law.domain
        self.mean = tuple(domain.get("mean_rate", (0.0, np.inf)))
        worst = Schedule("constant", peak=task.high, steps=task.steps, warmup=knots.warm)
        self.risky = not bool((task.judge([worst]).risk <= task.max_risk / 2).all())

    def __call__(self, x: FloatArray) -> tuple[float, FloatArray]:
        """Return value and derivatives (K + 1,) at x (K + 1,); a `LawError` if the law has no finite loss there."""
        h = DIFFERENCE
        points = np.concatenate([x[None], x + h * np.eye(len(x)), x - h * np.eye(len(x))])
        rates = self.knots.rates(points)
        free = self.knots.batch(rates)
        values, inside = self._values(free, rates)
        values = values + ROUGH * (np.diff(points[:, 1:], axis=1) ** 2).sum(axis=1)
        if inside and values[0] < self.best:
            self.best, self.kept = float(values[0]), x.copy()
        n = len(x)
        return float(values[0]), (values[1 : n + 1] - values[n + 1 :]) / (2.0 * h)

    def _values(self, free: ScheduleBatch, rates: FloatArray) -> tuple[FloatArray, bool]:
        """Return the objective of the schedules, and whether the first keeps all bounds."""
        task, m = self.task, len(free)
        reference = ScheduleBatch.from_schedules([self.reference])
        joined = ScheduleBatch(
            (*free.groups, *(Group(g.index + m, g.shapes, g.warm, g.numbers, g.tables) for g in reference.groups)),
            m + 1,
        )
        judged = task.judge(joined, risk=self.risky)
        self.evaluations += m
        value = cautious(judged, m, self.caution)[:m]
        low, high = self.mean
        mean = self._mean_rate(rates)
        off = np.maximum(low / SLACK - mean, 0.0) + np.maximum(mean - high * SLACK, 0.0)
        risk = np.nan_to_num(judged.risk[:m], nan=0.0)
        off = off**2 + np.maximum(risk - task.max_risk, 0.0) ** 2
        inside = bool(task.allowed(judged)[0] and task.safe(judged)[0])
        return value + STIFF * off, inside

    def _mean_rate(self, rates: FloatArray) -> FloatArray:
        """Return each schedule's mean rate over its highest, (m,)."""
        edges = np.concatenate([[self.knots.warm], self.knots.steps])
        area = 0.5 * self.knots.warm * rates[:, 0]
        area = area + (0.5 * (rates[:, 1:] + rates[:, :-1]) * np.diff(edges)).sum(axis=1)
        return np.asarray(area / (self.task.steps * rates.max(axis=1)))


def cautious(judged: Judged, reference: int, caution: float) -> FloatArray:
    """Return ln(L / L_ref) + caution (sqrt(v + e^2) - e) of every schedule, (m,); 0 for the reference."""
    ratio, sd = differences(judged, reference)
    return np.asarray(ratio + caution * (np.sqrt(sd**2 + ROUND**2) - ROUND))


def differences(judged: Judged, reference: int) -> tuple[FloatArray, FloatArray]:
    """Return ln(L / L_ref) of every schedule and its standard deviation, run noise left out, each (m,)."""
    rows = np.arange(len(judged.loss))
    shared = covariances(judged.prediction, reference, rows) / judged.loss / judged.loss[reference]
    variance = judged.sd**2 + judged.sd[reference] ** 2 - 2.0 * shared
    variance[reference] = 0.0
    return np.log(judged.loss / judged.loss[reference]), np.sqrt(np.maximum(variance, 0.0))


def refine(
    task: Task,
    reference: Schedule,
    starts: Sequence[Schedule],
    count: int = KNOTS,
    progress: Callable[[str], None] | None = None,
) -> tuple[list[Schedule], int]:
    """Return free schedules refined from each start, that keep all bounds, and how many schedules were predicted.

    The warm-up is the reference's. Each start is followed twice: with the caution, and from where the plain expected
    loss is lowest; a start that no allowed schedule lies on gives none.

    Raises
    ------
    InputError
        `count` is not 1 .. 64.
    LawError
        The law predicts no finite loss for a schedule.
    """
    knots = Knots.spread(task, reference.warmup_steps, count)
    low = np.concatenate([[np.log(task.low)], np.full(len(knots.steps), 0.0 if task.monotone else -STEEPEST)])
    high = np.concatenate([[np.log(task.high)], np.full(len(knots.steps), STEEPEST)])
    found, evaluations = [], 0
    for start in starts:
        x = np.clip(knots.start(start), low, high)
        for caution in dict.fromkeys((0.0, task.caution)):
            objective = Objective(task, knots, reference, caution)

            def step(_: FloatArray) -> None:
                if progress:
                    progress("free")

            done = minimize(
                objective, x, jac=True, method="L-BFGS-B", bounds=Bounds(low, high), callback=step,
                options={"maxiter": ITERATIONS, "ftol": 1e-10, "gtol": 1e-7},
            )  # fmt: skip
            evaluations += objective.evaluations
            x = np.asarray(done.x) if objective.kept is None else objective.kept
            if objective.kept is not None:
                found.append(knots.schedule(objective.kept))
    return found, evaluations
