"""Run tables from and to data frames, without needing a library of them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from optlaws.errors import InputError, TableError
from optlaws.runs._cells import RawTable, check_header
from optlaws.runs._given import plain, rates_as_text

if TYPE_CHECKING:
    from optlaws.runs._table import RunTable

_NAME = "data frame"
_LISTS = ("tolist", "to_list", "to_pylist")


def raw_from_frame(frame: Any, needed: str = "run_id and schedule") -> RawTable:
    """Return the columns of a data frame, or of a mapping of columns, as raw cells; rows are counted from 1.

    `needed` are the columns that must be there, for messages.

    Raises
    ------
    TableError
        If it is neither, a column's name is no text or occurs twice, the columns differ in length, or there is no row.
    """
    if isinstance(frame, Mapping):
        names = list(frame)
    elif hasattr(frame, "columns") and hasattr(frame, "__getitem__"):
        names = list(frame.columns)
    else:
        raise TableError(
            f"frame must be a data frame or a mapping of column name to cells, got {type(frame).__name__}; "
            "use RunTable.build to make a table of schedules"
        )
    for name in names:
        if not isinstance(name, str):
            raise TableError(f"{_NAME}: names of columns must be text, got {name!r:.60}; rename the column")
    if not names:
        raise TableError(f"{_NAME}: no column; {needed} are needed")
    check_header(names, _NAME)
    columns = {name: _cells(name, frame[name]) for name in names}
    count = max(map(len, columns.values()))
    for name, cells in columns.items():
        if len(cells) != count:
            raise TableError(f"{_NAME}: column {name!r} must have {count} cells as the others, got {len(cells)}")
    if not count:
        raise TableError(f"{_NAME}: no row; at least one run is needed")
    return RawTable(columns, range(1, count + 1), "row", _NAME, "it")


def _cells(name: str, column: Any) -> list[Any]:
    """Return the cells of one column as plain Python values, missing ones as None."""
    if isinstance(column, str) or not hasattr(column, "__iter__"):
        raise TableError(f"{_NAME}: column {name!r} must be a list of cells, got {column!r:.60}; put it into a list")
    given = next((getattr(column, way) for way in _LISTS if hasattr(column, way)), None)
    cells = list(column) if given is None else given()
    if name == "schedule":
        cells = [rates_as_text(cell, f"{_NAME}, row {row}") for row, cell in enumerate(cells, start=1)]
    return [plain(cell) for cell in cells]


def frame_of(table: RunTable) -> Any:
    """Return a run table as a pandas DataFrame, with the columns that are written to files.

    Raises
    ------
    InputError
        If pandas is not installed.
    """
    from optlaws.runs._write import written_columns

    return data_frame(written_columns(table))


def data_frame(columns: Mapping[str, Any]) -> Any:
    """Return columns of equal length as a pandas DataFrame; texts that are "" are None.

    Raises
    ------
    InputError
        If pandas is not installed.
    """
    try:
        pandas = import_module("pandas")
    except ImportError:
        raise InputError(
            "to_frame needs pandas, which is not installed; install it (pip install pandas) or take the columns"
            " themselves (RunTable.column)"
        ) from None
    cells = {
        name: values if isinstance(values, np.ndarray) and values.dtype == np.float64 else [v or None for v in values]
        for name, values in columns.items()
    }
    return pandas.DataFrame(cells)
