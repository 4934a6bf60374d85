"""Tables with other headers than ours, and schedules that are given key by key in columns of their own."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

from optlaws.errors import InputError, ReadingNote, TableError, nearest
from optlaws.runs._cells import RawTable, as_text, clip, schedule_keys
from optlaws.runs._documents import WIDTH
from optlaws.runs._table import RUN_COLUMNS
from optlaws.schedules import FAMILIES
from optlaws.schedules.quantity import parse_quantity

FAMILY = "family"
"""The column with the name of a schedule's family, where its parameters have columns of their own."""

OTHER_KEYS = {"min_lr": "final_lr"}
"""Columns with a parameter of a schedule by a name of others, and our name of it."""

_KEYS = tuple(dict.fromkeys(key for family in FAMILIES.values() for each in family.keys for key in
                            (each.name, each.json)))  # fmt: skip
NAMES = tuple(dict.fromkeys((*RUN_COLUMNS, WIDTH, FAMILY, *_KEYS, *OTHER_KEYS)))
"""What a header may be said to mean."""


def parse_columns(texts: Sequence[str]) -> dict[str, str]:
    """Return what texts like `params=Size (M)*1e6` say: the header, or the product of headers and numbers, by column.

    Raises
    ------
    InputError
        A text has another form, its column is not known, or it occurs twice.

    Examples
    --------
    >>> parse_columns(["run_id=Run name", "batch_tokens=Batch*seq len"])
    {'run_id': 'Run name', 'batch_tokens': 'Batch*seq len'}
    """
    found: dict[str, str] = {}
    for text in texts:
        name, mark, header = (part.strip() for part in text.partition("="))
        if not (name and mark and header):
            raise InputError(
                f'--columns must be NAME=HEADER, got {clip(text)}; write it like run_id="Run name" or'
                ' params="Size (M)*1e6"'
            )
        if name not in NAMES:
            raise InputError(
                f"--columns must name a column of a run table or a parameter of a schedule, got {clip(name)}"
                f" (columns: {', '.join(RUN_COLUMNS)}; parameters: family, peak_lr, warmup_steps, ...)"
                f"{nearest(name, NAMES)}"
            )
        if name in found:
            raise InputError(f"--columns must say once what {name!r} is, got {found[name]!r} and {header!r}; drop one")
        found[name] = header
    return found


def with_columns(raw: RawTable, columns: Mapping[str, str] | None) -> RawTable:
    """Return a table with the columns of a run table made from the file's own, as `columns` says.

    A header alone renames its column; a product makes a new one, and the columns that it is of stay.

    Raises
    ------
    TableError
        A header is not there, or a cell of a product is no number.
    """
    if not columns:
        return raw
    terms = {name: _terms(raw, name, text) for name, text in columns.items()}
    plain: dict[str, list[str]] = {}
    for name, parts in terms.items():
        if len(parts) == 1 and isinstance(parts[0], str):
            plain.setdefault(parts[0], []).append(name)
    out: dict[str, list[Any]] = {}
    for header, cells in raw.columns.items():
        if header in columns and header not in terms[header]:
            warnings.warn(
                ReadingNote(f"{raw.name}: column {header!r} is not read, since --columns takes {columns[header]!r}"),
                stacklevel=2,
            )
        out |= dict.fromkeys(plain.get(header, []), cells)
        if header not in plain and header not in columns:
            out[header] = cells
    made = {name: _product(raw, name, parts) for name, parts in terms.items() if name not in out}
    return replace(raw, columns=out | made)


def _terms(raw: RawTable, name: str, text: str) -> list[str | Fraction]:
    """Return the headers and numbers of a product."""
    if text in raw.columns:
        return [text]
    terms: list[str | Fraction] = []
    for part in (part.strip() for part in text.split("*")):
        number = None if part in raw.columns else _number(part)
        if part not in raw.columns and not (number is not None and number > 0):
            raise TableError(
                f"{raw.name}: --columns {name} must name columns of the file and numbers above 0, joined by *, got"
                f" {clip(part)}; it has {', '.join(raw.columns)}{nearest(part, raw.columns)}"
            )
        terms.append(part if number is None else number)
    return terms


def _product(raw: RawTable, name: str, terms: Sequence[str | Fraction]) -> list[float | None]:
    """Return a column of products, None where a cell is empty; rounded once."""
    out: list[float | None] = []
    for row in range(len(raw.places)):
        found: Fraction | None = Fraction(1)
        for term in terms:
            cell = raw.columns[term][row] if isinstance(term, str) else term
            if cell is None or (isinstance(cell, str) and not cell.strip()):
                found = None
                break
            number = _number(cell)
            if number is None:
                raise TableError(
                    f"{raw.where(row)}: {term} must be a number, as it is a factor of {name}, got {clip(cell)}; correct"
                    " it or leave it empty"
                )
            found = number if found is None else found * number
        out.append(None if found is None else _as_float(found))
    return out


def _as_float(value: Fraction) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _number(cell: Any) -> Fraction | None:
    """Return the number that a cell holds, which may be written like 85M; None where it holds none."""
    if isinstance(cell, Fraction):
        return cell
    if isinstance(cell, bool):
        return None
    try:
        found = Decimal(str(cell).strip())
        return Fraction(found) if abs(found.adjusted()) < 400 else None
    except (InvalidOperation, ValueError, OverflowError):
        pass
    try:
        return Fraction(parse_quantity(str(cell)))
    except InputError:
        return None


def with_schedules(raw: RawTable) -> RawTable:
    """Return a table whose schedules are in one column, where it gives them key by key.

    The family is in the column `family` (or `kind`), or alone in the column `schedule`; its parameters are in columns
    called as in short forms or in JSON, or `min_lr`. Empty cells are not given. A cell of `schedule` that holds more
    counts as it is. Lengths follow as for short forms, from `steps` or tokens / batch_tokens.

    Raises
    ------
    TableError
        A cell has a comma, as a decimal comma.
    """
    column = next((name for name in ("schedule", FAMILY, "kind") if name in raw.columns), None)
    if column is None:
        return raw
    cells = raw.columns[column]
    names = [_family(cell) if column == "schedule" else as_text(cell).strip().lower() for cell in cells]
    if not any(names):
        return raw
    keys = [*schedule_keys(raw.columns), *(key for key in OTHER_KEYS if key in raw.columns)]
    keys = [key for key in keys if key not in (FAMILY, "kind")]
    built = [_described(raw, row, name, keys) if name else cells[row] for row, name in enumerate(names)]
    return replace(raw, columns=raw.columns | {"schedule": built})


def _family(cell: Any) -> str:
    """Return the family that a cell names and nothing else, "" for none."""
    name = cell.strip().lower() if isinstance(cell, str) else ""
    return name if name in FAMILIES else ""


def _described(raw: RawTable, row: int, family: str, keys: Sequence[str]) -> dict[str, Any]:
    """Return the schedule of a row as a mapping, as JSON has it."""
    found: dict[str, Any] = {"kind": family}
    for key in keys:
        cell = raw.columns[key][row]
        cell = cell.strip() if isinstance(cell, str) else cell
        if cell is None or cell == "" or (isinstance(cell, float) and math.isnan(cell)):
            continue
        if isinstance(cell, str) and "," in cell:
            raise TableError(
                f"{raw.where(row)}: {key} must be one value without a comma, got {clip(cell)}; write it with a decimal"
                " point"
            )
        found[OTHER_KEYS.get(key, key)] = cell
    return found
