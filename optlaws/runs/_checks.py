"""What the values of a run table must be, whatever it is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from optlaws.errors import TableError, nearest

FloatArray = npt.NDArray[np.float64]
Text = str | None

COUNTS = ("params", "active_params", "tokens", "steps", "batch_tokens", "seq_len")
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


def fill_counts(
    numbers: dict[str, FloatArray], lengths: FloatArray, where: Callable[[int], str]
) -> dict[str, FloatArray]:
    """Set steps from the schedules' lengths (n,), and fill tokens or batch_tokens by tokens = steps * batch_tokens.

    Raises
    ------
    TableError
        If `steps` is given and differs from the schedule's length, or if the three disagree by more than 5 %.
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
    with np.errstate(invalid="ignore"):
        off = np.abs(lengths * batch / tokens - 1) > TOLERANCE
    if off.any():
        row = int(np.argmax(off))
        raise TableError(
            f"{where(row)}: tokens is {_plain(tokens[row])} but steps * batch_tokens is "
            f"{_plain(lengths[row])} * {_plain(batch[row])} = {_plain(lengths[row] * batch[row])}; "
            "correct one of them or leave tokens or batch_tokens empty (batch_tokens counts tokens, not sequences)"
        )
    return numbers | {
        "steps": lengths,
        "tokens": np.where(np.isnan(tokens), lengths * batch, tokens),
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


def status_hint(value: str, allowed: Sequence[str]) -> str:
    """Return which status was meant, where that can be told."""
    meant = OTHER_WORDS.get(value.strip().lower())
    return nearest(value, allowed) if meant is None else f"; write {meant!r} for it"


def known_lengths(steps: FloatArray, tokens: FloatArray, batch: FloatArray) -> FloatArray:
    """Return the steps of schedules that state none, shape (n,): those given, else tokens / batch, rounded, or NaN."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = np.maximum(np.round(tokens / batch), 1.0)
    return np.where(np.isfinite(steps), steps, np.where(np.isfinite(ratio), ratio, np.nan))
