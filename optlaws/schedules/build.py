"""One function per family: the readable way to write a schedule in Python.

Rates are absolute, finite and at least 0 (peaks above 0); lengths are steps, or fractions of all steps below 1; u is
the share of a phase that is done, 0 .. 1. All raise a `ScheduleError` where a value is out of range, a parameter is not
the family's, or phases overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optlaws.schedules.schedule import Schedule


def constant(peak: float, steps: int, **warm_up: Any) -> Schedule:
    """Return warm-up (`warmup`, `warmup_start`, `warmup_shape`) and then the peak until the end.

    >>> constant(1e-3, 10, warmup=2).array()[:4].tolist()
    [0.0, 0.0005, 0.001, 0.001]
    """
    return Schedule("constant", peak=peak, steps=steps, **warm_up)


def linear(peak: float, steps: int, final: float = 0.0, **warm_up: Any) -> Schedule:
    """Return warm-up and then a straight line from peak to final over the rest of the run."""
    return Schedule("linear", peak=peak, steps=steps, final=final, **warm_up)


def cosine(peak: float, steps: int, final: float = 0.0, cycles: int = 1, **warm_up: Any) -> Schedule:
    """Return warm-up and then `cycles` half cosines from peak to final, joined by climbs back to the peak."""
    return Schedule("cosine", peak=peak, steps=steps, final=final, cycles=cycles, **warm_up)


def wsd(
    peak: float, steps: int, decay: float = 0.2, shape: str = "linear", final: float = 0.0, **more: Any
) -> Schedule:
    """Return warm-up, constant, decay.

    Parameters
    ----------
    peak, final : float
        Rates, 0 <= final <= peak.
    steps : int
        T, warm-up and decay included.
    decay : float
        Steps of the decay, or their fraction of T where at most 1.
    shape : str
        linear, sqrt (1 - sqrt u), sqrt_left (sqrt(1 - u)), cosine, exponential, reciprocal, power ((1 - u)^power),
        root (1 - u^power).
    **more
        `power` and the warm-up's `warmup`, `warmup_start`, `warmup_shape`.

    Raises
    ------
    ScheduleError
        A value is out of range or warm-up and decay overlap.
    """
    return Schedule("wsd", peak=peak, steps=steps, decay=decay, shape=shape, final=final, **more)


def inverse_sqrt(peak: float, steps: int, decay: float = 0, **more: Any) -> Schedule:
    """Return warm-up, peak / sqrt(1 + (k - W) / timescale), and a decay as in `wsd` if `decay` > 0.

    `timescale` (steps, above 0) is W unless given, which makes it peak sqrt(W / k).
    """
    return Schedule("inverse_sqrt", peak=peak, steps=steps, decay=decay, **more)


def polynomial(peak: float, steps: int, power: float = 2.0, final: float = 0.0, **warm_up: Any) -> Schedule:
    """Return warm-up and then final + (peak - final)(1 - u)^power, power 1e-3 .. 1e3."""
    return Schedule("polynomial", peak=peak, steps=steps, power=power, final=final, **warm_up)


def exponential(peak: float, steps: int, final: float, **warm_up: Any) -> Schedule:
    """Return warm-up and then peak^(1 - u) final^u, final above 0."""
    return Schedule("exponential", peak=peak, steps=steps, final=final, **warm_up)


def step(peak: float, steps: int, every: float, factor: float = 0.1, **warm_up: Any) -> Schedule:
    """Return warm-up and then peak factor^i (factor 0 .. 1) in the i-th stretch of `every` steps after it."""
    return Schedule("step", peak=peak, steps=steps, every=every, factor=factor, **warm_up)


def multistep(
    peak: float,
    steps: int,
    milestones: Sequence[float] = (0.8, 0.9),
    factors: Sequence[float] = (0.316, 0.1),
    **warm_up: Any,
) -> Schedule:
    """Return warm-up, peak, and peak factors[i] from milestones[i] on; by default the 8-1-1 schedule of DeepSeek."""
    return Schedule("multistep", peak=peak, steps=steps, milestones=milestones, factors=factors, **warm_up)


def two_stage(peak: float, steps: int, switch: float, second: float, **warm_up: Any) -> Schedule:
    """Return warm-up, peak until step `switch`, and the rate `second` from there on."""
    return Schedule("two_stage", peak=peak, steps=steps, switch=switch, second=second, **warm_up)


def cyclic(peak: float, steps: int, period: float, low: float = 0.0, shrink: float = 1.0) -> Schedule:
    """Return triangles low -> peak -> low of `period` >= 2 steps, each `shrink` (0 .. 1) times the last."""
    return Schedule("cyclic", peak=peak, steps=steps, period=period, low=low, shrink=shrink)


def one_cycle(
    peak: float, steps: int, pct: float = 0.3, div: float = 25.0, final_div: float = 1e4, anneal: str = "cosine"
) -> Schedule:
    """Return torch's OneCycleLR of two phases: peak / div, the peak at pct of the steps, peak / (div final_div)."""
    return Schedule("one_cycle", peak=peak, steps=steps, pct=pct, div=div, final_div=final_div, anneal=anneal)


def warm_restarts(peak: float, steps: int, period: float, mult: float = 1.0, **more: Any) -> Schedule:
    """Return cosines of period mult^i steps (mult at least 1) from the peak to `final`; `shrink` lowers each peak.

    SGDR, arXiv 1608.03983, eq. 5; `period` counts from the end of the warm-up.
    """
    return Schedule("warm_restarts", peak=peak, steps=steps, period=period, mult=mult, **more)


def piecewise(points: Sequence[tuple[int, float]], steps: int | None = None) -> Schedule:
    """Return straight lines between (step, rate) points; the first is at step 0 and the last rate is held.

    The run ends at the last point unless `steps` says otherwise.
    """
    return Schedule("piecewise", points=points, **({} if steps is None else {"steps": steps}))


def from_array(values: Any) -> Schedule:
    """Return the schedule with one rate per step, shape (T,)."""
    return Schedule("array", values=values)


def chain(*parts: Schedule) -> Schedule:
    """Return the parts, at least one, one after the other."""
    return Schedule("chain", parts=parts)


def continue_from(
    schedule: Schedule, steps: int, peak: float, *, kind: str = "wsd", warmup_start: float | None = None, **more: Any
) -> Schedule:
    """Return a finished schedule followed by a second run of `steps` steps: re-warm and re-decay (continual training).

    Parameters
    ----------
    schedule : Schedule
        The finished run.
    steps : int
        Steps of the second run.
    peak : float
        Peak rate of the second run.
    kind : str
        Family of the second run, one with a warm-up.
    warmup_start : float, optional
        Rate where the re-warming begins; the last rate of `schedule` (at most `peak`) unless given.
    **more
        Further parameters of the family, such as `warmup` and `decay`.

    Raises
    ------
    ScheduleError
        As for the family.

    Examples
    --------
    >>> first = wsd(1.0, 100, decay=0.2, final=0.1)
    >>> continue_from(first, 50, 0.5, warmup=10, decay=0.2).breakpoints
    (0, 80, 100, 110, 140, 150)
    """
    if warmup_start is None and more.get("warmup"):
        warmup_start = min(schedule.lr(schedule.total_steps - 1), peak)
    start = {} if warmup_start is None else {"warmup_start": warmup_start}
    return chain(schedule, Schedule(kind, peak=peak, steps=steps, **start, **more))
