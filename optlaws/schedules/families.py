"""The schedule families: each is a list of parameters and one function that joins phases.

A family's function gets its parameters by short name, already read and checked one by one (`keys.py`), and returns the
phases as rows ``(shape, begin, end, start, stop, span, power, offset)``; parameters that do not go together raise a
`ScheduleError`, as does every `*_rows` below. Parameters may be numbers (one schedule) or
arrays that broadcast (a grid of schedules): the same code serves both. Rows without a step (begin >= end) are dropped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from optlaws.errors import ScheduleError
from optlaws.schedules import keys
from optlaws.schedules.keys import BASE, FINAL, POWER, SHAPE, WARMUP, Key, Values, complain, need
from optlaws.schedules.shapes import DECAYS, SHAPES

Row = tuple[Any, ...]
MAX_PHASES = 4096


@dataclass(frozen=True)
class Family:
    """One family of schedules: name, parameters in writing order, the function that joins its phases."""

    name: str
    keys: tuple[Key, ...]
    rows: Callable[[Values], list[Row]]
    grid: bool = True

    @cached_property
    def by_name(self) -> dict[str, Key]:
        """The parameters by short name."""
        return {k.name: k for k in self.keys}

    @cached_property
    def by_json(self) -> dict[str, Key]:
        """The parameters by JSON name."""
        return {k.json: k for k in self.keys}


def _low(a: Any, b: Any) -> Any:
    """Return the lower of two numbers or arrays."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return np.minimum(a, b)
    return a if a <= b else b


def _high(a: Any, b: Any) -> Any:
    """Return the higher of two numbers or arrays."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return np.maximum(a, b)
    return a if a >= b else b


def _round(x: Any) -> Any:
    """Return x rounded to whole steps."""
    return np.rint(x) if isinstance(x, np.ndarray) else round(x)


def _row(shape: str, begin: Any, end: Any, start: Any, stop: Any, span: Any = 1, power: Any = 1.0) -> Row:
    return (shape, begin, end, start, stop, span, power, 0.0)


def _flat(begin: Any, end: Any, rate: Any) -> Row:
    return _row("constant", begin, end, rate, rate)


def _warm_up(v: Values) -> tuple[list[Row], Any]:
    """Return the warm-up's rows and the step at which the body begins (the end of a run shorter than its warm-up).

    Linear: start + (peak - start) k / W. Cosine: start + (peak - start)(1 - cos(pi k / (W - 1))) / 2, as in torch.
    """
    length, begin = v["warmup"], _low(v["warmup"], v["steps"])
    need(v["warmup_start"] <= v["peak"], "warmup_start", "at most peak", v["warmup_start"], "lower it or raise peak")
    if type(length) is int and length == 0:
        return [], begin
    shape = v["warmup_shape"]
    span = length if shape == "linear" else _high(length - 1, 1)
    return [_row(shape, 0, begin, v["warmup_start"], v["peak"], span)], begin


def _floor(v: Values, top: Any, what: str = "peak") -> None:
    way_out = "final is an absolute rate; write final=10% for a share of the peak"
    need(v["final"] <= top, "final", f"a rate of at most {what}", v["final"], way_out)


def _above_zero(v: Values, shape: str) -> None:
    way_out = "give final=1e-5 or so, or choose a decay that can end at 0, such as linear"
    need(v["final"] > 0, "final", f"a rate above 0 for an {shape} decay", v["final"], way_out)


def _decay(v: Values, begin: Any, start: Any) -> Row:
    """Return the decay of the last `decay` steps, from `start` to `final`."""
    decay = DECAYS[v["shape"]]
    if not decay.to_zero:
        _above_zero(v, v["shape"])
    return _row(decay.shape, begin, v["steps"], start, v["final"], v["decay"], v["power"])


def _cooldown_begin(v: Values) -> Any:
    """Return the step at which the decay begins; warm-up and decay must not overlap."""
    steps, room = v["steps"], v["steps"] - v["warmup"]
    rule = "at most steps minus warmup"
    need((v["decay"] <= room) | (v["decay"] == 0), "decay", rule, v["decay"], "shorten decay or warmup, or raise steps")
    return steps - v["decay"]


def constant_rows(v: Values) -> list[Row]:
    """Warm-up, then the peak until the end."""
    rows, b = _warm_up(v)
    return [*rows, _flat(b, v["steps"], v["peak"])]


def _one_body(shape: str) -> Callable[[Values], list[Row]]:
    """Return the family: warm-up, then one phase of `shape` from peak to final until the end."""

    def rows(v: Values) -> list[Row]:
        warm, b = _warm_up(v)
        _floor(v, v["peak"])
        if not (shape == "power" or DECAYS[shape].to_zero):
            _above_zero(v, shape)
        return [*warm, _row(shape, b, v["steps"], v["peak"], v["final"], v["steps"] - b, v.get("power", 1.0))]

    return rows


def cosine_rows(v: Values) -> list[Row]:
    """Warm-up, then half cosines peak -> final, joined by climbs back to the peak when cycles > 1."""
    rows, b = _warm_up(v)
    _floor(v, v["peak"])
    steps, peak, final, halves = v["steps"], v["peak"], v["final"], 2 * v["cycles"] - 1
    if halves > 1:
        room = steps - b
        need((room >= halves) | (room == 0), "cycles", "few enough for one step per half wave", v["cycles"], "lower it")
    end = b
    for i in range(1, halves + 1):
        begin, end = end, (steps if i == halves else b + _round((steps - b) * (i / halves)))
        ends = (peak, final) if i % 2 else (final, peak)
        rows.append(_row("cosine", begin, end, *ends, end - begin))
    return rows


def wsd_rows(v: Values) -> list[Row]:
    """Warm-up, constant, decay of the last D steps: lr(k) = shape((k - (T - D)) / D)."""
    rows, b = _warm_up(v)
    _floor(v, v["peak"])
    s = _cooldown_begin(v)
    return [*rows, _flat(b, s, v["peak"]), _decay(v, s, v["peak"])]


def inverse_sqrt_rows(v: Values) -> list[Row]:
    """Warm-up, peak / sqrt(1 + (k - W) / timescale), and a decay of the last D steps if D > 0."""
    rows, b = _warm_up(v)
    s = _cooldown_begin(v)
    low = SHAPES["inverse_sqrt"](_high(s - b, 0) / v["timescale"], v["peak"], 0.0, 1.0)
    low = low if isinstance(low, np.ndarray) else float(low)
    _floor(v, low, "the rate where the decay begins")
    body = _row("inverse_sqrt", b, s, v["peak"], low, v["timescale"])
    if type(v["decay"]) is int and v["decay"] == 0:
        return [*rows, body]
    return [*rows, body, _decay(v, s, low)]


def _repeat(lengths: Any, total: Any) -> int:
    """Return how many pieces of the given lengths cover the longest of the runs."""
    count = int(np.max(-(-total // lengths)))
    if count > MAX_PHASES:
        way_out = "lengthen the period or use the kind 'array'"
        raise complain("number of phases", f"at most {MAX_PHASES}", count, way_out)
    return max(count, 1)


def step_rows(v: Values) -> list[Row]:
    """Warm-up, then peak factor^i in the i-th stretch of `every` steps after it."""
    rows, b = _warm_up(v)
    steps, every = v["steps"], v["every"]
    for i in range(_repeat(every, _high(steps - b, 0))):
        begin, end = _low(b + i * every, steps), _low(b + (i + 1) * every, steps)
        rows.append(_flat(begin, end, v["peak"] * v["factor"] ** i))
    return rows


def multistep_rows(v: Values) -> list[Row]:
    """Warm-up, then peak, and peak factors[i] from milestones[i] on (8-1-1: 1, 0.316, 0.1 at 80 % and 90 %)."""
    rows, b = _warm_up(v)
    stones, factors = v["milestones"], v["factors"]
    if len(stones) != len(factors):
        way_out = "give one factor of the peak per milestone"
        raise complain("factors", f"a list of {len(stones)} numbers, as many as milestones", factors, way_out)
    rate, begin = v["peak"], b
    for stone, share in zip(stones, factors, strict=True):
        rule, way_out = "steps in rising order from the warm-up's end to the last", "move it or shorten the warm-up"
        need((stone >= begin) & (stone < v["steps"]), "milestones", rule, stone, way_out)
        rows.append(_flat(begin, stone, rate))
        rate, begin = v["peak"] * share, stone
    return [*rows, _flat(begin, v["steps"], rate)]


def two_stage_rows(v: Values) -> list[Row]:
    """Warm-up, peak until step `switch`, then the rate `second`."""
    rows, b = _warm_up(v)
    s = v["switch"]
    rule = "a step from the end of the warm-up to the last step"
    need((s >= v["warmup"]) & (s < v["steps"]), "switch", rule, s, "move the switch or shorten the warm-up")
    return [*rows, _flat(b, s, v["peak"]), _flat(s, v["steps"], v["second"])]


def cyclic_rows(v: Values) -> list[Row]:
    """Triangles low -> top -> low of `period` steps; top = low + (peak - low) shrink^i in the i-th."""
    steps, period, low = v["steps"], v["period"], v["low"]
    need(low <= v["peak"], "low", "at most peak", low, "lower it or raise peak")
    up, rows = (period + 1) // 2, []
    for i in range(_repeat(period, steps)):
        top = low + (v["peak"] - low) * v["shrink"] ** i
        begin = i * period
        rows.append(_row("linear", _low(begin, steps), _low(begin + up, steps), low, top, up))
        rows.append(_row("linear", _low(begin + up, steps), _low(begin + period, steps), top, low, period - up))
    return rows


def one_cycle_rows(v: Values) -> list[Row]:
    """Torch's OneCycleLR: peak / div -> peak at step e = pct T - 1, then -> peak / (div final_div) at step T - 1.

    e need not be a whole step: the second phase's formula then begins between two steps.
    """
    steps, peak, shape = v["steps"], v["peak"], v["anneal"]
    e = v["pct"] * steps - 1.0
    need((e > 0) & (e < steps - 1), "pct", "between 1/steps and 1, ends excluded", v["pct"], "the rise needs two steps")
    first = peak / v["div"]
    split = np.ceil(e) if isinstance(e, np.ndarray) else math.ceil(e)
    fall = (shape, split, steps, peak, first / v["final_div"], steps - 1 - e, 1.0, split - e)
    return [_row(shape, 0, split, first, peak, e), fall]


def warm_restarts_rows(v: Values) -> list[Row]:
    """Warm-up, then cosines of period mult^i steps, each from final + (peak - final) shrink^i to final (SGDR)."""
    rows, b = _warm_up(v)
    _floor(v, v["peak"])
    steps, final, length, offset, i = v["steps"], v["final"], v["period"], 0, 0
    while i == 0 or np.any(b + offset < steps):
        if i >= MAX_PHASES:
            raise complain("period", f"long enough for {MAX_PHASES} restarts", v["period"], "raise period or mult")
        span = _round(length)
        begin, end = _low(b + offset, steps), _low(b + offset + span, steps)
        top = final + (v["peak"] - final) * v["shrink"] ** i
        rows.append(_row("cosine", begin, end, top, final, span))
        offset, length, i = offset + span, _low(length * v["mult"], float(keys.MAX_STEPS)), i + 1
    return rows


def piecewise_rows(v: Values) -> list[Row]:
    """Straight lines between the points; the last rate is held until the end; two points at one step are a jump."""
    points, steps, rows = v["points"], v["steps"], []
    for (a, x), (b, y) in pairwise(points):
        rows.append(_flat(a, _low(b, steps), x) if x == y else _row("linear", a, _low(b, steps), x, y, b - a))
    return [*rows, _flat(points[-1][0], steps, points[-1][1])]


def array_rows(v: Values) -> list[Row]:
    """One rate per step."""
    values = v["values"].values
    n = len(values)
    return [("table", 0, n, float(values[0]), float(values[-1]), n, 1.0, 0.0)]


def chain_rows(v: Values) -> list[Row]:
    """The parts one after the other."""
    rows, shift = [], 0
    for part in v["parts"]:
        rows += [(r[0], r[1] + shift, r[2] + shift, *r[3:]) for r in part.rows]
        shift += part.total_steps
    if shift > keys.MAX_STEPS:
        raise complain("steps of a chain", f"at most {keys.MAX_STEPS:,} in all", shift, "shorten its parts")
    return rows


def _eighty_ninety(v: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the steps at 80 % and 90 % of the run."""
    return _round(0.8 * v["steps"]), _round(0.9 * v["steps"])


_EVERY = keys.duration("every", "every_steps")
_CYCLE = (keys.duration("period", "period_steps", low=2), keys.factor("shrink", 1.0, 0.0, 1.0))
FAMILIES: dict[str, Family] = {
    f.name: f
    for f in (
        Family("constant", (*BASE, *WARMUP), constant_rows),
        Family("linear", (*BASE, *WARMUP, FINAL), _one_body("linear")),
        Family(
            "cosine",
            (*BASE, *WARMUP, Key("cycles", "cycles", keys.read_count, 1, low=1, high=MAX_PHASES // 2), FINAL),
            cosine_rows,
        ),
        Family("wsd", (*BASE, *WARMUP, keys.DECAY, SHAPE, POWER, FINAL), wsd_rows),
        Family(
            "inverse_sqrt",
            (*BASE, *WARMUP, keys.TIMESCALE, keys.COOLDOWN, SHAPE, POWER, FINAL),
            inverse_sqrt_rows,
        ),
        Family("polynomial", (*BASE, *WARMUP, keys.factor("power", 2.0, 1e-3, 1e3), FINAL), _one_body("power")),
        Family("exponential", (*BASE, *WARMUP, keys.rate("final", "final_lr", low=1)), _one_body("exponential")),
        Family("step", (*BASE, *WARMUP, _EVERY, keys.factor("factor", 0.1, 0, 1)), step_rows),
        Family(
            "multistep",
            (
                *BASE,
                *WARMUP,
                Key("milestones", "milestones", keys.read_milestones, _eighty_ninety, True),
                Key("factors", "factors", keys.read_numbers, (0.316, 0.1), True),
            ),
            multistep_rows,
        ),
        Family(
            "two_stage",
            (*BASE, *WARMUP, keys.duration("switch", "switch_step", low=0), keys.rate("second", "second_lr")),
            two_stage_rows,
        ),
        Family("cyclic", (*BASE, keys.rate("low", "low_lr", 0.0), *_CYCLE), cyclic_rows),
        Family(
            "one_cycle",
            (
                *BASE,
                keys.factor("pct", 0.3, 0.0, 1.0),
                keys.factor("div", 25.0, 1.0, 1e12),
                keys.factor("final_div", 1e4, 1.0, 1e12),
                Key("anneal", "anneal", keys.read_choice, "cosine", choices=("cosine", "linear")),
            ),
            one_cycle_rows,
        ),
        Family(
            "warm_restarts", (*BASE, *WARMUP, *_CYCLE, keys.factor("mult", 1.0, 1.0, 1e3), FINAL), warm_restarts_rows
        ),
        Family(
            "piecewise",
            (keys.STEPS_OF_POINTS, Key("points", "points", keys.read_points, always=True)),
            piecewise_rows,
            grid=False,
        ),
        Family("array", (Key("values", "values", keys.read_table, always=True),), array_rows, grid=False),
    )
}


def describe(name: str) -> str:
    """Return one line per parameter of a family: short name, JSON name and whether it must be given.

    Raises
    ------
    ScheduleError
        The family is unknown.
    """
    if name not in FAMILIES:
        raise ScheduleError(f"kind must be one of {', '.join(FAMILIES)}, got {name!r}; choose one of them")
    lines = [f"{k.name} ({k.json})" + (" required" if k.default is keys.REQUIRED else "") for k in FAMILIES[name].keys]
    return "\n".join(lines)
