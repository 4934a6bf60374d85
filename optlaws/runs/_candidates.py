"""Candidates: schedules that may be run, from short forms and from YAML, JSON, CSV, JSON-lines and Parquet files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from optlaws.errors import InputError, TableError, nearest
from optlaws.runs._cells import RawTable, as_text, clip, raw_from_csv, raw_from_json, read_raw
from optlaws.runs._checks import COUNTS, FloatArray, known_lengths
from optlaws.runs._files import read_text
from optlaws.runs._quantity import parse_quantity
from optlaws.runs._rates import RATE_COLUMNS, is_rates, raw_from_rates
from optlaws.runs._read import runs_from_raw
from optlaws.runs._table import NUMBER_COLUMNS, RUN_COLUMNS, RunTable, assemble
from optlaws.schedules import FAMILIES
from optlaws.schedules.schedule import no_repeats

_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".pq")
_DOCUMENTS = (".yaml", ".yml", ".json")
_LINES = (".txt",)
_SHORT = re.compile(r"\s*[A-Za-z_]\w*:\w+\s*=")
_FILES = _DOCUMENTS + _TABLES + _LINES
_LENGTH = ("tokens", "batch_tokens", "steps")
_FILLABLE = tuple(name for name in NUMBER_COLUMNS if name not in ("steps", "final_loss"))
_WIDTH = "width"  # of the network: a column that risk models read, and no other further column is known in documents
_ENTRY_KEYS = ("name", *RUN_COLUMNS, _WIDTH)
_SHARED_KEYS = tuple(key for key in _ENTRY_KEYS if key not in ("name", "run_id", "schedule", "status", "final_loss"))


@dataclass(frozen=True)
class Candidates:
    """Candidates ready to be ranked.

    Attributes
    ----------
    runs
        One row a candidate, n rows; `run_id` is its name, or its schedule's short form where it has none.
    named
        Whether the user gave the name, shape (n,).
    assumed
        The fallback values that were used for at least one candidate, by column name.
    """

    runs: RunTable
    named: npt.NDArray[np.bool_]
    assumed: dict[str, float]


def read_candidates(
    args: Sequence[str],
    *,
    params: float | None = None,
    tokens: float | None = None,
    batch_tokens: float | None = None,
    weight_decay: float | None = None,
    fallback: Mapping[str, float] | None = None,
) -> RunTable:
    """Return `gather_candidates(...).runs`: the candidates as a run table without losses.

    Parameters
    ----------
    args
        Short forms, JSON texts, file names, "-".
    params, tokens, batch_tokens, weight_decay
        Parameters, tokens, tokens an update and 1/rate of every candidate that does not state its own.
    fallback
        As for `gather_candidates`.

    Raises
    ------
    TableError
        As for `gather_candidates`, or if a value is out of range.

    Examples
    --------
    >>> read_candidates(["cosine:peak=1e-3", "wsd:peak=1e-3"], tokens=1e9, batch_tokens=1e6).steps.tolist()
    [1000.0, 1000.0]
    """
    options = {"params": params, "tokens": tokens, "batch_tokens": batch_tokens, "weight_decay": weight_decay}
    return gather_candidates(args, options, fallback).runs


def gather_candidates(
    args: Sequence[str],
    options: Mapping[str, float | None] | None = None,
    fallback: Mapping[str, float] | None = None,
) -> Candidates:
    """Read candidates from any mix of short forms, JSON texts and files; "-" is standard input.

    A YAML or JSON file holds a schedule, a list of schedules (short forms or mappings), a list of candidates
    (mappings with `schedule` and, if wanted, `name`, `params`, `tokens`, `batch_tokens`, `width`, ...), or a
    mapping with such a list under `candidates` and values shared by all of them beside it. Numbers may be written like
    85M or 2.56B. A CSV, JSON-lines or Parquet file is a run table whose `run_id` (or `name`) may be missing. A text
    file has a short form or a JSON text on every line (a JSON-lines file may, too); lines starting with # are skipped.
    A table with the columns step and lr and no others, as `optlaws schedule` writes it, is one candidate, called by the
    file's name.

    What a candidate leaves open is taken from `options`, then from `fallback`. Two of tokens, batch_tokens and the
    schedule's steps give the third; a schedule without a length gets steps = tokens / batch_tokens, rounded.

    Parameters
    ----------
    args
        Short forms, JSON texts, file names, "-".
    options
        Values the user gave for all candidates, by column name; None = not given.
    fallback
        Values to assume where nobody gave one, by column name (a law's defaults).

    Returns
    -------
    Candidates

    Raises
    ------
    TableError
        If there is no candidate, a file cannot be read, a key is not known, or a name is used twice.
    ScheduleError
        If a schedule is impossible; the message says which.
    """
    args = [args] if isinstance(args, str) else args
    if not args:
        raise TableError("no candidate given; name a schedule like cosine:peak=1e-3,steps=25000,warmup=300 or a file")
    if list(args).count("-") > 1:
        raise TableError("standard input ('-') can be read only once, got it twice; give the other candidates as files")
    chosen = {name: value for name, value in (options or {}).items() if value is not None}
    tables: list[RunTable] = []
    named: list[bool] = []
    taken: set[str] = set()
    assumed: dict[str, float] = {}
    for raw in _sources(args):
        rest = {name: value for name, value in (fallback or {}).items() if name in _FILLABLE}
        tokens, batch, lengths = _open_counts(raw, chosen, rest)
        names = _given_names(raw)
        # unnamed candidates are called by their schedule once it is known; until then by a name nobody can give
        table = runs_from_raw(raw, [name or f"\0{row}" for row, name in enumerate(names)], lengths)
        table, used = _fill(table, raw, tokens, batch, chosen, rest)
        assumed.update(used)
        tables.append(_rename(table, names, raw, taken))
        named.extend(bool(name) for name in names)
    runs = RunTable.concat(tables)
    runs = replace(runs, columns=(*RUN_COLUMNS, *runs.extra))
    return Candidates(runs, np.array(named, dtype=bool), assumed)


def _sources(args: Sequence[str]) -> list[RawTable]:
    """One raw table a file; neighbouring schedules typed as arguments share one."""
    sources: list[RawTable] = []
    typed: list[tuple[int, str]] = []

    def close() -> None:
        if typed:
            columns = {"schedule": [text for _, text in typed]}
            sources.append(RawTable(columns, [place for place, _ in typed], "candidate", "command line"))
            typed.clear()

    for place, arg in enumerate(args, start=1):
        if not isinstance(arg, str):
            way_out = "write str(path), or build a RunTable of Schedule objects"
            raise TableError(f"candidate {place} must be text, got {clip(arg)}; {way_out}")
        suffix = Path(arg).suffix.lower()
        if arg == "-" or (suffix in _FILES and not arg.lstrip().startswith("{")):
            close()
            sources.append(_read_file(arg, suffix))
        elif os.path.isfile(arg):
            known = ", ".join(_FILES)
            raise TableError(
                f"{arg}: the suffix of a candidate file must be one of {known}, got {suffix or 'none'!r}; rename it"
            )
        else:
            if arg.strip() and not {"=", ":", "{"} & set(arg):
                what = "a folder" if os.path.isdir(arg) else "neither"
                hint = "" if arg in FAMILIES else nearest(arg, FAMILIES)
                raise TableError(
                    f"candidate {place} must be a schedule like cosine:peak=1e-3,steps=25000 or a file of schedules, "
                    f"got {clip(arg)}, which is {what}; check the name{hint}"
                )
            typed.append((place, arg))
    close()
    return sources


def _read_file(path: str, suffix: str) -> RawTable:
    if suffix in _TABLES and suffix not in (".jsonl", ".ndjson"):
        raw = read_raw(path)
    else:
        text, name = read_text(path)
        first = next((line for line in text.split("\n") if line.strip() and not line.lstrip().startswith("#")), "")
        if suffix in _LINES or (suffix not in _DOCUMENTS and _is_entry(first)):
            raw = _raw_from_lines(text, name)
        elif suffix in _TABLES:
            raw = raw_from_json(text, name)
        elif suffix == "" and _is_header(first):
            raw = raw_from_csv(text, name)
        elif suffix == "" and _is_json(first) and not {"kind", "candidates"} & json.loads(first).keys():
            raw = raw_from_json(text, name)
        else:
            raw = _raw_from_document(_load(text, name, suffix), name)
    if is_rates(raw):
        return raw_from_rates(raw, path)
    raw.require(["schedule"])
    for column in (*COUNTS, _WIDTH):
        if column in raw.columns:
            raw.columns[column] = [_count(raw, column, row, cell) for row, cell in enumerate(raw.columns[column])]
    return raw


def _count(raw: RawTable, column: str, row: int, cell: Any) -> float | None:
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return None
    try:
        return parse_quantity(cell, column)
    except InputError as bad:
        raise TableError(f"{raw.where(row)}: {bad}") from None


def _is_header(line: str) -> bool:
    """Tell whether a line is the header of a table of candidates or of rates."""
    names = {cell.strip(' "\r') for cell in line.split(",")}
    return "schedule" in names or names == set(RATE_COLUMNS)


def _is_entry(line: str) -> bool:
    """Tell whether a line is a schedule: a short form, its JSON text, or a JSON object that describes one."""
    if line.lstrip().startswith("{"):
        return _is_json(line) and "kind" in json.loads(line)
    return bool(_SHORT.match(line.lstrip(' "')))


def _raw_from_lines(text: str, name: str) -> RawTable:
    """Read a schedule (or a candidate as a JSON object) from every line that is neither blank nor a comment."""
    entries: list[tuple[int, Any]] = []
    for place, line in enumerate(text.split("\n"), start=1):
        entry: Any = line.strip()
        if not entry or entry.startswith("#"):
            continue
        if entry[0] in '{"':
            try:
                entry = json.loads(entry, object_pairs_hook=no_repeats)
            except (ValueError, RecursionError) as bad:
                raise TableError(f"{name}, line {place}: not valid JSON ({bad}); is the file cut off?") from None
        entries.append((place, entry))
    if not entries:
        raise TableError(f"{name}: no schedule in it, only comments; write one on a line")
    return _raw_from_entries(entries, "line", name, {})


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _load(text: str, name: str, suffix: str) -> Any:
    if suffix == ".json" or text.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(text, object_pairs_hook=no_repeats)
        except (ValueError, RecursionError) as bad:
            if suffix == ".json":
                raise TableError(f"{name}: not valid JSON ({bad}); check quotes, commas and brackets") from None
    from optlaws.runs._yaml import load_yaml

    return load_yaml(text, name)


def _raw_from_document(document: Any, name: str) -> RawTable:
    """Lay out a YAML or JSON document as columns, one entry a row."""
    shared: dict[str, Any] = {}
    if isinstance(document, dict) and "candidates" in document:
        shared = {key: value for key, value in document.items() if key != "candidates"}
        _check_keys(shared, ("candidates", *_SHARED_KEYS), name)
        document = document["candidates"]
    if isinstance(document, str | dict):
        document = [document]
    if not isinstance(document, list) or not document:
        raise TableError(f"{name}: a list of schedules or of candidates is needed, got {clip(document)}")
    if all(isinstance(entry, dict) and entry.keys() == set(RATE_COLUMNS) for entry in document):
        columns = {key: [entry[key] for entry in document] for key in RATE_COLUMNS}
        return RawTable(columns, range(1, len(document) + 1), "entry", name)
    return _raw_from_entries(enumerate(document, start=1), "entry", name, shared)


def _raw_from_entries(entries: Iterable[tuple[int, Any]], unit: str, name: str, shared: Mapping[str, Any]) -> RawTable:
    rows, places = [], []
    for place, entry in entries:
        where = f"{name}, {unit} {place}"
        if isinstance(entry, str) or (isinstance(entry, dict) and "kind" in entry):
            entry = {"schedule": entry}
        if not isinstance(entry, dict):
            raise TableError(f"{where}: a schedule or a mapping with the key 'schedule' is needed, got {clip(entry)}")
        _check_keys(entry, _ENTRY_KEYS, where)
        if entry.get("schedule") in (None, ""):
            raise TableError(f"{where}: the key 'schedule' is missing or empty; give it a short form or a mapping")
        rows.append({**shared, **entry})
        places.append(place)
    keys = list(dict.fromkeys(key for row in rows for key in row))
    columns = {key: [row.get(key) for row in rows] for key in keys}
    return RawTable(columns, places, unit, name)


def _check_keys(entry: Mapping[Any, Any], known: Sequence[str], where: str) -> None:
    for key in entry:
        if key not in known:
            hint = nearest(str(key), known)
            raise TableError(f"{where}: unknown key {as_text(key)!r}{hint} (known: {', '.join(known)})")


def _given_names(raw: RawTable) -> list[str]:
    column = next((key for key in ("run_id", "name") if key in raw.columns), None)
    return raw.texts(column) if column else [""] * len(raw.places)


def _rename(table: RunTable, names: list[str], raw: RawTable, taken: set[str]) -> RunTable:
    """Call unnamed candidates by their schedule; equal ones are told apart by #2, #3, ..."""
    final = []
    for row, name in enumerate(names):
        if name:
            if name in taken:
                raise TableError(f"{raw.where(row)}: the name {name!r} was used before; give every candidate its own")
            chosen = name
        else:
            base = chosen = str(table.schedule_tuple()[row])
            count = 1
            while chosen in taken:
                count += 1
                chosen = f"{base} #{count}"
        taken.add(chosen)
        final.append(chosen)
    return replace(table, run_id=tuple(final))


def _open_counts(
    raw: RawTable, options: Mapping[str, float], fallback: Mapping[str, float]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return tokens and batch_tokens with open cells filled, and lengths for schedules that state none, each (n,)."""
    cells = {name: raw.numbers(name) if name in raw.columns else np.full(len(raw.places), np.nan) for name in _LENGTH}
    tokens, batch = (
        np.where(np.isnan(cells[name]), options.get(name, fallback.get(name, np.nan)), cells[name])
        for name in ("tokens", "batch_tokens")
    )
    return tokens, batch, known_lengths(cells["steps"], tokens, batch)


def _may_assume(name: str, table: RunTable) -> npt.NDArray[np.bool_]:
    """Tell for each candidate whether a default may stand in for an open cell of that column, shape (n,)."""
    if name == "params":
        return np.isnan(table.active_params)
    if name == "weight_decay":  # an optimizer that is named and is not AdamW has none unless it says so
        return np.array([optimizer in (None, "adamw") for optimizer in table.optimizer], dtype=bool)
    return np.ones(len(table), dtype=bool)


def _fill(
    table: RunTable,
    raw: RawTable,
    tokens: FloatArray,
    batch: FloatArray,
    options: Mapping[str, float],
    fallback: Mapping[str, float],
) -> tuple[RunTable, dict[str, float]]:
    """Fill every open cell from the options, then from the fallback; return also the fallback values that were used."""
    columns = {name: np.array(getattr(table, name)) for name in NUMBER_COLUMNS}
    was_open = {name: np.isnan(values) for name, values in columns.items()}
    free = was_open["tokens"] & was_open["batch_tokens"]
    # a length that came from tokens / batch_tokens keeps both, unrounded
    with np.errstate(invalid="ignore", divide="ignore"):
        derived = free & (columns["steps"] == np.round(tokens / batch))
    columns["tokens"][derived], columns["batch_tokens"][derived] = tokens[derived], batch[derived]
    free &= ~derived
    given = [name for name in ("batch_tokens", "tokens") if name in options]
    assume = [name for name in ("batch_tokens", "tokens") if name in fallback][:1]
    for name in given or assume:  # one of the two is enough: the schedule's steps give the other
        columns[name][free] = options.get(name, fallback.get(name, np.nan))
    for name in NUMBER_COLUMNS:
        if name not in (*_LENGTH, "final_loss"):
            rows = was_open[name]
            if name not in options:
                rows = rows & _may_assume(name, table)
            columns[name][rows] = options.get(name, fallback.get(name, np.nan))
    filled = assemble(
        table.run_id,
        table.schedules,
        columns,
        source=table.source,
        optimizer=table.optimizer,
        status=table.status,
        extra=table.extra,
        columns=table.columns,
        where=raw.where,
    )
    assumed = {
        name: value
        for name, value in fallback.items()
        if name not in options and bool((was_open[name] & (getattr(filled, name) == value)).any())
    }
    return filled, assumed
