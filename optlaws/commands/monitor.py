"""The command that watches a run: optlaws monitor."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from optlaws.commands.candidates import tell_candidates
from optlaws.commands.shared import NAMED, check_outputs, keep_inputs, quiet, tell_assumed, write_text
from optlaws.errors import InputError, nearest
from optlaws.runs import RunTable, gather_candidates, log_file

if TYPE_CHECKING:
    from optlaws.monitor import Monitor

DIVERGED = 3
OFF_TRACK = "off-track"
SHOWN_EVERY = 0.05  # of the run, between lines while following
USUAL_EVERY = 5.0  # seconds between looks
AWAY = 0.05  # ln loss: further from its law a curve is more likely another corpus' than badly predicted


def monitor(
    law_name: str,
    candidate: str,
    log: str,
    run_id: str | None,
    step_column: str | None,
    loss_column: str | None,
    updates_per_step: float | None,
    follow: bool,
    every: float | None,
    stop_on: str,
    other_corpus: bool,
    style: str,
    output: str,
    headers: Mapping[str, str] | None = None,
    **sizes: Any,
) -> int:
    """Feed a log to a monitor, print forecast and alarms, and return the exit code: 3 if the run should be stopped."""
    from optlaws import report
    from optlaws.integrations.live import STDIN, LiveLog
    from optlaws.integrations.loop import describe
    from optlaws.law import load_law
    from optlaws.monitor import Monitor

    check_outputs(output)
    if every is not None and not follow:
        raise InputError(f"--every counts while following only, got {every:g} without --follow; add it or drop --every")
    every = USUAL_EVERY if every is None else every
    if not math.isfinite(every):
        raise InputError(f"--every must be a finite number of seconds, at least 0.05, got {every}; 5 is usual")
    if follow and output != STDIN:
        raise InputError(f"--follow writes its lines to standard output, got --output {output!r}; drop one of them")
    if STDIN not in (output, log) and os.path.realpath(output) == os.path.realpath(log):
        raise InputError(f"--output must not be the log, got {output!r} for both; name another file")
    if follow and style == "json":
        raise InputError("--follow prints lines and cannot write JSON; drop one of --follow and --format json")
    if candidate == log == STDIN:
        raise InputError("standard input ('-') can be read only once, got it for RUN and --log; give one as a file")
    candidate = _table_of(candidate)
    keep_inputs(output, law_name, candidate)
    law = load_law(law_name)
    law = law.on_other_corpus() if other_corpus else law
    found = gather_candidates([candidate], sizes, law.defaults, headers)
    with quiet():
        watch = Monitor(law, _one_run(found.runs, run_id))
    if os.path.isdir(log):
        log = log_file(log)
    if not follow and log != STDIN and not os.path.isfile(log):
        raise InputError(f"--log must name a file, got {log!r}, which is none; check it, or wait for it with --follow")
    reader = LiveLog(
        log,
        run_id,
        step=step_column,
        loss=loss_column,
        updates_per_step=updates_per_step or 1.0,
        unnamed=len(found.runs) > 1,
    )
    if follow:
        tell_candidates(found, sizes)
        told_step = updates_per_step is not None
        return _follow(watch, reader, every, stop_on, found.assumed, other_corpus=other_corpus, told_step=told_step)
    seen, back = _feed(watch, reader, whole=log == STDIN)
    if reader.pending:
        click.echo("optlaws: note: the log's last line has no end and is left out: it may be half written", err=True)
    if not seen:
        chosen = "" if run_id is None else f" of run {run_id!r}"
        place = "standard input" if log == STDIN else log
        raise InputError(f"--log must hold at least one reading{chosen}, got none in {place}; check its columns")
    tell_assumed(found.assumed)
    tell_candidates(found, sizes)
    _tell_back(back)
    if updates_per_step is None:
        _tell_own_step(reader)
    status = watch.status
    _tell_away(watch, other_corpus)
    if style == "json":
        history = [vars(alarm) for alarm in watch.history]
        write_text(output, report.to_json({**status.to_dict(), "history": history}))
    else:
        lines = [describe(status, watch.history)]
        lines += [f"{alarm.kind.replace('_', ' ')}: {alarm.message}{_over(alarm.ended)}" for alarm in watch.history]
        if not status.in_domain:
            lines.append(f"outside the law's domain: {watch.path.reason}")
        write_text(output, "\n".join(lines) + "\n")
    return DIVERGED if _stop(status, stop_on) else 0


def _one_run(runs: RunTable, run_id: str | None) -> RunTable:
    """Return the run to watch: the only one, whatever its name, or the row of that name."""
    if len(runs) == 1:
        return runs
    names = ", ".join(runs.run_id[:NAMED]) + ", ..." * (len(runs) > NAMED)
    if run_id is None:
        raise InputError(f"RUN must be one run, got {len(runs)} ({names:.200}); choose one of them with --run-id")
    if run_id not in runs.run_id:
        raise InputError(f"--run-id must be a run of RUN ({names:.200}), got {run_id!r}{nearest(run_id, runs.run_id)}")
    return runs.select([runs.run_id.index(run_id)])


def _table_of(candidate: str) -> str:
    """Return the table of a run of `optlaws train` that is named by its folder or its config.json; others as they are.

    It is run.csv where the run has ended before, else planned.csv.
    """
    from optlaws.harness.record import CONFIG_FILE, PLANNED_FILE, RUN_FILE

    folder = candidate if os.path.isdir(candidate) else os.path.dirname(candidate)
    if not (os.path.isdir(candidate) or os.path.basename(candidate) == CONFIG_FILE):
        return candidate
    for name in (RUN_FILE, PLANNED_FILE):
        if os.path.isfile(os.path.join(folder, name)):
            return os.path.join(folder, name)
    if os.path.isdir(candidate):
        raise InputError(
            f"RUN must be a run that optlaws train has begun if it is a folder, got {candidate!r} without {RUN_FILE} "
            f"and {PLANNED_FILE}; wait until it has begun, or name a schedule"
        )
    return candidate


def _stop(status: Any, stop_on: str) -> bool:
    """Return whether a run should be stopped: it has diverged or, where that counts, left its track."""
    return bool(status.diverged or (stop_on == OFF_TRACK and status.off_track))


def _over(ended: float | None) -> str:
    return "" if ended is None else f" (over at step {ended:g})"


def _feed(watch: Monitor, reader: Any, whole: bool = False) -> tuple[int, list[tuple[float, float]]]:
    """Feed what is new in the log; return how many readings, and from where to where the step went back.

    A step that goes back winds the monitor back.
    """
    count, back, step = 0, [], watch.status.step
    for reading in reader.new(whole):
        if reading.step < step:
            watch.rewind(reading.step)
            back.append((step, reading.step))
        step = watch.update(*reading).step
        count += 1
    return count, back


def _tell_away(watch: Monitor, other_corpus: bool) -> bool:
    """Say on standard error that the curve is not one of the law's corpus, where it lies far away; return whether."""
    gap = watch.level
    if gap is None or abs(gap) < AWAY or watch.status.diverged:
        return False
    lies = f"the curve lies {100 * abs(math.expm1(gap)):.0f} % {'above' if gap > 0 else 'below'} what the law expects"
    advice = "; if its corpus, tokenizer or kind of network is not the law's, ask with --other-corpus"
    taken = " on its own corpus, and that is taken as the level of another one, not as off its track"
    click.echo(f"optlaws: note: {lies}{taken if other_corpus else advice}", err=True)
    return True


def _tell_own_step(reader: Any) -> bool:
    """Say on standard error that steps are a count of log calls, where they are; return whether."""
    if reader.own_step:
        click.echo(
            "optlaws: note: the steps are W&B's own count of log calls; if these are not updates, name their column"
            " (--step-column), or say how many updates one counts (--updates-per-step)",
            err=True,
        )
    return bool(reader.own_step)


def _tell_back(back: list[tuple[float, float]]) -> None:
    """Say on standard error that steps went back, since a log out of order looks like a run that was resumed."""
    if back:
        times = "once" if len(back) == 1 else f"{len(back):,} times, first"
        click.echo(
            f"optlaws: note: the step goes back {times} from {back[0][0]:g} to {back[0][1]:g}: taken as resumed from a"
            " checkpoint, and what was read beyond it is dropped; sort the log if it is out of order",
            err=True,
        )


def _follow(
    watch: Monitor,
    reader: Any,
    every: float,
    stop_on: str,
    assumed: Mapping[str, float],
    *,
    other_corpus: bool,
    told_step: bool,
) -> int:
    """Print a line now and then until the run, or standard input, is over or the run should be stopped."""
    from optlaws.integrations.live import STDIN
    from optlaws.integrations.loop import describe

    told: set[Any] = set()
    told_away, shown = False, -1.0
    piped = reader.path == STDIN
    while True:
        fresh, back = _feed(watch, reader) if piped or os.path.isfile(reader.path) else (0, [])
        _tell_back(back)
        status = watch.status
        shown = min(shown, status.fraction) if back else shown
        over = status.step >= status.total or reader.ended
        if over and not watch.history and not status.readings:
            raise InputError("--log must hold at least one reading, got none in standard input; check its columns")
        alarms = {(alarm.kind, alarm.reason, alarm.step) for alarm in watch.history}
        due = over or status.fraction - shown >= SHOWN_EVERY
        if alarms - told or ((fresh or over) and due and (status.fraction > shown or back)):
            if shown < 0:
                tell_assumed(assumed)
            told_step = told_step or _tell_own_step(reader)
            told, shown = alarms, status.fraction
            click.echo(describe(status, watch.history))
            told_away = told_away or _tell_away(watch, other_corpus)
        if _stop(status, stop_on):
            return DIVERGED
        if over:
            return 0
        if not piped:  # a pipe makes one wait by itself
            time.sleep(every)
