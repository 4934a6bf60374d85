"""The standard family that logged rates come from: constant, linear, cosine or WSD, each with a linear warm-up.

Rates are logged every so many steps, so the ends of a warm-up and of a constant stretch mostly lie between two of
them. Within a family they are where its formulas meet: the few parameters follow from the rates, lengths are whole
steps, and the family is taken only if it meets every logged rate. What meets none of them stays as it was logged.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from optlaws.errors import ScheduleError
from optlaws.runs._checks import FloatArray
from optlaws.schedules import Schedule, parse

RECOGNISED = ("constant", "linear", "cosine", "wsd")
"""The families that are looked for."""
MEETS = 1e-6
"""Of a logged rate: how far a family may be off it; 32-bit logs are rounded by a twentieth of that."""
SOON = 0.01  # share of a run within which a warm-up ends at the next logged rate, for want of one in it
_NOTHING = 1e-9  # of the highest rate: as good as 0
_WHOLE = 0.05  # of a step: how far a fitted end may be off a whole step; whole ones are then checked by `MEETS`
_LEAST = 3  # rates in a decay, of which two fix its line
_FEWEST = 8  # rates in all
_TURN = 0.01  # of a run: a cosine looks constant for a tenth of that at its top
_SOUGHT = 400  # rates that the search for a cosine's ends looks at
_DIGITS = 6  # of a peak that is taken for one with few digits


@dataclass(frozen=True)
class _Body:
    """What follows a warm-up, as far as its rates tell.

    Attributes
    ----------
    kind, more
        The family and its further parameters by their names in JSON.
    total
        T, steps.
    level, slope
        Its rate goes on before its first logged step as level + slope k: there it meets the warm-up.
    begin
        First step, where the body itself tells; NaN = where it meets the warm-up.
    """

    kind: str
    total: int
    level: float
    slope: float = 0.0
    begin: float = math.nan
    more: tuple[tuple[str, Any], ...] = ()


def recognise(step: FloatArray, rate: FloatArray, total: int, longest: int | None = None) -> Schedule | None:
    """Return the schedule of a standard family that meets every logged rate, None if there is none.

    A rate logged at step k is that of update k or, if only that fits, of update k - 1, as trackers log it that count
    the updates done. Where several schedules meet the rates, as a warm-up of any length does that ended before the
    first of them, the one with the shortest text is taken.

    Parameters
    ----------
    step, rate
        Steps in rising order and the rates logged there, shape (r,).
    total
        The run's length T, steps.
    longest
        The longest that the schedule may be where that is not sure, `total` if left out: it is taken where the rates
        say that the decay goes on to there.

    Notes
    -----
    A rate is met within 1e-6 of itself, so that logs of 32-bit numbers pass and logs of rounded numbers do not.
    """
    longest = total if longest is None else longest
    found: list[tuple[int, int, Schedule]] = []
    for late in (0, 1):
        inside = step - late < longest
        at, rates = (step - late)[inside], rate[inside]
        if len(at) < _FEWEST or at[0] < 0 or not rates.max() > 0:
            continue
        for schedule in _schedules(at, rates, total, longest):
            if _meets(schedule, at, rates):
                found.append((len(schedule.short()), late, schedule))
    return min(found, key=lambda entry: entry[:2])[2] if found else None


def _meets(schedule: Schedule, at: FloatArray, rate: FloatArray) -> bool:
    """Return whether a schedule has the logged rates; those at its end or after it are of no update."""
    inside = at < schedule.total_steps
    off = np.abs(schedule.lr(at[inside]) - rate[inside])
    return bool((off <= MEETS * rate[inside] + _NOTHING * rate.max()).all())


def _schedules(at: FloatArray, rate: FloatArray, total: int, longest: int) -> Iterator[Schedule]:
    """Yield the schedules that the rates may be of; not all of them meet every rate."""
    top = int(np.argmax(rate >= (1.0 - _NOTHING) * rate.max()))
    for rising in dict.fromkeys((top, min(top + 1, len(at)))):  # the highest may be the warm-up's last
        if rising == len(at):
            continue
        for body in _bodies(at[rising:], rate[rising:], at[rising - 1] if rising else -1.0, total, longest):
            for warmup, start in _warm_ups(at[:rising], rate[:rising], body, float(at[rising])):
                peak = body.level + body.slope * warmup
                if not peak > 0:
                    continue
                for short in product((True, False), repeat=2):
                    with suppress(ScheduleError):
                        yield _schedule(body, warmup, start, peak, *short)


def _schedule(body: _Body, warmup: int, start: float, peak: float, short_peak: bool, short: bool) -> Schedule:
    """Return the schedule of these parts, its peak and its other rates with few digits if told so."""
    more = {name: _digits(value, peak, short) if name == "final_lr" else value for name, value in body.more}
    given = {"kind": body.kind, "peak_lr": _digits(peak, peak, short_peak), "total_steps": body.total, **more}
    if warmup:
        given |= {"warmup_steps": warmup, "warmup_start_lr": _digits(start, peak, short)}
    return parse(given)


def _digits(value: float, peak: float, short: bool) -> float:
    """Return a rate, 0 where it is as good as that; with `short` to a millionth of the peak."""
    if abs(value) <= (MEETS if short else _NOTHING) * peak:
        return 0.0
    if not short or value < 0:
        return value
    return float(f"{value:.{max(1, _DIGITS + math.floor(math.log10(value / peak)))}g}")


def _warm_ups(at: FloatArray, rate: FloatArray, body: _Body, first: float) -> Iterator[tuple[int, float]]:
    """Yield length and first rate of the warm-ups that lead to a body whose first logged step is `first`."""
    known = not math.isnan(body.begin)
    if not len(at):
        begin = _whole(body.begin) if known else 0
        if begin is not None:
            yield begin, 0.0
        return
    slope, start = 0.0, 0.0
    if len(at) > 1:
        slope = float((rate[-1] - rate[0]) / (at[-1] - at[0]))
        start = float(rate[0] - slope * at[0])
        start = 0.0 if abs(start) <= MEETS * rate[-1] else start
    elif at[0] > 0:
        slope = float(rate[0] / at[0])
    else:  # one rate, that of the first update: the length is the body's to tell, or it ends at the next rate, if soon
        end = _whole(body.begin) if known else _whole(first) if first <= max(1.0, SOON * body.total) else None
        if end:
            yield end, float(rate[0])
        return
    if slope > body.slope:
        end = _whole((body.level - start) / (slope - body.slope))
        if end is not None and at[-1] < end <= first:
            yield end, start


def _bodies(at: FloatArray, rate: FloatArray, before: float, total: int, longest: int) -> Iterator[_Body]:
    """Yield what the rates after a warm-up may be; `before` is the last step of the warm-up, -1 without one."""
    top = float(rate[0])
    if not top > 0:
        return
    flat = int(np.argmax(np.append(np.abs(rate - top) > MEETS * top, True)))
    if flat == len(rate):
        yield _Body("constant", total, float(np.median(rate)))
        return
    inside = at < total  # a rate at the end or after it is of no update
    if flat > 1:
        level = float(np.median(rate[:flat]))
        for shape, power in (("linear", 1), ("sqrt", 2)):
            yield from _decays(at[flat:], rate[flat:], level, shape, power, total, longest)
    if float(at[flat - 1] - at[0]) < _TURN * total and int(inside.sum()) >= _LEAST:
        at, rate = at[inside], rate[inside]
        slope = float((rate[-1] - rate[0]) / (at[-1] - at[0]))
        level = float(rate[0] - slope * at[0])
        for end in _ends(-level / slope if slope < 0 else math.nan, total, longest):
            yield _Body("linear", end, level, slope, more=(("final_lr", level + slope * end),))
        yield from _cosines(at, rate, before, total, longest)


def _decays(
    at: FloatArray, rate: FloatArray, level: float, shape: str, power: int, total: int, longest: int
) -> Iterator[_Body]:
    """Yield the WSD decays level -> final, whose (1 - rate / level)^power is a line from 0 at the decay's begin."""
    if len(at) < _LEAST:
        return
    share = (1.0 - rate / level) ** power
    slope = float((share[-2] - share[0]) / (at[-2] - at[0]))  # the last may be of no update
    begin = _whole(float(at[0] - share[0] / slope)) if slope > 0 else None
    if begin is None:
        return
    for end in _ends(begin + 1.0 / slope, total, longest):
        final = level * (1.0 - (slope * (end - begin)) ** (1.0 / power))
        more = (("decay_steps", end - begin), ("decay", shape), ("final_lr", final))
        yield _Body("wsd", end, level, more=more)


def _ends(zero: float, total: int, longest: int) -> Iterator[int]:
    """Yield the lengths that a run may have whose rate would be 0 at step `zero`: the known one, and that step."""
    yield total
    end = _whole(zero)
    if end is not None and total < end <= longest:
        yield end


def _cosines(at: FloatArray, rate: FloatArray, before: float, total: int, longest: int) -> Iterator[_Body]:
    """Yield the cosine that the rates lie on: begin and end by least squares, its rates linear in them."""
    from scipy.optimize import least_squares

    picked = np.unique(np.linspace(0, len(at) - 1, _SOUGHT).round().astype(np.intp))
    highest_rate = float(rate.max())
    at, rate = at[picked], rate[picked] / highest_rate
    lowest, highest = max(before, 0.0), float(at[0])

    def fitted(begin: float, end: float) -> tuple[FloatArray, FloatArray]:
        wave = np.stack([np.ones(len(at)), np.cos(np.pi * (at - begin) / (end - begin))], axis=1)
        parts = np.linalg.lstsq(wave, rate, rcond=None)[0]
        return parts, wave @ parts - rate

    free = longest > total
    guess = [0.5 * (lowest + highest), *([float(total)] if free else [])]

    def off(ends: FloatArray) -> FloatArray:
        return fitted(float(ends[0]), float(ends[1]) if free else float(total))[1]

    room = 0.5 * float(at[-1] - at[0])
    bounds = ([lowest - 1.0, *([at[-1] - room] if free else [])], [highest + 1.0, *([longest + room] if free else [])])
    found = least_squares(off, guess, bounds=bounds, x_scale=total, xtol=1e-15, ftol=1e-15, gtol=1e-15).x
    begin, end = _whole(float(found[0])), _whole(float(found[1])) if free else total
    if begin is None or end is None or not (total <= end <= longest) or not begin < at[-1]:
        return
    mean, half = fitted(float(begin), float(end))[0] * highest_rate
    if half > 0:
        yield _Body("cosine", end, float(mean + half), begin=float(begin), more=(("final_lr", float(mean - half)),))


def _whole(value: float) -> int | None:
    """Return the whole number of at least 0 that a number is, None where it is none."""
    if not math.isfinite(value) or value < -_WHOLE or abs(value - round(value)) > _WHOLE:
        return None
    return round(value)
