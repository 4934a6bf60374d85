"""Many schedules as arrays: no Python object per schedule, so that a million of them fit and are fast.

A batch is a list of groups; the schedules of a group have the same phases by shape and differ only in their numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optlaws.errors import ScheduleError
from optlaws.schedules.families import FAMILIES, Row
from optlaws.schedules.keys import complain, need, number
from optlaws.schedules.schedule import Schedule, family_of, read
from optlaws.schedules.shapes import SHAPES, Array, Phase, Table, highest, restarts, warmup_steps

Index = NDArray[np.int64]
BEGIN, END, START, STOP, SPAN, POWER, OFFSET = range(7)


@dataclass(frozen=True, eq=False)
class Group:
    """Schedules with phases of the same shapes.

    Attributes
    ----------
    index : (m,) int array
        Positions in the batch.
    shapes : tuple of str
        Shapes of the P phases.
    warm : bool
        Whether the first of several phases rises (a warm-up).
    numbers : (7, P, m) array
        begin, end (steps), start, stop (rates), span (steps), power, offset (steps) of every phase.
    tables : tuple
        For schedules with one rate per step: per schedule, the table of each phase or None; else empty.
    """

    index: Index
    shapes: tuple[str, ...]
    warm: bool
    numbers: Array
    tables: tuple[tuple[Table | None, ...], ...] = ()

    def __len__(self) -> int:
        """Return the number of schedules."""
        return len(self.index)

    def take(self, rows: Any, index: Index) -> Group:
        """Return the schedules at `rows` (k,) of this group, at the positions `index` (k,) of another batch."""
        tables = tuple(self.tables[i] for i in np.arange(len(self))[rows]) if self.tables else ()
        return Group(index, self.shapes, self.warm, self.numbers[:, :, rows], tables)

    def scaled(self, factor: Array) -> Group:
        """Return the schedules with their rates multiplied by `factor` (m,)."""
        numbers = self.numbers.copy()
        numbers[[START, STOP]] *= factor
        pairs = zip(self.tables, factor.tolist(), strict=True) if self.tables else ()
        tables = tuple(tuple(Table(t.values * f) if t else None for t in row) for row, f in pairs)
        return Group(self.index, self.shapes, self.warm, numbers, tables)

    def phases(self, row: int) -> tuple[Phase, ...]:
        """Return the phases of one schedule."""
        tables = self.tables[row] if self.tables else (None,) * len(self.shapes)
        return tuple(
            Phase(*(shape, int(x[BEGIN]), int(x[END]), *x[START:].tolist(), table))
            for shape, x, table in zip(self.shapes, self.numbers[:, :, row].T, tables, strict=True)
        )

    def rate(self, phase: int, steps: Array) -> Array:
        """Return the rates of one phase with a formula at `steps` (m, ...), of their shape, which may lie outside."""
        _, _, start, stop, span, power, offset = (
            self.numbers[i, phase].reshape(-1, *(1,) * (steps.ndim - 1)) for i in range(7)
        )
        begin = self.numbers[BEGIN, phase].reshape(start.shape)
        return np.asarray(SHAPES[self.shapes[phase]]((steps - begin + offset) / span, start, stop, power))


@dataclass(frozen=True, eq=False)
class ScheduleBatch:
    """Schedules as a struct of arrays.

    Attributes
    ----------
    groups : tuple of Group
        Together they hold every position 0 .. n-1 once.
    total_steps, warmup_steps : (n,) array
        Steps; as in `Schedule`.
    peak : (n,) array
        Highest rate used by any step.

    Examples
    --------
    >>> batch = ScheduleBatch.grid("wsd", peak=np.array([1e-3, 2e-3]), steps=1000, warmup=100, decay=0.2)
    >>> len(batch), batch.peak.tolist()
    (2, [0.001, 0.002])
    """

    groups: tuple[Group, ...]
    size: int

    def __len__(self) -> int:
        """Return the number of schedules."""
        return self.size

    @classmethod
    def from_schedules(cls, schedules: Sequence[Schedule]) -> ScheduleBatch:
        """Return the batch of the given schedules, in their order."""
        members: dict[tuple[Any, ...], list[int]] = {}
        for i, s in enumerate(schedules):
            rows = s.rows
            signature = (*(r[0] for r in rows), _warm(rows))
            members.setdefault(signature, []).append(i)
        groups = []
        for (*shapes, warm), index in members.items():
            numbers = np.array([[r[1:] for r in schedules[i].rows] for i in index], dtype=np.float64)
            tables = tuple(schedules[i].tables for i in index) if "table" in shapes else ()
            numbers = np.ascontiguousarray(numbers.transpose(2, 1, 0))
            groups.append(Group(np.array(index, dtype=np.int64), tuple(shapes), warm, numbers, tables))
        return cls(tuple(groups), len(schedules))

    @classmethod
    def grid(cls, kind: str, /, **parameters: Any) -> ScheduleBatch:
        """Return one family's schedules over arrays of parameters, broadcast against one another and flattened.

        Parameters
        ----------
        kind : str
            A family other than ``"piecewise"``, ``"array"`` and ``"chain"``.
        **parameters
            As for the family's function; numbers may be arrays. Shapes, counts and lists are the same for all.

        Raises
        ------
        ScheduleError
            As for a single schedule; names the first value that is out of range.
        """
        family = FAMILIES.get(kind) if isinstance(kind, str) else None
        if family is None or not family.grid:
            if family is None and kind != "chain":
                family_of(kind)
            raise complain("kind of a grid", "a family with a fixed list of numbers", kind, "use from_schedules")
        values = read(family, parameters)
        rows = family.rows(values)
        try:
            shape = np.broadcast_shapes(*(np.shape(x) for row in rows for x in row[1:]))
        except ValueError:
            sizes = {k: np.shape(v) for k, v in values.items() if np.ndim(v)}
            way_out = "give arrays of one length"
            raise complain("parameters of a grid", "arrays that broadcast", sizes, way_out) from None
        size = int(np.prod(shape))
        numbers = np.empty((7, len(rows), *shape))
        for j, row in enumerate(rows):
            for i, x in enumerate(row[1:]):
                numbers[i, j] = x
        numbers = numbers.reshape(7, len(rows), size)
        return cls(_split(tuple(r[0] for r in rows), numbers), size)

    def __getitem__(self, which: slice | NDArray[Any] | Sequence[int]) -> ScheduleBatch:
        """Return the schedules of a slice, a mask (n,), or a list of positions, in that order.

        Raises
        ------
        ScheduleError
            It is one position.
        IndexError
            A position lies outside the batch, or a mask has another length.
        """
        if isinstance(which, (int, np.integer)):
            raise ScheduleError(f"index of a batch must be a slice, mask or list, got {which!r}; write batch[i:i+1]")
        chosen = np.arange(self.size)[which]
        group_of = np.empty(self.size, dtype=np.int64)
        row_of = np.empty(self.size, dtype=np.int64)
        for g, group in enumerate(self.groups):
            group_of[group.index], row_of[group.index] = g, np.arange(len(group))
        groups = []
        for g, group in enumerate(self.groups):
            index = np.flatnonzero(group_of[chosen] == g)
            if len(index):
                groups.append(group.take(row_of[chosen[index]], index))
        return ScheduleBatch(tuple(groups), len(chosen))

    def scaled(self, factor: Any) -> ScheduleBatch:
        """Return the schedules with every rate of schedule i multiplied by `factor[i]`, or all by one number.

        Raises
        ------
        ScheduleError
            A factor is not a finite number above 0, or there is neither one nor one for each schedule.
        """
        value = np.asarray(number("factor", factor), dtype=np.float64)
        if value.shape not in ((), (1,), (self.size,)):
            raise complain("factor", f"one number or {self.size} of them", factor, "give one for each schedule")
        every = np.broadcast_to(value, (self.size,))
        need((every > 0) & (every < np.inf), "factor", "finite and above 0", every, "name a number like 0.5")
        return ScheduleBatch(tuple(group.scaled(every[group.index]) for group in self.groups), self.size)

    def _gather(self, what: Any) -> Array:
        out = np.empty(self.size)
        for group in self.groups:
            out[group.index] = what(group)
        return out

    @cached_property
    def total_steps(self) -> Array:
        """Steps of each run, (n,)."""
        return self._gather(lambda g: g.numbers[END, -1])

    @cached_property
    def warmup_steps(self) -> Array:
        """Steps at the start during which the rate rises, (n,)."""
        return self._gather(_warmup_steps)

    @cached_property
    def peak(self) -> Array:
        """Highest rate used by any step, (n,)."""
        return self._gather(_peak)

    @cached_property
    def restarts(self) -> Array:
        """Times that the rate rises again after a fall, (n,); of single rates by 1 % of the highest at least."""
        return self._gather(_restarts)


def _warm(rows: Sequence[Row]) -> bool:
    """Return whether the first of several phases rises."""
    return len(rows) > 1 and bool(rows[0][3] < rows[0][4])


def _split(shapes: tuple[str, ...], numbers: Array) -> tuple[Group, ...]:
    """Return groups of columns that have the same phases once those without a step are dropped."""
    if not numbers.shape[2]:
        return ()
    kept = numbers[BEGIN] < numbers[END]  # (P, n)
    first = np.argmax(kept, axis=0)
    columns = np.arange(numbers.shape[2])
    warm = (numbers[START, first, columns] < numbers[STOP, first, columns]) & (kept.sum(axis=0) > 1)
    if kept.all() and (warm.all() or not warm.any()):  # all alike: nothing to sort
        return (Group(columns, shapes, bool(warm[0]), numbers),)
    pattern = np.packbits(np.vstack([kept, warm[None]]), axis=0)
    _, inverse = (
        np.unique(pattern, axis=1, return_inverse=True)
        if len(pattern) > 1
        else np.unique(pattern[0], return_inverse=True)
    )
    inverse = np.ravel(inverse)
    order = np.argsort(inverse, kind="stable")
    cuts = np.flatnonzero(np.diff(inverse[order])) + 1
    groups = []
    for index in np.split(order, cuts):
        mask = kept[:, index[0]]
        part = numbers if mask.all() and len(index) == numbers.shape[2] else numbers[:, mask][:, :, index]
        names = tuple(s for s, keep in zip(shapes, mask, strict=True) if keep)
        groups.append(Group(index, names, bool(warm[index[0]]), part))
    return tuple(groups)


def _warmup_steps(group: Group) -> Array:
    if group.tables:
        return np.array([warmup_steps(group.phases(i)) for i in range(len(group))], dtype=np.float64)
    out, rising = np.zeros(len(group)), np.ones(len(group), dtype=bool)
    for p in range(len(group.shapes)):
        rising = rising & (group.numbers[STOP, p] > group.numbers[START, p])
        if not rising.any():
            break
        out = np.where(rising, group.numbers[END, p], out)
    return out


def _peak(group: Group) -> Array:
    if group.tables:
        return np.array([highest(group.phases(i)) for i in range(len(group))])
    out = np.zeros(len(group))
    for p in range(len(group.shapes)):
        ends = np.stack([group.numbers[BEGIN, p], group.numbers[END, p] - 1], axis=1)
        out = np.maximum(out, group.rate(p, ends).max(axis=1))
    return out


def _corners(phases: Sequence[Phase]) -> Array:
    """Return the rates of single steps, and those at both ends of every other phase."""
    return np.concatenate(
        [p.table.values if p.table is not None else p.rate(np.array([p.begin, p.end - 1])) for p in phases]
    )


def _restarts(group: Group) -> Array:
    if group.tables:
        return np.array([restarts(_corners(group.phases(i))) for i in range(len(group))], dtype=np.float64)
    rates = []  # at the first and the last step of every phase
    for p in range(len(group.shapes)):
        rates.append(group.rate(p, np.stack([group.numbers[BEGIN, p], group.numbers[END, p] - 1], axis=1)))
    values = np.concatenate(rates, axis=1)
    step = np.diff(values, axis=1)
    small = 1e-9 * values.max(axis=1, keepdims=True)
    fallen = np.logical_or.accumulate(step < -small, axis=1)
    rising = step > small
    begins = rising[:, 1:] & ~rising[:, :-1] & fallen[:, :-1]
    return np.asarray(begins.sum(axis=1), dtype=np.float64)
