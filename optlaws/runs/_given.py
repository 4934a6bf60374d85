"""What a caller hands over for a run table: schedules, numbers and texts, one for all runs or one a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from optlaws.errors import TableError
from optlaws.runs._cells import RawTable, as_text
from optlaws.runs._checks import COUNTS, FloatArray
from optlaws.schedules import Schedule, ScheduleBatch
from optlaws.schedules.shapes import is_rates

_MISSING = ("NAType", "NaTType")  # of pandas, which is not imported


def plain(cell: Any) -> Any:
    """Return a cell as a plain Python value: None for None, NaN and pandas' NA, 7 for 7.0, JSON for a schedule.

    >>> plain(np.float64("nan")), plain(7.0), plain(np.str_("a"))
    (None, 7, 'a')
    """
    if isinstance(cell, np.generic):
        cell = cell.item()
    if type(cell).__name__ in _MISSING or (isinstance(cell, float) and cell != cell):
        return None
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 1e16:
        return int(cell)  # whole numbers beside missing ones, which pandas keeps as 1.0
    return cell.to_json() if isinstance(cell, Schedule) else cell


def given_schedules(value: Any) -> Sequence[Any] | ScheduleBatch:
    """Return the schedules of a table, one a run, rates as JSON texts.

    Raises
    ------
    TableError
        If the rates of a run are none.
    """
    if isinstance(value, ScheduleBatch):
        return value
    one = isinstance(value, Schedule | str | Mapping) or not hasattr(value, "__iter__")
    each = (value,) if one else tuple(value)
    each = (each,) if not one and is_rates(each) else each
    return tuple(rates_as_text(cell, f"run {row}") for row, cell in enumerate(each, start=1))


def rates_as_text(cell: Any, where: str) -> Any:
    """Return the JSON text of the schedule with these rates; anything else as it is.

    Raises
    ------
    TableError
        If a rate is none.
    """
    from optlaws.runs._rates import text_of_rates

    return text_of_rates(cell, where) if is_rates(cell) else cell


def given_numbers(name: str, value: Any, n: int) -> FloatArray:
    """Return a column of numbers, (n,): one for all, or n; None, NaN and NA are NaN; counts may be written like 85M.

    Raises
    ------
    TableError
        If a value is no number, or there are not n.
    """
    bad = f"column {name!r} must be one number or {n} numbers, got {value!r:.80}"
    try:
        array = np.asarray(np.nan if value is None else value, dtype=np.float64)
    except (TypeError, ValueError):
        cells = [plain(cell) for cell in _each(value, 1)]
        try:
            array = RawTable({name: cells}, range(1, len(cells) + 1), "run", "runs").numbers(name, count=name in COUNTS)
        except TableError:
            raise TableError(bad) from None
    try:
        return np.array(np.broadcast_to(array, (n,)))
    except ValueError:
        raise TableError(bad) from None


def given_texts(name: str, value: Any, n: int) -> tuple[str, ...]:
    """Return a column of texts, n: one for all, or n; numbers as `repr` writes them; None, NaN and NA are "".

    Raises
    ------
    TableError
        If there are not n.
    """
    if value is None or isinstance(value, str):
        return ((value or "").strip(),) * n
    texts = tuple(_text(cell) for cell in _each(value, n))
    if len(texts) != n:
        raise TableError(f"column {name!r} must have {n} entries, one a run, got {len(texts)}")
    return texts


def _text(cell: Any) -> str:
    return cell.strip() if isinstance(cell, str) else as_text(plain(cell))


def _each(value: Any, n: int) -> Sequence[Any]:
    """Return the cells of a column: those of a list or an array, or n times the one value that holds for all."""
    if isinstance(value, str) or not hasattr(value, "__iter__") or getattr(value, "ndim", 1) == 0:
        return (value,) * n
    return tuple(value)


def objects(values: Sequence[str]) -> npt.NDArray[Any]:
    """Return texts as an array of objects (n,)."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array
