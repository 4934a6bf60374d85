"""Candidates: schedules that may be run, from short forms and from YAML, JSON, CSV, JSON-lines and Parquet files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from optlaws.errors import InputError, TableError, nearest
from optlaws.runs._called import unused
from optlaws.runs._cells import RawTable, clip, raw_from_csv, raw_from_json, read_raw
from optlaws.runs._checks import COUNTS, FloatArray, known_lengths
from optlaws.runs._documents import WIDTH, file_names, load_document, named_entries, raw_from_document, raw_from_lines
from optlaws.runs._files import read_text
from optlaws.runs._mapping import with_columns, with_schedules
from optlaws.runs._optimizers import usually_decays
from optlaws.runs._rates import RATE_COLUMNS, is_rates, raw_from_rates
from optlaws.runs._read import ends_itself, runs_from_raw, states_length
from optlaws.runs._table import NUMBER_COLUMNS, RUN_COLUMNS, RunTable, assemble
from optlaws.schedules import FAMILIES
from optlaws.schedules.quantity import parse_quantity
from optlaws.schedules.schedule import no_repeats

_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".pq")
_DOCUMENTS = (".yaml", ".yml", ".json")
_LINES = (".txt",)
_SHORT = re.compile(r"\s*[A-Za-z_]\w*:\w+\s*=")
_FILES = _DOCUMENTS + _TABLES + _LINES
_COUNTED = ("batch_tokens", "tokens")  # the one that is assumed before the other, where one is enough
_LENGTH = (*_COUNTED, "steps")
Mask = npt.NDArray[np.bool_]
_FILLABLE = tuple(name for name in NUMBER_COLUMNS if name not in ("steps", "final_loss"))


@dataclass(frozen=True, eq=False)
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
    overruled
        For how many candidates another value counts than the option's, since they state it themselves (or it follows
        from what they state), by column name; names of no candidate are left out.
    """

    runs: RunTable
    named: Mask
    assumed: dict[str, float]
    overruled: dict[str, int] = field(default_factory=dict)


def read_candidates(
    args: Sequence[str],
    *,
    params: float | None = None,
    tokens: float | None = None,
    batch_tokens: float | None = None,
    weight_decay: float | None = None,
    optimizer: str | None = None,
    fallback: Mapping[str, float] | None = None,
) -> RunTable:
    """Return `gather_candidates(...).runs`: the candidates as a run table without losses.

    Parameters
    ----------
    args
        Short forms, JSON texts, file names, "-".
    params, tokens, batch_tokens, weight_decay, optimizer
        Parameters, tokens, tokens an update, 1/rate and name of every candidate that does not state its own.
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
    options: dict[str, float | str | None] = {
        "params": params, "tokens": tokens, "batch_tokens": batch_tokens, "weight_decay": weight_decay,
        "optimizer": optimizer,
    }  # fmt: skip
    return gather_candidates(args, options, fallback).runs


def gather_candidates(
    args: Sequence[str],
    options: Mapping[str, float | str | None] | None = None,
    fallback: Mapping[str, float] | None = None,
    columns: Mapping[str, str] | None = None,
) -> Candidates:
    """Read candidates from any mix of short forms, JSON texts and files; "-" is standard input.

    A YAML or JSON file holds a schedule, a list of schedules (short forms or mappings), a list of candidates
    (mappings with `schedule` and, if wanted, `name`, `params`, `tokens`, `batch_tokens`, `width`, ...), a mapping of
    names to either, or a mapping with such a list under `candidates` and values shared by all of them beside it; such a
    JSON text may be an argument itself. Numbers may be written like 85M or 2.56B. A CSV, JSON-lines or Parquet file is
    a run table whose `run_id` (or `name`) may be missing. A text file has a short form or a JSON text on every line (a
    JSON-lines file may, too); lines starting with # are skipped.
    A table with the columns step and lr and no others, as `optlaws schedule` writes it, or a plain list of rates, one a
    step, is one candidate, called by the file's name, with as much of its path as tells it from other such files.

    What a candidate leaves open is taken from `options`, then from `fallback`; what it states itself counts, and
    `overruled` says so. Two of tokens, batch_tokens and the schedule's steps give the third; a schedule without a
    length gets steps = tokens / batch_tokens, rounded (a piecewise one ends at its last point where one of these two
    would only be assumed).

    Parameters
    ----------
    args
        Short forms, JSON texts, file names, "-".
    options
        Values the user gave for all candidates, by column name; None = not given.
    fallback
        Values to assume where nobody gave one, by column name (a law's defaults).
    columns
        The headers of tables for the columns of a run table, as for `read_runs`.

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
    given = {name: value for name, value in (options or {}).items() if value is not None}
    optimizer = given.pop("optimizer", None)
    if optimizer is not None and not (isinstance(optimizer, str) and optimizer.strip()):
        raise TableError(f"optimizer must be a name like adamw, got {clip(optimizer)}; leave it out for the law's own")
    chosen = {name: value for name, value in given.items() if not isinstance(value, str)}
    asked: dict[str, float | str] = {**chosen}
    if optimizer is not None:
        asked["optimizer"] = str(optimizer).strip().lower()
    tables: list[RunTable] = []
    named: list[bool] = []
    taken: set[str] = set()
    tried: dict[str, int] = {}
    assumed: dict[str, float] = {}
    overruled: dict[str, int] = {}
    sources = _sources(args, columns)
    of_files = file_names([path for _, path in sources if path])
    given_names = [[of_files[path]] if path else _given_names(raw) for raw, path in sources]
    written = {name for names, (_, path) in zip(given_names, sources, strict=True) if not path for name in names}
    for names, (raw, path) in zip(given_names, sources, strict=True):
        rest = {name: value for name, value in (fallback or {}).items() if name in _FILLABLE}
        tokens, batch, lengths, guessed = _open_counts(raw, chosen, rest)
        # unnamed candidates are called by their schedule once it is known; until then by a name nobody can give
        table = runs_from_raw(raw, [name or f"\0{row}" for row, name in enumerate(names)], lengths)
        if optimizer is not None:
            table = replace(table, optimizer=tuple(own or str(asked["optimizer"]) for own in table.optimizer))
        table, used = _fill(table, raw, tokens, batch, guessed, chosen, rest)
        assumed.update(used)
        for name, value in asked.items():
            overruled[name] = overruled.get(name, 0) + _differ(table, name, value)
        tables.append(_rename(table, [""] if path else names, raw, taken, tried, written, of_files.get(path)))
        named.extend(bool(name) for name in names)
    runs = RunTable.concat(tables)
    runs = replace(runs, columns=(*RUN_COLUMNS, *runs.extra))
    return Candidates(runs, np.array(named, dtype=bool), assumed, {key: n for key, n in overruled.items() if n})


def _sources(args: Sequence[str], columns: Mapping[str, str] | None) -> list[tuple[RawTable, str]]:
    """One raw table a file, with its path where it is one of rates; neighbouring typed schedules share one."""
    if columns and not any(str(a) == "-" or Path(str(a)).suffix.lower() in _TABLES or os.path.isfile(a) for a in args):
        raise TableError(f"--columns names headers of a table, got no table but {clip(args[0])}; leave it out")
    sources: list[tuple[RawTable, str]] = []
    typed: list[tuple[int, str]] = []

    def close() -> None:
        if typed:
            columns = {"schedule": [text for _, text in typed]}
            sources.append((RawTable(columns, [place for place, _ in typed], "candidate", "command line"), ""))
            typed.clear()

    for place, arg in enumerate(args, start=1):
        if not isinstance(arg, str):
            way_out = "write str(path), or build a RunTable of Schedule objects"
            raise TableError(f"candidate {place} must be text, got {clip(arg)}; {way_out}")
        suffix = Path(arg).suffix.lower()
        document = _typed_document(arg, place)
        if document is not None:
            close()
            sources.append((document, ""))
        elif arg == "-" or (suffix in _FILES and not arg.lstrip().startswith("{")):
            close()
            raw, of_rates = _read_file(arg, suffix, columns)
            sources.append((raw, arg if of_rates and arg != "-" else ""))
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


def _typed_document(arg: str, place: int) -> RawTable | None:
    """Return the candidates in a JSON list, or a JSON object of several, typed as an argument; else None.

    Raises
    ------
    TableError
        It is a list but not of candidates, or cut off.
    """
    text, name = arg.lstrip(), f"command line, candidate {place}"
    if text[:1] not in ("[", "{") or os.path.isfile(arg):
        return None
    try:
        document = json.loads(text, object_pairs_hook=no_repeats)
    except (ValueError, RecursionError) as bad:
        if text[0] == "{" or Path(arg).suffix.lower() in _FILES:
            return None
        raise TableError(f"{name}: not valid JSON ({bad}); check quotes, commas and brackets") from None
    several = isinstance(document, list) or {"candidates", "schedule"} & document.keys()
    if not (several or named_entries(document, name)):  # a schedule
        return None
    return _checked(raw_from_document(document, name))[0]


def _read_file(path: str, suffix: str, columns: Mapping[str, str] | None) -> tuple[RawTable, bool]:
    """Return the candidates of a file, and whether they are one, given by its rates."""
    if suffix in _TABLES and suffix not in (".jsonl", ".ndjson"):
        raw = with_columns(read_raw(path), columns)
    else:
        text, name = read_text(path)
        first = next((line for line in text.split("\n") if line.strip() and not line.lstrip().startswith("#")), "")
        if suffix in _LINES or (suffix not in _DOCUMENTS and _is_entry(first)):
            raw = raw_from_lines(text, name)
        elif suffix in _TABLES:
            raw = with_columns(raw_from_json(text, name), columns)
        elif suffix == "" and (_is_header(first) or (columns and "," in first)):
            raw = with_columns(raw_from_csv(text, name), columns)
        elif suffix == "" and _is_row(first, name):
            raw = raw_from_json(text, name)
        else:
            raw = raw_from_document(load_document(text, name, suffix), name)
    return _checked(raw)


def _checked(raw: RawTable) -> tuple[RawTable, bool]:
    """Return the candidates of raw columns with their counts read, and whether they are one, given by its rates."""
    if is_rates(raw):
        return raw_from_rates(raw), True
    raw = with_schedules(raw)
    raw.require(["schedule"], of_runs=True)
    for column in (*COUNTS, WIDTH):
        if column in raw.columns:
            raw.columns[column] = [_count(raw, column, row, cell) for row, cell in enumerate(raw.columns[column])]
    return raw, False


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


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _is_row(line: str, name: str) -> bool:
    """Tell whether a line is a row of a table in JSON lines."""
    if not _is_json(line):
        return False
    row = json.loads(line)
    return not ({"kind", "candidates"} & row.keys() or named_entries(row, name))


def _is_entry(line: str) -> bool:
    """Tell whether a line is a schedule: a short form, its JSON text, or a JSON object that describes one."""
    if line.lstrip().startswith("{"):
        return _is_json(line) and "kind" in json.loads(line)
    return bool(_SHORT.match(line.lstrip(' "')))


def _given_names(raw: RawTable) -> list[str]:
    column = next((key for key in ("run_id", "name") if key in raw.columns), None)
    return raw.texts(column) if column else [""] * len(raw.places)


def _rename(
    table: RunTable, names: list[str], raw: RawTable, taken: set[str], tried: dict[str, int], written: set[str],
    of_file: str | None,
) -> RunTable:  # fmt: skip
    """Call unnamed candidates by their file or schedule; equal ones are told apart by #2, #3, ...

    `taken` are the names so far, `tried` the last number that was tried behind a name (both grow here), `written` the
    names that the user gave, which keep them.
    """
    final = []
    for row, (name, schedule) in enumerate(zip(names, table.schedule_tuple(), strict=True)):
        if name:
            if name in taken:
                raise TableError(f"{raw.where(row)}: the name {name!r} was used before; give every candidate its own")
            chosen = name
        else:
            chosen = unused(of_file or str(schedule), taken, tried, written)
        taken.add(chosen)
        final.append(chosen)
    return replace(table, run_id=tuple(final))


def _open_counts(
    raw: RawTable, options: Mapping[str, float], fallback: Mapping[str, float]
) -> tuple[FloatArray, FloatArray, FloatArray, dict[str, Mask]]:
    """Return tokens and batch_tokens with open cells filled, and lengths for schedules that state none, each (n,).

    The masks, by column and (n,), tell where tokens and batch_tokens are open: neither stated, nor given by a length
    and the other one that are.
    """
    cells = {name: raw.numbers(name) if name in raw.columns else np.full(len(raw.places), np.nan) for name in _LENGTH}
    stated = {name: np.where(np.isnan(cells[name]), options.get(name, np.nan), cells[name]) for name in _COUNTED}
    filled = {name: np.where(np.isnan(own), fallback.get(name, np.nan), own) for name, own in stated.items()}
    schedules = raw.columns["schedule"]
    ends = np.array([ends_itself(cell) for cell in schedules], dtype=bool)
    # a length that is only assumed does not count where a schedule says itself where it ends
    lengths = np.where(
        ends,
        known_lengths(cells["steps"], stated["tokens"], stated["batch_tokens"]),
        known_lengths(cells["steps"], filled["tokens"], filled["batch_tokens"]),
    )
    has_length = ends | ~np.isnan(cells["steps"]) | np.array([states_length(cell) for cell in schedules], dtype=bool)
    lacks = {name: np.isnan(own) for name, own in stated.items()}
    neither = lacks["tokens"] & lacks["batch_tokens"]
    guessed = {name: lacks[name] & (~has_length | neither) for name in _COUNTED}
    return filled["tokens"], filled["batch_tokens"], lengths, guessed


def _differ(table: RunTable, name: str, value: float | str) -> int:
    """Return how many candidates have another value than the option's, beyond the rounding to whole steps."""
    if isinstance(value, str):
        return sum(own != value for own in table.optimizer)
    if name not in NUMBER_COLUMNS:
        return 0
    return int((~_equals(table, name, value) & ~np.isnan(getattr(table, name))).sum())


def _equals(table: RunTable, name: str, value: float) -> Mask:
    """Tell for each candidate whether a number is `value`, up to the rounding to whole steps, shape (n,)."""
    own = np.asarray(getattr(table, name), dtype=np.float64)
    rounding = 1.0 / (2.0 * table.steps - 1.0) if name in _COUNTED else 0.0
    return np.asarray(np.abs(own / value - 1.0) <= rounding + 1e-9 if value else own == 0.0)


def _may_assume(name: str, table: RunTable) -> Mask:
    """Tell for each candidate whether a default may stand in for an open cell of that column, shape (n,)."""
    if name == "params":
        return np.isnan(table.active_params)
    if name == "weight_decay":  # plain SGD and Adam have none unless they say so
        return np.array([usually_decays(optimizer) for optimizer in table.optimizer], dtype=bool)
    return np.ones(len(table), dtype=bool)


def _fill(
    table: RunTable,
    raw: RawTable,
    tokens: FloatArray,
    batch: FloatArray,
    guessed: Mapping[str, Mask],
    options: Mapping[str, float],
    fallback: Mapping[str, float],
) -> tuple[RunTable, dict[str, float]]:
    """Fill every open cell from the options, then from the fallback; return also the fallback values that were used.

    `tokens`, `batch` and `guessed` are those of `_open_counts`.
    """
    columns = {name: np.array(getattr(table, name)) for name in NUMBER_COLUMNS}
    was_open = {name: np.isnan(values) for name, values in columns.items()}
    free = was_open["tokens"] & was_open["batch_tokens"]
    # a length that came from tokens / batch_tokens keeps both, unrounded
    with np.errstate(invalid="ignore", divide="ignore"):
        derived = free & (columns["steps"] == np.round(tokens / batch))
    columns["tokens"][derived], columns["batch_tokens"][derived] = tokens[derived], batch[derived]
    free &= ~derived
    given = [name for name in _COUNTED if name in options]
    assume = [name for name in _COUNTED if name in fallback][:1]
    for name in given or assume:  # one of the two is enough: the schedule's steps give the other
        columns[name][free] = options.get(name, fallback.get(name, np.nan))
    for name in NUMBER_COLUMNS:
        if name not in (*_LENGTH, "final_loss"):
            rows = was_open[name]
            if name not in options:
                rows = rows & _may_assume(name, table)
            columns[name][rows] = options.get(name, fallback.get(name, np.nan))
            if name == "weight_decay" and name in fallback:
                columns[name][np.isnan(columns[name])] = 0.0
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
    taken = {name: guessed.get(name, was_open[name]) & _equals(filled, name, value) for name, value in fallback.items()}
    assumed = {name: value for name, value in fallback.items() if name not in options and bool(taken[name].any())}
    if "weight_decay" in fallback and (was_open["weight_decay"] & (filled.weight_decay == 0.0)).any():
        assumed.setdefault("weight_decay", 0.0)
    return filled, assumed
