"""Writing run tables and other columns."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from optlaws.errors import TableError, nearest
from optlaws.runs._files import atomic_write
from optlaws.runs._table import NUMBER_COLUMNS, RunTable

Column = Sequence[Any] | npt.NDArray[Any]


def write_runs(
    path: str | os.PathLike[str], table: RunTable, extra_columns: Mapping[str, Column] | None = None
) -> None:
    """Write a run table as CSV, JSON lines or Parquet, by suffix; "-" writes CSV to standard output.

    The columns are those of the file that the table was read from (all known ones for a table built by hand), in its
    order, then `extra_columns`, which replace columns of the same name. Numbers are written in full, so that reading
    them back gives the same table; schedules as they were read, in full as JSON where they were not. The file takes its
    name only when it is complete.

    Parameters
    ----------
    path
        The file, or "-".
    table
        The n runs.
    extra_columns
        More columns, n entries each; NaN, None and "" are empty cells.

    Raises
    ------
    TableError
        If the suffix is not known, a column has another length, or the table holds a `ScheduleBatch`.
    InputError
        If the file cannot be written there.
    """
    added = dict(extra_columns or {})
    kept = {name: values for name, values in written_columns(table).items() if name not in added}
    write_columns(path, {**kept, **added}, len(table))


def written_columns(table: RunTable) -> dict[str, Column]:
    """Return the columns of a run table, each (n,), as written: those of its file; errors as for `schedule_tuple`."""
    return {name: table.schedule_cells() if name == "schedule" else table.column(name) for name in table.columns}


def write_columns(path: str | os.PathLike[str], columns: Mapping[str, Column], n: int | None = None) -> None:
    """Write columns of equal length as CSV, TSV, JSON lines or Parquet, by suffix; "-" is CSV on standard output.

    Parameters
    ----------
    path
        The file, or "-".
    columns
        Entries by column name: numbers, true/false, text, or None; a NaN is an empty cell.
    n
        The number of rows, checked where given.

    Raises
    ------
    TableError
        If the suffix is not known, the columns differ in length, or Parquet is asked for without pyarrow.
    InputError
        If the file cannot be written there.
    """
    lengths = {name: len(values) for name, values in columns.items()}
    n = next(iter(lengths.values()), 0) if n is None else n
    for name, length in lengths.items():
        if length != n:
            raise TableError(f"column {name!r} must have {n} entries, one a row, got {length}")
    suffix = check_table_name(path)
    if suffix in (".csv", ".tsv", ".txt"):
        cells = [list(map(_csv_cell, _plain(values))) for values in columns.values()]
        with atomic_write(path) as stream:
            writer = csv.writer(stream, lineterminator="\n", delimiter="\t" if suffix == ".tsv" else ",")
            writer.writerow(columns)
            writer.writerows(zip(*cells, strict=True))
    elif suffix in (".jsonl", ".ndjson"):
        plain = [list(map(_json_cell, name_values)) for name_values in _json_columns(columns)]
        with atomic_write(path) as stream:
            for row in zip(*plain, strict=True):
                stream.write(json.dumps(dict(zip(columns, row, strict=True))) + "\n")
    else:
        _write_parquet(path, columns)


def check_table_name(path: str | os.PathLike[str]) -> str:
    """Return the suffix that says how a table is written (.csv for "-"); a `TableError` if it says nothing."""
    suffix = Path(path).suffix.lower() if str(path) not in ("-", os.devnull) else ".csv"
    if suffix not in (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".parquet", ".pq"):
        hint = nearest(suffix, [".csv", ".tsv", ".jsonl", ".parquet"]) if suffix else ""
        raise TableError(f"{path}: the suffix must be .csv, .tsv, .jsonl or .parquet, got {suffix or 'none'!r}{hint}")
    return suffix


def _plain(values: Column) -> Iterable[Any]:
    return values.tolist() if isinstance(values, np.ndarray) else values


def _csv_cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, float):
        return number_text(value)
    return str(value)


def number_text(value: float) -> str:
    """Return the shortest text that reads back as the same float; whole numbers without a point, NaN as "".

    >>> number_text(31457280.0), number_text(0.001), number_text(float("nan"))
    ('31457280', '0.001', '')
    """
    if math.isnan(value):
        return ""
    return str(int(value)) if value.is_integer() and abs(value) < 1e16 else repr(float(value))


def _json_columns(columns: Mapping[str, Column]) -> Iterable[list[Any]]:
    for name, values in columns.items():
        plain = list(_plain(values))
        if name == "schedule":
            plain = [json.loads(v) if isinstance(v, str) and v.startswith("{") else v for v in plain]
        yield plain


def _json_cell(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        if not math.isfinite(value):
            return None
        number = float(value)
        return int(number) if number.is_integer() and abs(number) < 1e16 else number
    if isinstance(value, np.generic):
        return value.item()
    return None if value == "" else value


def _write_parquet(path: str | os.PathLike[str], columns: Mapping[str, Column]) -> None:
    try:
        pa, pq = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        message = f"{path}: writing Parquet needs pyarrow; install it (pip install pyarrow) or write CSV"
        raise TableError(message) from None
    arrays = {}
    for name, values in columns.items():
        plain = [None if isinstance(v, float) and math.isnan(v) else v for v in _plain(values)]
        if name in NUMBER_COLUMNS:
            arrays[name] = pa.array(plain, type=pa.float64())
        else:
            arrays[name] = pa.array([None if v == "" else v for v in plain])
    with atomic_write(path, "wb") as stream:
        pq.write_table(pa.table(arrays), stream)
