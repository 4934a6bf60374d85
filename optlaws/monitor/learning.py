"""Learn from finished curves how curves depart from a law: the prior of a monitor."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from optlaws.baselines.base import Progress
from optlaws.dynamics.model import FloatArray
from optlaws.errors import FitError, OptlawsError, OptlawsWarning, told_otherwise
from optlaws.features import get_basis
from optlaws.law import Law, fit_law
from optlaws.monitor.forecast import (
    DEFAULT_EFFECT_SD,
    DEFAULT_OFFSET_SD,
    INFO_KEY,
    INTERVAL,
    CurvePrior,
    Forecast,
    independent_share,
    posterior,
    reforecast,
)
from optlaws.monitor.path import EFFECTS, Path, paths
from optlaws.runs import CurveTable, RunTable
from optlaws.validation import finished

LEARN_FROM = 0.05  # fraction of a run from which its curve is learnt from
MOST_READINGS = 60  # of one curve, evenly spread in the logarithm of the step
FEWEST_READINGS = 8
FEWEST_CURVES = 3
LEAST_LEFT = 0.5  # a law refitted to less of the runs than this is not the law whose errors are to be learnt
MOST_LEVELS = 6  # groups of one kind; neighbouring values are put together beyond it
ROUNDS = 40
PSEUDO_CURVES = 2.0  # the default prior counts as this many curves
CUTS = (0.25, 0.5)  # where the forecasts are made that calibrate the intervals
SPREADS = (1.0, 10.0)  # left-out groups may widen the intervals, never narrow them
LEAST_MISFIT = 2e-4


@dataclass(frozen=True, eq=False)
class Example:
    """One finished curve under one law.

    Attributes
    ----------
    path : what the law expects.
    steps, log_loss : (m,) readings, steps ascending, ln of losses in nats per token.
    end : ln (final loss / predicted final loss).
    kind : number of the kind of group that was left out, 0 for the first.
    """

    path: Path
    steps: FloatArray
    log_loss: FloatArray
    end: float
    kind: int = 0

    def forecast(self, prior: CurvePrior, cut: float) -> Forecast | None:
        """Return the forecast at a fraction of the run, or None where fewer than 3 readings are there by then."""
        seen = self.steps <= cut * self.path.total
        return reforecast(self.path, prior, self.steps[seen], self.log_loss[seen]) if seen.sum() >= 3 else None


def learn_prior(
    law: Law,
    runs: RunTable,
    curves: CurveTable,
    *,
    fit: Callable[[RunTable], Law] | None = None,
    refit: bool = True,
    progress: Progress | None = None,
) -> CurvePrior:
    """Learn how curves depart from a law, from its own training runs.

    Parameters
    ----------
    law : Law
        Fitted to `runs`.
    runs : RunTable
        Finished runs; those without a final loss or a curve are left out.
    curves : CurveTable
        Their curves.
    fit : callable, optional
        Fits the law to a part of the runs; default: `fit_law` with the same basis, with the curves if the law has any,
        like this law.
    refit : bool
        True: the departures are those from laws fitted without the run's own schedule family, peak rate, horizon or
        size, as a new run's would be. False: from `law` itself, which is quick and a little too confident.
    progress : callable, optional
        Called with a word at every fit; it changes nothing.

    Returns
    -------
    CurvePrior

    Raises
    ------
    FitError
        Fewer than 3 usable curves.
    InputError
        A size that the law needs is missing.
    LawError
        It is no law of dynamics, a rival law say.
    TableError
        The table of runs holds a `ScheduleBatch`.
    """
    groups = left_out(law, runs, curves, fit, progress) if refit else []
    examples = [example for group in groups for example in group]
    if len(examples) < FEWEST_CURVES:
        examples = as_fitted(law, runs, curves)
    if len(examples) < FEWEST_CURVES:
        raise FitError(
            f"at least {FEWEST_CURVES} finished runs with a final_loss and a curve of {FEWEST_READINGS} readings are"
            f" needed to learn a monitor's prior, got {len(examples)}; leave it out to use the default"
        )
    return replace(fit_prior(examples), curves=len(_readings(runs, curves)[0]))


def with_prior(law: Law, prior: CurvePrior) -> Law:
    """Return the law with a monitor's prior in it, so that its file carries it."""
    return replace(law, info={**law.info, INFO_KEY: prior.to_dict()})


def _readings(runs: RunTable, curves: CurveTable) -> tuple[dict[int, FloatArray], dict[int, FloatArray]]:
    """Return steps and ln losses of the curves of finished runs, thinned, by row of `runs`."""
    where, done = curves.runs(), finished(runs)
    steps: dict[int, FloatArray] = {}
    losses: dict[int, FloatArray] = {}
    warm = np.asarray(runs.batch().warmup_steps, dtype=float)
    for i, name in enumerate(runs.run_id):
        if name not in where or not done[i]:
            continue
        step, loss = curves.step[where[name]], curves.loss[where[name]]
        first = max(LEARN_FROM * runs.steps[i], warm[i], 1.0)
        good = np.isfinite(loss) & (loss > 0) & (step >= first) & (step <= runs.steps[i])
        step, loss = step[good], loss[good]
        if len(step) < FEWEST_READINGS:
            continue
        wanted = np.geomspace(step[0], step[-1], MOST_READINGS)
        keep = np.unique(np.minimum(np.searchsorted(step, wanted * (1 - 1e-12)), len(step) - 1))
        steps[i], losses[i] = step[keep], np.log(loss[keep])
    return steps, losses


def _examples(
    law: Law,
    runs: RunTable,
    rows: np.ndarray,
    steps: dict[int, FloatArray],
    losses: dict[int, FloatArray],
    kind: int = 0,
) -> list[Example]:
    """Return the curves of some rows under a law."""
    found = paths(law, runs.select(rows), [steps[int(i)] for i in rows])
    ends = np.log(runs.final_loss[rows])
    return [
        Example(path, steps[int(i)], losses[int(i)], float(end - path.log_final), kind)
        for i, path, end in zip(rows, found, ends, strict=True)
    ]


def as_fitted(law: Law, runs: RunTable, curves: CurveTable) -> list[Example]:
    """Return the curves of finished runs under the law itself; errors as in `learn_prior`, but for too few curves."""
    steps, losses = _readings(runs, curves)
    return _examples(law, runs, np.array(sorted(steps), dtype=np.intp), steps, losses) if steps else []


def _groups(runs: RunTable) -> list[np.ndarray]:
    """Return the partitions of the runs that a new run may lie outside of, integer labels (n,)."""
    kinds = np.unique([s.kind for s in runs.schedule_tuple()], return_inverse=True)[1]
    out = [kinds]
    for values in (np.asarray(runs.batch().peak, dtype=float).round(12), runs.steps, runs.size):
        if np.isnan(values).any():
            continue
        levels, index = np.unique(values, return_inverse=True)
        if len(levels) > MOST_LEVELS:
            edges = np.unique(np.quantile(values, np.linspace(0, 1, MOST_LEVELS + 1)[1:-1]))
            index = np.searchsorted(edges, values, side="right")
        out.append(index)
    return [index for index in out if len(np.unique(index)) > 1]


def left_out(
    law: Law,
    runs: RunTable,
    curves: CurveTable,
    fit: Callable[[RunTable], Law] | None = None,
    progress: Progress | None = None,
) -> list[list[Example]]:
    """Return the curves under laws fitted without their group, group by group, for each kind of group in turn.

    Groups are schedule families, peak rates, horizons and sizes; one is passed over if less than half of the runs is
    left without it. Arguments and errors as in `learn_prior`. Laws of curves are calibrated anew for
    every group: with the constants of the whole, which had seen the group, or half of the trials from these, runs were
    forecast worse.
    """
    steps, losses = _readings(runs, curves)

    def again(part: RunTable, tick: Progress) -> Law:
        tick("fit")
        with told_otherwise():  # what a part of the runs does not tell says nothing of the law
            if law.has_curves:
                return fit_law(part, curves, like=law, progress=tick)
            return fit_law(part, basis=get_basis(law.basis_id), progress=tick)

    done = finished(runs)
    out: list[list[Example]] = []
    with_curve = np.zeros(len(runs), dtype=bool)
    with_curve[list(steps)] = True
    groups = [
        (kind, labels, level)
        for kind, labels in enumerate(_groups(runs))
        for level in np.unique(labels)
        if with_curve[labels == level].any() and done[labels != level].sum() >= LEAST_LEFT * done.sum()
    ]
    for number, (kind, labels, level) in enumerate(groups, start=1):

        def tick(word: str, number: int = number) -> None:
            if progress is not None:
                progress(f"without group {number} of {len(groups)}, {word}")

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OptlawsWarning)  # small parts are expected here
            try:
                part = runs.select(done & (labels != level))
                other = again(part, tick) if fit is None else fit(part)
            except OptlawsError:
                continue  # too few runs are left to fit
            out.append(_examples(other, runs, np.flatnonzero(with_curve & (labels == level)), steps, losses, kind))
    return out


def fit_prior(examples: list[Example], use: Sequence[str] = EFFECTS) -> CurvePrior:
    """Return the prior that finished curves make.

    Each curve has its own (c, w) ~ N(mean, covariance), seen through y(s) - e = -c + psi(s) . w; mean, covariance and
    misfit are found by expectation-maximisation, the default prior counting as `PSEUDO_CURVES` curves (Gelman et al.,
    Bayesian Data Analysis, chapter 15). The sds are then scaled so that the forecasts cover, in every kind of group.

    Parameters
    ----------
    examples : list of Example
        At least one.
    use : sequence of str
        Effects out of `EFFECTS` that may act; the weights of the others are 0.

    Raises
    ------
    FitError
        There is no example.
    """
    if not examples:
        raise FitError("examples must be at least one finished curve, got none; add curves or use the default prior")
    prior = _maximise(examples, np.array([1.0, *(float(name in use) for name in EFFECTS)]))
    return replace(prior, spread=_calibrate(prior, examples), curves=len(examples))


def _maximise(examples: list[Example], use: FloatArray) -> CurvePrior:
    """Return mean, covariance and misfit; see `fit_prior`."""
    designs, targets, shares = [], [], []
    for x in examples:
        expected, effects = x.path.at(x.steps)
        y = x.log_loss - expected
        designs.append(np.column_stack([-np.ones(len(y)), effects]) * use)
        targets.append(y - x.end)
        shares.append(independent_share(x.steps))
    size = designs[0].shape[1]
    sd = np.array([DEFAULT_OFFSET_SD, *DEFAULT_EFFECT_SD]) * use
    default = np.diag([LEAST_MISFIT**2, *sd[1:] ** 2])  # one evaluation set, whose offset a few curves show
    mean, covariance, misfit = np.zeros(size), np.diag(sd**2), 1e-3
    for _ in range(ROUNDS):
        means, spread, squares, count = [], np.zeros((size, size)), 0.0, 0.0
        for design, y, share in zip(designs, targets, shares, strict=True):
            weight = share / misfit**2
            m, v, _ = posterior(design, y - design @ mean, weight, covariance[None])
            means.append(m[0] + mean)
            spread += v[0]
            left = y - design @ means[-1]
            squares += float(share @ left**2 + share @ ((design @ v[0]) * design).sum(axis=1))
            count += float(share.sum())
        found = np.array(means)
        mean = found.mean(axis=0)
        spread += (found - mean).T @ (found - mean)
        covariance = (spread + PSEUDO_CURVES * default) / (len(found) + PSEUDO_CURVES)
        misfit = max(float(np.sqrt(squares / count)), LEAST_MISFIT)
    return CurvePrior(mean, covariance, misfit, law_sd=float(np.median([x.path.sd for x in examples])))


def _calibrate(prior: CurvePrior, examples: list[Example]) -> float:
    """Return the factor of the sds with which 90 % intervals of forecasts at `CUTS` cover 90 % of the ends.

    They must do so for each kind of group on its own (families, rates, horizons, sizes): how a new run will differ from
    those of the law nobody knows beforehand. The rank is that of conformal prediction, (m + 1) 90 % out of m forecasts.
    """
    ratios: dict[int, list[float]] = {}
    for x in examples:
        for cut in CUTS:
            f = x.forecast(prior, cut)
            if f is None:
                continue
            miss = x.end + x.path.log_final - np.log(f.loss)
            half = np.log(f.upper / f.loss) if miss > 0 else np.log(f.loss / f.lower)
            ratios.setdefault(x.kind, []).append(abs(miss) / half)
    found = [
        np.quantile(one, min(INTERVAL * (1.0 + 1.0 / len(one)), 1.0))
        for one in ratios.values()
        if len(one) >= 2 * FEWEST_CURVES
    ]
    return float(np.clip(max(found), *SPREADS)) if found else 1.0


__all__ = ["Example", "as_fitted", "fit_prior", "learn_prior", "left_out", "with_prior"]
