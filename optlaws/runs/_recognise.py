"""The standard family that logged rates come from: constant, linear, cosine or WSD, each with a linear warm-up.

Rates are logged every so many steps, so the ends of a warm-up and of a constant stretch mostly lie between two of
them. Within a family they are where its formulas meet: the few parameters follow from the rates, lengths are whole
steps, and the family is taken only if it meets every logged rate, to a millionth or, where the log has fewer digits, to
half a unit of the last one. What meets none of them stays as it was logged.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from optlaws.errors import ScheduleError
from optlaws.runs._checks import FloatArray
from optlaws.runs._digits import rounding
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
_FEWER = (2, 3, 4, 5, 6)  # digits that are tried for rates of a rounded log, of which the last may be wrong
_MOST_WHOLE = 25  # whole steps that are tried for one end that rounding leaves open
_SURE = 3.0  # standard deviations that a fitted end may be off


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
    room
        How far `level` may be off.
    begin
        First step, where the body itself tells; NaN = where it meets the warm-up.
    """

    kind: str
    total: int
    level: float
    slope: float = 0.0
    begin: float = math.nan
    more: tuple[tuple[str, Any], ...] = ()
    room: float = 0.0


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
    A rate is met within 1e-6 of itself, so that logs of 32-bit numbers pass. Where none is met so, and the log has 4 to
    6 digits, it is met within half a unit of the last one.
    """
    longest = total if longest is None else longest
    found = _best(step, rate, None, total, longest)
    half = rounding(rate) if found is None else None
    if half is None or not (half > MEETS * rate).any():
        return found
    return _best(step, rate, np.maximum(half * (1 + MEETS), MEETS * rate), total, longest)


def _best(step: FloatArray, rate: FloatArray, room: FloatArray | None, total: int, longest: int) -> Schedule | None:
    """Return the schedule of shortest text that meets the rates within `room`, (r,), and then that of roundest numbers.

    Without `room` within `MEETS`, and ends of its parts are sought that follow from the rates to a part of a step.
    """
    found: list[tuple[tuple[int, ...], Schedule]] = []
    for late in (0, 1):
        inside = step - late < longest
        at, rates = (step - late)[inside], rate[inside]
        if len(at) < _FEWEST or at[0] < 0 or not rates.max() > 0:
            continue
        log = _Log(at, rates, MEETS * rates if room is None else room[inside], room is not None)
        for schedules in _schedules(log, total, longest):
            for schedule in schedules:
                if _meets(schedule, log):
                    text = schedule.short()
                    odd = len(re.sub(r"0+(?=\D|$)", "", text)) if log.rounded else 0
                    found.append(((len(text), odd, late), schedule))
                    if log.rounded:
                        break
    return min(found, key=lambda entry: entry[0])[1] if found else None


@dataclass(frozen=True)
class _Log:
    """Steps, the rates there, how far these may be off, (r,), and whether that is since they were rounded."""

    at: FloatArray
    rate: FloatArray
    room: FloatArray
    rounded: bool

    def part(self, rows: Any) -> _Log:
        return _Log(self.at[rows], self.rate[rows], self.room[rows], self.rounded)

    def __len__(self) -> int:
        return len(self.at)


def _meets(schedule: Schedule, log: _Log) -> bool:
    """Return whether a schedule has the logged rates; those at its end or after it are of no update."""
    highest = _NOTHING * log.rate.max()
    for some in ((slice(None, None, len(log) // 16),) if len(log) > 64 else ()) + (slice(None),):  # a few tell most
        part = log.part(some)
        part = part.part(part.at < schedule.total_steps)
        if not (np.abs(schedule.lr(part.at) - part.rate) <= part.room + highest).all():
            return False
    return True


def _schedules(log: _Log, total: int, longest: int) -> Iterator[Iterator[Schedule]]:
    """Yield the schedules that the rates may be of, by their parts; not all of them meet every rate."""
    top = int(np.argmax(log.rate >= (1.0 - _NOTHING) * log.rate.max()))
    for rising in dict.fromkeys((top, min(top + 1, len(log)))):  # the highest may be the warm-up's last
        if rising == len(log):
            continue
        rise, rest = log.part(slice(None, rising)), log.part(slice(rising, None))
        for body in _bodies(rest, log.at[rising - 1] if rising else -1.0, total, longest):
            for warmup, start in _warm_ups(rise, body, float(log.at[rising])):
                peak = body.level + body.slope * warmup
                if peak > 0:
                    yield _with_digits(body, warmup, start, peak, 4 * float(log.room.max()) if log.rounded else None)


def _with_digits(body: _Body, warmup: int, start: float, peak: float, room: float | None) -> Iterator[Schedule]:
    """Yield the schedule of these parts, its peak and its other rates with few digits and with many."""
    if room is None:
        for short_peak, short in product((True, False), repeat=2):
            written = partial(_digits, peak=peak, short=short)
            with suppress(ScheduleError):
                yield _schedule(body, warmup, written, start, _digits(peak, peak, short_peak))
        return
    for fewer, few in sorted(product((*_FEWER, 17), repeat=2), key=sum):
        written = partial(_few_digits, digits=few, nothing=room)
        with suppress(ScheduleError):
            yield _schedule(body, warmup, written, start, float(f"{peak:.{fewer}g}"))


def _schedule(body: _Body, warmup: int, written: Callable[[float], float], start: float, peak: float) -> Schedule:
    """Return the schedule of these parts, its rates beside the peak as `written`."""
    more = {name: written(value) if name == "final_lr" else value for name, value in body.more}
    given = {"kind": body.kind, "peak_lr": peak, "total_steps": body.total, **more}
    if warmup:
        given |= {"warmup_steps": warmup, "warmup_start_lr": written(start)}
    return parse(given)


def _digits(value: float, peak: float, short: bool) -> float:
    """Return a rate, 0 where it is as good as that; with `short` to a millionth of the peak."""
    if abs(value) <= (MEETS if short else _NOTHING) * peak:
        return 0.0
    if not short or value < 0:
        return value
    return float(f"{value:.{max(1, _DIGITS + math.floor(math.log10(value / peak)))}g}")


def _few_digits(value: float, digits: int, nothing: float) -> float:
    """Return a rate with so many digits, 0 where it is no more than `nothing` and few are asked for."""
    return 0.0 if abs(value) <= nothing and digits < max(_FEWER) else float(f"{value:.{digits}g}")


def _warm_ups(log: _Log, body: _Body, first: float) -> Iterator[tuple[int, float]]:
    """Yield length and first rate of the warm-ups that lead to a body whose first logged step is `first`."""
    at, rate, room = log.at, log.rate, log.room
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
        off = float(room[0] + at[0] * (room[0] + room[-1]) / (at[-1] - at[0])) if log.rounded else 0.0
        if abs(start) <= max(MEETS * rate[-1], off):
            start = 0.0
            slope = float(rate[-1] / at[-1]) if log.rounded else slope
    elif at[0] > 0:
        slope = float(rate[0] / at[0])
    else:  # one rate, that of the first update: the length is the body's to tell, or it ends at the next rate, if soon
        end = _whole(body.begin) if known else _whole(first) if first <= max(1.0, SOON * body.total) else None
        if end:
            yield end, float(rate[0])
        return
    if slope > body.slope:
        steep = (slope - body.slope) * (1.0 if not start else (at[-1] - at[0]) / at[-1])
        late = (body.level - start) / (slope - body.slope)
        off = (late * float(room[-1] + room[0] * bool(start)) / at[-1] + body.room) / steep if log.rounded else 0.0
        for end in _wholes(late, off):
            if at[-1] < end <= first:
                yield end, start


def _bodies(log: _Log, before: float, total: int, longest: int) -> Iterator[_Body]:
    """Yield what the rates after a warm-up may be; `before` is the last step of the warm-up, -1 without one."""
    at, rate = log.at, log.rate
    top = float(rate[0])
    if not top > 0:
        return
    near = 2 * log.room[0] if log.rounded else MEETS * top
    flat = int(np.argmax(np.append(np.abs(rate - top) > near, True)))
    if flat == len(rate):
        yield _Body("constant", total, float(np.median(rate)), room=float(log.room[0]))
        return
    inside = at < total  # a rate at the end or after it is of no update
    if flat > 1:
        level = float(np.median(rate[:flat]))
        for shape, power in (("linear", 1), ("sqrt", 2)):
            yield from _decays(log.part(slice(flat, None)), level, shape, power, total, longest)
    turn = max(_TURN, math.sqrt(2 * near / top) if log.rounded else 0.0)
    if float(at[flat - 1] - at[0]) < turn * total and int(inside.sum()) >= _LEAST:
        log = log.part(inside)
        at, rate = log.at, log.rate
        slope = float((rate[-1] - rate[0]) / (at[-1] - at[0]))
        if log.rounded:
            slope = float(np.polyfit(at - at[0], rate / top, 1)[0]) * top
        level = float(np.mean(rate - slope * at)) if log.rounded else float(rate[0] - slope * at[0])
        zero, off = -level / slope if slope < 0 else math.nan, 2 * near / -slope if log.rounded and slope < 0 else 0.0
        for end in _ends(zero, total, longest, off):
            yield _Body("linear", end, level, slope, more=(("final_lr", level + slope * end),), room=near)
        yield from _cosines(log, before, total, longest)


def _decays(log: _Log, level: float, shape: str, power: int, total: int, longest: int) -> Iterator[_Body]:
    """Yield the WSD decays level -> final, whose (1 - rate / level)^power is a line from 0 at the decay's begin."""
    if len(log) < _LEAST:
        return
    at, rate = log.at, log.rate
    share = (1.0 - rate / level) ** power
    if log.rounded:
        yield from _rounded_decays(log.part(at < total), level, shape, power, total, longest)
        return
    slope = float((share[-2] - share[0]) / (at[-2] - at[0]))  # the last may be of no update
    begin = _whole(float(at[0] - share[0] / slope)) if slope > 0 else None
    if begin is None:
        return
    for end in _ends(begin + 1.0 / slope, total, longest):
        final = level * (1.0 - (slope * (end - begin)) ** (1.0 / power))
        more = (("decay_steps", end - begin), ("decay", shape), ("final_lr", final))
        yield _Body("wsd", end, level, more=more)


def _rounded_decays(log: _Log, level: float, shape: str, power: int, total: int, longest: int) -> Iterator[_Body]:
    """Yield the decays that rounded rates may be of, by a weighted line and the ends that it leaves open."""
    if len(log) < _LEAST:
        return
    room = float(log.room.max())
    drop = np.maximum(1.0 - log.rate / level, 0.5 * room / level)
    share, off = drop**power, power * drop ** (power - 1) * (log.room + room) / level
    middle = float(log.at.mean())
    (slope, height), spread = np.polyfit(log.at - middle, share, 1, w=1.0 / off, cov="unscaled")
    if not slope > 0:
        return
    ahead = -height / slope
    sd = math.sqrt(max(spread[1, 1] + 2 * ahead * spread[0, 1] + ahead**2 * spread[0, 0], 0.0)) / slope
    for begin in _wholes(middle + ahead, _SURE * sd):
        away = log.at - begin
        if not away[0] > 0:
            continue
        steep = float(np.sum(share * away / off**2) / np.sum((away / off) ** 2))
        for end in _ends(begin + 1.0 / steep, total, longest, 2 * room / level / steep):
            final = level * (1.0 - (steep * (end - begin)) ** (1.0 / power))
            more = (("decay_steps", end - begin), ("decay", shape), ("final_lr", final))
            yield _Body("wsd", end, level, more=more, room=room)


def _ends(zero: float, total: int, longest: int, off: float = 0.0) -> Iterator[int]:
    """Yield the lengths that a run may have whose rate would be 0 at step `zero`: the known one, and that step."""
    yield total
    if longest > total:
        yield from (end for end in _wholes(zero, off) if total < end <= longest)


def _cosines(log: _Log, before: float, total: int, longest: int) -> Iterator[_Body]:
    """Yield the cosine that the rates lie on: begin and end by least squares, its rates linear in them."""
    from scipy.optimize import least_squares

    at, rate = log.at, log.rate
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
    fit = least_squares(off, guess, bounds=bounds, x_scale=total, xtol=1e-15, ftol=1e-15, gtol=1e-15)
    found, sd, room = fit.x, np.zeros(2), float(log.room.max())
    if log.rounded:
        sd = _SURE * np.sqrt(np.diag(np.linalg.pinv(fit.jac.T @ fit.jac))) * room / highest_rate
    begins = _wholes(float(found[0]), float(sd[0]))
    ends = _wholes(float(found[1]), float(sd[1])) if free else [total]
    for begin, end in product(begins, ends):
        if not (total <= end <= longest and begin < at[-1]):
            continue
        mean, half = fitted(float(begin), float(end))[0] * highest_rate
        if half > 0:
            more = (("final_lr", float(mean - half)),)
            yield _Body("cosine", end, float(mean + half), begin=float(begin), more=more, room=room)


def _wholes(value: float, off: float) -> list[int]:
    """Return the whole numbers of at least 0 that a number may be which is off by so much, the roundest first."""
    if not off:
        one = _whole(value)
        return [] if one is None else [one]
    if not (math.isfinite(value) and math.isfinite(off)):
        return []
    low, high = max(0, math.ceil(value - off - _WHOLE)), math.floor(value + off + _WHOLE)
    for unit in (1, 5, 10, 50, 100, 500, 1000):  # the roundest of very many
        if (high - low) // unit < _MOST_WHOLE:
            some = range(-(-low // unit) * unit, high + 1, unit)
            return sorted(some, key=lambda whole: (len(str(whole).rstrip("0")), abs(whole - value)))
    return []


def _whole(value: float) -> int | None:
    """Return the whole number of at least 0 that a number is, None where it is none."""
    if not math.isfinite(value) or value < -_WHOLE or abs(value - round(value)) > _WHOLE:
        return None
    return round(value)
