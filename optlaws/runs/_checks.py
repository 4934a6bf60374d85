"""What the values of a run table must be, whatever it is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from optlaws.errors import FitError, TableError, nearest

FloatArray = npt.NDArray[np.float64]
Text = str | None

STATUSES = ("completed", "diverged", "nonfinite", "interrupted")
"""How a run ended; None where nobody said."""

COUNTS = ("params", "active_params", "tokens", "steps", "batch_tokens", "seq_len")
FITTED, MOST, MOST_DECAY = ("params", "active_params", "tokens", "batch_tokens"), 1e20, 1e6
LARGEST_LOSS, FAR = 1e100, 1e5  # squares of larger losses, or of smaller ones than the inverse, and losses so many
# times their median, or below it, would run out of range
MANY_BILLIONS = 1000.0  # tokens: fewer are taken for billions of them, more for millions
TOLERANCE = 0.05  # tokens against steps * batch_tokens: published numbers are rounded, the public tables by up to 0.2 %


def check_numbers(numbers: dict[str, FloatArray], status: Sequence[Text], where: Callable[[int], str]) -> None:
    """Raise a `TableError` for the first number, of arrays (n,), out of its range; a NaN is missing and passes.

    Ranges: counts above 0, weight decay at least 0, betas at least 0 and below 1, losses of completed runs above 0; all
    finite. Other losses that are not finite become NaN.
    """
    for name, values in numbers.items():
        if name == "final_loss":
            continue
        if name in COUNTS:
            bad, rule = ~(values > 0) | np.isinf(values), "a finite number above 0"
        elif name == "weight_decay":
            bad, rule = ~(values >= 0) | np.isinf(values), "a finite number of at least 0"
        else:
            bad, rule = ~((values >= 0) & (values < 1)), "at least 0 and below 1"
        bad &= ~np.isnan(values)
        if bad.any():
            row = int(np.argmax(bad))
            got = _plain(values[row])
            raise TableError(f"{where(row)}: {name} must be {rule}, got {got}; correct it or leave it empty")
    losses = numbers["final_loss"]
    done = {value: value is None or value == "completed" for value in set(status)}  # of a million all may be alike
    finished = np.full(len(status), all(done.values()))
    if not finished.all():
        finished[:] = [done[value] for value in status]
    bad = finished & ~np.isnan(losses) & ~((losses > 0) & np.isfinite(losses))
    if bad.any():
        row = int(np.argmax(bad))
        raise TableError(
            f"{where(row)}: final_loss of a completed run must be a finite number of nats per token above 0, "
            f"got {_plain(losses[row])}; correct it, or set status to diverged"
        )
    numbers["final_loss"] = np.where(np.isfinite(losses), losses, np.nan)


def check_fitted(runs: Any) -> None:
    """Refuse sizes of a table that no run can have, before a law is fitted to them: its powers run out of range.

    Raises
    ------
    FitError
        Parameters, tokens or batch below 1 or above 1e20, a weight decay above 1e6, or a rate that is never above 0.
    """
    peak = np.asarray(runs.batch().peak if len(runs) else [], dtype=np.float64)
    idle = np.flatnonzero(~(peak > 0))
    if len(idle):
        raise FitError(
            f"rates of a schedule must be above 0 in some update for a fit, got 0 in all of run"
            f" {runs.run_id[idle[0]]!r}; correct its schedule or drop that run"
        )
    for name, least, most in (*((key, 1.0, MOST) for key in FITTED), ("weight_decay", 0.0, MOST_DECAY)):
        values = getattr(runs, name)
        with np.errstate(invalid="ignore"):
            bad = np.flatnonzero((values < least) | (values > most))
        if len(bad):
            raise FitError(
                f"{name} must be from {least:g} to {most:g} for a fit, got {_plain(values[bad[0]])} in run"
                f" {runs.run_id[bad[0]]!r}; correct it or drop that run"
            )


def check_losses(losses: FloatArray) -> None:
    """Refuse final losses or readings (n,) of a fit whose squares, or ratios to their median, run out of range.

    Raises
    ------
    FitError
        One lies outside.
    """
    median = float(np.median(losses))
    for low, high in ((1.0 / LARGEST_LOSS, LARGEST_LOSS), (median / FAR, median * FAR)):
        odd = losses[~((losses >= low) & (losses <= high))]
        if len(odd):
            text = f"losses must be from {low:g} to {high:g} nats per token, got {odd[0]:g}"
            raise FitError(text + "; drop that run or correct it")


def check_units(numbers: dict[str, FloatArray], names: Sequence[str], where: Callable[[int], str]) -> None:
    """Raise a `TableError` for the first batch in sequences and the first tokens in billions or millions, arrays (n,).

    A batch is no smaller than one of its sequences, and tokens are no fewer than those of one update.
    """
    tokens, batch, length = (numbers[name] for name in ("tokens", "batch_tokens", "seq_len"))
    below = batch < length
    if below.any():
        row = int(np.argmax(below))
        raise TableError(
            f"{where(row)}: batch_tokens{_of(names[row])} is {_plain(batch[row])}, below its seq_len"
            f" {_plain(length[row])}: it counts tokens a step, not sequences; write {_plain(batch[row] * length[row])}"
        )
    few = tokens < np.where(np.isnan(batch), length, batch)
    if few.any():
        row = int(np.argmax(few))
        got, unit = _plain(tokens[row]), "billions" if tokens[row] < MANY_BILLIONS else "millions"
        raise TableError(
            f"{where(row)}: tokens{_of(names[row])} is {got}, fewer than those of one step: {unit}? write"
            f" {got}{unit[0].upper()}"
        )


def _of(name: str) -> str:
    """Return whose a value is in a message; candidates without a name are called by their place alone."""
    return f" of run {name!r}" if name and not name.startswith("\0") else ""


def fill_counts(
    numbers: dict[str, FloatArray], lengths: FloatArray, where: Callable[[int], str]
) -> dict[str, FloatArray]:
    """Set steps from the schedules' lengths (n,), and fill tokens or batch_tokens by tokens = steps * batch_tokens.

    Raises
    ------
    TableError
        If `steps` is given and differs from the schedule's length, if the three disagree by more than 5 %, or
        if tokens come out infinite.
    """
    steps = numbers["steps"]
    wrong = ~np.isnan(steps) & (steps != lengths)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise TableError(
            f"{where(row)}: steps is {_plain(steps[row])} but the schedule has {_plain(lengths[row])} steps; "
            "make them equal or leave steps empty"
        )
    tokens, batch = numbers["tokens"], numbers["batch_tokens"]
    with np.errstate(invalid="ignore", over="ignore"):
        off = np.abs(lengths * batch / tokens - 1) > TOLERANCE
    if off.any():
        row = int(np.argmax(off))
        raise TableError(
            f"{where(row)}: tokens is {_plain(tokens[row])} but steps * batch_tokens is "
            f"{_plain(lengths[row])} * {_plain(batch[row])} = {_plain(lengths[row] * batch[row])}; "
            "correct one of them or leave tokens or batch_tokens empty (batch_tokens counts tokens, not sequences)"
        )
    with np.errstate(over="ignore"):
        filled = np.where(np.isnan(tokens), lengths * batch, tokens)
    if np.isinf(filled).any():
        row = int(np.argmax(np.isinf(filled)))
        raise TableError(
            f"{where(row)}: tokens, steps * batch_tokens, must be a finite number, got {_plain(lengths[row])} *"
            f" {_plain(batch[row])}; correct batch_tokens"
        )
    return numbers | {
        "steps": lengths,
        "tokens": filled,
        "batch_tokens": np.where(np.isnan(batch), tokens / lengths, batch),
    }


def check_names(names: tuple[str, ...], where: Callable[[int], str]) -> None:
    """Raise a `TableError` for a name that is empty or was used before."""
    if len(set(names)) == len(names) and "" not in names:
        return
    first: dict[str, int] = {}
    for row, name in enumerate(names):
        if not name:
            raise TableError(f"{where(row)}: run_id is empty; give every run a unique name")
        if first.setdefault(name, row) != row:
            raise TableError(f"{where(row)}: run_id {name!r} was used before ({where(first[name])}); it must be unique")


def _plain(value: float) -> str:
    return f"{value:.12g}"


OTHER_WORDS = {  # of trackers and schedulers for the states of a run
    **dict.fromkeys(("finished", "done", "success", "succeeded", "complete", "ok"), "completed"),
    **dict.fromkeys(("crashed", "failed", "killed", "running", "preempted", "cancelled", "stopped"), "interrupted"),
    **dict.fromkeys(("nan", "inf"), "nonfinite"),
}


READ_WORDS = ("finished", "done", "success", "succeeded", "complete", "crashed", "killed", "failed", "nan")
"""Those of them that are read in files; the others may mean several things and are refused with a hint."""


def known_status(text: str) -> str:
    """Return the status that a file's word means where that is sure, else the word as it is.

    >>> known_status("Finished"), known_status("crashed"), known_status("running"), known_status("")
    ('completed', 'interrupted', 'running', '')
    """
    word = text.lower()
    if word in READ_WORDS:
        return OTHER_WORDS[word]
    return word if word in STATUSES else text


def status_hint(value: str, allowed: Sequence[str]) -> str:
    """Return which status was meant, where that can be told."""
    meant = OTHER_WORDS.get(value.strip().lower())
    return nearest(value, allowed) if meant is None else f"; write {meant!r} for it"


def known_lengths(steps: FloatArray, tokens: FloatArray, batch: FloatArray) -> FloatArray:
    """Return the steps of schedules that state none, shape (n,): those given, else tokens / batch, rounded, or NaN."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = np.maximum(np.round(tokens / batch), 1.0)
    return np.where(np.isfinite(steps), steps, np.where(np.isfinite(ratio), ratio, np.nan))
