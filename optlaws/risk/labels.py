"""Labels: which runs diverged, by their status, and by their loss curve where nobody said.

A curve counts as diverged where its loss rose far above what it had reached and did not come back:

1. `nonfinite`: any reading is infinite or not a number.
2. `diverged`: the running median of `WINDOW` readings ends above `RISE` times its lowest value so far, and has been
   above it without a break for at least `SUSTAINED` of the readings.
3. `completed` otherwise: a spike that the run recovers from is no divergence, and neither is the rise of a schedule
   whose rate goes up again.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from optlaws.dynamics.model import FloatArray
from optlaws.errors import InputError, OptlawsWarning
from optlaws.runs import CurveTable, RunTable

RISE = 1.15
"""Loss over the lowest loss before it, from which a rise is no noise and no effect of a schedule: the running medians
of the public curves stay below 1.01, the diverged runs of the public tables end above 1.3 of the best loss."""

SUSTAINED = 0.05
"""Share of a curve's readings, its end included, that must lie above `RISE`."""

WINDOW = 5
"""Readings in the running median (fewer at the start): a single bad reading is no rise."""

FEWEST = 3
"""Readings that a sustained rise needs at least."""


NAMED = 5  # runs that a warning names


@dataclass(frozen=True)
class CurveOutcome:
    """What the detector says of one curve.

    Attributes
    ----------
    status : "completed", "diverged" or "nonfinite".
    since : step from which the loss stays above `RISE` times the lowest before, or of the first reading that is not
        finite; NaN for a completed run.
    rise : last value of the running median over the lowest before it (at least 1); infinity if nonfinite.
    largest : the highest such ratio at any reading.
    """

    status: str
    since: float
    rise: float
    largest: float


def curve_outcome(step: npt.ArrayLike, loss: npt.ArrayLike) -> CurveOutcome:
    """Return what the detector says of one curve.

    Parameters
    ----------
    step : (m,) array
        Updates done at each reading, finite, ascending.
    loss : (m,) array
        Nats per token, above 0; a value that is not finite means that the run broke down there.

    Raises
    ------
    InputError
        The two differ in length, there is no reading, the steps do not ascend or are not finite, or a loss is 0 or
        less.

    Examples
    --------
    >>> curve_outcome([1, 2, 3, 4, 5, 6, 7, 8, 9], [4, 3, 3, 3, 5, 6, 7, 7, 7]).status
    'diverged'
    """
    at, values = np.asarray(step, dtype=np.float64), np.asarray(loss, dtype=np.float64)
    if at.ndim != 1 or at.shape != values.shape or not len(at):
        raise InputError(
            f"step and loss must be two lists of equal length, at least 1, got shapes {at.shape} and {values.shape};"
            " give one loss a step"
        )
    if not (np.diff(at) > 0).all():
        raise InputError("step must ascend without repeats, got a step at or below the one before; sort the readings")
    if not np.isfinite(at).all():
        raise InputError(f"step must be finite, got {at[~np.isfinite(at)][0]:g}; drop that reading")
    broken = np.flatnonzero(~np.isfinite(values))
    if len(broken):
        return CurveOutcome("nonfinite", float(at[broken[0]]), np.inf, np.inf)
    if not (values > 0).all():
        raise InputError(
            f"loss must be above 0 nats per token, got {values.min():g}; shift the scale or drop the reading"
        )
    smooth = _running_median(values)
    lowest = np.minimum.accumulate(smooth)
    ratio = smooth / lowest
    above = ratio > RISE
    calm = np.flatnonzero(~above)
    first = int(calm[-1]) + 1 if len(calm) else 0
    lasting = len(values) - first
    needed = max(FEWEST, int(np.ceil(SUSTAINED * len(values))))
    diverged = lasting >= needed
    return CurveOutcome(
        "diverged" if diverged else "completed",
        float(at[first]) if diverged else np.nan,
        float(ratio[-1]),
        float(ratio.max()),
    )


def _running_median(values: FloatArray) -> FloatArray:
    """Return the median of the last `WINDOW` readings at each reading, of all so far at the start."""
    start = [float(np.median(values[: k + 1])) for k in range(min(WINDOW - 1, len(values)))]
    if len(values) < WINDOW:
        return np.array(start)
    return np.concatenate([start, np.median(np.lib.stride_tricks.sliding_window_view(values, WINDOW), axis=1)])


def curve_outcomes(curves: CurveTable) -> dict[str, CurveOutcome]:
    """Return what the detector says of every run of a curve table, in order of appearance.

    Raises
    ------
    InputError
        A run has two readings of a step, a step that is not finite, or a loss of 0 or less.
    """
    return {name: curve_outcome(curves.step[rows], curves.loss[rows]) for name, rows in curves.runs().items()}


def with_outcomes(runs: RunTable, curves: CurveTable | None) -> tuple[RunTable, dict[str, CurveOutcome]]:
    """Return runs with the outcome that their curves show, and what the detector says of those that it found diverged.

    A run without a status takes the detector's; one whose curve diverged is `diverged`, whatever its status says but
    diverged or nonfinite. Runs without a curve stay as they are, and so do all without `curves`.
    """
    if curves is None:
        return runs, {}
    logged, status, found = curves.runs(), list(runs.status), {}
    for i, name in enumerate(runs.run_id):
        if name not in logged or status[i] in ("diverged", "nonfinite"):
            continue
        rows = logged[name]
        rows = rows[np.isfinite(curves.loss[rows])]  # NaN is a reading that is missing
        if not len(rows):
            continue
        rows = rows[np.append(np.diff(curves.step[rows]) > 0, True)]  # of one step the last reading
        outcome = curve_outcome(curves.step[rows], curves.loss[rows])
        if outcome.status == "diverged":
            found[name] = outcome
        if outcome.status == "diverged" or status[i] is None:
            status[i] = outcome.status
    return replace(runs, status=tuple(status)), found


def warn_of_outcomes(found: Mapping[str, CurveOutcome], stacklevel: int = 2) -> None:
    """Warn of runs that count as diverged by their curves."""
    if not found:
        return
    named = ", ".join(f"{name!r} (from step {one.since:,.0f})" for name, one in list(found.items())[:NAMED])
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    whose = "run counts" if len(found) == 1 else "runs count"
    warnings.warn(
        OptlawsWarning(
            f"{len(found)} {whose} as diverged, for the loss of the curve rose above {RISE:g} times its lowest and did"
            f" not come back: {named}{more}; drop these readings if that is a mistake, or set status to diverged"
        ),
        stacklevel=stacklevel + 1,
    )


def run_labels(runs: RunTable) -> FloatArray:
    """Return 1 for runs that diverged (or broke down), 0 for those that did not, NaN where it is not known, shape (n,).

    A run without a status counts as completed if it has a final loss; an interrupted one says nothing.
    """
    known = {"diverged": 1.0, "nonfinite": 1.0, "completed": 0.0, "interrupted": np.nan}
    pairs = zip(runs.status, np.isfinite(runs.final_loss).tolist(), strict=True)
    return np.array(
        [known[status] if status is not None else (0.0 if lost else np.nan) for status, lost in pairs], dtype=float
    )
