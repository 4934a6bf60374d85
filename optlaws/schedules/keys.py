"""Parameters of the schedule families: their names, how each is read, checked and written.

The checks take scalars (a schedule) and arrays (a grid of schedules) alike. Every reader, `read_*(key, raw, values)`,
gets what was written and the parameters before it, returns the value to keep, and raises a `ScheduleError` for any
other than it says.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from optlaws.errors import InputError, ScheduleError, nearest
from optlaws.schedules.quantity import parse_percent, parse_quantity
from optlaws.schedules.shapes import DECAY_ALIASES, DECAYS, Table

MAX_STEPS = 10**12
MAX_RATE = 1e6  # beyond any use; keeps products of rates finite
MAX_POINTS = 4096
REQUIRED: Any = object()
_OF_PEAK = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*\*\s*peak\s*", re.IGNORECASE | re.ASCII)
Values = dict[str, Any]


class Steps(int):
    """A length already in steps, never to be read as a fraction (JSON, 20K)."""


class Share(float):
    """A share of all steps from 0 to 1, never to be read as steps (20%)."""


def complain(name: str, rule: str, got: Any, way_out: str) -> ScheduleError:
    """Return the one-sentence error: name, allowed range, value got, way out."""
    text = repr(got) if len(repr(got)) <= 80 else repr(got)[:77] + "..."
    return ScheduleError(f"{name} must be {rule}, got {text}; {way_out}")


def need(ok: Any, name: str, rule: str, got: Any, way_out: str) -> None:
    """Raise a `ScheduleError` unless `ok`; for arrays, show the first value that fails."""
    if ok is True:
        return
    if isinstance(ok, np.ndarray):
        if ok.all():
            return
        where = np.flatnonzero(~np.ravel(ok))[0]
        got = np.ravel(np.broadcast_to(got, ok.shape))[where].item() if not isinstance(got, str) else got
    elif ok:
        return
    raise complain(name, rule, got, way_out)


def number(name: str, raw: Any) -> Any:
    """Return a Python number, or a float array, from a number, numeric text or an array; else a `ScheduleError`."""
    kind = type(raw)
    if kind is float or kind is int:
        return raw
    if kind is str:
        try:
            return float(raw)
        except ValueError:
            raise complain(name, "a number", raw, "write it with digits, like 300 or 1e-3") from None
    if isinstance(raw, (np.ndarray, list, tuple)):
        try:
            array = np.asarray(raw)
        except ValueError:  # ragged
            array = np.asarray(None)
        if array.dtype.kind in "iuf":
            return array.astype(np.float64) if array.ndim else array.item()
    elif isinstance(raw, (np.integer, np.floating, Steps)):
        return raw if isinstance(raw, Steps) else raw.item()
    raise complain(name, "a number", raw, "write it with digits, like 300 or 1e-3")


def count(name: str, raw: Any, shares: bool = False) -> Any:
    """Return what `number` returns; text may also be a count like 20K or 64Ki, and a percentage with `shares`.

    A count becomes `Steps`, a percentage a `Share`.
    """
    if type(raw) is not str:
        return number(name, raw)
    try:
        return float(raw)
    except ValueError:
        pass
    if shares and raw.rstrip().endswith("%"):
        try:
            return Share(parse_percent(raw, name))
        except InputError as bad:
            raise ScheduleError(str(bad)) from None
    try:
        value = parse_quantity(raw, name, zero=True)
    except InputError:
        raise complain(name, "a number", raw, f"write it like 300, {'20K or 5%' if shares else '1e5 or 20K'}") from None
    if value != math.floor(value):
        raise complain(name, "a whole number of steps", raw, "write it like 300 or 20K")
    return Steps(value)


def whole(name: str, value: Any, low: int, way_out: str) -> Any:
    """Return the number as whole steps (int, or an integral float array) of at least `low`; else a `ScheduleError`."""
    rule = f"a whole number of steps, {low} to {MAX_STEPS:,}"
    if isinstance(value, np.ndarray):
        with np.errstate(invalid="ignore"):
            need((value >= low) & (value <= MAX_STEPS) & (value == np.floor(value)), name, rule, value, way_out)
        return value
    if not low <= value <= MAX_STEPS or value != math.floor(value):
        raise complain(name, rule, value, way_out)
    return int(value)


def read_steps(key: Key, raw: Any, values: Values) -> Any:
    """Read the total number of steps."""
    return whole(key.name, count(key.name, raw), 1, "count every update, warm-up and decay included")


def read_duration(key: Key, raw: Any, values: Values) -> Any:
    """Read a length: steps, a percentage, or a fraction of all steps below 1 (for `decay` up to and including 1)."""
    value = count(key.name, raw, shares=True)
    way_out = f"write steps as in {key.name}=300, or a fraction of all steps as in {key.name}=0.2"
    if isinstance(value, Steps):
        return whole(key.name, int(value), key.low, way_out)
    top = 1.0 if key.unit_is_fraction or isinstance(value, Share) else math.nextafter(1.0, 0.0)
    total = values["steps"]
    if isinstance(value, np.ndarray) or isinstance(total, np.ndarray):
        value = np.asarray(value, dtype=np.float64)
        with np.errstate(invalid="ignore"):
            value = np.where((value > 0) & (value <= top), np.rint(value * total), value)
    elif 0 < value <= top:
        value = round(value * total)
    return whole(key.name, value, key.low, way_out)


def _of_peak(key: Key, raw: Any, values: Values) -> Any:
    """Return the rate of text like 10% (to 12 digits) or 0.1*peak (the product as it is); anything else as it is."""
    if not isinstance(raw, str) or not (raw.rstrip().endswith("%") or "*" in raw):
        return raw
    if "peak" not in values:  # it is the peak, or the rate of a point
        raise complain(key.name, "an absolute learning rate", raw, "write the rate itself, like 1e-3")
    product = _OF_PEAK.fullmatch(raw)
    if product:
        return float(product[1]) * values["peak"]
    try:
        share = parse_percent(raw, key.name)
    except InputError:
        rule = "a number, or a share of the peak from 0 to 100 %"
        raise complain(key.name, rule, raw, f"write {key.name}=10% or {key.name}=0.1*peak") from None
    found = share * np.asarray(values["peak"], dtype=np.float64)
    digits = np.array([float(f"{x:.12g}") for x in found.ravel().tolist()]).reshape(found.shape)
    return digits if isinstance(values["peak"], np.ndarray) else float(digits)


def read_rate(key: Key, raw: Any, values: Values) -> Any:
    """Read a learning rate, finite and not negative: absolute, or as a share of the peak like 10% or 0.1*peak."""
    value = number(key.name, _of_peak(key, raw, values))
    low = key.low
    rule = f"a finite rate {'above' if low else 'of at least'} 0, at most {MAX_RATE:g}"
    way_out = f"give the absolute learning rate, as in {key.name}=0.001"
    if isinstance(value, np.ndarray):
        need(((value > 0) if low else (value >= 0)) & (value <= MAX_RATE), key.name, rule, value, way_out)
        return value
    if not 0 <= value <= MAX_RATE or (low and value == 0):
        raise complain(key.name, rule, value, way_out)
    return float(value) + 0.0


def read_factor(key: Key, raw: Any, values: Values) -> Any:
    """Read a plain number inside the key's range, ends included."""
    value = number(key.name, raw)
    rule = f"a number from {key.low:g} to {key.high:g}"
    ok = (value >= key.low) & (value <= key.high)
    need(ok, key.name, rule, value, f"leave it out for its default or write {key.name}=VALUE in that range")
    return value if isinstance(value, np.ndarray) else float(value)


def read_power(key: Key, raw: Any, values: Values) -> Any:
    """Read the exponent of a decay; shapes with a fixed exponent take no other."""
    value = read_factor(key, raw, values)
    decay = DECAYS[values["shape"]]
    if not decay.free_power and np.any(value != decay.power):
        free = " or ".join(f"shape={n}" for n, d in DECAYS.items() if d.free_power)
        raise complain("power", f"left out for shape={values['shape']}", raw, f"it belongs to {free}")
    return value


def read_count(key: Key, raw: Any, values: Values) -> Any:
    """Read a small whole number (one number, not an array)."""
    value = number(key.name, raw)
    if isinstance(value, np.ndarray) or not key.low <= value <= key.high or value != math.floor(value):
        rule = f"one whole number from {key.low:g} to {key.high:g}"
        raise complain(key.name, rule, raw, f"write it as in {key.name}={int(key.low)}")
    return int(value)


def read_choice(key: Key, raw: Any, values: Values) -> Any:
    """Read a name out of the key's choices."""
    name = DECAY_ALIASES.get(raw, raw) if isinstance(raw, str) else raw
    if not isinstance(name, str) or name not in key.choices:
        hint = nearest(name, key.choices) if isinstance(name, str) else ""
        raise complain(key.name, "one of " + ", ".join(key.choices), raw, f"write one of these{hint}")
    return name


def _items(key: Key, raw: Any) -> list[Any]:
    """Return the items of a list, or of its short form joined by '/'."""
    if isinstance(raw, str):
        return raw.split("/")
    if isinstance(raw, (list, tuple, np.ndarray)):
        return list(raw)
    raise complain(key.name, "a list of numbers", raw, f"write it as in {key.name}=0.8/0.9")


def read_numbers(key: Key, raw: Any, values: Values) -> Any:
    """Read a list of factors of the peak, each finite and not negative."""
    out = tuple(number(key.name, x) for x in _items(key, raw))
    for x in out:
        if isinstance(x, np.ndarray) or not 0 <= x <= MAX_RATE:
            raise complain(key.name, f"factors from 0 to {MAX_RATE:g}", x, f"write them as in {key.name}=0.316/0.1")
    return tuple(float(x) for x in out)


def read_milestones(key: Key, raw: Any, values: Values) -> Any:
    """Read a list of steps; values below 1 are fractions of all steps."""
    items = _items(key, raw)
    nested = next((x for x in items if isinstance(x, (list, tuple, np.ndarray))), None)
    if nested is not None:
        raise complain(key.name, "a flat list of steps or fractions", nested, f"write it as in {key.name}=0.8/0.9")
    return tuple(read_duration(key, x, values) for x in items)


def read_points(key: Key, raw: Any, values: Values) -> Any:
    """Read [[step, rate], ...], or `step:rate/step:rate`; both steps and rates are checked here.

    Where the run's steps were left out (None), they become the last point's step.
    """
    way_out = "write points=0:0.0/300:0.001/25000:0.0, steps rising from 0"
    points: list[tuple[int, float]] = []
    for item in _items(key, raw):
        pair = item.split(":") if isinstance(item, str) else item
        if not isinstance(pair, (list, tuple, np.ndarray)) or len(pair) != 2:
            raise complain(key.name, "pairs of a step and a rate", item, way_out)
        step = whole("step of points", count("step of points", pair[0]), 0, way_out)
        points.append((step, read_rate(POINT_RATE, pair[1], values)))
    steps = [p[0] for p in points]
    if len(points) > MAX_POINTS:
        raise complain(key.name, f"at most {MAX_POINTS} pairs", len(points), "use the kind 'array' for more")
    if not points or steps[0] != 0:
        raise complain(key.name, "pairs whose first step is 0", steps[:1], way_out)
    falls = [a for a, b in pairwise(steps) if b < a]
    thrice = [a for a, c in zip(steps, steps[2:], strict=False) if a == c]
    if falls or thrice:
        raise complain(key.name, "pairs with rising steps, at most two at a jump", (falls + thrice)[0], way_out)
    if values["steps"] is None:
        if not steps[-1]:
            got = "nothing and no point after step 0"
            raise ScheduleError(f"steps of piecewise must be given, got {got}; add steps=VALUE (total_steps in JSON)")
        values["steps"] = steps[-1]
    total = values["steps"]
    one = not isinstance(total, np.ndarray)  # an array is refused later, for the schedule as a whole
    if one and len(steps) > 1 and steps[-2] >= total and steps[-2] != steps[-1]:
        rule = f"pairs inside the run of {total} steps"
        raise complain(key.name, rule, steps[-2], "raise steps or drop the points after the end")
    if not any(p[1] > 0 for p in points):
        raise complain(key.name, "pairs with a rate above 0 somewhere", 0.0, way_out)
    return tuple(points)


def read_table(key: Key, raw: Any, values: Values) -> Table:
    """Read one rate per step."""
    if isinstance(raw, Table):
        return raw
    items = raw.split("/") if isinstance(raw, str) else raw
    way_out = "give one learning rate per step, as in values=0.001/0.0005"
    try:
        array = np.array(items)
        if array.dtype.kind == "U" and isinstance(raw, str):
            array = array.astype(np.float64)
    except ValueError:
        raise complain(key.name, "a flat list of numbers", raw, way_out) from None
    if array.ndim != 1 or array.dtype.kind not in "iuf" or not len(array):
        raise complain(key.name, "a flat list of at least one number", raw, way_out)
    rates = array.astype(np.float64)
    bad = np.flatnonzero(~((rates >= 0) & (rates <= MAX_RATE)))
    if len(bad):
        got = f"{rates[bad[0]]} at step {bad[0]}"
        raise complain(key.name, f"finite rates from 0 to {MAX_RATE:g}", got, way_out)
    if not rates.any():
        raise complain(key.name, "rates with one above 0 somewhere", 0.0, way_out)
    return Table(rates + 0.0)


@dataclass(frozen=True)
class Key:
    """One parameter of a family.

    `name` is its short form and Python name, `json` its name in JSON, `default` a value, a function of the parameters
    before it, or REQUIRED; `always` writes it to JSON even at its default; `low`, `high` and `choices` bound it.
    """

    name: str
    json: str
    read: Callable[[Key, Any, Values], Any]
    default: Any = REQUIRED
    always: bool = False
    low: Any = 0
    high: float = math.inf
    choices: tuple[str, ...] = ()
    unit_is_fraction: bool = False

    def default_value(self, values: Mapping[str, Any]) -> Any:
        """Return the default, given the parameters before this one."""
        return self.default(values) if callable(self.default) else self.default

    def scaled(self, value: Any, factor: float) -> Any:
        """Return the value of a schedule whose rates are multiplied by `factor`; what holds no rates stays."""
        if self.read is read_rate:
            return value * factor
        if self.read is read_points:
            return tuple((step, rate * factor) for step, rate in value)
        if self.read is read_table:
            return value.values * factor
        return Steps(value) if self.read in (read_duration, read_steps) else value


POINT_RATE = Key("rate of points", "", read_rate)


def duration(name: str, json: str, default: Any = REQUIRED, low: int = 1, **more: Any) -> Key:
    """Return a key for a length in steps or a fraction of all steps."""
    return Key(name, json, read_duration, default, low=low, **more)


def rate(name: str, json: str, default: Any = REQUIRED, **more: Any) -> Key:
    """Return a key for a learning rate, kept as an absolute one."""
    return Key(name, json, read_rate, default, **more)


def factor(name: str, default: Any, low: float, high: float) -> Key:
    """Return a key for a plain number."""
    return Key(name, name, read_factor, default, low=low, high=high)


def _share(values: Mapping[str, Any]) -> Any:
    fifth = 0.2 * values["steps"]
    return np.rint(fifth) if isinstance(fifth, np.ndarray) else round(fifth)


def _timescale(values: Mapping[str, Any]) -> Any:
    warmup = values["warmup"]
    return np.maximum(warmup, 1.0) if isinstance(warmup, np.ndarray) else max(warmup, 1)


STEPS = Key("steps", "total_steps", read_steps)
STEPS_OF_POINTS = Key("steps", "total_steps", read_steps, None, always=True)  # None: see read_points
PEAK = rate("peak", "peak_lr", low=1)
BASE = (PEAK, STEPS)
WARMUP = (
    duration("warmup", "warmup_steps", 0, low=0, always=True),
    rate("warmup_start", "warmup_start_lr", 0.0),
    Key("warmup_shape", "warmup_shape", read_choice, "linear", choices=("linear", "cosine")),
)
FINAL = rate("final", "final_lr", 0.0, always=True)
SHAPE = Key("shape", "decay", read_choice, "linear", always=True, choices=tuple(DECAYS))
POWER = Key("power", "power", read_power, lambda v: DECAYS[v["shape"]].power, low=1e-3, high=1e3)
DECAY = duration("decay", "decay_steps", _share, low=0, always=True, unit_is_fraction=True)
COOLDOWN = duration("decay", "decay_steps", 0, low=0, always=True, unit_is_fraction=True)
TIMESCALE = duration("timescale", "timescale_steps", _timescale)
