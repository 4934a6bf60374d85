"""Cells: a schedule cut into few intervals of time on which its rate is nearly constant.

Continuous time: step k covers t in [k, k+1], and the rate at t is the phase's formula at t - 1/2, so that the integral
over [a, b] equals the sum over the steps a .. b-1 up to O(1/T^2). Cells never straddle the boundary of two phases, and
which cells a schedule gets depends on that schedule alone. A phase with no more steps than its share of cells gets one
cell a step, whose mean is that step's rate exactly. The cost does not depend on the number of steps (except for
schedules given as one rate per step). It depends on the number of phases: a few share `MOST_CELLS`, but none gets fewer
than `FEWEST_CELLS`.

Towards the end of the last decay cells become narrower. A decay that reaches 0 linearly has a temperature with an
infinite slope in intrinsic time there; cells graded quadratically towards the end keep the solution near second order
(`theory/derivations/cell_solutions.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optlaws.errors import ScheduleError
from optlaws.schedules.batch import BEGIN, END, Group, Index, ScheduleBatch
from optlaws.schedules.keys import complain
from optlaws.schedules.schedule import Schedule
from optlaws.schedules.shapes import SHAPES, Array

WARM_CELLS, FLAT_CELLS, VARYING_CELLS = 6, 8, 40
LONG_WARM_CELLS = 14  # of a warm-up that is curved, or that may take half of the run: of a triangle
COLD_FLAT_CELLS, COLD_CELLS = 16, 60  # of a phase that a run begins with at full rate: norm and noise move fast there
JUMP_CELLS = 12  # of a constant rate after anything but a warm-up: the norm moves towards another size
MOST_CELLS, FEWEST_CELLS = 150, 12  # of all phases together; at least of each, where there are many
STRETCH_START, STRETCH_JUMP, STRETCH_COLD = 1.5, 2.0, 4.0
STRETCH_END, STRETCH_COLD_END = 1.6, 3.5
STRETCH_ZERO = {"linear": 2.0, "power": 2.0, "root": 2.5}  # in place of STRETCH_END: may reach 0 with a slope
TABLE_CELLS, TABLE_SWEEPS, MOST_SHARES = 150, 4, 64  # enough for 4 rises or falls; a table has at most 64 times as many
STRETCH_TABLE = 4.0  # of a table's cells towards both of its ends, in intrinsic time
STEEP_START = ("root", "reciprocal")  # shapes that may fall steeply at u = 0: cells denser there too
GAUSS = 0.5 / np.sqrt(3.0)  # nodes of two-point Gauss, as fractions of the cell from its middle


@dataclass(frozen=True, eq=False)
class Cells:
    """Cells of n schedules; padded cells have zero width.

    Attributes
    ----------
    edges : (n, K + 1) array
        Steps, not falling, from 0 to T.
    left, right : (n, K) array
        One-sided limits of the rate at the cell's ends.
    mean : (n, K) array
        Average rate of the cell.
    """

    edges: Array
    left: Array
    mean: Array
    right: Array

    @property
    def width(self) -> Array:
        """Steps in each cell, (n, K)."""
        return np.diff(self.edges, axis=1)


@lru_cache(maxsize=4096)
def _plan(shapes: tuple[str, ...], warm: bool, resolution: float) -> tuple[Array, ...]:
    """Return each phase's edges as fractions of the phase; a function of the shapes only."""
    base = [TABLE_CELLS if shape == "table" else VARYING_CELLS for shape in shapes]
    for i, shape in enumerate(shapes):
        if shape == "constant":
            base[i] = JUMP_CELLS if i > warm else FLAT_CELLS
    if warm:
        base[0] = WARM_CELLS if shapes[0] == "linear" != shapes[1] else LONG_WARM_CELLS
    elif shapes[0] != "table":
        base[0] = COLD_FLAT_CELLS if shapes[0] == "constant" else COLD_CELLS
    varying = [i for i, s in enumerate(shapes) if s not in ("constant", "table") and not (warm and i == 0)]
    whole = {*varying[-1:], *(i for i, s in enumerate(shapes) if s == "table")}  # the last decay, and tables
    given = sum(base[i] for i in whole)
    few = (MOST_CELLS - given) / max(sum(base) - given, 1)
    if few < 1:
        base = [n if i in whole else max(round(n * few), min(n, FEWEST_CELLS)) for i, n in enumerate(base)]
    fractions = []
    for i, (n, shape) in enumerate(zip(base, shapes, strict=True)):
        x = np.linspace(0.0, 1.0, max(round(n * resolution), 1) + 1)
        cold = i == 0 and not warm and shape != "table"
        if shape == "constant":
            x = x ** (STRETCH_COLD if cold else STRETCH_JUMP if i > warm else STRETCH_START)
        elif cold:
            x = 1.0 - (1.0 - x * x) ** STRETCH_COLD_END
        elif shape in STEEP_START:
            x = 1.0 - (1.0 - x * x) ** STRETCH_ZERO.get(shape, STRETCH_END)
        elif varying and i == varying[-1]:
            x = 1.0 - (1.0 - x) ** STRETCH_ZERO.get(shape, STRETCH_END)
        x.setflags(write=False)
        fractions.append(x)
    return tuple(fractions)


def cells(batch: ScheduleBatch, resolution: float = 1.0, chunk: int = 2048) -> Iterator[tuple[Index, Cells]]:
    """Cut the schedules of a batch into cells, piece by piece.

    Parameters
    ----------
    batch : ScheduleBatch
        n schedules.
    resolution : float
        Factor on the number of cells, 0.1 to 100.
    chunk : int
        Most schedules in one piece, at least 1; bounds the memory and keeps the arrays in the processor's cache.

    Yields
    ------
    index : (m,) int array
        Positions in the batch.
    cells : Cells
        Of these m schedules. Every position comes exactly once; schedules of one piece have the same number of cells.

    Raises
    ------
    ScheduleError
        `resolution` or `chunk` is out of range.

    Examples
    --------
    >>> batch = ScheduleBatch.grid("constant", peak=np.array([1.0, 2.0]), steps=1000)
    >>> [(i.tolist(), (c.mean * c.width).sum(axis=1).tolist()) for i, c in cells(batch)]
    [([0, 1], [1000.0, 2000.0])]
    """
    _check_resolution(resolution)
    if chunk < 1:
        raise complain("chunk", "at least 1 schedule", chunk, "2048 is the default")
    for group in batch.groups:
        plan = _plan(group.shapes, group.warm, float(resolution))
        for first in range(0, len(group), chunk):
            rows = slice(first, first + chunk)
            index = group.index[rows]
            piece = group if len(group) <= chunk else group.take(rows, index)
            yield index, _cut(piece, plan)


def _check_resolution(resolution: float) -> None:
    if not (isinstance(resolution, (int, float)) and 0.1 <= resolution <= 100):
        raise complain("resolution", "a number from 0.1 to 100", resolution, "1 is the default")


def _cut(group: Group, plan: tuple[Array, ...], extra: Array | None = None) -> Cells:
    """Return the cells of a group's schedules; `extra` (steps) are edges on top of the plan's, for one schedule."""
    m = len(group)
    pieces = []
    for p, x in enumerate(plan):
        begin, end = group.numbers[BEGIN, p], group.numbers[END, p]
        if group.shapes[p] == "table":
            pieces.append(_table_phase(group, p, x, extra))
            continue
        width = end - begin
        short = width <= len(x) - 1
        edges = begin[:, None] + width[:, None] * x
        if group.shapes[p] == "root":  # its slope may be infinite at u = 0: no cell shorter than the first step there
            np.maximum(edges, begin[:, None] + np.arange(len(x)), out=edges)
        edges[:, -1] = end
        if short.any():
            edges[short] = begin[short, None] + np.minimum(np.arange(len(x)), width[short, None])
        if extra is not None:
            edges = _insert(edges, extra)
        pieces.append((edges, *_formula_phase(group, p, edges, short)))
    size = sum(piece[1].shape[1] for piece in pieces)
    out = Cells(np.empty((m, size + 1)), *(np.empty((m, size)) for _ in range(3)))
    at = 0
    for edges, left, mean, right in pieces:
        to = at + left.shape[1]
        out.edges[:, at : to + 1] = edges
        out.left[:, at:to], out.mean[:, at:to], out.right[:, at:to] = left, mean, right
        at = to
    return out


def _formula_phase(group: Group, p: int, edges: Array, short: NDArray[np.bool_]) -> tuple[Array, Array, Array]:
    """Return left, mean and right rates of one phase's cells, by its formula."""
    begin, _, start, stop, span, power, offset = (group.numbers[i, p][:, None] for i in range(7))
    shape = SHAPES[group.shapes[p]]
    if group.shapes[p] == "constant":
        flat = np.broadcast_to(start, (len(edges), edges.shape[1] - 1))
        return flat, flat, flat
    u = (edges - (begin - offset + 0.5)) / span
    half = np.diff(u, axis=1) * np.where(short, 0.0, GAUSS)[:, None]
    middle = 0.5 * (u[:, :-1] + u[:, 1:])
    mean = shape(middle - half, start, stop, power)
    mean = mean if short.all() else 0.5 * (mean + shape(middle + half, start, stop, power))
    last = np.inf if group.shapes[p] == "inverse_sqrt" else 1.0  # its span is a time-scale, not its end
    limits = shape(np.clip(u, offset / span, last, out=u), start, stop, power)
    return limits[:, :-1], np.maximum(mean, 0.0), limits[:, 1:]


def _table_phase(group: Group, p: int, x: Array, extra: Array | None) -> tuple[Array, Array, Array, Array]:
    """Return edges, left, mean and right rates of a phase with one rate per step, from cumulative sums."""
    rows = []
    for i in range(len(group)):
        table = group.tables[i][p]
        if table is None:
            raise ScheduleError("a phase of one rate per step must have its table, got none; build it by from_array")
        begin = group.numbers[BEGIN, p, i]
        edges = _table_edges(table.values, len(x) - 1)
        if extra is not None:
            edges = _insert((edges + begin)[None], extra)[0] - begin
        sums = np.concatenate([[0.0], np.cumsum(table.values)])
        mean = np.diff(np.interp(edges, np.arange(len(sums)), sums)) / np.diff(edges)
        left = table.values[edges[:-1].astype(np.int64)]
        right = table.values[np.ceil(edges[1:]).astype(np.int64) - 1]
        rows.append((edges + begin, left, mean, right))
    most = max(len(row[1]) for row in rows)
    edges, left, mean, right = (np.empty((len(rows), most + (j == 0))) for j in range(4))
    for i, row in enumerate(rows):
        for out, values, fill in zip((edges, left, mean, right), row, (row[0], *[row[3]] * 3), strict=True):
            out[i, : len(values)], out[i, len(values) :] = values, fill[-1]
    return edges, left, mean, right


def _table_edges(rates: Array, share: int) -> Array:
    """Return whole steps that cut single rates (T,) into cells of a like stretch of a clock, ascending, (K + 1,).

    The clock is the total variation of the root of the rates, their highest taken as 1, so that cells become narrower
    towards a rate of 0; and intrinsic time, as a fraction s, through (s^(1/4) + 1 - (1 - s)^(1/4)) / 2, so that they do
    towards both ends of the run, and none is lost on steps whose rate is 0. A step that moves the clock by more than a
    cell is a jump: it begins a cell, once, and the other cells share the rest of the clock. `share` cells are enough
    for `TABLE_SWEEPS` rises or falls as high as the highest rate; with more of them there are more cells.
    """
    n, highest, total = len(rates), float(rates.max()), float(rates.sum())
    count = share
    if n > share and highest > 0:
        root = np.sqrt(rates / highest)
        change = np.abs(np.diff(root, prepend=root[0]))
        count = round(share * min(max(float(change.sum()) / TABLE_SWEEPS, 1.0), MOST_SHARES))
    if n <= count:
        return np.arange(n + 1.0)
    if highest == 0:
        return np.array([0.0, n])
    large = np.sort(np.partition(change, n - count)[n - count :])[::-1]
    rest = float(change.sum()) + 1.0 - np.concatenate([[0.0], np.cumsum(large[:-1])])  # without the jumps before
    jumps_on = np.append(large * np.arange(count, 0, -1) > rest, False)
    few = int(np.argmin(jumps_on))
    jumps = np.flatnonzero(change >= large[few - 1]) if few else np.empty(0, dtype=np.int64)
    change[jumps] = 0.0
    s = np.minimum(np.cumsum(rates) / total, 1.0)
    clock = np.cumsum(change) + 0.5 * (s ** (1.0 / STRETCH_TABLE) + 1.0 - (1.0 - s) ** (1.0 / STRETCH_TABLE))
    others = max(count - len(jumps), 1)
    at = np.searchsorted(clock, clock[-1] * np.arange(1, others) / others) + 1
    live = np.flatnonzero(rates)[[0, -1]] + [0, 1]
    return np.unique(np.concatenate([[0], jumps, at, live, [n]])).astype(np.float64)


def _insert(edges: Array, extra: Array) -> Array:
    """Return one row of edges with the `extra` ones inside its range added."""
    inside = extra[(extra > edges[0, 0]) & (extra < edges[0, -1])]
    return np.union1d(edges[0], inside)[None]


def cells_at(schedule: Schedule, steps: Any, resolution: float = 1.0) -> Cells:
    """Cut one schedule into cells whose edges contain the given steps exactly, for whole curves.

    Parameters
    ----------
    schedule : Schedule
        The schedule.
    steps : (m,) array
        Steps, 0 <= step <= T; t = k is the state after k updates. Any order, repeats allowed.
    resolution : float
        Factor on the number of cells between them, 0.1 to 100.

    Returns
    -------
    Cells
        n = 1; ``np.searchsorted(cells.edges[0], steps)`` finds the steps.

    Raises
    ------
    ScheduleError
        A step lies outside 0 .. T, or `resolution` is out of range.
    """
    _check_resolution(resolution)
    extra = np.asarray(steps, dtype=np.float64).ravel()
    bad = np.flatnonzero(~((extra >= 0) & (extra <= schedule.total_steps)))
    if len(bad):
        raise complain("step", f"from 0 to {schedule.total_steps}", float(extra[bad[0]]), "drop steps outside the run")
    group = ScheduleBatch.from_schedules([schedule]).groups[0]
    return _cut(group, _plan(group.shapes, group.warm, float(resolution)), np.unique(extra))
