"""The command that reads logs of past runs: optlaws import."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click
import numpy as np

from optlaws.commands.given import Given, by_run, known_name
from optlaws.commands.shared import CURVES, FINAL, check_outputs, keep_inputs, progress, tell_kinds, ticking
from optlaws.errors import InputError, OptlawsWarning
from optlaws.runs import (
    RECOGNISED,
    CurveTable,
    LoggedRun,
    RunTable,
    check_table_name,
    gather_candidates,
    log_file,
    read_logs,
    write_columns,
    write_curves,
)
from optlaws.runs._logged import LAST_SHARE
from optlaws.schedules import Schedule, constant

COLUMNS = (
    "run_id", "params", "tokens", "steps", "batch_tokens", "optimizer", "weight_decay", "schedule", "status",
    "final_loss",
)  # fmt: skip
CUT = 0.2  # of its peak: a run whose rate ends above it may have been cut off
SURE = 0.001  # of a loss: how far the mean of a curve's readings may be off by their scatter without a word
CURVE = "curve"  # how a final loss was found: see LoggedRun.final_loss
OVERRULED = 0.02  # median difference, as a fraction: a schedule that is further from the logged rates is not theirs
SAME_BATCH = 0.01  # as a fraction: tokens of an update by the log's own count may be off those given by this much
WHOLE = 0.001  # updates: how far steps that are tokens may rise by no whole number of updates
LARGE_BATCH = 16384  # tokens of an update from which on steps that rise by as many are tokens


class _Notes:
    """Notes on runs: one line a kind, with the first run it is about and how many more there are."""

    def __init__(self) -> None:
        self.first: dict[str, tuple[str, str]] = {}
        self.runs: dict[str, set[str]] = {}

    def add(self, kind: str, run_id: str, text: str) -> None:
        self.first.setdefault(kind, (run_id, text))
        self.runs.setdefault(kind, set()).add(run_id)

    def tell(self) -> None:
        for kind, (run_id, text) in self.first.items():
            more = len(self.runs[kind]) - 1
            others = f" (and {more} more run{'s' * (more > 1)})" if more else ""
            click.echo(f"optlaws: note: run {run_id!r}{others}: {text}", err=True)


def import_logs(
    logs: Sequence[str],
    output: str,
    runs: str | None,
    run_id: str | None,
    step_column: str | None,
    loss_column: str | None,
    rate_column: str | None,
    updates_per_step: float | None,
    schedule: Sequence[str],
    label: bool,
    final_share: float | None = None,
    **given: Given[Any],
) -> None:
    """Write the curve table of logged runs and, if wanted, their run table."""
    check_table_name(output)
    if runs is not None:
        check_table_name(runs)
    else:
        of_runs = {**given, "schedule": schedule, "label": label, "final_share": final_share}
        lone = next((name for name, value in of_runs.items() if value is not None and value not in ((), False)), None)
        if lone is not None:
            option = "--" + lone.replace("_", "-")
            raise InputError(f"{option} goes into the run table, got it without --runs; add --runs or drop {option}")
    check_outputs(output, runs)
    inputs = [log_file(log) for log in logs]
    for target in (output, runs):
        if target is not None:
            keep_inputs(target, *inputs)
    with ticking("reading logs"):
        found = read_logs(
            logs,
            run_id=run_id,
            step=step_column,
            loss=loss_column,
            rate=rate_column,
            updates_per_step=updates_per_step or 1.0,
        )
    schedules = [_named_schedule(text, found) for text in schedule]
    if runs is not None:
        for target in (output, runs):
            keep_inputs(target, *(text for _, text in schedules))
    notes = _Notes()
    for run in found:
        _note_readings(notes, run, updates_per_step is not None, runs is not None)
    rows: list[_Row] = []
    columns: dict[str, Any] = {}
    if runs is not None:
        share = LAST_SHARE if final_share is None else final_share
        if not share > 0:
            raise InputError("--final-share must be above 0 and at most 1, got 0; 1% is usual, leave it out")
        columns, rows = _run_columns(found, _facts(found, schedules, given, notes), label, notes, share)
    with ticking("writing curves"):
        curves = CurveTable.concat([run.curve() for run in found])
        write_curves(output, curves)
    if runs is not None:
        write_columns(runs, columns, len(rows))
    notes.tell()
    _tell_scatter(rows)
    kinds = {CURVES: {run.run_id: run.loss_kind for run in found}}
    tell_kinds(({FINAL: {row.run.run_id: row.kind for row in rows}} if rows else {}) | kinds)
    click.echo(_summary(found, curves, output, runs, rows), err="-" in (output, runs))


def _note_readings(notes: _Notes, run: LoggedRun, scaled: bool, table: bool) -> None:
    if run.replaced:
        notes.add("resumed", run.run_id, f"{_count(run.replaced, 'reading')} of steps that were logged again replaced")
    if run.dropped:
        text = (
            f"{_count(run.dropped, 'reading')} dropped that the log leaves behind where it goes back to an earlier"
            " step: taken as resumed from a checkpoint"
        )
        notes.add("left", run.run_id, text)
    if run.rival_rates and not table:
        names = " and ".join(map(repr, run.rival_rates))
        notes.add("rates", run.run_id, f"no rates are read, as those of {names} differ; name one (--rate-column)")
    if run.other_units and len(run.rate):
        text = f"{run.other_units[0]!r} is read as plain rates, though its name says another unit (0.1 % is 0.001)"
        notes.add("units", run.run_id, text)
    elif run.other_units and not table:
        notes.add("units", run.run_id, f"no rates are read: {run.rates_missing()}")
    broken = np.flatnonzero(~run.good)
    if len(broken):
        at = run.step[broken[0]]
        text = (
            f"{_count(len(broken), 'loss', 'losses')} not finite or 0 left out of the curve, the first at step {at:g}"
        )
        notes.add("broken", run.run_id, text)
    if run.own_step and not scaled:
        text = (
            "the steps are W&B's own count of log calls; if these are not updates, name their column (--step-column),"
            " or say how many updates one counts (--updates-per-step)"
        )
        notes.add("own step", run.run_id, text)
    if run.finished is False:
        notes.add("short", run.run_id, f"the log ends at step {run.steps} of {run.planned:g} planned; taken as it ends")


@dataclass(frozen=True)
class _Row:
    """What the run table says of one run: schedule (None = not known), length in steps, loss and how it was found."""

    run: LoggedRun
    facts: Mapping[str, Any]
    schedule: Schedule | None
    total: int
    loss: float
    how: str
    readings: int
    scatter: float
    share: float

    @property
    def doubt(self) -> float:
        """How far the mean of the curve's readings may be off, as a fraction; 0 where it is not one, or not known."""
        known = self.how == CURVE and math.isfinite(self.scatter)
        return self.scatter / math.sqrt(max(self.readings, 1)) if known else 0.0

    @property
    def kind(self) -> str:
        """What the final loss is of: "training", "evaluation", or "" where that is not known or there is none."""
        return "" if math.isnan(self.loss) else self.run.loss_kind if self.how == CURVE else "evaluation"


def _facts(
    found: Sequence[LoggedRun], schedules: Given[str], given: Mapping[str, Given[Any]], notes: _Notes
) -> list[dict[str, Any]]:
    """Return what the options say of every run: schedule, optimizer and numbers, None where they say nothing."""
    asked: dict[str, Given[Any]] = {**given, "schedule": schedules}
    values = {name: by_run("--" + name.replace("_", "-"), some, found) for name, some in asked.items()}
    facts = [{name: column[row] for name, column in values.items()} for row in range(len(found))]
    for run, fact in zip(found, facts, strict=True):
        for name in (name for name, value in fact.items() if value is None and asked[name] and name != "schedule"):
            notes.add(name, run.run_id, f"{name} stays empty: --{name.replace('_', '-')} is given for others only")
    return facts


def _named_schedule(text: str, found: Sequence[LoggedRun]) -> tuple[str | None, str]:
    """Return the run or log that a schedule is for, None = all, and the schedule; both may have "=" in them."""
    places = [place for place, mark in enumerate(text) if mark == "="]
    for place in places:
        if known_name(text[:place], found):
            return text[:place], text[place + 1 :]
    stranger = text[: places[0]] if places and not os.path.isfile(text) else ":"
    return (None, text) if {":", "{"} & set(stranger) else (stranger, text[places[0] + 1 :])


def _run_columns(
    found: Sequence[LoggedRun],
    facts: Sequence[Mapping[str, Any]],
    label: bool,
    notes: _Notes,
    share: float,
) -> tuple[dict[str, Any], list[_Row]]:
    """Return the columns of the run table, checked as `read_runs` will, and the rows they are of."""
    rows = []
    for run, fact in progress(zip(found, facts, strict=True), "schedules of runs"):
        chosen = _schedule(run, fact["schedule"], notes)
        total = run.steps if chosen is None else chosen.total_steps
        rows.append(_Row(run, fact, chosen, total, *run.final_loss(total, share), *run.scatter(total, share), share))
    _note_losses(notes, rows)
    numbers = {
        name: [math.nan if fact[name] is None else float(fact[name]) for fact in facts]
        for name in ("params", "tokens", "weight_decay")
    }
    table = RunTable.build(
        [constant(1e-3, row.total) if row.schedule is None else row.schedule for row in rows],
        run_id=[run.run_id for run in found],
        optimizer=[fact["optimizer"].lower() if fact["optimizer"] else None for fact in facts],
        status=[_status(row, label, notes) for row in rows],
        final_loss=[row.loss for row in rows],
        params=numbers["params"],
        tokens=numbers["tokens"],
        batch_tokens=[_batch(row) for row in rows],
        weight_decay=numbers["weight_decay"],
    )
    columns: dict[str, Any] = {name: table.column(name) for name in COLUMNS}
    columns["schedule"] = ["" if row.schedule is None else row.schedule.to_json() for row in rows]
    columns["loss_kind"] = [row.kind for row in rows]
    return columns, rows


def _schedule(run: LoggedRun, spec: str | None, notes: _Notes) -> Schedule | None:
    """Return the schedule that the user gave, or that the logged rates are, or None with a note why not."""
    if spec is not None:
        text = spec
        if os.path.isfile(spec):
            named = gather_candidates([spec]).runs.schedule_tuple()
            if len(named) != 1:
                raise InputError(f"--schedule must be one schedule, got {len(named)} in {spec}; name a file with one")
            text = named[0].to_json()
        given = run.planned_schedule(text)
        _compare_rates(run, given, notes)
        return given
    missing = run.rates_missing()
    if missing:
        notes.add("no schedule", run.run_id, f"schedule stays empty: {missing}; --schedule SPEC gives it")
        return None
    chosen, first = run.schedule(), run.rate_step[0]
    if chosen.kind not in RECOGNISED:
        text = (
            "the logged rates meet no constant, linear, cosine or WSD schedule to a millionth, nor to the digits of the"
            f" log, and stay as logged, a {chosen.kind} schedule; --schedule SPEC gives the planned one"
        )
        notes.add("as logged", run.run_id, text)
    if first > 1:
        before = "before it the line through the first two is taken"
        if chosen.kind in RECOGNISED:
            warmup = f"a warm-up of {_count(chosen.warmup_steps, 'step')}" if chosen.warmup_steps else "no warm-up"
            before = f"all of them are those of a {chosen.kind} schedule with {warmup}, which is taken"
        notes.add("head", run.run_id, f"the first learning rate is logged at step {first:g}; {before}")
    return chosen


def _compare_rates(run: LoggedRun, given: Schedule, notes: _Notes) -> None:
    """Refuse a schedule that the logged rates contradict; note one that they contradict here and there."""
    off, worst = run.overruled_rate(given)
    if worst is None:
        return
    step, logged, planned = worst
    says = f"{planned:.4g} at step {step:g}, where run {run.run_id!r} logged {logged:.4g}"
    if off > OVERRULED:
        raise InputError(
            f"--schedule must agree with the rates that are logged, got one with {says} (median difference "
            f"{100 * off:.0f} %); correct it, leave it out to take the logged rates, or name their column "
            "(--rate-column)"
        )
    notes.add("overruled", run.run_id, f"--schedule says {says}; the schedule is taken")


def _batch(row: _Row) -> float:
    """Return the tokens of an update as given, or as the log counts them, NaN if neither says; refuse what differs."""
    run, given, total = row.run, row.facts["batch_tokens"], row.facts["tokens"]
    gap = float(np.median(np.diff(run.step))) if len(run.step) > 1 else 0.0
    if given is not None and given >= LARGE_BATCH and abs(gap / given - max(1, round(gap / given))) <= WHOLE:
        raise InputError(
            f"steps must count updates, got {gap:g} more in every reading of run {run.run_id!r} (column "
            f"{run.columns['step']!r}), as many as the tokens of an update; name the column of the updates "
            f"(--step-column), or give --updates-per-step 1/{given:.0f}"
        )
    own = run.batch_tokens
    implied = given if given is not None else None if total is None else total / row.total
    if implied is not None and abs(own - implied) > SAME_BATCH * implied:  # not so where the log says nothing
        name = "--batch-tokens" if given is not None else "--tokens"
        asked = given if given is not None else total
        mine = own if given is not None else own * row.total
        raise InputError(
            f"{name} must agree with the tokens that run {run.run_id!r} counts in its column {run.columns['tokens']!r},"
            f" {mine:.10g}, got {asked:.10g}; correct it, leave it out, or remove that column if it counts others"
        )
    if given is not None:
        return float(given)
    return own if total is None else math.nan


def _note_losses(notes: _Notes, rows: Sequence[_Row]) -> None:
    for row in rows:
        run = row.run
        if math.isnan(row.loss):
            notes.add("no loss", run.run_id, f"final_loss stays empty: {row.how}")
        elif row.how == CURVE and len(run.eval_step):
            text = f"final_loss is of the curve: the last evaluation, at step {run.eval_step[-1]:g}, is not at the end"
            notes.add("old evaluation", run.run_id, text)


def _tell_scatter(rows: Sequence[_Row]) -> None:
    """Warn of final losses that are means of so few readings of a curve that their scatter counts."""
    doubted = sorted((row for row in rows if row.doubt > SURE), key=lambda row: -row.doubt)
    if doubted:
        worst, more = doubted[0], len(doubted) - 1
        others = f" (and of {more} more run{'s' * (more > 1)})" if more else ""
        warnings.warn(
            OptlawsWarning(
                f"final_loss of run {worst.run.run_id!r}{others} is the mean of {_count(worst.readings, 'reading')} of"
                f" the curve that scatter by {100 * worst.scatter:.2g} %: it is sure to {100 * worst.doubt:.2g} % only;"
                " import evaluation losses, log more often, or average more of the run (--final-share"
                f" {500 * worst.share:.3g}%, where the loss no longer falls)"
            ),
            stacklevel=2,
        )


def _note_cut(notes: _Notes, row: _Row, called: bool) -> None:
    """Note of a run that is called completed, whose plan nobody said, that its rate had not come down."""
    run = row.run
    if not called or run.finished or row.facts["schedule"] is not None or run.rates_missing():
        return
    share = float(run.rate[-1] / run.rate.max())
    if share > CUT:
        text = (
            f"its rate ended at {100 * share:.0f} % of its peak, so that it may have been cut off; if so, set its"
            " status to interrupted"
        )
        notes.add("cut", run.run_id, text)


def _status(row: _Row, label: bool, notes: _Notes) -> str | None:
    """Return completed where that is known, with `label` what the detector says of the curve, else nothing."""
    from optlaws.risk import curve_outcome

    run = row.run
    if run.good[-1]:
        outcome = curve_outcome(run.step[run.good], run.loss[run.good])
        status = outcome.status
        seen = f"its loss rose by {outcome.rise - 1:.0%} and stayed there from step {outcome.since:g}"
    else:
        status, seen = "nonfinite", "its last loss is not finite or 0"
    reached = run.finished is not False and run.reaches(row.total)
    _note_cut(notes, row, label and status == "completed" and reached)
    if label:
        return status if status != "completed" or reached else None
    if status != "completed":
        notes.add("diverged", run.run_id, f"{seen}; status stays empty, and --label sets it to {status}")
        return None
    return "completed" if reached and (row.facts["schedule"] is not None or run.finished) else None


def _summary(found: Sequence[LoggedRun], curves: CurveTable, output: str, runs: str | None, rows: list[_Row]) -> str:
    """Return what was written, and from which columns."""
    read = list(dict.fromkeys(f"{run.format}: {_columns_text(run)}" for run in found))
    more = "; other runs have other columns" if len(read) > 1 else ""
    lines = [f"Wrote {output}: {_count(len(curves), 'reading')} of {_count(len(found), 'run')} ({read[0]}{more})."]
    if runs is not None:
        known = sum(row.schedule is not None for row in rows)
        ways = {"evaluation": "the last evaluation loss", CURVE: _mean_text(rows)}
        counts = {text: sum(row.how == way for row in rows) for way, text in ways.items()}
        losses = ", ".join(f"{text} ({count})" for text, count in counts.items() if count) or "empty"
        lines.append(f"Wrote {runs}: {_count(len(rows), 'run')}, {known} with a schedule; final_loss: {losses}.")
    return "\n".join(lines)


def _mean_text(rows: Sequence[_Row]) -> str:
    """Return in words what means of a curve are of: how many readings, and how much they scatter."""
    of = [row for row in rows if row.how == CURVE]
    if not of:
        return ""
    few, many = min(row.readings for row in of), max(row.readings for row in of)
    scatter = max((row.scatter for row in of if math.isfinite(row.scatter)), default=math.nan)
    count = _count(many, "reading") if few == many else f"{few:,} to {many:,} readings"
    by = f" that scatter by {'up to ' * (len(of) > 1)}{100 * scatter:.2g} %" if math.isfinite(scatter) else ""
    return f"the mean of the curve's last {100 * of[0].share:.3g} %, {count}{by}"


def _columns_text(run: LoggedRun) -> str:
    words = {
        "loss": "loss",
        "eval": "evaluation loss",
        "rate": "rate",
        "step": "step",
        "run": "run",
        "tokens": "tokens",
    }
    names = {key: name.removeprefix(f"{run.run_id} - ") for key, name in run.columns.items()}  # of a W&B chart
    return ", ".join(f"{word} from {names[key]!r}" for key, word in words.items() if key in names)


def _count(n: int, word: str, words: str | None = None) -> str:
    return f"{n:,} {word if n == 1 else words or word + 's'}"
