"""Logs of past runs put together: what several files say of one run, its series in order."""

from __future__ import annotations

import math
import os
from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np

from optlaws.errors import TableError, nearest
from optlaws.runs._checks import FloatArray
from optlaws.runs._logged import LoggedRun
from optlaws.runs._logs import TOKENS, Columns, Part, Series, read_parts
from optlaws.runs._names import KINDS, ROLES, check_updates, loss_kind

OFTEN = 10  # readings: a log that goes back more often than every so many is out of order, not resumed
EVEN = 0.001  # of the tokens of an update: how far they may differ between readings


def read_logs(
    paths: Sequence[str | os.PathLike[str]],
    *,
    run_id: str | None = None,
    step: str | None = None,
    loss: str | None = None,
    rate: str | None = None,
    updates_per_step: float = 1.0,
) -> list[LoggedRun]:
    """Read logs of past runs, whatever wrote them; the content says which it was.

    Read are `trainer_state.json` of Hugging Face Trainer (or a folder with one), histories and charts exported from
    Weights & Biases, scalars exported from TensorBoard, `metrics.csv` of Lightning, and any CSV, JSON-lines or Parquet
    table with a step and a loss. Logs that hold different quantities of a run of one name, like TensorBoard's one file
    a scalar, are put together. Where a step was logged more than once the later reading counts, and where the log goes
    back to an earlier step, as that of a resumed run does, what it held from there on is dropped. Runs under one
    another are told by a column `run_id`, or one like `Name` that has several values.

    Parameters
    ----------
    paths
        Files or folders; "-" is standard input.
    run_id
        The run to read, where a log names several; else the name of the one run that the logs hold.
    step, loss, rate
        Columns to read, where their names are not usual ones. With `loss` no evaluation loss is looked for.
    updates_per_step
        Updates that one logged step counts, above 0: 10 where steps are log calls made every 10 updates, 0.25 where
        they are micro-batches of which 4 make an update.

    Returns
    -------
    list of LoggedRun
        In the order of the logs; at least one where there is a log.

    Raises
    ------
    TableError
        If a log cannot be read, or no run with a loss is found, or two logs have the same quantity of one run.
    InputError
        If `updates_per_step` is not a finite number above 0.

    Examples
    --------
    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "small.csv")
    ...     with open(path, "w") as stream:
    ...         _ = stream.write("step,train/loss,lr\\n50,3.0,0.001\\n100,2.5,0.0\\n")
    ...     runs = read_logs([path])
    >>> runs[0].run_id, runs[0].steps, runs[0].final_loss()
    ('small', 100, (2.5, 'curve'))
    """
    if [str(path) for path in paths].count("-") > 1:
        raise TableError("standard input ('-') can be read only once, got it twice; give the other logs as files")
    names = Columns(step, loss, rate, check_updates(updates_per_step))
    parts = [part for path in paths for part in read_parts(path, names)]
    if run_id is not None:
        parts = _of_run(parts, run_id)
    together: dict[str, list[Part]] = {}
    for part in parts:
        together.setdefault(part.run_id, []).append(part)
    return [_join(name, some, loss) for name, some in together.items()]


def _of_run(parts: list[Part], run_id: str) -> list[Part]:
    if not run_id.strip():
        raise TableError(f"the run's name must be text, got {run_id!r}; leave it out to take the log's")
    chosen = [part for part in parts if part.run_id == run_id]
    if chosen:
        return chosen
    names = list(dict.fromkeys(part.run_id for part in parts))
    if len({part.path for part in parts}) < len(parts):
        raise TableError(
            f"run_id must be one of the runs that the logs name, {', '.join(names[:8])}{', ...' * (len(names) > 8)}, "
            f"got {run_id!r}{nearest(run_id, names)}"
        )
    for part in parts:
        part.run_id = run_id
    return parts


def _join(name: str, parts: list[Part], named: str | None) -> LoggedRun:
    """Put what several logs say of one run together and in order; `named` is the loss that the caller asked for."""
    series: dict[str, Series] = {}
    where: dict[str, str] = {}
    backs: dict[str, list[Back]] = {}
    for part in parts:
        for role, values in part.series.items():
            if role == TOKENS and role in series:
                continue
            if role in series:
                raise TableError(
                    f"run_id {name!r}: every quantity must be in one log, got its {_WORDS[role]} in {where[role]} and "
                    f"in {part.path}; import them apart, each with its own name (--run-id)"
                )
            series[role], where[role] = values, part.path
            backs[role] = _went_back(values) + _went_back(part.series.get("loss", Series()))
    if "loss" not in series and "eval" not in series:
        raise TableError(f"run_id {name!r}: the logs must have its loss, got none in {parts[0].path}; add that log")
    ordered = {role: _ordered(series.get(role, Series()), backs.get(role, [])) for role in (*ROLES, TOKENS)}
    read = [found for role, found in ordered.items() if role != TOKENS]
    columns = {key: value for part in parts for key, value in part.columns.items()}
    curve = "loss" if "loss" in series else "eval"
    step, loss = ordered[curve][:2]
    below = np.flatnonzero(loss < 0)
    if len(below):
        row = int(below[0])
        raise TableError(
            f"{where[curve]}: loss must be at least 0 nats per token, got {loss[row]:g} at step {step[row]:g} of run "
            f"{name!r}; name the column of the loss (--loss-column)"
        )
    if not (np.isfinite(loss) & (loss > 0)).any():
        raise TableError(f"{where[curve]}: run {name!r} has no loss that is finite and above 0; leave the run out")
    reached = max((part.reached for part in parts if not math.isnan(part.reached)), default=math.nan)
    planned = max((part.planned for part in parts if not math.isnan(part.planned)), default=math.nan)
    last = max(float(at[-1]) for at, *_ in read if len(at))
    steps = _length(step, last) if math.isnan(reached) else max(reached, last)
    if steps < 1:
        raise TableError(f"{where[curve]}: run {name!r} must have steps above 0, got none; correct the step column")
    empty = np.zeros(0)
    eval_step, eval_loss = ordered["eval"][:2] if curve == "loss" else (empty, empty)
    return LoggedRun(
        run_id=name,
        format=parts[0].format,
        step=step,
        loss=loss,
        eval_step=eval_step,
        eval_loss=eval_loss,
        rate_step=ordered["rate"][0],
        rate=ordered["rate"][1],
        grad_step=ordered["grad"][0],
        grad_norm=ordered["grad"][1],
        steps=int(steps),
        finished=None if math.isnan(reached) or math.isnan(planned) else steps >= planned,
        planned=planned,
        columns=columns,
        replaced=sum(count for *_, count, _ in read),
        dropped=sum(count for *_, count in read),
        rival_rates=() if "rate" in series else tuple(dict.fromkeys(name for part in parts for name in part.rates)),
        batch_tokens=_batch_tokens(*ordered[TOKENS][:2]),
        paths=tuple(dict.fromkeys(part.path for part in parts)),
        loss_kind=_kind(parts, curve, named),
        other_units=tuple(
            dict.fromkeys(name for part in parts for name in part.other_units if columns.get("rate", name) == name)
        ),
    )


def _kind(parts: Sequence[Part], curve: str, named: str | None) -> str:
    """Return of what the curve is: what its log says itself, else what the name of its column tells."""
    said = next((part.loss_kind for part in parts if curve in part.series and part.loss_kind is not None), None)
    if said is not None:
        return said
    return KINDS[curve] if named is None else loss_kind(named)


_WORDS = {"loss": "loss", "eval": "evaluation loss", "rate": "learning rate", "grad": "gradient norm"}


Back = tuple[int, float]
"""A row in which a log goes back, and the step that it goes back to."""


def _went_back(series: Series) -> list[Back]:
    """Return where a log goes back to an earlier step; nowhere where it does so too often to be a run resumed."""
    found = [
        (row, step)
        for before, step, row in zip(series.step, series.step[1:], series.row[1:], strict=False)
        if step < before
    ]
    return found if len(found) <= max(1, len(series.step) // OFTEN) else []


def _ordered(series: Series, backs: Sequence[Back]) -> tuple[FloatArray, FloatArray, int, int]:
    """Return steps in order and the last value of each, how many others that replaced, and how many were dropped.

    Where the log goes back to a step, readings of that step and later ones belong to a branch that was left.
    """
    last: dict[float, float] = {}
    left: dict[float, float] = {}
    known: list[float] = []  # the steps in `last`, in order
    due = sorted(set(backs))
    replaced = 0

    def leave(start: float) -> None:
        first = bisect_left(known, start)
        left.update((at, last.pop(at)) for at in known[first:])
        del known[first:]

    for step, value, row in zip(series.step, series.value, series.row, strict=True):
        while due and due[0][0] <= row:
            leave(due.pop(0)[1])
        before = last.get(step, left.pop(step, value))
        replaced += before != value and not (math.isnan(before) and math.isnan(value))
        if backs and step not in last:
            insort(known, step)
        last[step] = value
    for _, start in due:
        leave(start)
    steps = sorted(last)
    values = np.array([last[k] for k in steps], dtype=np.float64)
    return np.array(steps, dtype=np.float64), values, replaced, len(left)


def _batch_tokens(step: FloatArray, tokens: FloatArray) -> float:
    """Return the tokens of an update, if the tokens seen rise by as many in every step, else NaN."""
    known = np.isfinite(tokens) & (tokens > 0) & (step > 0)
    if not known.any():
        return math.nan
    each = tokens[known] / step[known]
    if len(each) > 1 and float(np.ptp(each)) > EVEN * float(each.max()):
        each = np.diff(tokens[known]) / np.diff(step[known])  # counted from another step on, as from 0
        if float(np.ptp(each)) > EVEN * float(np.abs(each).max()) or not each[0] > 0:
            return math.nan
    batch = float(np.median(each))
    return float(round(batch)) if abs(batch - round(batch)) <= EVEN * batch else batch


def _length(step: FloatArray, last: float) -> float:
    """Return the number of updates: the last step, or one more where they are counted from 0."""
    gap = float(np.median(np.diff(step))) if len(step) > 1 else 0.0
    if gap == 1.0:
        return last + 1 if step[0] == 0 else last
    return last + 1 if gap > 1 and (last + 1) % gap == 0 and (step[0] + 1) % gap == 0 else last
