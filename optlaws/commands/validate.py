"""The command that puts a law to the test: fit on the small and short runs of a sweep, predict the rest."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import numpy.typing as npt

from optlaws.commands.folders import check_folders, measured, read_folders
from optlaws.commands.shared import check_outputs, quiet, tell_kinds_of, write_text
from optlaws.commands.validation_report import columns, curves_figure, levels_text, losses_figure, report
from optlaws.errors import FitError, InputError, OptlawsWarning
from optlaws.runs import CurveTable, RunTable, check_folder, format_quantity, write_columns
from optlaws.validation import middle

if TYPE_CHECKING:
    from optlaws.law import Law
    from optlaws.risk import RiskPrediction

FloatArray = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Labels = npt.NDArray[Any]
DRAWS = 200  # simulated predictions that are wrong by the scatter of repeats alone
LATE = 0.125  # part of a run before which its curve is not compared, as in fits


@dataclass(frozen=True, eq=False)
class Verdict:
    """What came out: the law, who was fitted, predictions and scores.

    Attributes
    ----------
    runs : all n runs.
    fitted, held : masks (n,): runs on the small and short side, and the rest.
    scored : mask (n,), held-out runs that were completed.
    law : fitted on the `fitted` runs alone.
    predicted, lower, upper : (n,), nats per token.
    risk : risk of all runs.
    scores : of the scored runs, as `optlaws.validation.scores` gives them.
    folder : (n,) where each run comes from, "" = not said. Runs of two folders neither compete nor are repeats.
    pool : (n,) labels of the runs that compete: of one folder, size and budget.
    tried : (n,) labels of configurations of one folder.
    cells : (folder, size, tokens, steps, scores) of every pool of scored runs; NaN tokens where they are not known, and
        then alone all runs of a pool have these steps.
    folders : (folder, scores of its scored runs) where there are several.
    levels : (folder a, folder b, configurations that both trained, how much higher their losses are in b, %).
    repeat_sd : standard deviation of runs that differ in the seed alone, % of their mean; NaN where there are none.
    repeats : number of runs that it is from.
    curves : rows of (run, steps, losses, predicted, lower, upper) of scored runs with a curve.
    accepted : probability of divergence from which a run is flagged.
    """

    runs: RunTable
    fitted: Mask
    held: Mask
    scored: Mask
    law: Law
    predicted: FloatArray
    lower: FloatArray
    upper: FloatArray
    risk: RiskPrediction
    scores: dict[str, Any]
    folder: Labels
    pool: Labels
    tried: Labels
    cells: list[tuple[str, float, float, float, dict[str, Any]]]
    folders: list[tuple[str, dict[str, Any]]]
    levels: list[tuple[str, str, int, float]]
    repeat_sd: float
    repeats: int
    curves: list[tuple[int, FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]]
    accepted: float

    @property
    def diverged(self) -> Mask:
        """Runs that diverged, shape (n,)."""
        return np.array([status in ("diverged", "nonfinite") for status in self.runs.status], dtype=bool)

    @property
    def flagged(self) -> Mask:
        """Runs whose risk is above the accepted one, shape (n,)."""
        return np.asarray(self.risk.probability > self.accepted)

    @property
    def top2(self) -> float:
        """Share of pools whose best run is among the two predicted lowest, %; NaN without a pool."""
        return 100 * self.scores["hits"] / self.scores["pools"] if self.scores["pools"] else math.nan

    def confusion(self) -> dict[str, int]:
        """Return how many held-out runs with a known end were flagged or not, and diverged or not."""
        known = self.held & np.array([status != "interrupted" for status in self.runs.status], dtype=bool)
        return {
            "flagged, diverged": int((known & self.flagged & self.diverged).sum()),
            "flagged, completed": int((known & self.flagged & ~self.diverged).sum()),
            "not flagged, diverged": int((known & ~self.flagged & self.diverged).sum()),
            "not flagged, completed": int((known & ~self.flagged & ~self.diverged).sum()),
        }

    def ceiling(self) -> dict[str, float]:
        """Return error %, Spearman within pools and Top-2 % of predictions that are wrong by the scatter of repeats.

        Simulated: each real loss times exp(normal noise of that scatter), the mean of `DRAWS` draws.
        """
        from optlaws.validation import scores

        loss, pool, tried = (values[self.scored] for values in (self.runs.final_loss, self.pool, self.tried))
        random = np.random.default_rng(0)
        found = []
        for _ in range(DRAWS):
            guess = loss * np.exp(random.normal(0, self.repeat_sd / 100, len(loss)))
            row = scores(loss, guess, loss, loss, pool, candidate=tried)
            found.append([row["error"], row["pool_spearman"], 100 * row["hits"] / max(row["pools"], 1)])
        error, spearman, top2 = np.mean(found, axis=0).tolist()
        return {"error": error, "pool_spearman": spearman, "top2": top2}

    def curve_error(self) -> float:
        """Return the mean error along the held-out curves, %, each curve counted once."""
        errors = [float(np.mean(np.abs(guess / loss - 1))) for _, _, loss, guess, _, _ in self.curves]
        return 100 * float(np.mean(errors)) if errors else math.nan


def small_and_short(runs: RunTable, max_params: float | None = None, max_steps: float | None = None) -> Mask:
    """Return which runs to fit, shape (n,): sizes and horizons up to the limits.

    Without limits: the lower halves of the different values, the middle ones included. A single value limits nothing.
    With one limit alone nothing else is limited.

    Raises
    ------
    InputError
        A size is missing, or one of the sides is empty.
    """
    if not np.isfinite(runs.size).all():
        name = runs.run_id[int(np.argmin(np.isfinite(runs.size)))]
        raise InputError(f"params must be given for every run to validate, got none for {name!r}; fill the column")
    lone = (max_params is None) != (max_steps is None)
    small = runs.size <= (math.inf if lone else middle(runs.size)) if max_params is None else runs.size <= max_params
    short = runs.steps <= (math.inf if lone else middle(runs.steps)) if max_steps is None else runs.steps <= max_steps
    fitted = np.asarray(small & short)
    if fitted.all() or not fitted.any():
        raise InputError(
            f"--max-params and --max-steps must leave runs on both sides, got {int(fitted.sum())} of {len(runs)} runs "
            f"to fit (params {_range(runs.size)}, steps {_range(runs.steps)}); choose limits between them or add runs"
        )
    return fitted


def _range(values: FloatArray) -> str:
    return f"{format_quantity(float(values.min()))} to {format_quantity(float(values.max()))}"


def put_to_the_test(
    runs: RunTable,
    curves: CurveTable | None = None,
    *,
    max_params: float | None = None,
    max_steps: float | None = None,
    fit_curves: bool = False,
    accepted: float | None = None,
    own_units: bool = True,
    name: str = "law",
    folder: Sequence[str] | None = None,
) -> Verdict:
    """Fit a law on the small and short runs and predict the others.

    Parameters
    ----------
    runs : RunTable
        n runs of one sweep, diverged ones included.
    curves : CurveTable, optional
        Their curves, to be compared with predicted ones. A column val_loss is taken instead of loss where it is filled.
    max_params, max_steps : float, optional
        See `small_and_short`.
    fit_curves : bool
        Fit the curves of the small and short runs too.
    accepted : float, optional
        Probability of divergence above which a run is flagged; the risk model's usual one.
    own_units : bool
        Far smaller runs than language models may have units of their own, as in `fit_law`.
    name : str
        Of the law.
    folder : sequence of n texts, optional
        Where each run comes from. One law is fitted to the runs of all folders; pools and repeats are of one each.

    Raises
    ------
    InputError, FitError
        One side is empty, or the law cannot be fitted.
    """
    from optlaws.law import fit_law, with_risk
    from optlaws.law.fitting import FEWEST_RUNS
    from optlaws.risk import ACCEPTED
    from optlaws.validation import competing, configurations, finished, scores

    fitted = small_and_short(runs, max_params, max_steps)
    readings = measured(curves) if curves is not None else None
    train = runs.select(fitted)
    known = None
    if fit_curves:
        if readings is None:
            raise InputError("--fit-curves needs curves, got none; put curves.csv beside runs.csv")
        names = set(train.run_id)
        known = readings.select(np.array([one in names for one in readings.run_id], dtype=bool))
    count = int(finished(train).sum())
    if known is None and count < FEWEST_RUNS:
        how = "the lower half of sizes and of lengths" if max_params is None and max_steps is None else "your limits"
        raise FitError(
            f"the small and short runs, to which a law is fitted, must be at least {FEWEST_RUNS} completed ones, got"
            f" {count} of {len(runs)} runs (up to {format_quantity(float(train.size.max()))} parameters and"
            f" {int(train.steps.max()):,} steps, by {how}); raise --max-params or --max-steps, or add runs"
        )
    with quiet():
        law = with_risk(fit_law(train, known, own_units=own_units, name=name), train)
        prediction = law.predict(runs)
    assert law.risk is not None
    done = finished(runs)
    scored = done & ~fitted
    if not scored.any():
        raise FitError("at least 1 held-out run must be completed with a loss, got none; lower the limits or add runs")
    places = np.array([""] * len(runs) if folder is None else list(folder), dtype=object)
    pools, tried = per_folder(runs, places, competing), per_folder(runs, places, configurations)
    p = prediction.loss, prediction.lower, prediction.upper

    names_of = list(dict.fromkeys(places.tolist()))

    def of(mask: Mask) -> dict[str, Any]:
        loss, guess, lower, upper = (values[mask] for values in (runs.final_loss, *p))
        return scores(loss, guess, lower, upper, pools[mask], candidate=tried[mask])

    cells = sorted(
        (
            (places[i], *(float(v[i]) for v in (runs.size, runs.tokens, runs.steps)), of(scored & (pools == pools[i])))
            for i in {str(pools[i]): i for i in np.flatnonzero(scored).tolist()}.values()
        ),
        key=lambda cell: (names_of.index(cell[0]), *np.nan_to_num(cell[1:4])),
    )
    by_folder = [(one, of(scored & (places == one))) for one in names_of if (scored & (places == one)).any()]
    sd, count = repeat_spread(runs.select(done), tried[done])
    risk = law.risk.predict(law.as_usual(runs), law.defaults)
    return Verdict(
        runs, fitted, ~fitted, scored, law, *p, risk, of(scored), places, pools, tried, cells,
        by_folder if len(names_of) > 1 else [], levels_of(runs.select(done), places[done]), sd, count,
        _along(law, runs, scored, readings), ACCEPTED if accepted is None else accepted,
    )  # fmt: skip


def per_folder(runs: RunTable, folder: Labels, label: Callable[[RunTable], Labels]) -> Labels:
    """Return labels of runs, (n,), made in each folder by itself; where there are several they name it."""
    names = dict.fromkeys(folder.tolist())
    if len(names) == 1:
        return label(runs)
    found = np.empty(len(runs), dtype=object)
    for name in names:
        rows = np.flatnonzero(folder == name)
        found[rows] = [f"{text} of {name}" for text in label(runs.select(rows))]
    return found


def levels_of(runs: RunTable, folder: Labels) -> list[tuple[str, str, int, float]]:
    """Return each two folders a, b that trained configurations alike, how many, and how much higher b's losses are, %.

    That is the mean over these configurations of the logarithm of the ratio of their mean losses. Where it is not
    near 0 the folders' data or networks differ in what no column says.
    """
    from optlaws.validation import configurations

    tried = configurations(runs)
    means: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(folder.tolist()):
        labels, index = np.unique(tried[folder == name], return_inverse=True)
        mean = np.bincount(index, weights=runs.final_loss[folder == name]) / np.bincount(index)
        means[name] = dict(zip(labels.tolist(), mean.tolist(), strict=True))
    found = []
    for a, b in combinations(means, 2):
        both = [label for label in means[a] if label in means[b]]
        if both:
            logs = [math.log(means[b][label] / means[a][label]) for label in both]
            found.append((a, b, len(both), 100 * math.expm1(float(np.mean(logs)))))
    return found


def repeat_spread(runs: RunTable, label: npt.NDArray[Any]) -> tuple[float, int]:
    """Return the pooled standard deviation of repeats of one configuration, %, and the runs that it is from."""
    squares, freedom, count = 0.0, 0, 0
    for value in np.unique(label):
        loss = runs.final_loss[label == value]
        if len(loss) > 1:
            squares += float(np.sum((loss / loss.mean() - 1) ** 2))
            freedom += len(loss) - 1
            count += len(loss)
    return (100 * math.sqrt(squares / freedom) if freedom else math.nan), count


def _along(
    law: Law, runs: RunTable, scored: Mask, readings: CurveTable | None
) -> list[tuple[int, FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]]:
    """Return measured and predicted losses along the held-out runs."""
    if readings is None:
        return []
    found = []
    rows = readings.runs()
    for i in np.flatnonzero(scored).tolist():
        index = rows.get(runs.run_id[i])
        if index is None:
            continue
        schedule = runs.schedule_tuple()[i]
        step, loss = readings.step[index], readings.loss[index]
        late = max(float(schedule.warmup_steps), LATE * schedule.total_steps, 1.0)
        good = np.isfinite(loss) & (loss > 0) & (step > late) & (step <= schedule.total_steps)
        if not good.any():
            continue
        with quiet():
            p = law.predict_curve(runs.select([i]), step[good])
        found.append((i, step[good], loss[good], p.loss, p.lower, p.upper))
    return found


def validate(
    folders: Sequence[str],
    max_params: float | None,
    max_steps: float | None,
    fit_curves: bool,
    accepted: float | None,
    law: str | None,
    output: str | None,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Validate sweeps in folders, or built-in ones, together, and write the report, the table and the figures."""
    check_folders(folders)
    lone = Path(folders[0]) if len(folders) == 1 and Path(folders[0]).is_dir() else None
    target = Path(output) if output is not None else lone or Path()
    check_folder(target if output is None else output, "--out")
    out = {suffix: str(target / f"validation{suffix}") for suffix in (".md", ".csv", ".png")}
    out["curves"] = str(target / "validation_curves.png")
    check_outputs(*(out.values() if target.is_dir() else ()), law)
    runs, curves, folder = read_folders(folders, headers)
    tell_kinds_of(runs, curves)
    verdict = put_to_the_test(
        runs, curves, max_params=max_params, max_steps=max_steps, fit_curves=fit_curves, accepted=accepted,
        name=Path(law).stem if law else lone.resolve().name if lone else "+".join(Path(one).name for one in folders),
        folder=folder,
    )  # fmt: skip
    if (max_params is None) != (max_steps is None):
        taken, other = ("length", "--max-steps") if max_steps is None else ("size", "--max-params")
        click.echo(f"optlaws: note: runs of every {taken} are fitted, as {other} is not given", err=True)
    for text in levels_text(verdict):
        warnings.warn(OptlawsWarning(text), stacklevel=2)
    from optlaws import plotting

    target.mkdir(parents=True, exist_ok=True)
    plotting.save_figure(losses_figure(verdict), out[".png"])
    if verdict.curves:
        plotting.save_figure(curves_figure(verdict), out["curves"])
    else:
        del out["curves"]
    write_columns(out[".csv"], columns(verdict), len(runs))
    text = report(verdict, targets=not any(Path(one).is_dir() for one in folders))
    write_text(out[".md"], text)
    if law:
        verdict.law.save(law)
    click.echo(text.partition("## Pools")[0].rstrip())
    *wrote, last = [*out.values(), *([law] if law else [])]
    click.echo(f"\nWrote {', '.join(wrote)} and {last}.")
