"""How a re-forecast is judged: runs cut short, the other methods, and scores. Part of benchmarks/monitor.py."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from optlaws.baselines import get_baseline
from optlaws.errors import OptlawsError
from optlaws.law import Law, fit_law
from optlaws.monitor import CurvePrior, Forecast, paths, reforecast
from optlaws.runs import CurveTable, RunTable

FEWEST = 3  # readings by the cut
REACH = 0.8  # the last of them lies at this share of the cut at least
Array = np.ndarray


@dataclass(frozen=True)
class Cut:
    """A run cut short: its table of one row, readings up to the cut, truth, and what is known beforehand."""

    run: RunTable
    curves: CurveTable
    steps: Array
    log_loss: Array
    final: float
    offset: float  # mean of ln (final loss / last reading) over the training runs

    @property
    def total(self) -> float:
        return float(self.run.steps[0])


def cuts(runs: RunTable, curves: CurveTable, rows: Iterable[int], at: float, offset: float) -> dict[int, Cut]:
    """Return the runs that can be judged at a fraction of their length."""
    where, out = curves.runs(), {}
    warm = np.asarray(runs.batch().warmup_steps, dtype=float)
    for i in rows:
        index = where[runs.run_id[i]]
        index = index[curves.step[index] <= at * runs.steps[i]]
        after = curves.step[index] >= max(warm[i], 0.02 * runs.steps[i])
        if after.sum() >= FEWEST and curves.step[index][-1] >= REACH * at * runs.steps[i]:
            out[i] = Cut(
                runs.select([i]),
                curves.select(index),
                curves.step[index],
                np.log(curves.loss[index]),
                float(runs.final_loss[i]),
                offset,
            )
    return out


def power_law(cut: Cut) -> float:
    """Extrapolate L = E + A s^-a, fitted to the last 95 % of the steps so far."""
    s, y = cut.steps, cut.log_loss
    keep = s >= max(0.05 * s[-1], 1.0)
    s, y = s[keep], y[keep]
    last = float(np.exp(y[-1]))

    def curve(p: Array, at: Array | float) -> Any:
        return np.exp(p[0]) + np.exp(p[1]) * (np.asarray(at) / s[-1]) ** -np.exp(p[2])

    start = np.array([np.log(0.8 * last), np.log(0.2 * last), np.log(0.4)])
    fit = least_squares(
        lambda p: np.log(curve(p, s)) - y, start, loss="soft_l1", f_scale=0.003, bounds=([-3, -9, -3], [3, 3, 1])
    )
    return float(curve(fit.x, cut.total) * np.exp(cut.offset))


def law_alone(cut: Cut) -> float:
    """Fit the law to the partial curve alone; the power law where it has too few readings for it."""
    one = replace(cut.run, final_loss=np.array([np.nan]), status=(None,))
    try:
        law = fit_law(one, cut.curves)
    except OptlawsError:
        return power_law(cut)
    return float(law.predict_curve(one, np.array([cut.total])).loss[0] * np.exp(cut.offset))


def multi_power(cut: Cut) -> float:
    """Fit the Multi-Power Law to the partial curve alone, by its authors' second stage; else the power law."""
    try:
        with np.errstate(all="ignore"):
            law = get_baseline("multi_power").fit(cut.run, cut.curves, starts=8)
            end = float(law.predict_curve(cut.run, np.array([cut.total]))[0])
    except OptlawsError:
        end = np.nan
    return end * float(np.exp(cut.offset)) if np.isfinite(end) else power_law(cut)


def shifted_law(law: Law, prior: CurvePrior) -> Callable[[Cut], float]:
    """Return the law's curve scaled to go through the median of the last five readings."""

    def forecast(cut: Cut) -> float:
        path = paths(law, cut.run)[0]
        gap = float(np.median((cut.log_loss - path.at(cut.steps)[0])[-5:]))
        return float(np.exp(path.log_final + gap + cut.offset))

    return forecast


def offset_of(runs: RunTable, curves: CurveTable) -> float:
    """Return the mean of ln (final loss / last reading) of runs whose curve reaches their end."""
    where, out = curves.runs(), []
    for i, name in enumerate(runs.run_id):
        if name in where and curves.step[where[name][-1]] >= 0.97 * runs.steps[i]:
            out.append(float(np.log(runs.final_loss[i] / curves.loss[where[name][-1]])))
    return float(np.mean(out)) if out else 0.0


@dataclass
class Scores:
    """Errors in % by method, and intervals of the monitor."""

    errors: dict[str, list[float]]
    inside: list[bool]
    width: list[float]
    prior_inside: list[bool]
    scale: list[float]

    @classmethod
    def empty(cls) -> Scores:
        return cls(defaultdict(list), [], [], [], [])

    def add(self, truth: float, forecast: Forecast, others: dict[str, float], last: bool = False) -> None:
        low, value, high = (
            (forecast.last_lower, forecast.last_reading, forecast.last_upper)
            if last
            else (forecast.lower, forecast.loss, forecast.upper)
        )
        for name, guess in {"monitor": value, "law before the run": forecast.prior_loss, **others}.items():
            self.errors[name].append(100 * abs(guess / truth - 1))
        self.inside.append(low <= truth <= high)
        self.prior_inside.append(forecast.prior_lower <= truth <= forecast.prior_upper)
        self.width.append(100 * (high - low) / value)
        self.scale.append(forecast.law_scale)

    def join(self, other: Scores) -> None:
        for name, values in other.errors.items():
            self.errors[name] += values
        for name in ("inside", "width", "prior_inside", "scale"):
            getattr(self, name).extend(getattr(other, name))

    def mean(self, name: str) -> str:
        return f"{np.mean(self.errors[name]):.3f}" if self.errors[name] else "-"


def judge(
    runs: RunTable, curves: CurveTable, train: Array, test: Array, at: float, law: Law, prior: CurvePrior,
    others: dict[str, Callable[[Cut], float]], last: bool = False,
) -> Scores:  # fmt: skip
    """Return the scores of the held-out runs at one cut."""
    out = Scores.empty()
    offset = offset_of(runs.select(train), curves) if train.any() else 0.0
    for cut in cuts(runs, curves, np.flatnonzero(test), at, offset).values():
        forecast = reforecast(paths(law, cut.run)[0], prior, cut.steps, cut.log_loss)
        out.add(cut.final, forecast, {name: method(cut) for name, method in others.items()}, last)
    return out
