"""Fit a law to runs, to curves, or to both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from optlaws.baselines.base import Progress, usable
from optlaws.dynamics import (
    States,
    curve_grid,
    drive,
    end_states,
    final_grid,
    final_states,
    integrate,
    join_states,
)  # fmt: skip
from optlaws.dynamics.model import FloatArray
from optlaws.errors import FitError, InputError
from optlaws.features import Basis, get_basis
from optlaws.law.calibrate import profile_exponents
from optlaws.law.domain import density, domain_values, ranges, schedules_seen
from optlaws.law.groups import derived, partitions
from optlaws.law.joint import Joint
from optlaws.law.misfit import undetermined, warn_of_fit, wider_field
from optlaws.law.model import Law
from optlaws.law.optimizers import Optimizers, fit_equivalent, own_runs
from optlaws.law.outliers import by_the_others, outliers, warn_of_copies
from optlaws.law.refits import CALLED as CURVES_CALLED
from optlaws.law.refits import left_out as left_out_curves
from optlaws.law.residuals import group_texts, partition_values, summary, versions
from optlaws.law.units import all_or_none, own_units_of
from optlaws.regression.settings import Settings
from optlaws.regression.trend_field import Posterior, Problem, fit_trend_field, trend_evidence
from optlaws.risk.labels import warn_of_outcomes, with_outcomes
from optlaws.runs import CurveTable, RunTable, check_fitted, check_runs

FEWEST_RUNS = 4
FEWEST_READINGS = 20
FEWEST_CALIBRATING = 30
POINTS_PER_CURVE = 80  # most readings kept of each curve, evenly spread
MOST_READINGS = 3600  # of all curves together: more of them cost time
FEWEST_PER_CURVE = 6
FREE_POINTS_PER_CURVE = 20.0  # readings of one curve count as this many independent ones
CURVE_START = 0.125  # fraction of a run before which its curve is not looked at: repeats differ most there
CALIBRATION_TRIALS = 40
CALIBRATION_INDUCING = 240  # most inducing points while constants are tried
CALIBRATED: dict[str, tuple[float, float]] = {  # prior of the constants that curves find: centre over the basis' value,
    "kappa": (1.0, 0.7),  # sd of its logarithm; benchmarks/curve_prior.py asks public curves for it
    "temperature_exponent": (1.0, 0.2),
    "aT": (1.0, 0.5),
}


class _Fit:
    """One fit in progress: tables, units, and the points that the regression sees."""

    def __init__(
        self, runs: RunTable, curves: CurveTable | None, basis: Basis, settings: Settings, group: str | None
    ) -> None:
        self.runs, self.basis, self.settings, self.group = runs, basis, settings, group
        sizes = runs.size
        self.use_params = all_or_none(sizes, "params", runs)
        self.use_batch = all_or_none(runs.batch_tokens, "batch_tokens", runs)
        self.final = np.flatnonzero(usable(runs))
        self.grid: tuple[Any, Any] | None = None  # cells of the curves, the same for all constants
        self.ends: Any = None  # and those of the final losses, where curves ask for many trials
        self.readings: list[tuple[int, FloatArray, FloatArray]] = []
        if curves is not None:
            self._take(curves)
        self.peak = np.asarray(runs.batch().peak, dtype=float)
        self.peak_scale = basis.peak_scale(self.peak[self.final] if len(self.final) else self.peak, settings.peak_gaps)
        self.partitions = partitions(runs, group)

    def _take(self, curves: CurveTable) -> None:
        """Keep readings of the runs at hand, thinned, in order of steps."""
        rows = {name: i for i, name in enumerate(self.runs.run_id)}
        batch = self.runs.batch()
        warm, total = np.asarray(batch.warmup_steps), np.asarray(batch.total_steps)
        logged = {name: index for name, index in curves.runs().items() if name in rows}
        most = min(POINTS_PER_CURVE, max(MOST_READINGS // max(len(logged), 1), FEWEST_PER_CURVE))
        for name, index in logged.items():
            i = rows[name]
            step, loss = curves.step[index], curves.loss[index]
            if step[-1] > total[i]:
                raise FitError(
                    f"curve of run {name!r} must end at step {total[i]:g}, the run's last, got step {step[-1]:g};"
                    " correct the schedule or drop those readings"
                )
            good = np.isfinite(loss) & (loss > 0) & (step > max(warm[i], CURVE_START * total[i], 1))
            step, loss = step[good], loss[good]
            if len(step):
                keep = np.unique(np.linspace(0, len(step) - 1, min(most, len(step))).round().astype(int))
                self.readings.append((i, step[keep], loss[keep]))

    def problem(self, basis: Basis) -> tuple[Problem, np.ndarray]:
        """Return the points under a basis, and the run that each belongs to."""
        parts: list[States] = []
        index, loss, curve, share = [], [], [], []
        if len(self.final):
            runs = self.runs.select(self.final)
            known = {"use_params": self.use_params, "use_batch": self.use_batch}
            if not self.readings:
                parts.append(final_states(runs, basis.dynamics, **known, threads=1))
            else:
                if self.ends is None:
                    self.ends = final_grid(runs.batch())
                parts.append(end_states(self.ends, runs.batch(), drive(runs, basis.dynamics, **known), basis.dynamics))
            index.append(self.final)
            loss.append(runs.final_loss)
            curve.append(np.zeros(len(self.final)))
            share.append(np.ones(len(self.final)))
        if self.readings:
            which = [i for i, _, _ in self.readings]
            picked = self.runs.select(np.array(which))
            everything = drive(picked, basis.dynamics, use_params=self.use_params, use_batch=self.use_batch)
            steps = [s for _, s, _ in self.readings]
            if self.grid is None:
                self.grid = curve_grid(picked.schedule_tuple(), steps)
            grid, where = self.grid
            parts.append(integrate(grid, everything, basis.dynamics, along=True).take(where))
            index.append(np.repeat(which, [len(s) for s in steps]))
            loss.append(np.concatenate([y for _, _, y in self.readings]))
            curve.append(np.full(len(loss[-1]), float(len(self.final) > 0)))
            share.append(np.concatenate([np.full(len(s), max(len(s) / FREE_POINTS_PER_CURVE, 1.0)) for s in steps]))
        states = join_states(parts)
        columns = basis.evaluate(states, use_batch=self.use_batch)
        rows = np.concatenate(index).astype(int)
        return (
            Problem(
                columns,
                np.concatenate(loss),
                basis.coordinates(states, self.peak[rows], self.peak_scale),
                np.log(states.n),
                np.concatenate(curve),
                np.concatenate(share),
                basis.damage,
                basis.peaks,
            ),
            rows,
        )

    def solve(
        self, basis: Basis, pool: FloatArray | None = None, calibrate: bool = True
    ) -> tuple[Posterior, dict[str, Any]]:
        """Return the posterior under a basis."""
        problem, rows = self.problem(basis)
        groups = [part[rows] for part in self.partitions.values()] if calibrate else []
        posterior, quality = fit_trend_field(
            problem,
            basis.prior,
            self.settings,
            centre=basis.centre,
            groups=groups,
            names=list(self.partitions) if calibrate else [],
            pool=pool,
        )
        quality["outliers"] = outliers(problem, posterior, quality["left_out"], self.runs.select(self.final))
        quality["left_out"] = {name: self._summary(name, e, rows) for name, e in quality["left_out"].items()}
        return posterior, quality

    def evidence(self, basis: Basis, settings: Settings) -> float:
        """Return the log evidence of the trend under other constants."""
        return trend_evidence(self.problem(basis)[0], basis.prior, settings, centre=basis.centre)

    def _summary(self, name: str, errors: FloatArray, rows: np.ndarray) -> dict[str, Any]:
        """Return what a law file keeps of left-out residuals of points of the runs `rows`, both (m,), by group."""
        good = np.isfinite(errors)
        which, place = np.unique(rows[good], return_inverse=True)
        of_run = np.bincount(place, weights=errors[good]) / np.bincount(place)
        kept, label = self.runs.select(which), self.partitions[name][which]
        own = self.group is not None and derived(self.runs, self.group) is None
        values = kept.column(name) if own else partition_values(kept, name)
        return summary(of_run, label, group_texts(values, label))


def fit_law(
    runs: RunTable,
    curves: CurveTable | None = None,
    group: str | None = None,
    basis: str | Basis | None = None,
    name: str = "law",
    *,
    calibrate: Sequence[str] = (),
    own_units: bool = True,
    settings: Settings | None = None,
    inducing_pool: RunTable | None = None,
    like: Law | None = None,
    info: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Law:
    """Fit a law to the completed runs of a table; `with_risk` then adds what diverged ones say of the risk.

    Parameters
    ----------
    runs : RunTable
        Runs; those that did not complete are counted, not fitted. Several sizes may be mixed. A column of sizes or of
        batches must be full or empty; where it is empty the law does without.
    curves : CurveTable, optional
        Losses along some of the runs. With curves three constants (kappa, temperature exponent, bias exponent) are
        calibrated by evidence, and final losses may lie on another evaluation set than the curves.
    group : str, optional
        Column whose groups calibrate the intervals, left out one at a time; default: family, horizon, peak rate, size
        and batch, each in turn. Where no column is called so, family, horizon, peak, size or batch is that one alone.
    basis : str or Basis, optional
        Id of a registered basis, or a basis.
    name : str
        Of the law.
    calibrate : sequence of str
        Exponents of the basis that are fitted too (`optlaws.law.calibrate`), from final losses only. For many runs that
        obey one law closely; on the public runs it made left-out families worse.
    own_units : bool
        Runs far smaller than language models, or of another optimizer than AdamW, may have units of their own (see
        below); False: never.
    settings : Settings, optional
        Constants of the regression.
    inducing_pool : RunTable, optional
        Runs (without losses) at which the field may be stored; default: the training runs. A law that must not carry
        the runs it was fitted to takes a space-filling design here.
    like : Law, optional
        A law fitted to these runs and others, for laws without a group: its basis, units and factor of the sds are
        taken, and nothing is fitted again without parts of the curves. `basis` and `own_units` are not looked at.
    info : mapping, optional
        Further entries of `Law.info`.
    progress : callable, optional
        Called with a word at every trial of the constants that are calibrated; it changes nothing.

    Raises
    ------
    FitError
        Too few usable runs, or runs that the law cannot be fitted to.
    TableError
        There is no column `group`.
    InputError
        No run or curve table, no such basis, a name that is no text, settings, `like` or info of another kind, an empty
        pool, or exponents to calibrate that the basis has not.

    Warns
    -----
    TooFewRunsWarning
        Fewer runs than columns; interval widths that no groups calibrate.
    RankDeficiencyWarning
        Columns that do not vary by themselves, `info["undetermined"]`.
    OptlawsWarning
        Runs that stand apart from the law of the others, or that scatter by more than laws know; curves that diverged;
        copies of a run under another name; median sizes or batches that are none, and peak rates ten times off all
        others; runs of an optimizer too few to say anything, left out.

    Notes
    -----
    Where the runs are far smaller than language models (median size or batch a hundred times below the reference), the
    law may be fitted in units of these runs (`optlaws.law.units`); `info["units"]` then states them.

    `info["leave_group_out"]` sums up, by partition, the residuals that calibrated the intervals: `mean_error_pct` (mean
    size of the relative error, %), `coverage` (share inside the 90 % intervals, 0 .. 1) and `width_pct` (mean width of
    these, % of the loss). The residuals come by a formula that does not fit again: active columns, noise and weights
    are those of all runs, and `coverage` is that after the calibration; for laws that never saw a group see
    `optlaws.validation.cross_validate`. `info["left_out_groups"]` holds the signed means of these residuals by
    partition and group of three runs or more (`optlaws.law.residuals.summary`). `info["schedules"]` counts the kinds of
    schedules and has the median warm-up, which plans go by. `info["outliers"]` names
    runs that stand apart (`optlaws.law.outliers`) and were left out if the others then scatter less; there is none
    without such runs or with an `inducing_pool`.

    Of several optimizers the law is fitted to the runs of the one that most of them have; runs of the others then say
    at which rate, and with what factor of the loss, they count as its own (`optlaws.law.optimizers`). Their curves are
    not looked at.

    A run whose curve diverged by the detector of `optlaws.risk` counts as diverged, whatever its status says.

    No weights are given to groups of runs; what balances them is that runs of one configuration share the field and the
    offset of their size, whose variance repeats do not lower, so that repeats count as one run up to the run noise that
    they average, and that the noise variances of one curve's points are multiplied until together they count as at most
    `FREE_POINTS_PER_CURVE`.
    """
    check_runs(runs)
    if not isinstance(curves, CurveTable | None):
        raise InputError(f"curves must be a CurveTable, got {type(curves).__name__}; read one with read_curves")
    if not isinstance(name, str):
        raise InputError(f"name must be text, got {name!r}; leave it out for 'law'")
    if not isinstance(info, Mapping | None):
        raise InputError(f"info must be a mapping of further entries, got {info!r:.60}; leave it out for none")
    if not isinstance(like, Law | None):
        raise InputError(f"like must be a Law, got {type(like).__name__}; leave it out for a law of its own")
    settings = Settings.checked(settings)
    if inducing_pool is not None and not len(check_runs(inducing_pool, "inducing_pool")):
        raise InputError("inducing_pool must hold at least one run, got an empty table; leave it out for the runs")
    with threadpool_limits(1):  # many small matrices: more threads only get in each other's way
        chosen, about = get_basis(basis if like is None else like.basis_id), dict(info or {})
        check_fitted(runs)
        runs, diverged = with_outcomes(runs, curves)
        warn_of_outcomes(diverged, stacklevel=2)
        runs, curves, optimizer, others = own_runs(runs, curves)
        settings = settings.of_sizes(bool((density(runs) < 1.0).any()))
        if like is not None:
            units = dict(like.info.get("units") or {})
        else:
            units = own_units_of(runs, chosen, settings) if own_units else {}
        if units:
            chosen, about["units"] = chosen.with_constants(units), units
        if calibrate:
            chosen, about["calibrated"] = _calibrated_exponents(runs, curves, chosen, calibrate, progress)
        law = _fit_law(runs, curves, group, chosen, name, settings, inducing_pool, like, about, progress)
        law = replace(law, optimizers=Optimizers(optimizer))
        found = {}
        for other, table in others.items():
            for column, used in (("params", law.use_params), ("batch_tokens", law.use_batch)):
                values = table.size if column == "params" else table.batch_tokens
                if used and not all_or_none(values, column, table):
                    text = f"{column} must be given for all runs of a fit or for none, but no run of {other} has any"
                    raise FitError(f"{text}; fill the column or drop these runs")
            if progress is not None:
                progress(f"runs of {other}")
            found[other] = fit_equivalent(law, table)
        return replace(law, optimizers=Optimizers(optimizer, found))


def _calibrated_exponents(
    runs: RunTable, curves: CurveTable | None, basis: Basis, names: Sequence[str], progress: Progress | None
) -> tuple[Basis, dict[str, float]]:
    """Return the basis with exponents at their most probable values given the completed runs, and those values."""
    done = runs.select(usable(runs))
    if curves is not None:
        raise FitError(
            f"calibrate must be left out where curves are fitted, got {', '.join(names)} and {len(curves)} readings:"
            " curves calibrate their own time-scales"
        )
    if len(done) < FEWEST_CALIBRATING:
        raise FitError(
            f"calibrate must have at least {FEWEST_CALIBRATING} completed runs, got {len(done)};"
            " add runs or leave it out"
        )
    profile = profile_exponents(
        done, basis, names,
        use_params=all_or_none(done.size, "params", done),
        use_batch=all_or_none(done.batch_tokens, "batch_tokens", done),
        progress=progress,
    )  # fmt: skip
    return profile.basis, profile.values


def _fit_law(
    runs: RunTable, curves: CurveTable | None, group: str | None, basis: Basis, name: str, settings: Settings,
    inducing_pool: RunTable | None, like: Law | None, info: Mapping[str, Any], progress: Progress | None,
) -> Law:  # fmt: skip
    """See `fit_law`."""
    keep = usable(runs)
    left_out = len(runs) - int(keep.sum())
    if curves is None:
        if not keep.any():
            raise FitError(
                f"at least {FEWEST_RUNS} completed runs with a finite final_loss are needed, got none of {len(runs)}"
                " (all diverged, interrupted or without a loss); add completed runs"
            )
        if keep.sum() < FEWEST_RUNS:
            raise FitError(
                f"at least {FEWEST_RUNS} completed runs with a finite final_loss are needed, got {int(keep.sum())};"
                " add runs or give --curves"
            )
        runs = runs.select(keep)
    else:
        logged = set(curves.run_id)
        if not logged & set(runs.run_id):
            raise FitError(
                f"run_id of the curves must occur in the run table, got none that does (such as {curves.run_id[0]!r});"
                " give the run table that belongs to these curves"
            )
        whole = np.array([status not in ("diverged", "nonfinite") for status in runs.status], dtype=bool)
        wanted = whole & (keep | np.array([name in logged for name in runs.run_id], dtype=bool))
        if not wanted.any():
            raise FitError(
                f"at least one run that did not diverge, with a final_loss or a curve, is needed,"
                f" got none of {len(runs)}; add completed runs"
            )
        left_out = len(runs) - int(wanted.sum())
        runs = runs.select(wanted)
    work = _Fit(runs, curves, basis, settings, group)
    if curves is not None:
        total = sum(len(s) for _, s, _ in work.readings)
        if total < FEWEST_READINGS:
            raise FitError(
                f"at least {FEWEST_READINGS} readings after the warm-up are needed, got {total};"
                " log the loss more often or add runs"
            )
    calibrated: dict[str, float] = {}
    if work.readings:
        own = settings.curve_field_sd
        work.settings = settings = replace(settings, trend_sd=own, field_sd=own, spreads=settings.curve_spreads)
        basis, calibrated = _calibrate(work, basis, progress)
    pool = None
    if inducing_pool is not None:
        states = final_states(inducing_pool, basis.dynamics, use_params=work.use_params, use_batch=work.use_batch)
        pool = basis.coordinates(states, np.asarray(inducing_pool.batch().peak), work.peak_scale)
    others = left_out_curves(*work.problem(basis), runs, basis, settings) if work.readings and like is None else None
    if others is not None:
        least, most = settings.spreads
        work.settings = settings = replace(
            settings, spreads=(max(least, others.least_spread()), max(most, others.least_spread()))
        )
    posterior, quality = work.solve(basis, pool)
    if others is not None:
        quality["groups"][CURVES_CALLED] = others.errors(posterior.spread)
    odd = quality["outliers"]
    if not work.readings:
        if odd:
            kept = ~np.isin(runs.run_id, [one["run_id"] for one in odd])
            rest = _Fit(runs.select(kept), None, basis, settings, group)
            without = rest.solve(basis, pool)
            if without[1]["scatter"] < quality["scatter"]:  # they did spoil it
                odd = by_the_others(odd, work.problem(basis)[0], without[0], runs.select(work.final))
                work, runs, (posterior, quality) = rest, rest.runs, without
        wider = wider_field(settings, quality["scatter"], len(work.final), lambda trial: work.evidence(basis, trial))
        if wider != settings:
            work.settings = wider
            posterior, quality = work.solve(basis, pool)
            quality["field_factor"] = wider.field_sd / settings.field_sd
    if like is not None:
        posterior = replace(posterior, spread=like.posterior.spread)
    residuals = quality.pop("residuals")
    del quality["outliers"]
    count = len(work.final)
    warn_of_copies(work.runs.select(work.final), stacklevel=3)
    unknown = undetermined(work.problem(basis)[0].columns, basis.names)
    tried = warn_of_fit(
        work.runs.select(work.final), curves is not None, bool(work.partitions), residuals, odd, quality["scatter"],
        settings, unknown, stacklevel=3,
    )  # fmt: skip
    values = domain_values(runs, work.use_params, work.use_batch)
    domain = ranges(values)
    if work.readings:  # curves show the loss at every rate
        domain["end_rate"] = (domain["end_rate"][0], 1.0)
    defaults: dict[str, float] = {
        key: float(np.median(values[key])) for key in ("params", "batch_tokens", "weight_decay") if key in values
    }
    sources: Sequence[str] = sorted({s for s in runs.source if s})
    about = {
        "n_runs": count,
        "n_configurations": tried,
        "n_curves": len(work.readings),
        "n_left_out": left_out,
        "digest": runs.digest(),
        "sources": list(sources),
        "leave_group_out": quality.pop("groups"),
        "left_out_groups": quality.pop("left_out"),
        "calibrated": calibrated,
        "fit": quality,
        "undetermined": unknown,
        "schedules": schedules_seen(runs),
        "versions": versions(),
        **({"outliers": odd} if odd and inducing_pool is None else {}),  # with a pool the law carries no run
        **info,
    }
    return Law(
        name,
        basis,
        posterior,
        work.use_params,
        work.use_batch,
        work.peak_scale,
        bool(work.readings) and count > 0,
        domain,
        defaults,
        about,
        joint=Joint.of(values),
    )


def _calibrate(work: _Fit, basis: Basis, progress: Progress | None) -> tuple[Basis, dict[str, float]]:
    """Return the basis with its time-scales at their most probable values given the curves, and those values."""
    from scipy.optimize import minimize

    names = list(CALIBRATED)
    start = {**basis.dynamics.to_dict(), **basis.exponents}
    settings = replace(work.settings, most_inducing=min(CALIBRATION_INDUCING, work.settings.most_inducing))

    def build(x: FloatArray) -> tuple[Basis, dict[str, float]]:
        prior = (CALIBRATED[name] for name in names)
        values = {
            name: start[name] * c * float(np.exp(sd * v)) for name, (c, sd), v in zip(names, prior, x, strict=True)
        }
        dynamics = {k: v for k, v in values.items() if k not in basis.exponents}
        exponents = {k: v for k, v in values.items() if k in basis.exponents}
        return basis.with_constants(dynamics, exponents), values

    def cost(x: FloatArray) -> float:
        if progress is not None:
            progress("trial of constants")
        trial = build(x)[0]
        return 0.5 * float(x @ x) - trend_evidence(work.problem(trial)[0], trial.prior, settings, centre=trial.centre)

    zero = np.zeros(len(names))
    simplex = np.vstack([zero, 0.6 * np.eye(len(names))])
    found = minimize(
        cost, zero, method="Nelder-Mead", options={"maxfev": CALIBRATION_TRIALS, "initial_simplex": simplex}
    )
    return build(found.x)
