"""The command that puts a law to the test: fit on the small and short runs of a sweep, predict the rest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import numpy.typing as npt

from optlaws.commands.folders import check_folders, measured, read_folders
from optlaws.commands.shared import check_outputs, quiet, tell_kinds_of, units_text, write_text
from optlaws.errors import FitError, InputError
from optlaws.runs import CurveTable, RunTable, check_folder, format_quantity, write_columns
from optlaws.validation import SMALLEST_POOL, middle

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from optlaws.law import Law
    from optlaws.risk import RiskPrediction

FloatArray = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
TARGETS = {"error": 0.5, "pool_spearman": 0.9, "top2": 94.0}
NO_POOLS = f"no pool: at least {SMALLEST_POOL} held-out runs must have one size and length"
DRAWN = 9  # held-out curves in the figure
TITLE = 44  # letters of the name of a run above its curve
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
    cells : (size, tokens, steps, scores) of every pool of scored runs; NaN tokens where they are not known, and then
        alone all runs of a pool have these steps.
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
    cells: list[tuple[float, float, float, dict[str, Any]]]
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
        from optlaws.validation import competing, configurations, scores

        runs = self.runs.select(self.scored)
        loss, pool, tried = runs.final_loss, competing(runs), configurations(runs)
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

    Without a limit: the lower half of the different values, the middle one included. A single value limits nothing.

    Raises
    ------
    InputError
        A size is missing, or one of the sides is empty.
    """
    if not np.isfinite(runs.size).all():
        name = runs.run_id[int(np.argmin(np.isfinite(runs.size)))]
        raise InputError(f"params must be given for every run to validate, got none for {name!r}; fill the column")
    small = runs.size <= (middle(runs.size) if max_params is None else max_params)
    short = runs.steps <= (middle(runs.steps) if max_steps is None else max_steps)
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
    law = with_risk(fit_law(train, known, own_units=own_units, name=name), train)
    if law.risk is None:
        raise FitError("runs to fit must have sizes, batches and Adam or AdamW to judge divergence by")
    with quiet():
        prediction = law.predict(runs)
    done = finished(runs)
    scored = done & ~fitted
    if not scored.any():
        raise FitError("at least 1 held-out run must be completed with a loss, got none; lower the limits or add runs")
    pools = competing(runs)
    tried = configurations(runs)
    p = prediction.loss, prediction.lower, prediction.upper

    def of(mask: Mask) -> dict[str, Any]:
        loss, guess, lower, upper = (values[mask] for values in (runs.final_loss, *p))
        return scores(loss, guess, lower, upper, pools[mask], candidate=tried[mask])

    cells = sorted(
        (
            (float(runs.size[i]), float(runs.tokens[i]), float(runs.steps[i]), of(scored & (pools == pools[i])))
            for i in {str(pools[i]): i for i in np.flatnonzero(scored).tolist()}.values()
        ),
        key=lambda cell: tuple(np.nan_to_num(cell[:3])),
    )
    sd, count = repeat_spread(runs.select(done), tried[done])
    risk = law.risk.predict(law.as_usual(runs), law.defaults)
    return Verdict(
        runs, fitted, ~fitted, scored, law, *p, risk, of(scored), cells, sd, count,
        _along(law, runs, scored, readings), ACCEPTED if accepted is None else accepted,
    )  # fmt: skip


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
) -> None:
    """Validate sweeps in folders, or built-in ones, together, and write the report, the table and the figures."""
    check_folders(folders)
    lone = Path(folders[0]) if len(folders) == 1 and Path(folders[0]).is_dir() else None
    target = Path(output) if output is not None else lone or Path()
    check_folder(target if output is None else output, "--out")
    out = {suffix: str(target / f"validation{suffix}") for suffix in (".md", ".csv", ".png")}
    out["curves"] = str(target / "validation_curves.png")
    check_outputs(*(out.values() if target.is_dir() else ()), law)
    runs, curves = read_folders(folders)
    tell_kinds_of(runs, curves)
    verdict = put_to_the_test(
        runs, curves, max_params=max_params, max_steps=max_steps, fit_curves=fit_curves, accepted=accepted,
        name=Path(law).stem if law else lone.resolve().name if lone else "+".join(Path(one).name for one in folders),
    )  # fmt: skip
    from optlaws import plotting

    target.mkdir(parents=True, exist_ok=True)
    plotting.save_figure(losses_figure(verdict), out[".png"])
    if verdict.curves:
        plotting.save_figure(curves_figure(verdict), out["curves"])
    else:
        del out["curves"]
    write_columns(out[".csv"], columns(verdict), len(runs))
    text = report(verdict)
    write_text(out[".md"], text)
    if law:
        verdict.law.save(law)
    click.echo(text.partition("## Pools")[0].rstrip())
    *wrote, last = [*out.values(), *([law] if law else [])]
    click.echo(f"\nWrote {', '.join(wrote)} and {last}.")


def columns(verdict: Verdict) -> dict[str, Any]:
    """Return the table of all runs: what they did and what was predicted."""
    runs = verdict.runs
    return {
        "run_id": runs.run_id,
        "params": runs.size,
        "steps": runs.steps,
        "schedule": [schedule.kind for schedule in runs.schedule_tuple()],
        "peak_lr": np.asarray(runs.batch().peak, dtype=np.float64),
        "side": ["fitted" if one else "held out" for one in verdict.fitted.tolist()],
        "status": [status or "completed" for status in runs.status],
        "final_loss": runs.final_loss,
        "predicted_loss": verdict.predicted,
        "lower": verdict.lower,
        "upper": verdict.upper,
        "divergence_risk": np.asarray(verdict.risk.probability, dtype=np.float64),
        "flagged": verdict.flagged,
    }


def report(verdict: Verdict) -> str:
    """Return the report as Markdown."""
    s, runs, confusion = verdict.scores, verdict.runs, verdict.confusion()
    repeated = s["pools"] and s["candidate_spearman"] != s["pool_spearman"]
    train = runs.select(verdict.fitted)
    usable = len(train) - int(verdict.diverged[verdict.fitted].sum())
    missed = confusion["not flagged, diverged"]
    lost = confusion["flagged, diverged"] + missed
    rows = [
        ("mean error", f"{s['error']:.2f} %", _judge(s["error"] <= TARGETS["error"], "at most 0.5 %")),
        ("largest error", f"{s['worst']:.2f} %", ""),
        ("bias", f"{s['bias']:+.2f} %", ""),
        (
            f"Spearman within pools (mean of {s['pools']})",
            f"{s['pool_spearman']:.3f}" if s["pools"] else NO_POOLS,
            _judge(s["pool_spearman"] >= TARGETS["pool_spearman"], "at least 0.9") if s["pools"] else "",
        ),
        *([("the same of candidates, repeats averaged", f"{s['candidate_spearman']:.3f}", "")] if repeated else []),
        ("Spearman over all", f"{s['spearman']:.3f}", ""),
        (
            "Top-2: best run among the two predicted lowest",
            f"{s['hits']} of {s['pools']} pools" if s["pools"] else NO_POOLS,
            _judge(verdict.top2 >= TARGETS["top2"], "at least 94 %") if s["pools"] else "",
        ),
        (
            "regret of the run predicted lowest",
            f"{s['regret']:.2f} % (largest {s['worst_regret']:.2f} %)" if s["pools"] else NO_POOLS,
            "",
        ),
        ("90 % intervals cover", f"{100 * s['cover']:.0f} % (mean width {s['width']:.2f} %)", ""),
        ("diverged runs flagged", f"{lost - missed} of {lost}", _judge(missed == 0, "all") if lost else ""),
    ]
    calm = verdict.scored & ~verdict.flagged
    if calm.any():
        error = 100 * np.abs(verdict.predicted[calm] / runs.final_loss[calm] - 1)
        rows.insert(1, (f"mean error of the {len(error)} runs that were not flagged", f"{error.mean():.2f} %", ""))
    if verdict.curves:
        rows.append(("mean error along the curves", f"{verdict.curve_error():.2f} %", ""))
    lines = [
        "# Validation",
        "",
        f"Fitted on {usable} completed runs of at most {format_quantity(float(train.size.max()))} parameters and "
        f"{int(train.steps.max()):,} steps ({len(train) - usable} more diverged); scored on {s['runs']} completed runs "
        f"that are larger or longer. Losses are {runs.final_loss[verdict.scored].min():.3f} to "
        f"{runs.final_loss[verdict.scored].max():.3f} nats per token. {units_text(verdict.law)}".rstrip(),
        "",
        "| held-out runs | | target |",
        "| --- | --- | --- |",
        *(f"| {what} | {value} | {judged} |" for what, value, judged in rows),
        "",
        f"Divergence of held-out runs, flagged above a risk of {100 * verdict.accepted:g} %:",
        "",
        "| | diverged | completed |",
        "| --- | --- | --- |",
        *(
            f"| {which} | {confusion[f'{which}, diverged']} | {confusion[f'{which}, completed']} |"
            for which in ("flagged", "not flagged")
        ),
        "",
    ]
    if verdict.repeats:
        best = verdict.ceiling()
        words = f"Runs that differ in the seed alone scatter by {verdict.repeat_sd:.2f} % (standard deviation, "
        words += f"{verdict.repeats} runs). Predictions that are wrong by no more than that would have a mean error of "
        words += f"{best['error']:.2f} %"
        if s["pools"]:
            words += f", a Spearman of {best['pool_spearman']:.3f} within pools and {best['top2']:.0f} % in Top-2"
        lines += [words + " (simulated).", ""]
    lines += [
        "## Pools",
        "",
        "| parameters | budget | runs | error % | bias % | Spearman | Top-2 | regret % | cover % |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for size, tokens, steps, cell in verdict.cells:
        ranked = cell["pools"] > 0
        top = ("yes" if cell["hits"] else "no") if ranked else "-"
        lines.append(
            f"| {format_quantity(size)} | {_budget(tokens, steps)} | {cell['runs']} | "
            f"{cell['error']:.2f} | {cell['bias']:+.2f} | "
            + (f"{cell['pool_spearman']:.3f} | {top} | {cell['regret']:.2f} | " if ranked else "- | - | - | ")
            + f"{100 * cell['cover']:.0f} |"
        )
    lines += ["", "![predicted against real losses](validation.png)"]
    if verdict.curves:
        lines += ["", "![predicted and real curves of held-out runs](validation_curves.png)"]
    return "\n".join(lines) + "\n"


def _budget(tokens: float, steps: float) -> str:
    return f"{int(steps):,} steps" if math.isnan(tokens) else f"{format_quantity(tokens)} tokens"


def _judge(reached: bool, target: str) -> str:
    return f"{target}: {'reached' if reached else '**missed**'}"


def losses_figure(verdict: Verdict) -> Figure:
    """Return the figure of predicted against real final losses."""
    from optlaws import plotting

    axes = plotting.new_axes(6.4, 6.0)
    runs, done = verdict.runs, np.isfinite(verdict.runs.final_loss) & ~verdict.diverged
    low = float(min(runs.final_loss[done].min(), verdict.predicted[done].min()))
    high = float(max(runs.final_loss[done].max(), verdict.predicted[done].max()))
    pad = 0.03 * (high - low)
    axes.plot([low - pad, high + pad], [low - pad, high + pad], color="#4d4d4d", linewidth=0.8, zorder=1)
    some = done & verdict.fitted
    axes.plot(
        runs.final_loss[some], verdict.predicted[some], "o", color=plotting.GREY, markersize=3.5, label="fitted"
    )  # fmt: skip
    for place, size in enumerate(np.unique(runs.size[verdict.scored]).tolist()):
        rows = verdict.scored & (runs.size == size)
        y = verdict.predicted[rows]
        axes.errorbar(
            runs.final_loss[rows], y, yerr=[y - verdict.lower[rows], verdict.upper[rows] - y], fmt="o", markersize=4.5,
            color=plotting.colour_of(place), elinewidth=0.8, label=f"held out, {format_quantity(size)} parameters",
        )  # fmt: skip
    axes.set_xlabel("real final loss (nats per token)")
    axes.set_ylabel("predicted final loss, 90 % interval")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    return axes.figure  # type: ignore[return-value]


def curves_figure(verdict: Verdict) -> Figure:
    """Return the figure of some held-out curves, evenly picked from the lowest to the highest final loss."""
    from matplotlib.figure import Figure

    from optlaws import plotting

    ordered = sorted(verdict.curves, key=lambda entry: float(verdict.runs.final_loss[entry[0]]))
    pick = np.unique(np.linspace(0, len(ordered) - 1, min(DRAWN, len(ordered))).round().astype(int))
    figure = Figure(figsize=(10.5, 3.1 * math.ceil(len(pick) / 3)), layout="constrained")
    grid = figure.subplots(math.ceil(len(pick) / 3), min(3, len(pick)), squeeze=False)
    for axes in grid.ravel()[len(pick) :]:
        axes.set_visible(False)
    for axes, place in zip(grid.ravel(), pick.tolist(), strict=False):
        i, step, loss, guess, lower, upper = ordered[place]
        axes.fill_between(step, lower, upper, color=plotting.COLOURS[0], alpha=0.15, linewidth=0)
        axes.plot(step, guess, color=plotting.COLOURS[0], linewidth=1.6, label="predicted, 90 %")
        axes.plot(step, loss, "o-", color="#222222", linewidth=0.7, markersize=2.2, label="real")
        schedule = verdict.runs.schedule_tuple()[i]
        peak = float(verdict.runs.batch().peak[i])
        size = format_quantity(float(verdict.runs.size[i]))
        name = plotting.wrapped(verdict.runs.run_id[i], TITLE, 1)
        axes.set_title(f"{name}\n{size} parameters, {schedule.kind}, peak {peak:g}", fontsize=9)
        axes.set_xlabel("step", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    grid[0][0].set_ylabel("loss (nats per token)", fontsize=9)
    grid[0][0].legend(frameon=False, fontsize=8)
    return figure
