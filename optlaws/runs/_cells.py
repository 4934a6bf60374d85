"""Raw tables: columns of cells with the place of every row, read from CSV, JSON lines or Parquet."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from optlaws.errors import InputError, TableError, nearest
from optlaws.runs._files import read_bytes, read_text
from optlaws.runs._headers import columns_advice
from optlaws.schedules import FAMILIES
from optlaws.schedules.quantity import parse_quantity
from optlaws.schedules.schedule import no_repeats

SHEETS = (".xlsx", ".xls", ".ods", ".numbers")  # of spreadsheets
LEAVE_EMPTY = "leave it empty if unknown"
_CSV_LOCK = threading.Lock()
_BLOCK = 512  # rows of a CSV table that are held as rows; many are slow, as the collector of garbage walks over them
_VALUES = 2**15  # of a column of a CSV table that are looked for again
_PART = 2**20  # characters of a CSV table that are split into lines at a time
_CSV_LIMIT = 2**31 - 1  # characters in one cell: a schedule of a million rates is one cell


def schedule_keys(names: Iterable[Any]) -> list[str]:
    """Return those of the names that only a schedule has: its family and the parameters of families but `steps`.

    >>> schedule_keys(["family", "params", "peak", "steps"])
    ['family', 'peak']
    """
    known = {name for family in FAMILIES.values() for key in family.keys for name in (key.name, key.json)}
    return [name for name in names if name in (known | {"family", "kind"}) - {"steps"}]


@dataclass(frozen=True)
class RawTable:
    """Columns of unchecked cells.

    Attributes
    ----------
    columns
        Cells by column name, in the file's order; each list has one cell a row. A missing cell is None or "".
    places
        Line (CSV, JSON lines) or row (Parquet) number of every row, from 1.
    unit
        "line" or "row".
    name
        The file's name in messages.
    what
        What the table is in messages.
    """

    columns: dict[str, list[Any]]
    places: Sequence[int]
    unit: str
    name: str
    what: str = "the file"

    def where(self, row: int) -> str:
        """Return "runs.csv, line 7" for a row index from 0."""
        return f"{self.name}, {self.unit} {self.places[row]}"

    def require(self, names: Sequence[str], of_runs: bool = False) -> None:
        """Raise a `TableError` naming the columns that are not there; `of_runs`: it is a file of runs."""
        lost = [name for name in names if name not in self.columns]
        if lost:
            others = [c for c in self.columns if c not in names]
            other_case = [c for c in others if c.lower() in lost]
            only = others[0] if len(self.columns) == 1 and others else ""
            if set(";\t|") & set(only):
                other = next(mark for mark in ";\t|" if mark in only)
                hint = f"; its cells are parted by {other!r}: write commas, or name a tab-separated file .tsv"
            elif lost == ["schedule"] and schedule_keys(self.columns):
                hint = (
                    "; add a column family with the name of the schedule's family, like cosine, or write a schedule in"
                    ' one cell of it, like "cosine:peak=1e-3,warmup=300,steps=20000" (in quotes)'
                )
            elif other_case and (len(other_case) == len(lost) or not of_runs):
                hint = f"; names are in lower case: rename {', '.join(map(repr, other_case))}"
            elif of_runs and self.what == "the file":
                hint = columns_advice(lost, list(self.columns))
            else:
                hint = nearest(lost[0], others)
            what = f"column{'s' if len(lost) > 1 else ''} {', '.join(map(repr, lost))}"
            raise TableError(f"{self.name}: missing {what}; {self.what} has {', '.join(self.columns)}{hint}")

    def numbers(
        self, name: str, missing: Callable[[int], bool] | None = None, count: bool = False, way: str = LEAVE_EMPTY
    ) -> npt.NDArray[np.float64]:
        """Return a column as float64, shape (n,); an empty cell is NaN.

        Parameters
        ----------
        name
            The column.
        missing
            Tells for a row index whether a written NaN may stand for "missing" there; nowhere if left out.
        count
            Whether the numbers may be written like 85M or 2.56B.
        way
            What to do about a cell that is no number, in messages.

        Raises
        ------
        TableError
            If a cell holds text, true/false or a written NaN.
        """
        cells = self.columns[name]
        try:
            read = (float(c) if c is not None and c != "" else math.nan for c in cells)
            values = np.fromiter(read, np.float64, len(cells))
        except (TypeError, ValueError, OverflowError):
            values = np.array(
                [self._number(name, row, cell, count, way) for row, cell in enumerate(cells)], dtype=np.float64
            )
        for row in np.flatnonzero(np.isnan(values)).tolist():
            cell = cells[row]
            if cell is None or (isinstance(cell, str) and not cell.strip()):
                continue
            if missing is None or not missing(int(row)):
                raise TableError(f"{self.where(int(row))}: {name} must be a number, got {cell}; {way}")
        if bool in set(map(type, cells)):
            row = next(i for i, c in enumerate(cells) if isinstance(c, bool))
            raise TableError(f"{self.where(row)}: {name} must be a number, got {cells[row]}; {way}")
        return values

    def _number(self, name: str, row: int, cell: Any, count: bool, way: str) -> float:
        if cell is None or (isinstance(cell, str) and not cell.strip()):
            return math.nan
        try:
            return float(cell)
        except (TypeError, ValueError, OverflowError):
            pass
        if count and isinstance(cell, str):
            with suppress(InputError):
                return parse_quantity(cell, name)
        raise TableError(f"{self.where(row)}: {name} must be a number, got {clip(cell)}; {way}")

    def texts(self, name: str) -> list[str]:
        """Return a column as text; a missing cell is ""; surrounding blanks are dropped."""
        return [cell.strip() if isinstance(cell, str) else as_text(cell) for cell in self.columns[name]]


def as_text(cell: Any) -> str:
    """Return a cell as text: "" for missing, JSON for true, false, lists and objects, the shortest form of a number."""
    if cell is None:
        return ""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, bool | list | dict):
        return json.dumps(cell, default=str)
    if isinstance(cell, float) and math.isnan(cell):
        return ""
    return str(cell)


def clip(cell: Any) -> str:
    """Return a cell for a message, at most 60 characters of it.

    >>> clip("abc")
    "'abc'"
    """
    text = repr(cell)
    return text if len(text) <= 60 else text[:57] + "..."


def read_raw(path: str | os.PathLike[str]) -> RawTable:
    """Read a table by its suffix: .csv, .tsv, .jsonl (or .ndjson), .parquet; "-" is CSV or JSON lines, as it starts.

    Raises
    ------
    TableError
        If the file cannot be read, is empty, or has rows that do not fit its header.
    """
    suffix = Path(path).suffix.lower()
    if suffix in (".parquet", ".pq"):
        return _read_parquet(path)
    if str(path) != "-" and suffix not in (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json"):
        hint = nearest(suffix, [".csv", ".tsv", ".jsonl", ".parquet"]) if suffix else ""
        hint = "; save the sheet as CSV" if suffix in SHEETS else hint
        raise TableError(f"{path}: the suffix must be .csv, .tsv, .jsonl or .parquet, got {suffix or 'none'!r}{hint}")
    text, name = read_text(path)
    if suffix in (".jsonl", ".ndjson", ".json") or (str(path) == "-" and text.lstrip()[:1] in "{["):
        return raw_from_json(text, name)
    return raw_from_csv(text, name, "\t" if suffix == ".tsv" else ",")


def raw_from_csv(text: str, name: str, delimiter: str = ",") -> RawTable:
    """Split CSV text with a header into columns; blank lines are skipped.

    Raises
    ------
    TableError
        With the line, if the quotes are wrong, a row has another length, a column has no name or occurs twice, or there
        is no row.
    """
    columns: list[list[str]] = []
    places, short = array("q"), None  # lines of the rows; the first row of another length
    with _long_cells():
        reader = csv.reader(_lines(text), delimiter=delimiter, strict=True)
        try:
            header = next((row for row in reader if any(cell.strip() for cell in row)), [])
            columns = [[] for _ in header]
            known: list[dict[str, str]] = [{} for _ in header]
            while rows := list(islice(_placed_rows(reader, places), _BLOCK)):
                if short is None and set(map(len, rows)) != {len(header)}:
                    first = next(i for i, row in enumerate(rows) if len(row) != len(header))
                    short = len(rows[first]), places[first - len(rows)]
                if short is None:
                    for column, cells, names in zip(columns, zip(*rows, strict=True), known, strict=True):
                        column.extend(_shared(cells, names))
        except csv.Error as bad:
            raise TableError(f"{name}, line {reader.line_num}: not a CSV table ({bad}); check the quotes") from None
    header = [cell.strip() for cell in header]
    check_header(header, name)
    if short is not None:
        if delimiter == "," and ";".join(header).count(";") >= max(len(header), 1) and ";" in header[0]:
            raise TableError(
                f"{name}, line {short[1]}: columns are separated by ';' and decimals by ','; save it with commas and"
                " points"
            )
        raise TableError(
            f"{name}, line {short[1]}: {short[0]} cells where the header has {len(header)}; is the file cut off?"
        )
    if not places:
        raise TableError(f"{name}: only a header and no row; at least one run is needed")
    return RawTable(dict(zip(header, columns, strict=True)), places, "line", name)


def _lines(text: str) -> Iterator[str]:
    """Yield the lines of a text as a file opened with newline="" does, a part of the text at a time."""
    start = 0
    while start < len(text):
        end = text.find("\n", start + _PART) + 1 or len(text)
        yield from io.StringIO(text[start:end], newline="")
        start = end


def _placed_rows(reader: Any, places: array[int]) -> Iterator[list[str]]:
    """Yield the rows of a CSV reader that are not blank, and append the line that each begins in to `places`."""
    start = reader.line_num + 1
    for row in reader:
        if row and (len(row) > 1 or row[0].strip()):
            places.append(start)
            yield row
        start = reader.line_num + 1


def _shared(cells: Sequence[str], known: dict[str, str]) -> Iterable[str]:
    """Return cells with one object for equal ones, as names and steps are, unless the column has too many values."""
    return cells if len(known) > _VALUES else map(known.setdefault, cells, cells)


def raw_from_json(text: str, name: str) -> RawTable:
    """Read JSON lines (one object a line) or one JSON list of objects into columns; absent keys are missing cells.

    Raises
    ------
    TableError
        With the line, if it is not valid JSON, an entry is no object, or there is none.
    """
    records: list[tuple[int, Any]] = []
    if text.lstrip().startswith("["):
        try:
            records = list(enumerate(json.loads(text, object_pairs_hook=no_repeats), start=1))
        except (ValueError, RecursionError) as bad:
            raise TableError(f"{name}: not valid JSON ({bad}); is the file cut off?") from None
        unit = "entry"
    else:
        unit = "line"
        for place, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                try:
                    records.append((place, json.loads(line, object_pairs_hook=no_repeats)))
                except (ValueError, RecursionError) as bad:
                    raise TableError(f"{name}, line {place}: not valid JSON ({bad}); is the file cut off?") from None
    for place, record in records:
        if not isinstance(record, dict):
            raise TableError(f"{name}, {unit} {place}: a JSON object with the columns is needed, got {clip(record)}")
    if not records:
        raise TableError(f"{name}: no row; at least one run is needed")
    header = list(dict.fromkeys(key for _, record in records for key in record))
    check_header(header, name)
    columns = {key: [record.get(key) for _, record in records] for key in header}
    return RawTable(columns, [place for place, _ in records], unit, name)


def _read_parquet(path: str | os.PathLike[str]) -> RawTable:
    data = read_bytes(path)
    if not data:
        raise TableError(f"{path}: the file is empty; it needs at least one row")
    try:
        pa, pq = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        message = f"{path}: reading Parquet needs pyarrow; install it (pip install pyarrow) or give the table as CSV"
        raise TableError(message) from None
    try:
        table = pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError, ValueError) as bad:
        reason = str(bad).splitlines()[0].split(". ")[0]
        raise TableError(f"{path}: not a Parquet file ({reason}); is it cut off?") from None
    check_header(list(table.column_names), str(path))
    if not table.num_rows:
        raise TableError(f"{path}: no row; at least one run is needed")
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    return RawTable(columns, range(1, table.num_rows + 1), "row", str(path))


def check_header(header: list[str], name: str) -> None:
    """Raise a `TableError` for a column without a name, or one that occurs twice."""
    if "" in header:
        raise TableError(f"{name}: column {header.index('') + 1} of the header has no name; name it or remove it")
    if len(set(header)) < len(header):
        twice = next(column for column in header if header.count(column) > 1)
        way = "rename one of them, as where two runs have one name, or remove it if it says the same"
        raise TableError(f"{name}: column {twice!r} occurs twice in the header; {way}")


@contextmanager
def _long_cells() -> Iterator[None]:
    """Allow cells as long as a written-out schedule; the csv module's limit is global, so it is put back."""
    with _CSV_LOCK:
        before = csv.field_size_limit(_CSV_LIMIT)
        try:
            yield
        finally:
            csv.field_size_limit(before)
