"""Shapes of a rate within one phase: the only place where a schedule's formulas are written.

Every shape maps the fraction `u` of its phase to a rate, from `start` at u = 0 to `stop` at u = 1, and is monotone in
between. Scalars and arrays go through the same function, so `lr(k)`, the whole array and the cells of a million
schedules cannot disagree. A new shape is one function here; a new decay of WSD is one more line in `DECAYS`.

Shapes are also evaluated up to half a step outside [0, 1] (see `cells.py`), so each must stay finite there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Shape = Callable[[Any, Any, Any, Any], Any]


def _mix(weight: Any, start: Any, stop: Any) -> Any:
    """Return start (1 - weight) + stop weight, exact at both ends."""
    return start * (1.0 - weight) + stop * weight


def _constant(u: Any, start: Any, stop: Any, power: Any) -> Any:
    """Return `start`, whatever u."""
    return start + 0.0 * u


def _linear(u: Any, start: Any, stop: Any, power: Any) -> Any:
    """Return start + (stop - start) u."""
    return _mix(u, start, stop)


def _cosine(u: Any, start: Any, stop: Any, power: Any) -> Any:
    """Return start + (stop - start)(1 - cos(pi u)) / 2."""
    return _mix(0.5 - 0.5 * np.cos(np.pi * u), start, stop)


def _root(u: Any, start: Any, stop: Any, power: Any) -> Any:
    """Return start + (stop - start) u^power, odd in u below 0 (1 - sqrt for power = 1/2)."""
    return _mix(np.sign(u) * np.abs(u) ** power, start, stop)


def _power(u: Any, start: Any, stop: Any, power: Any) -> Any:
    """Return stop + (start - stop)(1 - u)^power, held at `stop` beyond u = 1."""
    return _mix(np.maximum(1.0 - u, 0.0) ** power, stop, start)


def _exponential(u: Any, start: Any, stop: Any, power: Any) -> Any:
    """Return start^(1 - u) stop^u, both above 0."""
    return start ** (1.0 - u) * stop**u


def _reciprocal(u: Any, start: Any, stop: Any, power: Any) -> Any:
    """Return 1 / ((1 - u) / start + u / stop), both above 0, held at `start` below u = 0."""
    u = np.maximum(u, 0.0)
    return start * (stop / _mix(u, stop, start))


def _inverse_sqrt(u: Any, start: Any, stop: Any, power: Any) -> Any:
    """Return start / sqrt(1 + u); the phase's span is the time-scale and `stop` is not used."""
    return start / np.sqrt(1.0 + u)


SHAPES: dict[str, Shape] = {
    "constant": _constant,
    "linear": _linear,
    "cosine": _cosine,
    "root": _root,
    "power": _power,
    "exponential": _exponential,
    "reciprocal": _reciprocal,
    "inverse_sqrt": _inverse_sqrt,
}


class Decay(NamedTuple):
    """A decay by name: its shape, its exponent, whether the exponent is the user's, whether it can end at 0."""

    shape: str
    power: float = 1.0
    free_power: bool = False
    to_zero: bool = True


DECAYS: dict[str, Decay] = {
    "linear": Decay("linear"),
    "sqrt": Decay("root", 0.5),  # 1 - sqrt(u)
    "sqrt_left": Decay("power", 0.5),  # sqrt(1 - u), the square root of what is left
    "cosine": Decay("cosine"),
    "exponential": Decay("exponential", to_zero=False),
    "reciprocal": Decay("reciprocal", to_zero=False),
    "power": Decay("power", 2.0, free_power=True),  # (1 - u)^power
    "root": Decay("root", 2.0, free_power=True),  # 1 - u^power
}
DECAY_ALIASES = {"1-sqrt": "sqrt", "1-sqrt(u)": "sqrt", "sqrt(1-u)": "sqrt_left"}


STILL = 16  # steps that a warm-up of single rates may stand still: rounded, or one for several micro-batches
RISE_SHARE = 0.01  # of the highest rate: what a restart of single rates rises by


class Table:
    """Rates of single steps: an array that cannot be written to, hashed and compared by value."""

    __slots__ = ("_digest", "values")

    def __init__(self, values: Array) -> None:
        """Copy the rates, shape (T,)."""
        self.values = np.array(values, dtype=np.float64)  # own copy
        self.values.setflags(write=False)
        self._digest: bytes | None = None

    @property
    def digest(self) -> bytes:
        """SHA-256 of the rates (+0.0 and -0.0 alike)."""
        if self._digest is None:
            self._digest = hashlib.sha256((self.values + 0.0).tobytes()).digest()
        return self._digest

    def __hash__(self) -> int:
        """Hash the rates."""
        return hash(self.digest)

    def __eq__(self, other: object) -> bool:
        """Compare the rates."""
        return isinstance(other, Table) and bool(np.array_equal(self.values, other.values))

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self.values)

    def __repr__(self) -> str:
        """Return the number of rates."""
        return f"Table({len(self)} rates)"


@dataclass(frozen=True, slots=True)
class Phase:
    """Steps begin <= k < end of a schedule, with one formula.

    The rate is ``SHAPES[shape](u, start, stop, power)`` at ``u = (k - begin + offset) / span``. `span` differs from
    end - begin where a formula is cut by the end of the run or counts its last step as u = 1; `offset` (steps) is for
    formulas whose origin lies between two steps. The shape ``"table"`` looks its rates up in `table`.

    Parameters
    ----------
    shape : str
        A key of `SHAPES`, or ``"table"``.
    begin, end : int
        Steps, begin < end.
    start, stop : float
        Rates at u = 0 and u = 1.
    span : float
        Steps from u = 0 to u = 1, above 0.
    power : float
        Exponent of the shapes ``"root"`` and ``"power"``.
    offset : float
        Steps by which the formula's origin lies before `begin`.
    table : Table, optional
        One rate per step, for ``"table"`` only.
    """

    shape: str
    begin: int
    end: int
    start: float
    stop: float
    span: float
    power: float = 1.0
    offset: float = 0.0
    table: Table | None = None

    def rate(self, k: Any) -> Any:
        """Return the rate at the steps `k` (array of steps inside the phase, not checked)."""
        if self.table is not None:
            return self.table.values[np.asarray(k) - self.begin]
        return SHAPES[self.shape]((k - self.begin + self.offset) / self.span, self.start, self.stop, self.power)


def highest(phases: Sequence[Phase]) -> float:
    """Return the highest rate used by any step; every shape is monotone, so a phase's first and last steps decide."""
    best = 0.0
    for p in phases:
        rates = p.table.values if p.table is not None else p.rate(np.array([p.begin, p.end - 1]))
        best = max(best, float(np.max(rates)))
    return best


def warmup_steps(phases: Sequence[Phase]) -> int:
    """Return the number of steps at the start during which the rate rises.

    Of rates that are given one by one, as logged or rounded ones are, the rise may stand still for some steps; what
    follows them goes on with it if it does not begin lower.
    """
    end, last = 0, None  # the last of the single rates before a phase
    for p in phases:
        if last is not None and float(p.start if p.table is None else p.table.values[0]) < last:
            break
        last = None
        if p.table is not None:
            risen, last = _risen(p.table.values), float(p.table.values[-1])
            end = p.begin + risen if risen or not end else end
            if risen < len(p.table) - 1:
                break
        elif p.stop <= p.start:
            break
        else:
            end = p.end
    return end


def _risen(rates: Array) -> int:
    """Return the step, from 0, up to which the first rates rise, 0 if they do not; shape (T,).

    A rise may stand still for `STILL` steps, or for a quarter of the steps so far.
    """
    step = np.diff(rates)
    falls = np.flatnonzero(step < 0)
    rises = np.flatnonzero(step[: falls[0]] > 0) + 1 if len(falls) else np.flatnonzero(step > 0) + 1
    still = np.diff(rises, prepend=0)
    ends = np.flatnonzero(still > np.maximum(STILL, rises / 4))
    kept = rises[: ends[0]] if len(ends) else rises
    return int(kept[-1]) if len(kept) else 0


def restarts(rates: Array) -> int:
    """Return how often rates (T,) rise again by more than 1 % of the highest after they fell by as much."""
    step = np.diff(rates)
    moves = np.flatnonzero(step)
    turns = moves[np.flatnonzero(np.diff(np.sign(step[moves])))] + 1 if len(moves) else moves
    small = RISE_SHARE * float(np.max(rates, initial=0.0))
    count, falling, edge = 0, False, float(rates[0])
    for rate in rates[np.concatenate([turns, [len(rates) - 1]]).astype(np.intp)].tolist():
        if falling and rate > edge + small:
            count, falling, edge = count + 1, False, rate
        elif not falling and rate < edge - small:
            falling, edge = True, rate
        else:
            edge = min(edge, rate) if falling else max(edge, rate)
    return count


def is_rates(spec: Any) -> bool:
    """Return whether a schedule is given as its rates, one a step: a one-dimensional array, or a list of numbers."""
    if isinstance(spec, np.ndarray):
        return spec.ndim == 1 and spec.dtype.kind in "fiu" and len(spec) > 0
    if not isinstance(spec, list | tuple) or not spec:
        return False
    return all(isinstance(rate, Real) and not isinstance(rate, bool) for rate in spec)
