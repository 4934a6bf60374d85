"""Reading a run table."""

from __future__ import annotations

import json
import math
import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from optlaws.errors import InputError, OptlawsWarning, ReadingNote, ScheduleError, TableError
from optlaws.runs._cells import RawTable, as_text, clip, read_raw
from optlaws.runs._checks import COUNTS, FloatArray, known_lengths, known_status
from optlaws.runs._mapping import with_columns, with_schedules
from optlaws.runs._table import NUMBER_COLUMNS, RUN_COLUMNS, RunTable, assemble
from optlaws.schedules import Schedule, ScheduleBatch, parse
from optlaws.schedules.schedule import no_repeats

_NEAR = 0.85  # how alike an unknown column must be to a known, absent one to be called a misspelling


def read_runs(
    path: str | os.PathLike[str], need_loss: bool = False, columns: Mapping[str, str] | None = None
) -> RunTable:
    """Read a run table from CSV, JSON lines or Parquet (by suffix), or from standard input ("-": CSV or JSON lines).

    The columns `run_id` and `schedule` must be there, and `final_loss` with `need_loss`; the other known columns
    (`RUN_COLUMNS`) may be missing or empty; counts may be written like 85M. Columns that are not known are kept as
    text. A missing `tokens` or `batch_tokens` is filled by tokens = steps * batch_tokens, a missing `steps` from the
    schedule. Schedules may be given key by key, in columns `family`, `peak_lr`, `warmup_steps`, ... as short forms and
    JSON call them, with the family alone in `schedule` or in `family`. Statuses of trackers such as finished and
    crashed are read as ours, with a `ReadingNote`.

    Parameters
    ----------
    path
        The file, or "-".
    need_loss
        Whether every run must have a `final_loss`, unless its status is diverged, nonfinite or interrupted.
    columns
        The file's own header for a column, or a product of its headers and numbers, like
        {"run_id": "Run name", "params": "Size (M)*1e6", "batch_tokens": "Batch*seq len"}.

    Returns
    -------
    RunTable
        The n >= 1 runs in the file's order.

    Raises
    ------
    TableError
        With file and line, if anything cannot be used: a missing column, a run_id used twice, text in a number,
        a number out of range, a schedule that is not one, a status that is not known, a loss that is missing
        or not finite where it must not be.
    """
    return checked_runs(with_columns(read_raw(path), columns), need_loss)


def checked_runs(raw: RawTable, need_loss: bool) -> RunTable:
    """Make a run table of raw columns as `read_runs` does, with its checks.

    Raises
    ------
    TableError
        As for `read_runs`.
    """
    raw = with_schedules(raw)
    raw.require(["run_id", "schedule", "final_loss"] if need_loss else ["run_id", "schedule"], of_runs=True)
    table = runs_from_raw(raw, raw.texts("run_id"))
    if need_loss:
        lost = np.isnan(table.final_loss) & np.array([s is None or s == "completed" for s in table.status])
        if lost.any():
            row = int(np.argmax(lost))
            raise TableError(
                f"{raw.where(row)}: final_loss of run {table.run_id[row]!r} is empty; give the loss it ended with, "
                "or set status to diverged, nonfinite or interrupted"
            )
    return table


def runs_from_raw(raw: RawTable, names: list[str], lengths: npt.NDArray[np.float64] | None = None) -> RunTable:
    """Check raw columns and make them a run table with the given run ids.

    `lengths` (steps, shape (n,), NaN = unknown) fills the length of schedules that state none; the column `steps` if
    left out, and then the texts of the schedules are kept, since nothing is needed to read them but that column.

    Raises
    ------
    TableError
        With file and line, for the first value that cannot be used.
    """
    n = len(names)
    _warn_misspelled(raw)
    status = _statuses(raw) if "status" in raw.columns else [None] * n
    numbers = {}
    for name in NUMBER_COLUMNS:
        if name not in raw.columns:
            numbers[name] = np.full(n, np.nan)
        elif name == "final_loss":
            numbers[name] = raw.numbers(name, lambda row: status[row] not in (None, "completed"))
        else:
            numbers[name] = raw.numbers(name, count=name in COUNTS)
    fill = known_lengths(numbers["steps"], numbers["tokens"], numbers["batch_tokens"]) if lengths is None else lengths
    schedules = tuple(read_schedules(raw.columns["schedule"], fill.tolist(), raw.where))
    cells = None if lengths is not None else tuple(map(as_text, raw.columns["schedule"]))
    text = {name: raw.texts(name) if name in raw.columns else [""] * n for name in ("source", "optimizer")}
    known = {*RUN_COLUMNS, "name"} if "run_id" not in raw.columns else set(RUN_COLUMNS)
    extra = {name: tuple(raw.texts(name)) for name in raw.columns if name not in known}
    return assemble(
        tuple(names),
        schedules,
        numbers,
        source=tuple(text["source"]),
        optimizer=tuple(value.lower() or None for value in text["optimizer"]),
        status=tuple(status),
        extra=extra,
        columns=tuple("run_id" if name == "name" and name in known else name for name in raw.columns),
        where=raw.where,
        cells=cells,
    )


def _statuses(raw: RawTable) -> list[str | None]:
    """Return the column status; what others call ours is read as ours, with a note."""
    texts = raw.texts("status")
    meant = {text: known_status(text) for text in dict.fromkeys(texts)}
    other = [(text, ours, texts.count(text)) for text, ours in meant.items() if ours != text]
    if other:
        said = ", ".join(f"{text!r} as {ours!r} ({n} run{'s' * (n > 1)})" for text, ours, n in other)
        warnings.warn(ReadingNote(f"{raw.name}: status is read as ours: {said}"), stacklevel=5)
    return [meant[text] or None for text in texts]


def read_schedules(cells: list[Any], steps: list[float], where: Callable[[int], str]) -> list[Schedule]:
    """Parse a column of schedules; equal cells are parsed once. A schedule without a length takes it from `steps`.

    Raises
    ------
    TableError
        With file and line, for the first cell that is no schedule.
    """
    seen: dict[tuple[str, float], Schedule] = {}
    schedules = []
    for row, cell in enumerate(cells):
        key = (
            cell if isinstance(cell, str) else json.dumps(cell, default=repr),
            steps[row] if steps[row] == steps[row] else -1.0,
        )
        schedule = seen.get(key)
        if schedule is None:
            try:
                schedule = seen[key] = parse_with_steps(cell, None if key[1] < 0 else key[1])
            except InputError as bad:
                hint = NO_LENGTH if str(bad).startswith("steps of") and not states_length(cell) else ""
                raise TableError(f"{where(row)}: schedule: {bad}{hint}") from None
        schedules.append(schedule)
    return schedules


def parse_all(
    schedules: Sequence[Schedule | str] | ScheduleBatch, tokens: FloatArray, batch: FloatArray
) -> tuple[Schedule, ...] | ScheduleBatch:
    """Return the schedules of short forms; those without a length get that of tokens and batch_tokens (n,) if known.

    Raises
    ------
    ScheduleError
        If one is not a schedule.
    """
    if isinstance(schedules, ScheduleBatch):
        return schedules
    fill = known_lengths(np.full(len(schedules), np.nan), tokens, batch).tolist()
    return tuple(
        parse_with_steps(each, length if length == length else None) if isinstance(each, str) else parse(each)
        for each, length in zip(schedules, fill, strict=True)
    )


def parse_with_steps(cell: Any, steps: float | None) -> Schedule:
    """Parse a short form, JSON text or mapping; `steps` (if not None) fills a length that it does not state itself.

    Raises
    ------
    ScheduleError
        If it is not a schedule.
    """
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        raise ScheduleError(
            "empty; write it as JSON or in its short form, like cosine:peak=1e-3,steps=25000,warmup=300"
        )
    fill = None if steps is None or states_length(cell) else _whole(steps)
    if isinstance(cell, str):
        text = cell.strip()
        if not text.startswith("{"):
            return parse(text if fill is None else f"{text.rstrip(',')},steps={fill}")
        try:
            cell = json.loads(text, object_pairs_hook=no_repeats)
        except (ValueError, RecursionError) as bad:
            raise ScheduleError(f"not valid JSON ({bad}), got {clip(text)}; check quotes and brackets") from None
    if not isinstance(cell, dict):
        raise ScheduleError(f"a short form or a JSON object is needed, got {clip(cell)}")
    if fill is not None and not states_length(cell):
        cell = {**cell, "total_steps": fill}
    return parse(cell)


_OWN_LENGTH = ("array", "chain")  # kinds whose length follows from their parts


NO_LENGTH = ", or give the number of tokens and the tokens a step"


def states_length(cell: Any) -> bool:
    """Return whether a schedule's text or mapping states its length itself (or cannot take one)."""
    if isinstance(cell, dict):
        return bool({"total_steps", "steps"} & cell.keys()) or "kind" not in cell or cell["kind"] in _OWN_LENGTH
    if not isinstance(cell, str):
        return False
    if cell.lstrip().startswith("{"):
        return any(f'"{key}"' in cell for key in ("total_steps", "steps", *_OWN_LENGTH))
    kind, colon, rest = cell.partition(":")
    keys = {part.partition("=")[0].strip() for part in rest.split(",")}
    return not colon or "steps" in keys or kind.strip() in _OWN_LENGTH or " then " in cell


def ends_itself(cell: Any) -> bool:
    """Return whether a schedule's text or mapping says where it ends without stating a length: a piecewise one."""
    if isinstance(cell, dict):
        return cell.get("kind") == "piecewise"
    if not isinstance(cell, str):
        return False
    return '"piecewise"' in cell if cell.lstrip().startswith("{") else cell.lstrip().startswith("piecewise")


def _whole(steps: float) -> int | float:
    return int(steps) if math.isfinite(steps) and steps == int(steps) else steps


def _warn_misspelled(raw: RawTable) -> None:
    import difflib

    absent = [name for name in RUN_COLUMNS if name not in raw.columns]
    for column in raw.columns:
        if column not in RUN_COLUMNS:
            plain = "_".join(re.split(r"[\s-]+", column.lower()))  # "Batch tokens" is meant as batch_tokens
            close = difflib.get_close_matches(plain, absent, n=1, cutoff=_NEAR)
            if close:
                message = f"{raw.name}: column {column!r} is not known and only kept; did you mean {close[0]!r}?"
                warnings.warn(message, OptlawsWarning, stacklevel=4)
